"""What the operator costs at rest: memory, CPU and calls to the API server with 1, 100 and 1,000 resources. JSON out.

    python3 benchmarks/operator_footprint.py [--counts 1 100 1000] [--rest-seconds 60] > footprint.json

Starts a control plane of its own (etcd, kube-apiserver, kube-controller-manager; no nodes), and the operator as a
process. Every resource has no replicas, so it has its Deployment, its three Services and its record, and rests.

All calls go through a counting proxy, kopf's among them. Calls per resource and hour are put together from what was
counted: the calls of one quiet pass (measured with the shortest resync), two passes an hour at the default resync, and
the renewal of watches, which costs the same for one resource as for a thousand.
"""

from __future__ import annotations

import argparse
import asyncio
import collections
import contextlib
import json
import os
import platform
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import yaml
from aiohttp import web

ROOT = Path(__file__).resolve().parents[1]
NAMESPACE = "footprint"
SHORT_RESYNC = 60
DEFAULT_RESYNC = 1800


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


PORT = _free_port()


class Proxy:
    """Plain HTTP in, the API server's TLS out; counts requests by verb and resource."""

    def __init__(self, kubeconfig: Path) -> None:
        document = yaml.safe_load(kubeconfig.read_text())
        self.server = document["clusters"][0]["cluster"]["server"]
        self._context, self._headers = _tls(document)
        self.counts: collections.Counter[str] = collections.Counter()

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[str]:
        """The address while it runs."""
        connector = aiohttp.TCPConnector(ssl=self._context, limit=0)
        timeout = aiohttp.ClientTimeout(total=None)
        async with aiohttp.ClientSession(connector=connector, timeout=timeout, auto_decompress=False) as self._session:
            application = web.Application(client_max_size=1 << 26)
            application.router.add_route("*", "/{path:.*}", self._forward)
            runner = web.AppRunner(application, access_log=None)
            await runner.setup()
            site = web.TCPSite(runner, "127.0.0.1", 0)
            await site.start()
            try:
                yield f"http://127.0.0.1:{runner.addresses[0][1]}"
            finally:
                await runner.cleanup()

    async def _forward(self, request: web.Request) -> web.StreamResponse:
        verb = "WATCH" if "watch" in request.query else request.method
        self.counts[f"{verb} {_kind(request.path)}"] += 1
        headers = {k: v for k, v in request.headers.items() if k.lower() in ("accept", "content-type", "user-agent")}
        headers["Accept-Encoding"] = "identity"
        body = await request.read()
        url = self.server + request.raw_path
        async with self._session.request(
            request.method, url, headers=headers | self._headers, data=body or None
        ) as upstream:
            response = web.StreamResponse(status=upstream.status)
            response.content_type = upstream.content_type
            # Whoever watched has gone: nothing is left to tell it.
            with contextlib.suppress(ConnectionResetError, aiohttp.ClientError):
                await response.prepare(request)
                async for chunk in upstream.content.iter_any():
                    await response.write(chunk)
                await response.write_eof()
            return response


class OperatorProcess:
    """`pinn-operator run` as it runs in a pod."""

    def __init__(self, kubeconfig: Path, log: Path, *, resync: int) -> None:
        command = [sys.executable, "-m", "pinn_operator", "run", "--kubeconfig", str(kubeconfig)]
        command += ["--resync-seconds", str(resync), "--health-host", "127.0.0.1", "--health-port", str(PORT)]
        self._path = log
        self._log = log.open("ab")
        self._process = subprocess.Popen(command, stdout=self._log, stderr=self._log)

    def check(self) -> None:
        """Raises RuntimeError with the end of its log if it has ended."""
        if self._process.poll() is not None:
            raise RuntimeError(f"the operator has ended: {self._path.read_text()[-2000:]}")

    def rss_bytes(self) -> int:
        return int(self._status("VmRSS")) * 1024

    def peak_bytes(self) -> int:
        return int(self._status("VmHWM")) * 1024

    def cpu_seconds(self) -> float:
        fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def stop(self) -> float:
        """Seconds from SIGTERM to its end."""
        started = time.monotonic()
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._log.close()
        return time.monotonic() - started

    def _status(self, name: str) -> str:
        lines = Path(f"/proc/{self._process.pid}/status").read_text().splitlines()
        return next(line for line in lines if line.startswith(name)).split()[1]


async def measure(
    args: argparse.Namespace, folder: Path, direct: Path, proxy: Proxy, address: str
) -> list[dict[str, Any]]:
    """One entry per count."""
    kubeconfig = folder / "proxied.kubeconfig"
    kubeconfig.write_text(yaml.safe_dump(_proxied(address)))
    results = []
    made = 0
    for count in args.counts:
        log = folder / f"operator-{count}.log"
        # Not through the proxy, which would be what is measured.
        operator = OperatorProcess(direct, log, resync=DEFAULT_RESYNC)
        try:
            started = time.monotonic()
            await _make(address, made, count)
            made = max(made, count)
            await _settled(operator, address, count)
            settled = time.monotonic() - started
        finally:
            operator.stop()
        # A start with everything there: what a pod that was rescheduled needs.
        entry: dict[str, Any] = {"resources": count, "seconds_until_all_settled": round(settled, 1)}
        entry |= await _at_rest(args, kubeconfig, log, proxy, count)
        entry |= await _quiet_passes(args, kubeconfig, log, proxy, count)
        per_pass, watches = entry["api_calls_per_quiet_pass"], entry["watch_calls_per_hour"]
        entry["api_calls_per_idle_resource_per_hour"] = round(per_pass * 3600 / DEFAULT_RESYNC + watches / count, 2)
        results.append(entry)
        print(json.dumps(entry), file=sys.stderr)
    return results


async def _at_rest(args: argparse.Namespace, kubeconfig: Path, log: Path, proxy: Proxy, count: int) -> dict[str, Any]:
    began = time.monotonic()
    operator = OperatorProcess(kubeconfig, log, resync=DEFAULT_RESYNC)
    try:
        await _passes_done(operator, count)
        settled = time.monotonic() - began
        await asyncio.sleep(10)
        proxy.counts.clear()
        began, cpu = time.monotonic(), operator.cpu_seconds()
        await asyncio.sleep(args.rest_seconds)
        seconds = time.monotonic() - began
        used = operator.cpu_seconds() - cpu
        return {
            "rss_mib": round(operator.rss_bytes() / 2**20, 1),
            "peak_rss_mib": round(operator.peak_bytes() / 2**20, 1),
            "cpu_percent_at_rest": round(100 * used / seconds, 2),
            "calls_while_at_rest": dict(proxy.counts),
            "seconds_at_rest": round(seconds, 1),
            "seconds_from_start_to_last_first_pass": round(settled, 1),
        }
    finally:
        stopped = operator.stop()
        print(f"stopped in {stopped:.2f} s", file=sys.stderr)


async def _quiet_passes(
    args: argparse.Namespace, kubeconfig: Path, log: Path, proxy: Proxy, count: int
) -> dict[str, Any]:
    operator = OperatorProcess(kubeconfig, log, resync=SHORT_RESYNC)
    try:
        await _passes_done(operator, count)
        proxy.counts.clear()
        before = await _metric("pinn_operator_passes_total")
        cpu, began = operator.cpu_seconds(), time.monotonic()
        await asyncio.sleep(args.pass_seconds)
        passes = await _metric("pinn_operator_passes_total") - before
        calls = sum(n for key, n in proxy.counts.items() if not key.startswith("WATCH"))
        # A server ends a watch after 30 to 60 minutes; five kinds are watched.
        return {
            "quiet_passes": int(passes),
            "api_calls_per_quiet_pass": round(calls / passes, 2) if passes else None,
            "calls_in_quiet_passes": dict(proxy.counts),
            "cpu_milliseconds_per_quiet_pass": round(1000 * (operator.cpu_seconds() - cpu) / passes, 2)
            if passes
            else None,
            "seconds_of_quiet_passes": round(time.monotonic() - began, 1),
            "watch_calls_per_hour": round(5 * 3600 / 2700, 2),
        }
    finally:
        operator.stop()


# --- the cluster ------------------------------------------------------------------------------------------------------


async def _make(address: str, first: int, count: int) -> None:
    limit = asyncio.Semaphore(8)

    async def make(session: aiohttp.ClientSession, number: int) -> None:
        body = {
            "apiVersion": "pinn.dev/v1alpha1",
            "kind": "PINNService",
            "metadata": {"name": f"pricing-{number:04d}"},
            "spec": {"image": "registry.example.com/pinn-inference:1.0.0", "replicas": 0},
        }
        path = f"{address}/apis/pinn.dev/v1alpha1/namespaces/{NAMESPACE}/pinnservices"
        async with limit, session.post(path, json=body) as response:
            if response.status not in (201, 409):
                raise RuntimeError(await response.text())

    async with aiohttp.ClientSession() as session:
        await asyncio.gather(*(make(session, number) for number in range(first, count)))


async def _settled(operator: OperatorProcess, address: str, count: int) -> None:
    """Until each resource has its status and its three Services."""
    deadline = time.monotonic() + 120 + count
    async with aiohttp.ClientSession() as session:
        while True:
            services = await _list(session, f"{address}/api/v1/namespaces/{NAMESPACE}/services")
            resources = await _list(session, f"{address}/apis/pinn.dev/v1alpha1/namespaces/{NAMESPACE}/pinnservices")
            seen = sum(1 for item in resources if item.get("status", {}).get("observedGeneration") == 1)
            if seen >= count and len(services) >= 3 * count:
                return
            if time.monotonic() > deadline:
                raise TimeoutError(f"{seen} of {count} resources and {len(services)} Services")
            operator.check()
            await asyncio.sleep(2)


async def _list(session: aiohttp.ClientSession, url: str) -> list[dict[str, Any]]:
    async with session.get(url) as response:
        return list((await response.json())["items"])


async def _passes_done(operator: OperatorProcess, count: int) -> None:
    """Until each resource has had its first pass and nothing more happens."""
    deadline = time.monotonic() + 120 + count
    last = -1.0
    while time.monotonic() < deadline:
        await asyncio.sleep(3)
        operator.check()
        with contextlib.suppress(aiohttp.ClientError):
            passes = await _metric("pinn_operator_passes_total")
            if passes >= count and passes == last:
                return
            last = passes
    raise TimeoutError(f"{last} passes for {count} resources")


async def _metric(name: str) -> float:
    async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{PORT}/metrics") as response:
        lines = (await response.text()).splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(name))


def _proxied(address: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "pinn-footprint",
        "clusters": [{"name": "c", "cluster": {"server": address}}],
        "users": [{"name": "u", "user": {}}],
        "contexts": [{"name": "pinn-footprint", "context": {"cluster": "c", "user": "u"}}],
    }


def _tls(document: dict[str, Any]) -> tuple[ssl.SSLContext, dict[str, str]]:
    import base64

    cluster, user = document["clusters"][0]["cluster"], document["users"][0]["user"]

    def material(section: dict[str, Any], name: str) -> bytes | None:
        if f"{name}-data" in section:
            return base64.b64decode(section[f"{name}-data"])
        return Path(section[name]).read_bytes() if name in section else None

    authority = material(cluster, "certificate-authority")
    context = ssl.create_default_context(cadata=authority.decode() if authority else None)
    certificate, key = material(user, "client-certificate"), material(user, "client-key")
    if certificate and key:
        with tempfile.NamedTemporaryFile(suffix=".pem") as file:
            file.write(certificate + b"\n" + key)
            file.flush()
            context.load_cert_chain(file.name)
    return context, {"Authorization": f"Bearer {user['token']}"} if "token" in user else {}


def _kind(path: str) -> str:
    parts = [part for part in path.split("/") if part]
    if "namespaces" in parts and len(parts) > parts.index("namespaces") + 2:
        return parts[parts.index("namespaces") + 2]
    return parts[-1] if parts else "/"


@contextlib.contextmanager
def _control_plane(folder: Path, offset: int) -> Any:
    base = [sys.executable, "-m", "cluster", "--state", str(folder / "state"), "--name", "footprint"]
    base += ["--ports-offset", str(offset)]
    subprocess.run([*base, "up", "--only", "control-plane"], cwd=ROOT, check=True, stdout=sys.stderr)
    try:
        yield folder / "state" / "kubeconfig"
    finally:
        subprocess.run([*base, "down"], cwd=ROOT, check=False, stdout=sys.stderr)


async def _run(args: argparse.Namespace, folder: Path, kubeconfig: Path) -> list[dict[str, Any]]:
    proxy = Proxy(kubeconfig)
    async with proxy.running() as address:
        async with aiohttp.ClientSession() as session:
            crd = yaml.safe_load((ROOT / "crds" / "pinnservices.yaml").read_text())
            path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
            for url, body in ((path, crd), ("/api/v1/namespaces", {"metadata": {"name": NAMESPACE}})):
                async with session.post(address + url, json=body) as response:
                    if response.status not in (201, 409):
                        raise RuntimeError(await response.text())
        await asyncio.sleep(3)
        return await measure(args, folder, kubeconfig, proxy, address)


def main() -> None:
    # So that what was started is ended too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--counts", type=int, nargs="+", default=[1, 100, 1000])
    parser.add_argument("--rest-seconds", type=float, default=60.0)
    parser.add_argument("--pass-seconds", type=float, default=150.0)
    parser.add_argument("--ports-offset", type=int, default=7000)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="pinn-footprint-") as name:
        folder = Path(name)
        with _control_plane(folder, args.ports_offset) as kubeconfig:
            results = asyncio.run(_run(args, folder, kubeconfig))
    report = {
        "benchmark": "operator_footprint",
        "machine": {"cpus": os.cpu_count(), "system": platform.platform(), "python": platform.python_version()},
        "default_resync_seconds": DEFAULT_RESYNC,
        "results": results,
    }
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
