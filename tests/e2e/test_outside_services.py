"""Services that a desk runs itself: a webhook that judges a revision, and a Prometheus that wants a login."""

from __future__ import annotations

import http.client
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lab.kube import Manifest, is_ready, wait_until
from lab.line import Line, install_chart
from lab.service import Service, revision_of
from lab.traffic import Summary, Traffic
from tests.support import expect

Account = Callable[[str, Summary], None]
PORT = 8080
KEY, TOKEN = "a key of the desk", "a token of the desk"
STEPS = ((10, 6), (100, 4))


class Desk:
    """The desk's pod, behind a Service of its name."""

    def __init__(self, line: Line, service: Service) -> None:
        self._line, self._service = line, service
        self.address = f"http://desk.{service.namespace}.svc:{PORT}"

    def start(self) -> None:
        """Secrets, script, pod and Service; the operator may read the Secrets from then on."""
        labels, namespace = {"app": "desk"}, self._service.namespace
        script = (Path(__file__).parent / "desk.py").read_text()
        self._apply("v1", "ConfigMap", "desk", data={"desk.py": script})
        self.secret(key=KEY, token=TOKEN)
        environment = {"HMAC_KEY": KEY, "TOKEN": TOKEN, "PROMETHEUS": self._line.prometheus_in_pods}
        container: Manifest = {
            "name": "desk", "image": self._line.images.inference, "imagePullPolicy": "IfNotPresent",
            "command": ["python", "/desk/desk.py"],
            "env": [{"name": name, "value": value} for name, value in environment.items()],
            "readinessProbe": {"httpGet": {"path": "/seen", "port": PORT}, "periodSeconds": 1},
            "volumeMounts": [{"name": "desk", "mountPath": "/desk"}],
        }  # fmt: skip
        volumes = [{"name": "desk", "configMap": {"name": "desk"}}]
        self._apply("v1", "Pod", "desk", labels=labels, spec={"containers": [container], "volumes": volumes})
        self._apply("v1", "Service", "desk", spec={"selector": labels, "ports": [{"port": PORT}]})
        # This writes a Role and nothing else: the operator is not started anew, so others may run beside.
        secrets = [{"namespace": namespace, "name": "desk"}]
        install_chart(
            self._line.kube, self._line.images, prometheus=self._line.prometheus_in_pods, metricsSecrets=secrets
        )
        wait_until("the desk's pod", lambda: is_ready(self._pod()), seconds=60)

    def secret(self, **values: str) -> None:
        """What the operator is told."""
        self._apply("v1", "Secret", "desk", stringData=values)

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        """From this machine, not through the operator."""
        connection = http.client.HTTPConnection(self._pod()["status"]["podIP"], PORT, timeout=5)
        connection.request(method, path, body=json.dumps(body))
        answer: Any = json.loads(connection.getresponse().read())
        connection.close()
        return answer

    def _pod(self) -> Manifest:
        return self._service.kube.get("pods", "desk", self._service.namespace) or {}

    def _apply(self, version: str, kind: str, name: str, labels: Manifest | None = None, **fields: Any) -> None:
        metadata = {"name": name, "namespace": self._service.namespace, "labels": labels or {}}
        self._service.kube.apply({"apiVersion": version, "kind": kind, "metadata": metadata, **fields})


@pytest.fixture(scope="class")
def desk(line: Line, service: Service) -> Iterator[Desk]:
    """The desk's services, running."""
    desk = Desk(line, service)
    desk.start()
    yield desk
    install_chart(line.kube, line.images, prometheus=line.prometheus_in_pods)


class TestOutsideServices:
    def test_a_signed_webhook_lets_a_revision_go_on_and_rolls_another_back(
        self, line: Line, service: Service, stable: str, desk: Desk, traffic: Traffic, account: Account
    ) -> None:
        gate = {"name": "desk-checks", "webhook": {"url": f"{desk.address}/canary", "secretRef": SECRET}}
        analysis = {"gates": [gate]}
        service.apply(image=line.images.inference, env={"RELEASE": "2"}, steps=STEPS, analysis=analysis)
        promoted = service.wait_stable(other_than=stable)
        before = service.untouched(promoted)
        service.apply(image=line.images.inference, env={"RELEASE": "3"}, steps=((10, 600), (100, 4)), analysis=analysis)
        service.wait_weight(10)
        service.wait("showing the desk's words", lambda status: "all desks agree" in _of(status, "desk-checks"))
        bad = revision_of(service.status(), "canary")
        desk.ask("PUT", "/verdict", {"verdict": "fail", "message": "the P&L of the rates desk is off by 2 %"})
        record = service.wait_phase("RolledBack", seconds=30)["lastRollback"]
        account(f"{record['message']}; the desk saw {desk.ask('GET', '/seen')}", traffic.summary())
        expect.rolled_back(service, stable=promoted, bad=bad, reasons={record["reason"]}, untouched=before)
        assert record["gate"] == "desk-checks"
        assert "the P&L of the rates desk is off by 2 %" in record["message"]
        assert "unsigned" not in desk.ask("GET", "/seen")
        assert traffic.summary().failed == 0

    def test_a_prometheus_behind_a_token_is_read_and_a_wrong_token_is_said(
        self, line: Line, service: Service, desk: Desk, traffic: Traffic, account: Account
    ) -> None:
        serving = revision_of(service.status(), "stable")
        login = {"address": desk.address, "bearerTokenSecretRef": {**SECRET, "key": "token"}}
        desk.secret(key=KEY, token="an old token")
        service.apply(
            image=line.images.inference, env={"RELEASE": "4"}, steps=STEPS,
            analysis={"prometheus": login, "sources": ["Prometheus"]},
        )  # fmt: skip
        service.wait_weight(10)
        service.wait("saying so", lambda _: service.condition("MetricsAvailable") == "False", seconds=30)
        said = next(it for it in service.status()["conditions"] if it["type"] == "MetricsAvailable")
        assert "401" in said["message"], said
        assert service.status()["rollout"]["weight"] == 10
        desk.secret(key=KEY, token=TOKEN)
        # A Secret is read again within two minutes.
        service.wait_stable(other_than=serving, seconds=200)
        account(f"{said['message']}; the desk saw {desk.ask('GET', '/seen')}", traffic.summary())
        assert traffic.summary().failed == 0


SECRET = {"name": "desk", "key": "key"}


def _of(status: Manifest, gate: str) -> str:
    gates = (status.get("rollout") or {}).get("gates", [])
    return next((str(item.get("message", "")) for item in gates if item["name"] == gate), "")
