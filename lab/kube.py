"""A cluster that was made for us: kubectl for what a user would type, plain HTTPS for what is polled fast.

Contexts that `cluster/` did not make are refused, so that no test ever runs against somebody's cluster by accident.
"""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import os
import shutil
import socket
import ssl
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

import yaml

Manifest = dict[str, Any]

REPOSITORY = Path(__file__).resolve().parents[1]
OWN_CONTEXTS = ("pinn-", "kind-pinn-")
"""What the names of contexts made by `cluster/` begin with."""
PATIENCE = 3.0
"""How many times as long as on an idle machine things may take before a test gives up on them."""
PINNSERVICES = "/apis/pinn.dev/v1alpha1"
_PATHS = {
    "pinnservices": PINNSERVICES,
    "deployments": "/apis/apps/v1",
    "controllerrevisions": "/apis/apps/v1",
    "httproutes": "/apis/gateway.networking.k8s.io/v1",
    "leases": "/apis/coordination.k8s.io/v1",
    "pods": "/api/v1",
    "services": "/api/v1",
    "events": "/api/v1",
}


class KubeError(RuntimeError):
    """kubectl or the API server refused; `str()` is what it said."""


class ForeignContextError(RuntimeError):
    """The kubeconfig names a cluster that was not made here."""


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP answer of the API server."""

    status: int
    body: Any


class Kube:
    """One cluster, by its kubeconfig. Raises ForeignContextError unless its current context was made by `cluster/`."""

    def __init__(self, kubeconfig: Path, *, allow: str = "") -> None:
        document = yaml.safe_load(kubeconfig.read_text())
        self.context: str = document["current-context"]
        if not self.context.startswith(OWN_CONTEXTS) and self.context != allow:
            raise ForeignContextError(
                f"context {self.context!r} of {kubeconfig} was not made here: want one that begins with "
                f"{' or '.join(OWN_CONTEXTS)} (`make cluster-up`)"
            )
        self.kubeconfig = kubeconfig
        context = _named(document["contexts"], self.context)["context"]
        cluster = _named(document["clusters"], context["cluster"])["cluster"]
        user = _named(document["users"], context["user"])["user"]
        self.server: str = cluster["server"]
        self._ssl = _ssl_context(cluster, user, kubeconfig.parent)
        self._headers = {"Authorization": f"Bearer {user['token']}"} if "token" in user else {}
        self._local = threading.local()
        self._connections: list[http.client.HTTPSConnection] = []

    # --- as a user ----------------------------------------------------------------------------------------------------

    def kubectl(self, *words: str, stdin: str | None = None, timeout: float = 60.0) -> str:
        """Standard output of kubectl. Raises KubeError with its standard error."""
        done = subprocess.run(
            [program("kubectl"), "--kubeconfig", str(self.kubeconfig), "--context", self.context, *words],
            input=stdin, capture_output=True, text=True, timeout=timeout, check=False,
        )  # fmt: skip
        if done.returncode:
            raise KubeError(f"kubectl {' '.join(words)}: {done.stderr.strip() or done.stdout.strip()}")
        return done.stdout

    def apply(self, *manifests: Manifest) -> str:
        """`kubectl apply`, all at once."""
        return self.kubectl("apply", "-f", "-", stdin=yaml.safe_dump_all(manifests, sort_keys=False))

    def delete(self, kind: str, name: str, namespace: str, *, wait: bool = True) -> None:
        """`kubectl delete`; absent is fine."""
        self.kubectl("delete", kind, name, "-n", namespace, "--ignore-not-found", f"--wait={str(wait).lower()}")

    # --- fast ---------------------------------------------------------------------------------------------------------

    def request(self, method: str, path: str, body: Any = None, *, content_type: str = "application/json") -> Answer:
        """One request on this thread's connection; a connection that was closed meanwhile is opened again once."""
        data = json.dumps(body) if body is not None else None
        headers = {**self._headers, "Content-Type": content_type, "Accept": "application/json"}
        for attempt in (1, 2):
            connection = self._connection()
            try:
                connection.request(method, path, body=data, headers=headers)
                response = connection.getresponse()
                raw = response.read()
            except (OSError, http.client.HTTPException):
                connection.close()
                self._local.connection = None
                if attempt == 2:
                    raise
                continue
            return Answer(response.status, json.loads(raw) if raw[:1] in (b"{", b"[") else raw.decode())
        raise AssertionError("unreachable")

    def get(self, kind: str, name: str, namespace: str) -> Manifest | None:
        """An object, None if there is none."""
        answer = self.request("GET", f"{_PATHS[kind]}/namespaces/{namespace}/{kind}/{quote(name)}")
        if answer.status == 404:
            return None
        return _checked(answer)

    def list(self, kind: str, namespace: str, *, labels: str = "", fields: str = "") -> list[Manifest]:
        """Objects by selectors."""
        query = urlencode(
            {key: value for key, value in (("labelSelector", labels), ("fieldSelector", fields)) if value}
        )
        items: list[Manifest] = _checked(self.request("GET", f"{_PATHS[kind]}/namespaces/{namespace}/{kind}?{query}"))[
            "items"
        ]
        return items

    def merge(self, kind: str, name: str, namespace: str, patch: Manifest, *, manager: str = "somebody") -> Manifest:
        """A merge patch under a field manager of its own: what an edit by hand is."""
        path = f"{_PATHS[kind]}/namespaces/{namespace}/{kind}/{quote(name)}?fieldManager={manager}"
        return _checked(self.request("PATCH", path, patch, content_type="application/merge-patch+json"))

    def watch(self, kind: str, namespace: str, *, seconds: int, fields: str = "") -> Watch:
        """(type, object) as they come, on a connection of its own, for so many seconds or until stopped."""
        query = urlencode({"watch": "1", "timeoutSeconds": seconds, **({"fieldSelector": fields} if fields else {})})
        connection = self._open(timeout=seconds + 10)
        return Watch(connection, f"{_PATHS[kind]}/namespaces/{namespace}/{kind}?{query}", self._headers)

    def is_up(self) -> bool:
        """Whether the API server says that it is ready."""
        try:
            return self.request("GET", "/readyz").status == 200
        except (OSError, http.client.HTTPException):
            return False

    def close(self) -> None:
        """Close the connections of all threads; the next request opens one again."""
        for connection in self._connections:
            connection.close()

    # --- inside -------------------------------------------------------------------------------------------------------

    def _connection(self) -> http.client.HTTPSConnection:
        connection: http.client.HTTPSConnection | None = getattr(self._local, "connection", None)
        if connection is None:
            connection = self._local.connection = self._open(timeout=20)
            self._connections.append(connection)
        return connection

    def _open(self, *, timeout: float) -> http.client.HTTPSConnection:
        parts = urlsplit(self.server)
        return http.client.HTTPSConnection(parts.hostname or "", parts.port, context=self._ssl, timeout=timeout)


@cache
def program(name: str) -> str:
    """A program of the cluster's tool chain: the one on PATH, else the one that `cluster/` builds. Raises KubeError."""
    found = shutil.which(name)
    if found is not None:
        return found
    done = subprocess.run(
        ["python3", "-m", "cluster", "tool", name],
        cwd=REPOSITORY, stdout=subprocess.PIPE, text=True, timeout=1800, check=False,
    )  # fmt: skip
    if done.returncode:
        raise KubeError(f"{name} is neither on PATH nor could it be built")
    return done.stdout.strip().splitlines()[-1]


class Watch:
    """What a watch tells, in order. `stop` may be called from any thread."""

    def __init__(self, connection: http.client.HTTPSConnection, path: str, headers: Mapping[str, str]) -> None:
        self._connection, self._path, self._headers = connection, path, headers
        self._stopped = False

    def __iter__(self) -> Iterator[tuple[str, Manifest]]:
        try:
            self._connection.request("GET", self._path, headers=dict(self._headers))
            response = self._connection.getresponse()
            if response.status != 200:
                raise KubeError(f"watch {self._path}: {response.status} {response.read().decode(errors='replace')}")
            while not self._stopped and (line := response.readline()):
                event = json.loads(line)
                yield event["type"], event["object"]
        finally:
            self._connection.close()

    def stop(self) -> None:
        """End the iteration, also one that waits for news."""
        self._stopped = True
        if self._connection.sock is not None:
            with contextlib.suppress(OSError):
                self._connection.sock.shutdown(socket.SHUT_RDWR)


def find_kubeconfig(environ: Mapping[str, str] = os.environ) -> Path:
    """Where `python3 -m cluster kubeconfig` says the cluster's kubeconfig is. Raises KubeError if there is none."""
    done = subprocess.run(
        ["python3", "-m", "cluster", "kubeconfig"],
        cwd=REPOSITORY, env=dict(environ), capture_output=True, text=True, timeout=30,
        check=False,
    )  # fmt: skip
    path = Path(done.stdout.strip().splitlines()[-1]) if done.returncode == 0 and done.stdout.strip() else None
    if path is None or not path.is_file():
        raise KubeError(f"no cluster here yet (`make cluster-up`): {done.stderr.strip()}")
    return path


def label_of(manifest: Manifest, label: str) -> str:
    """A label's value, empty if absent."""
    value: str = manifest["metadata"].get("labels", {}).get(label, "")
    return value


def container_restarts(pod: Manifest) -> int:
    """Restarts of a pod's containers together."""
    return sum(status.get("restartCount", 0) for status in pod.get("status", {}).get("containerStatuses", []))


def is_ready(pod: Manifest) -> bool:
    """Whether a pod's Ready condition is True."""
    return any(
        item["type"] == "Ready" and item["status"] == "True" for item in pod.get("status", {}).get("conditions", [])
    )


def wait_until(what: str, check: Any, *, seconds: float, every: float = 0.2, tell: Any = None) -> Any:
    """The first truthy value of `check()`. Raises TimeoutError with what was awaited and what `tell()` says instead.

    `seconds` is more than it takes on an idle machine; a busy one gets `PATIENCE` times as much, for no test measures
    time.
    Refused connections count as "not yet", because the API server may be restarting.
    """
    deadline = time.monotonic() + seconds * PATIENCE
    while True:
        with contextlib.suppress(ConnectionError, http.client.HTTPException):
            value = check()
            if value:
                return value
        if time.monotonic() >= deadline:
            instead = f"; instead: {tell()}" if tell is not None else ""
            raise TimeoutError(f"not within {seconds * PATIENCE:g} s: {what}{instead}")
        time.sleep(every)


def _checked(answer: Answer) -> Manifest:
    if answer.status >= 300:
        raise KubeError(f"{answer.status}: {answer.body}")
    body: Manifest = answer.body
    return body


def _named(items: list[Manifest], name: str) -> Manifest:
    return next(item for item in items if item["name"] == name)


def _ssl_context(cluster: Manifest, user: Manifest, folder: Path) -> ssl.SSLContext:
    authority = _material(cluster, "certificate-authority", folder)
    context = ssl.create_default_context(cadata=authority.decode() if authority else None)
    certificate, key = _material(user, "client-certificate", folder), _material(user, "client-key", folder)
    if certificate and key:
        # load_cert_chain reads files only; this one is gone again before anybody could list the folder.
        with tempfile.NamedTemporaryFile(suffix=".pem") as file:
            file.write(certificate + b"\n" + key)
            file.flush()
            context.load_cert_chain(file.name)
    return context


def _material(section: Manifest, name: str, folder: Path) -> bytes | None:
    if f"{name}-data" in section:
        return base64.b64decode(section[f"{name}-data"])
    return (folder / section[name]).read_bytes() if name in section else None
