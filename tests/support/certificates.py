"""A private authority and a server's certificate, made by openssl for one test session."""

from __future__ import annotations

import ssl
import subprocess
from dataclasses import dataclass
from pathlib import Path

_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")


@dataclass(frozen=True)
class Authority:
    """`ca` is its certificate; `chain` and `key` are those of a server that it vouches for."""

    ca: Path
    chain: Path
    key: Path

    def server_context(self) -> ssl.SSLContext:
        """For a server."""
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(self.chain, self.key)
        return context


def make_authority(folder: Path, *, server: str = "IP:127.0.0.1") -> Authority:
    """`server` is the subject alternative name of the server's certificate."""
    ca, ca_key, chain, key = (folder / name for name in ("ca.crt", "ca.key", "server.crt", "server.key"))
    _openssl(
        "req", "-x509", "-new", *_KEY, "-keyout", ca_key, "-out", ca, "-days", "2", "-subj", "/CN=test authority",
        "-addext", "keyUsage=critical,keyCertSign,cRLSign",
    )  # fmt: skip
    _openssl(
        "req", "-x509", "-new", *_KEY, "-keyout", key, "-out", chain, "-days", "2", "-subj", "/CN=server",
        "-CA", ca, "-CAkey", ca_key, "-addext", f"subjectAltName={server}",
        "-addext", "basicConstraints=critical,CA:FALSE", "-addext", "keyUsage=critical,digitalSignature",
    )  # fmt: skip
    return Authority(ca, chain, key)


def _openssl(*arguments: str | Path) -> None:
    subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True, timeout=30)
