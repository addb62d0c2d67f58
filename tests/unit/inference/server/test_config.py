"""Settings: flags over variables over defaults, and every wrong one named."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from pinn_inference.server.config import SETTINGS, ConfigError, ServerConfig, add_flags, flags_of


def test_an_empty_environment_gives_the_documented_defaults() -> None:
    config = ServerConfig.from_environment({})
    assert (config.host, config.port, config.drain_seconds, config.model_dir) == ("0.0.0.0", 8000, 5.0, None)


def test_every_setting_can_be_given_by_variable_and_by_flag_and_the_flag_wins() -> None:
    parser = argparse.ArgumentParser()
    add_flags(parser)
    flags = flags_of(parser.parse_args(["--port", "9001", "--model-dir", "/models/a"]))
    config = ServerConfig.from_environment({"PINN_PORT": "9000", "PINN_DRAIN_SECONDS": "0.5"}, flags)
    assert (config.port, config.drain_seconds, config.model_dir) == (9001, 0.5, Path("/models/a"))


@pytest.mark.parametrize(
    ("variable", "text", "right"),
    [
        ("PINN_HOST", "not a host", "a host name or an address"),
        ("PINN_PORT", "65536", "a whole number from 0 to 65535"),
        ("PINN_PORT", "http", "a whole number from 0 to 65535"),
        ("PINN_PORT", "-1", "a whole number from 0 to 65535"),
        ("PINN_MODEL_SHA256", "abc", "64 hexadecimal digits"),
        ("PINN_DRAIN_SECONDS", "nan", "a number of seconds from 0 to 3600"),
        ("PINN_DRAIN_SECONDS", "-1", "a number of seconds from 0 to 3600"),
        ("PINN_INFLIGHT_TIMEOUT_SECONDS", "1h", "a number of seconds from 0 to 3600"),
        ("PINN_KEEP_ALIVE_SECONDS", "0", "a number of seconds from 1 to 86400"),
        ("PINN_LOG_LEVEL", "loud", "debug, info, warning, error"),
        ("PINN_TF_THREADS", "0", "a whole number from 1 to 256"),
        ("PINN_TENSORFLOW", "no", "on or off"),
        ("PINN_MAX_BODY_BYTES", "1", "a whole number from 1024"),
        ("PINN_MAX_BATCH", "0", "a whole number from 1"),
        ("PINN_QUEUE_OPTIONS", "²", "a whole number from 1"),
        ("PINN_MODEL_DIR", "a\0b", "a path"),
        ("PINN_REVISION", "a\nb", "printable ASCII"),
        ("PINN_SERVICE", "x" * 254, "printable ASCII"),
    ],
)
def test_a_wrong_variable_is_named_with_its_value_and_what_would_be_right(variable: str, text: str, right: str) -> None:
    with pytest.raises(ConfigError) as caught:
        ServerConfig.from_environment({variable: text})
    assert variable in str(caught.value)
    assert repr(text) in str(caught.value)
    assert right in str(caught.value)


def test_all_wrong_settings_are_reported_together_flags_by_their_own_name() -> None:
    with pytest.raises(ConfigError) as caught:
        ServerConfig.from_environment({"PINN_PORT": "x", "PINN_TF_THREADS": "y"}, {"log_level": "z"})
    assert len(caught.value.faults) == 3
    assert "--log-level is 'z'" in str(caught.value)


def test_a_queue_smaller_than_the_largest_batch_is_refused() -> None:
    with pytest.raises(ConfigError, match="PINN_QUEUE_OPTIONS is 10: must be at least PINN_MAX_BATCH"):
        ServerConfig.from_environment({"PINN_QUEUE_OPTIONS": "10"})


def test_the_link_kubernetes_injects_for_a_service_named_pinn_is_not_a_port() -> None:
    assert ServerConfig.from_environment({"PINN_PORT": "tcp://10.96.0.7:80"}).port == 8000


def test_empty_variables_mean_the_default() -> None:
    assert ServerConfig.from_environment({setting.variable: "" for setting in SETTINGS}) == ServerConfig()


def test_a_checksum_may_carry_its_algorithm_and_upper_case() -> None:
    config = ServerConfig.from_environment({"PINN_MODEL_SHA256": "sha256:" + "AB" * 32})
    assert config.model_sha256 == "ab" * 32
