"""Settings of the server: one table gives each its environment variable, its flag, its rule and its help text.

A flag wins over the environment variable. Every wrong value is reported, not only the first, each by the name under
which it was given.
"""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Self

LOG_LEVELS = ("debug", "info", "warning", "error")


class ConfigError(ValueError):
    """One or more settings are wrong; `str()` has a line for each."""

    def __init__(self, faults: list[str]) -> None:
        super().__init__("\n".join(faults))
        self.faults = tuple(faults)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerConfig:
    """What the server needs to know before it starts. Times are in seconds."""

    host: str = "0.0.0.0"  # noqa: S104 - a pod is reached from outside itself
    port: int = 8000
    model: str = "european"
    model_dir: Path | None = None
    """Directory of the model; None is the one that ships with the package."""
    model_sha256: str | None = None
    """Checksum the weights must have; None accepts what the model's own record says."""
    american_model_dir: Path | None = None
    """The same for the model of American options."""
    american_model_sha256: str | None = None
    drain_seconds: float = 5.0
    """How long to serve on after SIGTERM, so that every router has taken the pod out before the socket closes."""
    inflight_timeout_seconds: float = 20.0
    """How long requests in flight may take after the socket was closed."""
    keep_alive_seconds: float = 3630.0
    """Idle connections live this long. It has to exceed the proxy's own idle timeout (Envoy: one hour): if the server
    closes first, a request that is just being sent on that connection is lost."""
    log_level: str = "info"
    tensorflow: bool = True
    """Whether the batch process loads TensorFlow; without it NumPy prices batches too."""
    tf_threads: int = 1
    max_body_bytes: int = 32 * 1024 * 1024
    max_batch: int = 65_536
    queue_options: int = 262_144
    """Options of small requests that may wait or be priced at one time; a request beyond it is answered 429."""
    max_batches: int = 64
    """Large requests that may arrive, wait, be priced or be on their way back; one beyond it is answered 429."""
    max_in_flight: int = 4096
    """Pricing requests that may be in flight at one time; one beyond it is answered 429."""
    cache_quotes: int = 16_384
    """Quotes that are remembered by their exact inputs."""
    slow_request_seconds: float = 0.25
    """From so many seconds on a request is logged with its inputs."""
    market_data: Path | None = None
    """File with the market data of the reports; None is the sample that ships with the package."""
    control_token: str = ""
    """What pages that change something ask for; without one anybody may use them, now and then."""
    revision: str = ""
    service: str = ""

    @classmethod
    def from_environment(cls, environment: Mapping[str, str], flags: Mapping[str, str | None] | None = None) -> Self:
        """Parse the settings.

        `flags` maps attribute names to the texts given on the command line, None where a flag was not given.
        Raises ConfigError that names every wrong variable or flag.
        """
        faults: list[str] = []
        values: dict[str, Any] = {}
        for setting in SETTINGS:
            origin, text = setting.variable, environment.get(setting.variable)
            given = (flags or {}).get(setting.attribute)
            if given is not None:
                origin, text = setting.flag, given
            if text is None or (origin == setting.variable and setting.is_unset(text)):
                continue
            try:
                values[setting.attribute] = setting.parse(text)
            except ValueError as fault:
                faults.append(f"{origin} is {text!r}: must be {fault}")
        if not faults:
            config = cls(**values)
            if config.queue_options < config.max_batch:
                faults.append(
                    f"PINN_QUEUE_OPTIONS is {config.queue_options}: must be at least PINN_MAX_BATCH "
                    f"({config.max_batch}), or the largest batch could never be accepted"
                )
            else:
                return config
        raise ConfigError(faults)


def _integer(low: int, high: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if not re.fullmatch(r"\d{1,18}", text) or not low <= int(text) <= high:
            raise ValueError(f"a whole number from {low} to {high}")
        return int(text)

    return parse


def _seconds(low: float, high: float) -> Callable[[str], float]:
    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not low <= value <= high:
            raise ValueError(f"a number of seconds from {low:g} to {high:g}")
        return value

    return parse


def _host(text: str) -> str:
    if not re.fullmatch(r"[0-9A-Za-z.:_-]{1,253}", text):
        raise ValueError("a host name or an address such as 0.0.0.0, :: or 127.0.0.1")
    return text


def _path(text: str) -> Path:
    if "\0" in text:
        raise ValueError("a path")
    return Path(text)


def _sha256(text: str) -> str:
    digest = text.lower().removeprefix("sha256:")
    if not re.fullmatch(r"[0-9a-f]{64}", digest):
        raise ValueError("a SHA-256 digest of 64 hexadecimal digits")
    return digest


def _level(text: str) -> str:
    if text.lower() not in LOG_LEVELS:
        raise ValueError("one of " + ", ".join(LOG_LEVELS))
    return text.lower()


def _switch(text: str) -> bool:
    if text.lower() not in ("on", "off"):
        raise ValueError("on or off")
    return text.lower() == "on"


def _label(text: str) -> str:
    if len(text) > 253 or not (text.isascii() and text.isprintable()):
        raise ValueError("a name of at most 253 printable ASCII characters")
    return text


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting: where it is read from, and its rule (`parse` raises ValueError saying what would be right)."""

    attribute: str
    variable: str
    parse: Callable[[str], Any]
    help: str

    @property
    def flag(self) -> str:
        return "--" + self.attribute.replace("_", "-")

    def is_unset(self, text: str) -> bool:
        """An empty variable means the default; so does the link Kubernetes injects for a Service named `pinn`."""
        return not text or (self.variable == "PINN_PORT" and text.startswith(("tcp://", "udp://", "sctp://")))


SETTINGS: tuple[Setting, ...] = (
    Setting("host", "PINN_HOST", _host, "address to listen on"),
    Setting("port", "PINN_PORT", _integer(0, 65535), "port to listen on; 0 takes a free one"),
    Setting("model", "PINN_MODEL", _label, "name of a bundled model, where no directory is given"),
    Setting("model_dir", "PINN_MODEL_DIR", _path, "directory of the model (default: the bundled one)"),
    Setting("model_sha256", "PINN_MODEL_SHA256", _sha256, "checksum the model's weights must have"),
    Setting(
        "american_model_dir",
        "PINN_AMERICAN_MODEL_DIR",
        _path,
        "directory of the model of American options (default: the bundled one)",
    ),
    Setting("american_model_sha256", "PINN_AMERICAN_MODEL_SHA256", _sha256, "checksum that model's weights must have"),
    Setting("drain_seconds", "PINN_DRAIN_SECONDS", _seconds(0, 3600), "seconds to serve on after SIGTERM"),
    Setting(
        "inflight_timeout_seconds",
        "PINN_INFLIGHT_TIMEOUT_SECONDS",
        _seconds(0, 3600),
        "seconds that requests in flight may take after the socket was closed",
    ),
    Setting(
        "keep_alive_seconds", "PINN_KEEP_ALIVE_SECONDS", _seconds(1, 86400), "seconds an idle connection stays open"
    ),
    Setting("log_level", "PINN_LOG_LEVEL", _level, "one of " + ", ".join(LOG_LEVELS)),
    Setting("tensorflow", "PINN_TENSORFLOW", _switch, "on or off: whether the batch process loads TensorFlow"),
    Setting("tf_threads", "PINN_TF_THREADS", _integer(1, 256), "threads TensorFlow may use for one evaluation"),
    Setting("max_body_bytes", "PINN_MAX_BODY_BYTES", _integer(1024, 2**30), "largest request body in bytes"),
    Setting("max_batch", "PINN_MAX_BATCH", _integer(1, 1_000_000), "most options in one request"),
    Setting("queue_options", "PINN_QUEUE_OPTIONS", _integer(1, 10_000_000), "most options of small requests waiting"),
    Setting("max_batches", "PINN_MAX_BATCHES", _integer(1, 4096), "most large requests at one time"),
    Setting("max_in_flight", "PINN_MAX_IN_FLIGHT", _integer(1, 1_000_000), "most pricing requests in flight"),
    Setting("cache_quotes", "PINN_CACHE_QUOTES", _integer(0, 10_000_000), "most quotes in the cache"),
    Setting(
        "slow_request_seconds",
        "PINN_SLOW_REQUEST_SECONDS",
        _seconds(0, 3600),
        "seconds from which on a request is logged with its inputs",
    ),
    Setting(
        "market_data",
        "PINN_MARKET_DATA",
        _path,
        "market data file of the reports (default: the sample that ships)",
    ),
    Setting(
        "control_token",
        "PINN_CONTROL_TOKEN",
        _label,
        "token that POST /cache/reset and /health/pinn/warmup ask for, as Authorization: Bearer",
    ),
    Setting("revision", "PINN_REVISION", _label, "revision of the deployment, for logs and the build-info metric"),
    Setting("service", "PINN_SERVICE", _label, "service the pod belongs to, for logs and the build-info metric"),
)


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Give `parser` one flag for each setting; texts are parsed by `ServerConfig.from_environment`."""
    defaults = {field.name: field.default for field in fields(ServerConfig)}
    for setting in SETTINGS:
        default = defaults[setting.attribute]
        shown = "" if default in (None, "") else f", default {default}"
        parser.add_argument(
            setting.flag, dest=setting.attribute, metavar="VALUE", help=f"{setting.help} [{setting.variable}{shown}]"
        )


def flags_of(arguments: argparse.Namespace) -> dict[str, str | None]:
    """The texts of the flags in `arguments`, by attribute name."""
    return {setting.attribute: getattr(arguments, setting.attribute, None) for setting in SETTINGS}
