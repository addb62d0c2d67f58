"""Real pricing requests at a given rate, open loop, and an exact account of what became of each.

Open loop means that a request is sent when it is due, whether or not earlier ones were answered: a slow server is not
asked more slowly. Every answer is compared with a closed form of our own, so a wrong price with a 200 is a failure.
Which revision answered is what the server says in `X-PINN-Revision`.

    .venv/bin/python -m lab.traffic --url http://198.18.255.1:8080 --host pricing.example.com --rate 40
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import ipaddress
import json
import random
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

import aiohttp

from lab.pricing import Option, random_option

REVISION_HEADER = "X-PINN-Revision"
PATH = "/v1/price"
MAX_REQUESTS = 500_000
CLUSTER_NETWORK = ipaddress.ip_network("198.18.0.0/15")
"""RFC 2544: where our own clusters live."""


@dataclass(frozen=True, slots=True)
class Record:
    """One request. Times are unix seconds; `failure` is empty for a right answer."""

    sent: float
    done: float
    status: int
    revision: str
    failure: str

    @property
    def latency(self) -> float:
        """Seconds from sending to the whole answer."""
        return self.done - self.sent


@dataclass(frozen=True, slots=True)
class Summary:
    """What became of requests. Latencies are in seconds; shares are percent of the answers that name a revision."""

    requests: int
    failed: int
    failures: dict[str, int]
    statuses: dict[int, int]
    revisions: dict[str, int]
    shares: dict[str, float]
    failed_by_revision: dict[str, int]
    latency: dict[str, float] = field(default_factory=dict)

    def share(self, revision: str) -> float:
        """Percent of the answers that came from a revision."""
        return self.shares.get(revision, 0.0)

    def __str__(self) -> str:
        shares = ", ".join(f"{name} {share:.1f} %" for name, share in sorted(self.shares.items()))
        failures = ", ".join(f"{kind} {count}" for kind, count in sorted(self.failures.items())) or "none"
        p50, p99 = self.latency.get("p50", 0.0), self.latency.get("p99", 0.0)
        latency = f"p50 {p50 * 1e3:.1f} ms, p99 {p99 * 1e3:.1f} ms"
        return f"{self.requests} requests, failed {self.failed} ({failures}), {latency}, {shares}"


def now() -> float:
    """The moment in unix seconds, as records have it."""
    return time.time()


def summarize(records: Iterable[Record]) -> Summary:
    """Count requests, failures by kind, answers by revision, and nearest-rank latency quantiles."""
    requests = 0
    failures: Counter[str] = Counter()
    statuses: Counter[int] = Counter()
    revisions: Counter[str] = Counter()
    failed_by_revision: Counter[str] = Counter()
    latencies: list[float] = []
    for record in records:
        requests += 1
        statuses[record.status] += 1
        if record.revision:
            revisions[record.revision] += 1
        if record.failure:
            failures[record.failure] += 1
            failed_by_revision[record.revision or "router"] += 1
        else:
            latencies.append(record.latency)
    answered = sum(revisions.values())
    latencies.sort()
    quantiles = {
        name: latencies[min(len(latencies) - 1, int(len(latencies) * share))]
        for name, share in (("p50", 0.5), ("p95", 0.95), ("p99", 0.99), ("max", 1.0))
        if latencies
    }
    return Summary(
        requests=requests,
        failed=sum(failures.values()),
        failures=dict(failures),
        statuses=dict(statuses),
        revisions=dict(revisions),
        shares={name: 100.0 * count / answered for name, count in revisions.items()},
        failed_by_revision=dict(failed_by_revision),
        latency=quantiles,
    )


class Traffic:
    """A generator in a thread of its own; every method may be called from any thread.

    `rate` is in requests per second; `seconds` and MAX_REQUESTS bound it. Raises ValueError for a target that is
    neither loopback nor in our own cluster's network.
    """

    def __init__(
        self, url: str, *, host: str, rate: float, seconds: float, timeout: float = 5.0, seed: int = 1
    ) -> None:
        _refuse_foreign(url)
        if not 0 < rate <= 5000:
            raise ValueError(f"rate is {rate}: must be above 0 and at most 5000 requests per second")
        self._url = url.rstrip("/") + PATH
        self._host = host
        self._rate = rate
        self._limit = min(MAX_REQUESTS, max(1, int(rate * seconds)))
        self._timeout = timeout
        self._random = random.Random(seed)
        self._records: list[Record] = []
        self._sent = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), name=f"traffic-{host}", daemon=True)

    # --- life ---------------------------------------------------------------------------------------------------------

    def start(self) -> Self:
        """Begin to send."""
        self._thread.start()
        return self

    def stop(self) -> None:
        """Send no more, and wait for the answers that are due (at most the time-out)."""
        self._stop.set()
        self._thread.join(self._timeout + 5)

    def wait(self) -> None:
        """Until the last request is answered."""
        self._thread.join()

    @property
    def running(self) -> bool:
        """Whether requests are still sent or awaited."""
        return self._thread.is_alive()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    # --- account ------------------------------------------------------------------------------------------------------

    def records(self, since: float = 0.0, until: float = float("inf")) -> list[Record]:
        """The finished requests that were sent in a span of unix seconds."""
        return [record for record in self._records[:] if since <= record.sent < until]

    def summary(self, since: float = 0.0, until: float = float("inf")) -> Summary:
        """The account of the requests that were sent in a span of unix seconds."""
        return summarize(self.records(since, until))

    def count(self) -> int:
        """Requests finished so far."""
        return len(self._records)

    def last_answer(self, revision: str) -> float | None:
        """When the newest answer of a revision was received, in unix seconds."""
        return max((record.done for record in self._records[:] if record.revision == revision), default=None)

    def per_second(self) -> list[tuple[int, Summary]]:
        """The account of every second in which a request was sent."""
        seconds: dict[int, list[Record]] = {}
        for record in self._records[:]:
            seconds.setdefault(int(record.sent), []).append(record)
        return [(second, summarize(records)) for second, records in sorted(seconds.items())]

    # --- sending ------------------------------------------------------------------------------------------------------

    async def _run(self) -> None:
        # Idle connections are closed here before a server or router does: no request is lost to a closing connection.
        connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=15)
        timeout = aiohttp.ClientTimeout(total=self._timeout)
        running: set[asyncio.Task[None]] = set()
        async with aiohttp.ClientSession(connector=connector, timeout=timeout, headers={"Host": self._host}) as session:
            began = asyncio.get_running_loop().time()
            while self._sent < self._limit and not self._stop.is_set():
                delay = began + self._sent / self._rate - asyncio.get_running_loop().time()
                if delay > 0:
                    await asyncio.sleep(min(delay, 0.2))
                    if delay > 0.2:
                        continue
                task = asyncio.create_task(self._request(session, random_option(self._random)))
                running.add(task)
                task.add_done_callback(running.discard)
                self._sent += 1
            if running:
                await asyncio.wait(running)

    async def _request(self, session: aiohttp.ClientSession, option: Option) -> None:
        sent = time.time()
        status, revision = 0, ""
        try:
            async with session.post(self._url, json=option.body()) as response:
                status, revision = response.status, response.headers.get(REVISION_HEADER, "")
                body = await response.read()
            failure = _judge(option, status, body)
        except TimeoutError:
            failure = "timeout"
        except aiohttp.ClientError as error:
            failure = f"connection:{type(error).__name__}"
        self._records.append(Record(sent, time.time(), status, revision, failure))


def _judge(option: Option, status: int, body: bytes) -> str:
    """The kind of failure, empty for a right answer."""
    if status != 200:
        return str(status)
    try:
        price = json.loads(body)["price"]
    except (ValueError, KeyError, TypeError):
        return "malformed"
    if not isinstance(price, (int, float)):
        return "malformed"
    return "" if option.is_price(price) else "wrong-price"


def _refuse_foreign(url: str) -> None:
    host = urlsplit(url).hostname or ""
    with contextlib.suppress(ValueError):
        address = ipaddress.ip_address(host)
        if address.is_loopback or address in CLUSTER_NETWORK:
            return
    raise ValueError(f"{url}: this generator only loads a loopback address or one in {CLUSTER_NETWORK}")


def _report(traffic: Traffic, every: float, say: Callable[[str], None]) -> None:
    before = time.time()
    while traffic.running:
        time.sleep(every)
        now = time.time()
        say(f"{time.strftime('%H:%M:%S', time.gmtime(now))}  {traffic.summary(before, now)}")
        before = now


def _as_json(traffic: Traffic) -> Iterator[tuple[str, Any]]:
    yield "total", asdict(traffic.summary())
    yield "seconds", [{"second": second, **asdict(summary)} for second, summary in traffic.per_second()]


def main(arguments: Sequence[str] | None = None) -> int:
    """Send, say every few seconds what came back, print the whole account as JSON; 1 if any request failed."""
    parser = argparse.ArgumentParser(prog="python -m lab.traffic", description=__doc__.split("\n\n", 1)[0])
    parser.add_argument("--url", required=True, help="where the router listens; loopback or our own cluster only")
    parser.add_argument("--host", required=True, help="Host header, a hostname of the PINNService")
    parser.add_argument("--rate", type=float, default=30.0, help="requests per second")
    parser.add_argument("--seconds", type=float, default=60.0, help="for how long")
    parser.add_argument("--every", type=float, default=2.0, help="seconds between two lines of progress")
    chosen = parser.parse_args(arguments)
    with Traffic(chosen.url, host=chosen.host, rate=chosen.rate, seconds=chosen.seconds) as traffic:
        _report(traffic, chosen.every, lambda line: print(line, file=sys.stderr, flush=True))
    print(json.dumps(dict(_as_json(traffic))))
    return 1 if traffic.summary().failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
