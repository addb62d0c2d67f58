"""Flags, variables and defaults."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import pytest

from pinn_operator.__main__ import main
from pinn_operator.prom.login import LoginFiles
from pinn_operator.prom.sources import ClientKind
from pinn_operator.settings import LogFormat, LogLevel, Settings, SettingsError, parse_settings


def test_without_flags_and_variables_everything_has_its_default() -> None:
    assert parse_settings(["run"], {}) == Settings()


def test_every_flag_is_taken(tmp_path: Path) -> None:
    kubeconfig = tmp_path / "config"
    kubeconfig.touch()
    given = parse_settings(
        [
            "run",
            f"--kubeconfig={kubeconfig}",
            "--context=pinn-x",
            "--namespace=pricing",
            "--namespace=trading",
            "--prometheus-address=https://metrics.example.com/prometheus/",
            "--prometheus-username-file=/etc/login/username",
            "--prometheus-password-file=/etc/login/password",
            "--prometheus-header=X-Scope-OrgID=desk one, two=2",
            "--prometheus-header=X-More=1",
            "--prometheus-header-file=X-Key=/etc/login/key",
            "--prometheus-ca-file=/etc/login/ca.crt",
            "--allow-local-webhooks",
            "--metrics-client=prometheus-api-client",
            "--health-host=127.0.0.1",
            "--health-port=9000",
            "--resync-seconds=600",
            "--log-level=DEBUG",
            "--log-format=text",
        ],
        {},
    )
    assert given == Settings(
        kubeconfig=kubeconfig,
        context="pinn-x",
        namespaces=("pricing", "trading"),
        prometheus_address="https://metrics.example.com/prometheus",
        prometheus_login=LoginFiles(
            username=Path("/etc/login/username"),
            password=Path("/etc/login/password"),
            headers=(("X-Scope-OrgID", "desk one, two=2"), ("X-More", "1")),
            header_files=(("X-Key", Path("/etc/login/key")),),
            authority=Path("/etc/login/ca.crt"),
        ),
        allow_local_webhooks=True,
        metrics_client=ClientKind.LIBRARY,
        health_host="127.0.0.1",
        health_port=9000,
        resync_seconds=600,
        log_level=LogLevel.DEBUG,
        log_format=LogFormat.TEXT,
    )


@pytest.mark.parametrize(
    ("arguments", "environment"),
    [(["--prometheus-address="], {}), (["--prometheus-address", ""], {"PINN_OPERATOR_PROMETHEUS_ADDRESS": "http://x"}),
     ([], {"PINN_OPERATOR_PROMETHEUS_ADDRESS": ""})],
)  # fmt: skip
def test_an_operator_may_do_without_prometheus(arguments: list[str], environment: dict[str, str]) -> None:
    assert parse_settings(["run", *arguments], environment).prometheus_address == ""


def test_every_flag_has_a_variable_and_the_flag_wins() -> None:
    environment = {
        "PINN_OPERATOR_NAMESPACES": "pricing, trading,pricing",
        "PINN_OPERATOR_HEALTH_PORT": "9000",
        "PINN_OPERATOR_LOG_LEVEL": "warning",
        "PINN_OPERATOR_PROMETHEUS_TOKEN_FILE": "/token",
        "PINN_OPERATOR_PROMETHEUS_HEADERS": "X-A=1, X-B=2",
        "PINN_OPERATOR_ALLOW_LOCAL_WEBHOOKS": "true",
    }
    given = parse_settings(["run", "--health-port=9001"], environment)
    assert given.namespaces == ("pricing", "trading")
    assert (given.health_port, given.log_level) == (9001, LogLevel.WARNING)
    assert given.prometheus_login == LoginFiles(bearer=Path("/token"), headers=(("X-A", "1"), ("X-B", "2")))
    assert given.allow_local_webhooks


@pytest.mark.parametrize(
    ("arguments", "environment", "words"),
    [
        ([], {}, ["pinn-operator run"]),
        (["run", "--nonsense"], {}, ["--nonsense"]),
        (["run", "--health-port=0"], {}, ["--health-port", "1 to 65535", "'0'"]),
        (["run", "--health-port=http"], {}, ["--health-port", "'http'"]),
        (["run"], {"PINN_OPERATOR_HEALTH_PORT": "70000"}, ["PINN_OPERATOR_HEALTH_PORT", "70000"]),
        (["run", "--resync-seconds=5"], {}, ["--resync-seconds", "60 to 86400"]),
        (["run", "--prometheus-address=prometheus:9090"], {}, ["--prometheus-address", "http://host:port"]),
        (["run", "--prometheus-address=http://me:secret@x"], {}, ["--prometheus-address", "no password"]),
        (["run", "--prometheus-username-file=/a"], {}, ["--prometheus-password-file", "needs both"]),
        (
            ["run", "--prometheus-token-file=/a", "--prometheus-username-file=/a", "--prometheus-password-file=/b"],
            {},
            ["--prometheus-token-file", "keep one of the two"],
        ),
        (["run", "--prometheus-ca-file=/a"], {}, ["--prometheus-ca-file", "https://"]),
        (["run", "--prometheus-header=X-A"], {}, ["--prometheus-header", "want NAME="]),
        (["run", "--prometheus-header=X A=1"], {}, ["--prometheus-header", "want NAME="]),
        (["run", "--prometheus-header=X-A=é"], {}, ["X-A", "one line of ASCII"]),
        (["run", "--prometheus-header=X-A=1", "--prometheus-header-file=x-a=/f"], {}, ["x-a is there twice"]),
        (["run", "--prometheus-header=Host=a"], {}, ["Host is set by the operator"]),
        (["run", "--prometheus-header=Authorization=a"], {}, ["use --prometheus-header-file"]),
        (
            ["run", "--prometheus-token-file=/a", "--prometheus-header-file=Authorization=/b"],
            {},
            ["--prometheus-header-file", "keep one of the two"],
        ),
        (
            ["run"],
            {"PINN_OPERATOR_ALLOW_LOCAL_WEBHOOKS": "yes"},
            ["PINN_OPERATOR_ALLOW_LOCAL_WEBHOOKS", "true or false"],
        ),
        (["run", "--metrics-client=requests"], {}, ["--metrics-client", "aiohttp or prometheus-api-client"]),
        (["run", "--log-level=loud"], {}, ["--log-level", "debug or info"]),
        (["run", "--namespace=Pricing"], {}, ["--namespace", "'Pricing'"]),
        (["run"], {"PINN_OPERATOR_NAMESPACES": "a,b_c"}, ["PINN_OPERATOR_NAMESPACES", "'b_c'"]),
        (["run", "--kubeconfig=/absent"], {}, ["--kubeconfig", "/absent"]),
        (["run"], {"KUBECONFIG": "/absent"}, ["KUBECONFIG", "/absent"]),
    ],
)
def test_a_fault_names_the_flag_and_says_what_would_be_right(
    arguments: list[str], environment: dict[str, str], words: list[str]
) -> None:
    with pytest.raises(SettingsError) as error:
        parse_settings(arguments, environment)
    for word in words:
        assert word in str(error.value)


def test_a_password_in_an_address_is_not_repeated() -> None:
    with pytest.raises(SettingsError) as error:
        parse_settings(["run", "--prometheus-address=http://me:secret@x"], {})
    assert "secret" not in str(error.value)


def test_a_header_that_may_be_a_secret_is_not_repeated() -> None:
    with pytest.raises(SettingsError) as error:
        parse_settings(["run", "--prometheus-header=hunter2"], {})
    assert "hunter2" not in str(error.value)


def test_wrong_flags_end_the_command_with_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "--health-port=x"]) == 2
    assert "--health-port" in capsys.readouterr().err


def test_without_a_cluster_the_command_ends_with_2_and_says_what_is_missing(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("KUBECONFIG", "KUBERNETES_SERVICE_HOST"):
        monkeypatch.delenv(name, raising=False)
    assert main(["run"]) == 2
    assert "--kubeconfig" in capsys.readouterr().err


def test_a_port_that_is_taken_ends_the_command_with_1_and_is_named(tmp_path: Path) -> None:
    kubeconfig = tmp_path / "config"
    kubeconfig.touch()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        command = [sys.executable, "-m", "pinn_operator", "run", f"--kubeconfig={kubeconfig}"]
        command += ["--health-host=127.0.0.1", f"--health-port={port}"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert port in done.stderr
    assert "Traceback" not in done.stderr
