"""Certificates and kubeconfig files of one cluster, made by openssl; a year long, renewed when a month is left."""

import base64
import json
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from cluster.settings import API_SERVICE_IP, NODE_IP, NODE_NAME, Settings
from cluster.shell import run, succeeds

_VALID_DAYS = 365
_RENEW_SECONDS = 30 * 24 * 3600
_CURVE = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")


@dataclass(frozen=True, kw_only=True)
class Certificate:
    """A certificate that is good for servers and clients; ``user`` says that a kubeconfig is made of it too."""

    name: str
    subject: str
    alternative_names: str
    user: bool = False


CERTIFICATES = (
    Certificate(
        name="apiserver",
        subject="/CN=kube-apiserver",
        alternative_names="DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc,"
        f"DNS:kubernetes.default.svc.cluster.local,DNS:localhost,IP:127.0.0.1,IP:{NODE_IP},IP:{API_SERVICE_IP}",
    ),
    Certificate(name="admin", subject="/O=system:masters/CN=admin", alternative_names="DNS:admin", user=True),
    Certificate(
        name="kcm",
        subject="/CN=system:kube-controller-manager",
        alternative_names="DNS:localhost,IP:127.0.0.1",
        user=True,
    ),
    Certificate(
        name="scheduler", subject="/CN=system:kube-scheduler", alternative_names="DNS:localhost,IP:127.0.0.1", user=True
    ),
    Certificate(name="proxy", subject="/CN=system:kube-proxy", alternative_names="DNS:proxy", user=True),
    Certificate(
        name="kubelet",
        subject=f"/O=system:nodes/CN=system:node:{NODE_NAME}",
        alternative_names=f"DNS:{NODE_NAME},IP:{NODE_IP}",
        user=True,
    ),
    Certificate(
        name="apiserver-kubelet-client",
        subject="/O=system:masters/CN=apiserver-kubelet-client",
        alternative_names="DNS:apiserver-kubelet-client",
    ),
)


def render_kubeconfig(*, context: str, server: str, ca: bytes, certificate: bytes, key: bytes) -> str:
    """A kubeconfig in JSON (which is YAML too) with everything embedded."""

    def encoded(data: bytes) -> str:
        return base64.b64encode(data).decode()

    return json.dumps(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": context,
            "clusters": [{"name": context, "cluster": {"server": server, "certificate-authority-data": encoded(ca)}}],
            "users": [
                {
                    "name": context,
                    "user": {"client-certificate-data": encoded(certificate), "client-key-data": encoded(key)},
                }
            ],
            "contexts": [{"name": context, "context": {"cluster": context, "user": context}}],
        },
        indent=1,
    )


def ensure_pki(settings: Settings) -> bool:
    """Makes all certificates and the keys of service-account tokens anew when any is missing or ends soon.

    The folder appears by rename, so that certificates of two authorities never mix. True when it was made.
    """
    if _is_complete(settings.pki):
        return False
    settings.state.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(dir=settings.state, prefix=".pki."))
    try:
        _make_authority(scratch)
        for certificate in CERTIFICATES:
            _make_certificate(scratch, certificate)
        run(["openssl", "genrsa", "-out", scratch / "sa.key", "2048"], timeout=60)
        run(["openssl", "rsa", "-in", scratch / "sa.key", "-pubout", "-out", scratch / "sa.pub"], timeout=60)
        ca = (scratch / "ca.crt").read_bytes()
        for certificate in CERTIFICATES:
            if certificate.user:
                text = render_kubeconfig(
                    context=settings.context,
                    server=f"https://127.0.0.1:{settings.ports.apiserver}",
                    ca=ca,
                    certificate=(scratch / f"{certificate.name}.crt").read_bytes(),
                    key=(scratch / f"{certificate.name}.key").read_bytes(),
                )
                kubeconfig = scratch / f"{certificate.name}.conf"
                kubeconfig.write_text(text)
                kubeconfig.chmod(0o600)
        shutil.rmtree(settings.pki, ignore_errors=True)
        scratch.rename(settings.pki)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return True


def _is_complete(folder: Path) -> bool:
    names = ["ca.crt", *(f"{certificate.name}.crt" for certificate in CERTIFICATES)]
    return (folder / "sa.pub").is_file() and all(
        (folder / name).is_file()
        and succeeds(["openssl", "x509", "-in", folder / name, "-noout", "-checkend", str(_RENEW_SECONDS)], timeout=30)
        for name in names
    )


def _make_authority(folder: Path) -> None:
    words = ["openssl", "req", "-x509", *_CURVE, "-days", str(_VALID_DAYS), "-subj", "/CN=pinn-cluster-ca"]
    # Python 3.13 refuses an authority that does not say that it signs certificates (RFC 5280, 4.2.1.3).
    words += ["-addext", "keyUsage=critical,keyCertSign,cRLSign"]
    run([*words, "-keyout", folder / "ca.key", "-out", folder / "ca.crt"], timeout=60)


def _make_certificate(folder: Path, certificate: Certificate) -> None:
    stem = folder / certificate.name
    request, extensions = stem.with_suffix(".csr"), stem.with_suffix(".ext")
    extensions.write_text(
        "basicConstraints=critical,CA:FALSE\nkeyUsage=critical,digitalSignature\n"
        "subjectKeyIdentifier=hash\nauthorityKeyIdentifier=keyid\n"
        f"extendedKeyUsage=serverAuth,clientAuth\nsubjectAltName={certificate.alternative_names}\n"
    )
    run(
        [
            "openssl",
            "req",
            *_CURVE,
            "-subj",
            certificate.subject,
            "-keyout",
            stem.with_suffix(".key"),
            "-out",
            request,
        ],
        timeout=60,
    )
    signing: list[str | Path] = [
        "openssl",
        "x509",
        "-req",
        "-in",
        request,
        "-CA",
        folder / "ca.crt",
        "-CAkey",
        folder / "ca.key",
    ]
    lasting: list[str | Path] = [
        "-CAcreateserial",
        "-days",
        str(_VALID_DAYS),
        "-extfile",
        extensions,
        "-out",
        stem.with_suffix(".crt"),
    ]
    run([*signing, *lasting], timeout=60)
    request.unlink()
    extensions.unlink()
