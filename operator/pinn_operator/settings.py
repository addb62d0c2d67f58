"""How the operator is run: flags, then environment variables, then defaults. Faults name the flag."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, NoReturn, TypeVar
from urllib.parse import urlsplit

from pinn_operator import __version__
from pinn_operator.core.wanted.references import HEADER_NAME, HEADER_VALUE, RESERVED_HEADERS
from pinn_operator.prom.login import LoginFiles, same_name
from pinn_operator.prom.sources import ClientKind

ENVIRONMENT_PREFIX = "PINN_OPERATOR_"
ALL_ADDRESSES = "0.0.0.0"  # noqa: S104 – the kubelet asks the pod's own address
DEFAULT_PROMETHEUS = "http://prometheus.monitoring:9090"
_Choice = TypeVar("_Choice", bound=StrEnum)
_NAMESPACE = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")


class SettingsError(Exception):
    """A flag or an environment variable is wrong; the message names it and says what would be right."""


class LogFormat(StrEnum):
    """`JSON` is one object a line, for machines; `TEXT` is for people."""

    JSON = "json"
    TEXT = "text"


class LogLevel(StrEnum):
    """The least grave messages that are logged."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything that may differ from one installation to the next."""

    kubeconfig: Path | None = None
    """None: the service account of the pod."""

    context: str | None = None
    """The context of the kubeconfig; None: its current one."""

    namespaces: tuple[str, ...] = ()
    """Namespaces that are served; empty: all. Then the rights are needed in the whole cluster."""

    prometheus_address: str = DEFAULT_PROMETHEUS
    """Asked for resources that name no Prometheus of their own. Empty: their pods' counters alone judge those."""

    prometheus_login: LoginFiles = field(default_factory=LoginFiles)
    """What that Prometheus is shown, and nobody else. Files, so that what is rotated is read again."""

    allow_local_webhooks: bool = False
    """Whether webhook gates may have loopback and link-local addresses: for a try on one machine."""

    metrics_client: ClientKind = ClientKind.AIOHTTP
    """`prometheus-api-client` takes proxies and certificates from the environment; `aiohttp` is leaner."""

    health_host: str = ALL_ADDRESSES
    health_port: int = 8081
    """Where /livez, /readyz and /metrics are served."""

    resync_seconds: int = 1800
    """Every resource is looked at again after this long (± 20 %) even if nothing happens."""

    log_level: LogLevel = LogLevel.INFO
    log_format: LogFormat = LogFormat.JSON


def parse_settings(arguments: Sequence[str], environment: Mapping[str, str]) -> Settings:
    """Settings of `pinn-operator run`. Raises SettingsError; `--help` and `--version` print and raise SystemExit(0)."""
    parser = _parser()
    given = parser.parse_args(list(arguments))
    if given.command != "run":
        raise SettingsError("say what to do: pinn-operator run [flags]; pinn-operator run --help lists them")
    reader = _Reader(vars(given), environment)
    kubeconfig = reader.text("kubeconfig", variable="KUBECONFIG")
    address = reader.parsed("prometheus_address", DEFAULT_PROMETHEUS, _address, may_be_empty=True)
    return Settings(
        kubeconfig=_existing_file("--kubeconfig", kubeconfig) if kubeconfig else None,
        context=reader.text("context") or None,
        namespaces=reader.namespaces(),
        prometheus_address=address,
        prometheus_login=_login(reader, address),
        allow_local_webhooks=reader.boolean("allow_local_webhooks"),
        metrics_client=reader.choice("metrics_client", ClientKind.AIOHTTP),
        health_host=reader.text("health_host") or ALL_ADDRESSES,
        health_port=reader.integer("health_port", 8081, low=1, high=65535),
        resync_seconds=reader.integer("resync_seconds", 1800, low=60, high=86400),
        log_level=reader.choice("log_level", LogLevel.INFO),
        log_format=reader.choice("log_format", LogFormat.JSON),
    )


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise SettingsError(message)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="pinn-operator",
        description="Rolls option-pricing models out and back by itself.",
        epilog=f"Each flag may be given as an environment variable too: --log-level is {ENVIRONMENT_PREFIX}LOG_LEVEL. "
        "The flag wins.",
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="run", parser_class=_Parser)
    run = commands.add_parser("run", help="watch PINNServices until stopped", epilog=parser.epilog)
    add = run.add_argument
    add(
        "--kubeconfig",
        metavar="FILE",
        help="of the cluster (or KUBECONFIG); without it: the service account of the pod",
    )
    add("--context", metavar="NAME", help="context of the kubeconfig (default: its current one)")
    add(
        "--namespace",
        action="append",
        metavar="NAME",
        help="serve this namespace alone; may be repeated (default: all)",
    )
    add(
        "--prometheus-address",
        metavar="URL",
        help=f"for resources that name none; empty: judge those by their pods alone (default: {DEFAULT_PROMETHEUS})",
    )
    add("--prometheus-token-file", metavar="FILE", help="with the bearer token for that Prometheus")
    add("--prometheus-username-file", metavar="FILE", help="with its user name, for basic authentication")
    add("--prometheus-password-file", metavar="FILE", help="with its password")
    add(
        "--prometheus-ca-file", metavar="FILE", help="with the certificates (PEM) of its authority; no other is trusted"
    )
    add(
        "--prometheus-header",
        action="append",
        metavar="NAME=VALUE",
        help="a header for it, such as the tenant; may be repeated",
    )
    add(
        "--prometheus-header-file",
        action="append",
        metavar="NAME=FILE",
        help="a header for it whose value is in a file; may be repeated",
    )
    add(
        "--allow-local-webhooks",
        action="store_const",
        const="true",
        help="let webhook gates have loopback and link-local addresses",
    )
    add("--metrics-client", metavar="NAME", help=f"{_one_of(ClientKind)} (default: {ClientKind.AIOHTTP})")
    add("--health-host", metavar="ADDRESS", help="address of /livez, /readyz and /metrics (default: all)")
    add("--health-port", metavar="PORT", help="their port (default: 8081)")
    add("--resync-seconds", metavar="SECONDS", help="look at every resource at least this often (default: 1800)")
    add("--log-level", metavar="LEVEL", help=f"{_one_of(LogLevel)} (default: {LogLevel.INFO})")
    add("--log-format", metavar="FORMAT", help=f"{_one_of(LogFormat)} (default: {LogFormat.JSON})")
    return parser


class _Reader:
    """A value from its flag, else from its variable, else None."""

    def __init__(self, flags: Mapping[str, Any], environment: Mapping[str, str]) -> None:
        self._flags = flags
        self._environment = environment

    def text(self, key: str, *, variable: str | None = None) -> str | None:
        return self._find(key, variable)[0]

    def parsed(self, key: str, default: str, parse: Callable[[str, str], str], *, may_be_empty: bool = False) -> str:
        value, name = self._find(key)
        if not value:
            return "" if may_be_empty and value is not None else default
        return parse(name, value)

    def integer(self, key: str, default: int, *, low: int, high: int) -> int:
        value, name = self._find(key)
        if not value:
            return default
        if not value.strip().isdecimal() or not low <= int(value) <= high:
            raise SettingsError(f"{name}: want a whole number from {low} to {high}, not {value!r}")
        return int(value)

    def choice(self, key: str, default: _Choice) -> _Choice:
        value, name = self._find(key)
        if not value:
            return default
        try:
            return type(default)(value.lower())
        except ValueError:
            raise SettingsError(f"{name}: want {_one_of(type(default))}, not {value!r}") from None

    def boolean(self, key: str) -> bool:
        value, name = self._find(key)
        if not value:
            return False
        if value.lower() not in ("true", "false"):
            raise SettingsError(f"{name}: want true or false, not {value!r}")
        return value.lower() == "true"

    def file(self, key: str) -> tuple[Path | None, str]:
        """A file, None if none is named; and what the user calls it. It is read when it is needed."""
        value, name = self._find(key)
        return (Path(value) if value else None), name

    def pairs(self, key: str) -> tuple[tuple[str, str, str], ...]:
        """NAME=VALUE of a flag that may be repeated, or of a variable with commas between: what it is called, both."""
        given, name = self._several(key)
        found = []
        for item in given:
            header, equals, value = item.partition("=")
            if not equals or HEADER_NAME.fullmatch(header.strip()) is None or not value.strip():
                # What was given may be a secret by mistake.
                raise SettingsError(f"{name}: want NAME=…, like X-Scope-OrgID=…")
            found.append((name, header.strip(), value.strip()))
        return tuple(found)

    def _several(self, key: str) -> tuple[list[str], str]:
        flags: list[str] | None = self._flags[key]
        if flags:
            return flags, "--" + key.replace("_", "-")
        name = f"{ENVIRONMENT_PREFIX}{key.upper()}S"
        return [item.strip() for item in self._environment.get(name, "").split(",") if item.strip()], name

    def namespaces(self) -> tuple[str, ...]:
        given, name = self._several("namespace")
        for namespace in given:
            if _NAMESPACE.fullmatch(namespace) is None:
                raise SettingsError(f"{name}: want the name of a namespace, not {namespace!r}")
        return tuple(dict.fromkeys(given))

    def _find(self, key: str, variable: str | None = None) -> tuple[str | None, str]:
        """The value, and what the user calls it."""
        flag = self._flags.get(key)
        if flag is not None:
            return str(flag), "--" + key.replace("_", "-")
        variable = variable or ENVIRONMENT_PREFIX + key.upper()
        return self._environment.get(variable), variable


def _address(name: str, value: str) -> str:
    parts = urlsplit(value)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise SettingsError(f"{name}: want http://host:port or https://host, not {value!r}")
    if parts.username or parts.password:
        raise SettingsError(
            f"{name}: must hold no password: give --prometheus-username-file and --prometheus-password-file instead"
        )
    return value.rstrip("/")


def _login(reader: _Reader, address: str) -> LoginFiles:
    authority, authority_name = reader.file("prometheus_ca_file")
    if authority is not None and not address.startswith("https:"):
        raise SettingsError(f"{authority_name}: is for an address that starts with https://")
    token, _ = reader.file("prometheus_token_file")
    username, _ = reader.file("prometheus_username_file")
    password, _ = reader.file("prometheus_password_file")
    plain, files = reader.pairs("prometheus_header"), reader.pairs("prometheus_header_file")
    if (username is None) != (password is None):
        raise SettingsError(
            "--prometheus-username-file and --prometheus-password-file: basic authentication needs both"
        )
    if token is not None and username is not None:
        raise SettingsError("--prometheus-token-file and --prometheus-username-file: keep one of the two")
    for name, header, value in (*plain, *files):
        if header.lower() in RESERVED_HEADERS:
            raise SettingsError(f"{name}: {header} is set by the operator itself")
        if header.lower() == "authorization" and (token or username):
            raise SettingsError(f"{name}: Authorization is set by the token or the password: keep one of the two")
        if HEADER_VALUE.fullmatch(value) is None:
            raise SettingsError(f"{name}: the value of {header} must be one line of ASCII")
    if any(header.lower() == "authorization" for _, header, _ in plain):
        raise SettingsError("--prometheus-header: Authorization is a secret: use --prometheus-header-file")
    twice = same_name([header for _, header, _ in (*plain, *files)])
    if twice is not None:
        raise SettingsError(f"--prometheus-header: {twice} is there twice")
    return LoginFiles(
        bearer=token,
        username=username,
        password=password,
        headers=tuple((header, value) for _, header, value in plain),
        header_files=tuple((header, Path(value)) for _, header, value in files),
        authority=authority,
    )


def _existing_file(name: str, value: str) -> Path:
    # kubectl takes a list of files; one file leaves no doubt which cluster is acted on.
    path = Path(value).expanduser()
    if not path.is_file():
        raise SettingsError(f"{name} (or KUBECONFIG): want one kubeconfig file, there is none at {value!r}")
    return path


def _one_of(kind: type[StrEnum]) -> str:
    return " or ".join(item.value for item in kind)
