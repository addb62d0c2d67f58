"""The inference server in pods, through the router: what the tests of its process cannot see of the real image."""

from __future__ import annotations

import hashlib
import http.client
import json
import random
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
import tritonclient.http as triton

from lab.kube import is_ready, label_of, wait_until
from lab.line import Line
from lab.pricing import random_option
from lab.service import REVISION_LABEL, Service, revision_of
from lab.traffic import Summary, Traffic
from pinn_inference.pricing import closed_form
from pinn_inference.pricing.american_golden import AMERICAN_GOLDEN_PRICES
from pinn_inference.pricing.american_golden import golden_batch as american_golden_batch
from pinn_inference.pricing.golden import GOLDEN_PRICES
from pinn_inference.pricing.types import OptionBatch
from tests.support import expect
from tests.support.bad_requests import MAX_BATCH, MAX_BODY_BYTES, BadRequest, bad_requests
from tests.support.inside import CLAIM, MOUNT, PACKAGE, Inside, volume
from tests.support.market import MARKET
from tests.support.oip import random_columns
from tests.support.server import PUT

Account = Callable[[str, Summary], None]
Ask = Callable[..., tuple[int, Any]]
Columns = dict[str, np.ndarray[Any, Any]]

ROWS = 65_536
BAD_REQUESTS = 600
ENVIRONMENT = {
    "PINN_MARKET_DATA": f"{MOUNT}/market.yaml",
    "PINN_AMERICAN_MODEL_DIR": f"{MOUNT}/american",
}
SPEC = {
    "model": {"persistentVolumeClaim": {"claimName": CLAIM, "path": "european"}},
    # A share of the processor that does not depend on who else is busy.
    "resources": {
        "requests": {"cpu": "300m", "memory": "512Mi"},
        "limits": {"cpu": "2", "memory": "1536Mi"},
    },
}
NAMES = ("spot", "strike", "maturity", "rate", "dividend", "volatility")

EUROPEAN_OUTSIDE = {**PUT, "maturity": 50, "volatility": 2.5}
AMERICAN_OUTSIDE = {**PUT, "maturity": 50, "volatility": 1.5, "style": "american"}
ACME = {"spot": 100, "volatility": 0.2, "rate": 0.03, "dividend": 0.01}
"""What MARKET says of it."""
METRICS = (
    "pinn_cache_hits_total", "pinn_cache_misses_total", "pinn_cache_size", "pinn_prediction_latency_seconds_bucket",
    "pinn_fallback_total", "pinn_prediction_errors_total", "pinn_inference_requests_total",
    "pinn_inference_latency_seconds_bucket", "http_requests_total", "pinn_batch_process_restarts_total",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Known:
    """An option whose price is known: `terms` in the order of NAMES, `price` in currency."""

    style: str
    terms: tuple[float, ...]
    is_call: bool
    price: float

    @property
    def strike(self) -> float:
        return self.terms[NAMES.index("strike")]

    def body(self) -> dict[str, Any]:
        """The JSON of the request."""
        kind = "call" if self.is_call else "put"
        return {**dict(zip(NAMES, self.terms, strict=True)), "option_type": kind, "style": self.style}


@pytest.fixture(scope="class")
def keeper(line: Line, namespace: str, turn: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Inside]:
    """A pod with the models' volume, on which both models and market data lie."""
    with volume(line.kube, namespace, line.images.inference, tmp_path_factory.mktemp(CLAIM)) as keeper:
        keeper.must("cp", "-r", f"{PACKAGE}/models/european", f"{PACKAGE}/models/american", MOUNT)
        keeper.replace(f"{MOUNT}/market.yaml", MARKET)
        yield keeper


@pytest.fixture(scope="class")
def stable(service: Service, line: Line, keeper: Inside) -> str:
    """The revision with both models and the market data from the volume."""
    service.apply(image=line.images.inference, env=ENVIRONMENT, more=SPEC)
    return service.wait_stable()


@pytest.fixture
def pod(service: Service, stable: str) -> Inside:
    """The stable revision's pod."""
    name = next(item["metadata"]["name"] for item in service.pods() if is_ready(item))
    return Inside(service.kube, service.namespace, name)


@pytest.fixture
def ask(line: Line, service: Service, stable: str) -> Ask:
    """One request through the router: status, and the JSON or text that came."""

    def ask(path: str, document: Any = None, *, method: str = "") -> tuple[int, Any]:
        parts = urlsplit(line.gateway)
        connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=30)
        try:
            body = None if document is None else json.dumps(document)
            words = method or ("GET" if document is None else "POST")
            connection.request(words, path, body=body, headers={"Host": service.host})
            answer = connection.getresponse()
            text = answer.read().decode()
            kind = answer.headers.get_content_type()
            return answer.status, json.loads(text) if kind == "application/json" else text
        finally:
            connection.close()

    return ask


@pytest.fixture
def infer(line: Line, service: Service, stable: str) -> Iterator[Callable[[str, Columns], Any]]:
    """A batch of options by Triton's client, all tensors binary, through the router."""
    address = urlsplit(line.gateway).netloc
    with triton.InferenceServerClient(address, network_timeout=60) as client:

        def infer(model: str, columns: Columns) -> Any:
            inputs = []
            for name, column in columns.items():
                tensor = triton.InferInput(name, [len(column)], "BYTES" if name == "option_type" else "FP64")
                tensor.set_data_from_numpy(column, binary_data=True)
                inputs.append(tensor)
            return client.infer(model, inputs, headers={"Host": service.host})

        yield infer


class TestInferenceServer:
    """One PINNService for all; the tests run in this order, and each leaves it as it found it."""

    TENSORFLOW = True

    def test_every_golden_option_is_priced_by_a_network_within_its_bound(self, ask: Ask) -> None:
        known = [_Known("european", golden.terms, golden.is_call, golden.answers[0]) for golden in GOLDEN_PRICES]
        known += [_Known("american", golden.terms, golden.is_call, golden.price) for golden in AMERICAN_GOLDEN_PRICES]
        status, listed = ask("/v1/price", {"options": [each.body() for each in known]})
        assert status == 200, listed
        for option, row in zip(known, listed["results"], strict=True):
            rounding = 1e-12 * option.strike
            assert row["method"] == "pinn", (option, row)
            assert row["model"].startswith(f"{option.style}/"), row
            assert abs(row["price"] - option.price) <= row["error_bound"] + rounding, (option, row)
            status, single = ask("/v1/price", option.body())
            assert (status, single["method"]) == (200, "pinn")
            assert abs(single["price"] - row["price"]) <= row["error_bound"] / 10 + rounding, (single, row)

    def test_random_european_options_agree_with_the_closed_form_within_their_bounds(self, ask: Ask) -> None:
        source = random.Random(4)
        options = [random_option(source) for _ in range(2000)]
        status, answer = ask("/v1/price", {"options": [option.body() for option in options]})
        assert status == 200
        for option, row in zip(options, answer["results"], strict=True):
            # Our own closed form is in floats too.
            assert abs(row["price"] - option.price()) <= row["error_bound"] + 1e-13 * (option.spot + option.strike)
        assert {row["method"] for row in answer["results"]} == {"pinn"}

    @pytest.mark.parametrize(
        ("option", "method"),
        [
            pytest.param(EUROPEAN_OUTSIDE, "closed_form", id="european"),
            pytest.param(AMERICAN_OUTSIDE, "integral_equation", id="american"),
        ],
    )
    def test_what_is_outside_the_trained_domain_says_so(self, option: dict[str, Any], method: str, ask: Ask) -> None:
        status, row = ask("/v1/price", option)
        assert (status, row["method"], row["reason"], row["model"]) == (200, method, "out_of_domain", None)

    def test_a_pod_beside_it_gets_the_same_price_by_its_service(
        self, ask: Ask, keeper: Inside, service: Service
    ) -> None:
        code = (
            "import sys, urllib.request as r\n"
            "print(r.urlopen(sys.argv[1], sys.stdin.buffer.read(), timeout=10).read().decode())"
        )
        url = f"http://{service.name}.{service.namespace}/v1/price"
        beside = json.loads(keeper.must("python3", "-c", code, url, stdin=json.dumps(PUT)))
        status, outside = ask("/v1/price", PUT)
        assert status == 200
        assert {**beside, "cached": True} == {**outside, "cached": True}

    def test_full_batches_of_both_styles_are_right_in_binary(
        self, ask: Ask, infer: Callable[[str, Columns], Any]
    ) -> None:
        wait_until("TensorFlow prices batches", lambda: _tensorflow(ask)["state"] == "tensorflow", seconds=180)
        columns = _columns(ROWS)
        european = infer("european", columns)
        exact = closed_form.price(_batch(columns))
        off = np.abs(european.as_numpy("price") - exact.price) - european.as_numpy("error_bound") - exact.error_bound
        assert off.max() <= 0, f"{off.max()} beyond the bound"
        assert set(european.as_numpy("method").tolist()) == {b"pinn"}

        golden = american_golden_batch()
        rows = np.arange(ROWS) % len(golden)
        tiled: Columns = {name: np.ascontiguousarray(getattr(golden, name)[rows]) for name in NAMES}
        tiled["option_type"] = np.where(golden.is_call[rows], b"call", b"put").astype(object)
        american = infer("american", tiled)
        prices = np.array([each.price for each in AMERICAN_GOLDEN_PRICES])[rows]
        assert np.all(np.abs(american.as_numpy("price") - prices) <= american.as_numpy("error_bound") + 1e-9)
        assert set(american.as_numpy("method").tolist()) == {b"pinn"}
        assert not np.isnan(american.as_numpy("exercise_boundary")).all()

    def test_every_page_says_what_it_is_for(self, ask: Ask, stable: str) -> None:
        assert ask("/health") == (200, {"status": "healthy"})
        status, detailed = ask("/health/detailed")
        assert (status, detailed["status"]) == (200, "healthy"), detailed
        components = detailed["components"]
        assert components["pinn_cache"].keys() >= {"status", "cache_size", "hit_rate"}
        assert components["pinn_model"].keys() >= {"status", "prediction_test", "latency_ms"}
        assert components["tensorflow"].keys() >= {"status", "version", "gpu_available"}
        assert ask("/health/pinn")[1]["overall_status"] == "healthy"
        assert ask("/health/pinn/quick")[1]["ready"] is True
        assert "cache" in ask("/health/pinn/metrics")[1]
        readiness = ask("/health/deployment/readiness")
        assert (readiness[0], readiness[1]["ready"], readiness[1]["reason"]) == (200, True, "Ready")
        assert {"hits", "misses", "size"} <= ask("/cache/stats")[1].keys()
        for path in ("/cache/reset", "/health/pinn/warmup"):  # for those who can read the pod
            refused = ask(path, method="POST")
            assert (refused[0], refused[1]["reason"]) == (401, "TokenRequired")
        assert ask("/openapi.json")[1]["openapi"].startswith("3.")
        assert "<html" in ask("/docs")[1]
        assert ask("/v2/health/ready")[0] == 200

    def test_metrics_have_the_names_that_are_promised_and_prometheus_has_them(
        self, ask: Ask, line: Line, service: Service
    ) -> None:
        ask("/v1/price", PUT)
        status, text = ask("/metrics")
        assert status == 200
        names = {re.split(r"[{ ]", each, maxsplit=1)[0] for each in text.splitlines() if not each.startswith("#")}
        assert names >= set(METRICS), set(METRICS) - names
        expression = f'sum(pinn_inference_requests_total{{namespace="{service.namespace}",status="200"}})'
        wait_until("Prometheus has counted", lambda: line.prometheus.value(expression), seconds=20)

    def test_reports_come_from_the_market_data_on_the_volume_and_follow_it(self, ask: Ask, keeper: Inside) -> None:
        status, report = ask("/api/investor-report?symbols=ACME,NOIR&user_id=desk-7")
        assert (status, report["sample_data"], report["user_id"]) == (200, False, "desk-7"), report
        assert [each["symbol"] for each in report["reports"]] == ["ACME", "NOIR"]
        assert report["market_data"]["sha256"] == hashlib.sha256(MARKET.encode()).hexdigest()
        call = report["reports"][0]["horizons"][1]["options"][1]["call"]
        status, quoted = ask("/v1/price", {**ACME, "strike": 100, "maturity": 1})
        assert call["price"] == pytest.approx(quoted["price"], rel=1e-9)
        assert call["american"]["early_exercise_premium"] >= 0
        status, forecast = ask("/api/forecast/all?symbols=ACME")
        assert (status, len(forecast["forecasts"])) == (200, 1)
        status, unknown = ask("/api/investor-report?symbols=ACME,NOPE")
        assert (status, unknown["reason"]) == (404, "UnknownSymbols")
        assert [fault["value"] for fault in unknown["faults"]] == ["NOPE"]

        def spot_and_staleness() -> tuple[float, bool]:
            answer = ask("/api/forecast/all?symbols=ACME")[1]
            return answer["forecasts"][0]["spot"], answer["market_data"]["stale"]

        path = f"{MOUNT}/market.yaml"
        keeper.replace(path, MARKET.replace("spot: 100", "spot: 107"))
        wait_until("the new file", lambda: spot_and_staleness() == (107, False), seconds=20)
        keeper.replace(path, MARKET.replace("spot: 100", "spot: minus"))
        wait_until("the bad file is refused", lambda: spot_and_staleness() == (107, True), seconds=20)
        keeper.replace(path, MARKET)
        wait_until("the first file again", lambda: spot_and_staleness() == (100, False), seconds=20)

    def test_the_batch_process_is_killed_and_no_request_fails(
        self, ask: Ask, infer: Callable[[str, Columns], Any], pod: Inside, service: Service, stable: str,
        traffic: Traffic, account: Account,
    ) -> None:  # fmt: skip
        before, restarts = service.untouched(stable), _restarts(ask)
        first = pod.batch_process()
        with _batches(infer) as right:
            wait_until("batches are priced", lambda: len(right) >= 3, seconds=30)
            pod.must("sh", "-c", f"kill -9 {first}")
            killed_at = len(right)
            wait_until("batches after it", lambda: len(right) >= killed_at + 5, seconds=30)
            wait_until("it prices again", lambda: _tensorflow(ask)["state"] in ("loading", "tensorflow"), seconds=60)
        account(f"batch process killed, {len(right)} batches beside", traffic.summary())
        assert all(right)
        assert traffic.summary().failed == 0
        assert pod.batch_process() != first
        assert _restarts(ask) == restarts + 1
        assert service.untouched(stable) == before, "the pod was restarted"

    def test_check_says_by_its_exit_code_how_a_server_is(self, pod: Inside, keeper: Inside, service: Service) -> None:
        assert pod.run("pinn-inference", "check").code == 0
        assert pod.run("pinn-inference", "check", "--ready").code == 0
        by_name = f"{service.name}.{service.namespace}:80"
        words = ("pinn-inference", "check", "--host", by_name, "--ready")
        wait_until("ready by its name", lambda: keeper.run(*words).code == 0, seconds=30)
        assert keeper.run("pinn-inference", "check").code == 1, "nothing serves in that pod"

    @pytest.mark.parametrize(
        ("environment", "reason"),
        [
            pytest.param(
                {"PINN_AMERICAN_MODEL_DIR": f"{MOUNT}/torn"}, "ModelFormatInvalid", id="american-weights-that-are-torn"
            ),
            pytest.param(
                {"PINN_AMERICAN_MODEL_SHA256": "0" * 64}, "ModelChecksumMismatch", id="american-weights-of-another-sum"
            ),
        ],
    )
    def test_a_revision_with_unusable_american_weights_is_never_ready_and_rolled_back_for_that_reason(
        self, environment: dict[str, str], reason: str, line: Line, service: Service, stable: str, keeper: Inside,
        traffic: Traffic, account: Account,
    ) -> None:  # fmt: skip
        _tear(keeper)
        before, rejected = service.untouched(stable), revision_of(service.status(), "canary")
        with service.watched() as chronicle:
            service.apply(image=line.images.inference, env={**ENVIRONMENT, **environment}, more=SPEC)
            bad = service.wait("trying it", lambda status: _other(status, rejected))
            record = expect.rolled_back(service, stable=stable, bad=bad, reasons={reason}, untouched=before)
        expect.never_above(chronicle, 0)
        assert "sha256" in record["message"] or "weights" in record["message"], record["message"]
        account(reason, traffic.summary())
        assert traffic.summary().failed == 0

    def test_bad_requests_get_no_5xx_and_condemn_no_canary(
        self, line: Line, service: Service, stable: str, traffic: Traffic, account: Account
    ) -> None:
        # With these limits the canary refuses every one of them.
        limits = {"PINN_MAX_BODY_BYTES": str(MAX_BODY_BYTES), "PINN_MAX_BATCH": str(MAX_BATCH)}
        with _asking_badly(line.gateway, service.host) as outcomes:
            service.apply(
                image=line.images.inference, env={**ENVIRONMENT, **limits}, more=SPEC,
                steps=((50, 6), (100, 2)),
            )  # fmt: skip
            promoted = service.wait_stable(other_than=stable)
            wait_until("all were sent", lambda: len(outcomes) >= BAD_REQUESTS, seconds=60)
        account(f"{len(outcomes)} bad requests beside", traffic.summary())
        assert [outcome for outcome in outcomes if outcome] == []
        assert traffic.summary().failed == 0
        assert service.untouched(promoted)

    def test_a_pod_that_ends_says_that_it_drains_and_its_deployment_rolls_without_one_failed_request(
        self, service: Service, traffic: Traffic, account: Account
    ) -> None:
        serving = revision_of(service.status(), "stable")
        old = service.pods(serving)[0]
        name, address = old["metadata"]["name"], old["status"]["podIP"]
        kube, namespace = service.kube, service.namespace
        kube.kubectl("rollout", "restart", f"deployment/{service.name}-{serving}", "-n", namespace)

        def draining() -> bool:
            status, answer = _get(address, "/health/deployment/readiness")
            return (status, answer["reason"]) == (503, "Draining")

        wait_until("the old pod drains", draining, seconds=90, every=0.1)
        assert _get(address, "/health")[0] == 200
        kube.kubectl("wait", "--for=delete", f"pod/{name}", "-n", namespace, "--timeout=60s", timeout=70)
        kube.kubectl(
            "rollout", "status", f"deployment/{service.name}-{serving}", "-n", namespace, "--timeout=60s", timeout=70
        )
        ended = next(pod for pod in service.pods(serving) if is_ready(pod))
        assert ended["metadata"]["name"] != name
        assert label_of(ended, REVISION_LABEL) == serving
        account("its Deployment is rolled", traffic.summary())
        assert traffic.summary().failed == 0


# --- the pod ----------------------------------------------------------------------------------------------------------


def _tensorflow(ask: Ask) -> Any:
    """What the server says of its batch process."""
    return ask("/health/pinn")[1]["tensorflow"].get("batch_process", {"state": "none"})


def _restarts(ask: Ask) -> float:
    text = ask("/metrics")[1]
    return float(re.search(r"^pinn_batch_process_restarts_total (\S+)$", text, re.MULTILINE)[1])  # type: ignore[index]


def _get(address: str, path: str) -> tuple[int, Any]:
    connection = http.client.HTTPConnection(address, 8000, timeout=5)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())
    finally:
        connection.close()


def _tear(keeper: Inside) -> None:
    """Half of the American weights, and a record that has their checksum."""
    code = (
        "import hashlib, json, pathlib, sys\n"
        "old, new = map(pathlib.Path, sys.argv[1:])\n"
        "new.mkdir(exist_ok=True)\n"
        "weights = (old / 'weights.npz').read_bytes()\n"
        "torn = weights[:len(weights) // 2]\n"
        "(new / 'weights.npz').write_bytes(torn)\n"
        "record = json.loads((old / 'model.json').read_text())\n"
        "record['sha256'] = hashlib.sha256(torn).hexdigest()\n"
        "(new / 'model.json').write_text(json.dumps(record))\n"
    )
    keeper.must("python3", "-c", code, f"{MOUNT}/american", f"{MOUNT}/torn")


def _other(status: dict[str, Any], rejected: str) -> str:
    revision = revision_of(status, "canary")
    return revision if revision != rejected else ""


# --- batches ----------------------------------------------------------------------------------------------------------


def _columns(rows: int) -> Columns:
    columns: Columns = {**random_columns(rows, seed=4)}
    columns["option_type"] = np.random.default_rng(4).choice([b"call", b"put"], rows).astype(object)
    return columns


def _batch(columns: Columns) -> OptionBatch:
    return OptionBatch(**{name: columns[name] for name in NAMES}, is_call=columns["option_type"] == b"call")


@contextmanager
def _batches(infer: Callable[[str, Columns], Any]) -> Iterator[list[bool]]:
    """Prices batches one after the other; whether each was right."""
    columns = _columns(10_000)
    exact = closed_form.price(_batch(columns)).price
    right: list[bool] = []
    stop = threading.Event()

    def work() -> None:
        while not stop.is_set():
            try:
                prices = infer("european", columns).as_numpy("price")
            except Exception:  # noqa: BLE001 - whatever it was, the batch failed
                right.append(False)
            else:
                right.append(bool(np.abs(prices - exact).max() <= 1e-4))

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        yield right
    finally:
        stop.set()
        thread.join(70)


# --- bad requests -----------------------------------------------------------------------------------------------------


@contextmanager
def _asking_badly(gateway: str, host: str) -> Iterator[list[str]]:
    """Sends BAD_REQUESTS and more until the end; of each the complaint, empty if it was answered as it should be."""
    outcomes: list[str] = []
    stop = threading.Event()

    def work() -> None:
        seed = 0
        while not stop.is_set():
            for request in bad_requests(seed, BAD_REQUESTS):
                # Of what is no HTTP the router says itself what it thinks, and some paths it mends.
                if request.raw is None and request.kind != "path" and not stop.is_set():
                    outcomes.append(_complaint(gateway, host, request))
                    stop.wait(0.01)
            seed += 1

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        yield outcomes
    finally:
        stop.set()
        thread.join(40)


def _complaint(gateway: str, host: str, request: BadRequest) -> str:
    parts = urlsplit(gateway)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=20)
    try:
        connection.putrequest(request.method, request.path, skip_host=True, skip_accept_encoding=True)
        for name, value in {"Host": host, "Content-Length": str(len(request.body)), **request.headers}.items():
            connection.putheader(name, value)
        connection.endheaders(request.body)
        answer = connection.getresponse()
        status, text = answer.status, answer.read(300)
    except (OSError, http.client.HTTPException) as error:
        return "" if request.may_close else f"{request.kind} {request.method} {request.path}: {error!r}"
    finally:
        connection.close()
    # The router mends or refuses some of it by itself, so any 4xx will do; and what is bad only for its size is good
    # for the first revision, whose limits are wider.
    expected = range(200, 500) if 413 in request.statuses else range(400, 500)
    return "" if status in expected else f"{request.kind} {request.method} {request.path}: {status} {text!r}"
