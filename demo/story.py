"""What the demo shows: a first revision, a good one, one with wrong prices, and one that turns bad."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from demo.view import GREEN, RED, Screen, View
from lab.kube import Manifest, program
from lab.line import Line
from lab.service import Service, revision_of
from lab.traffic import Traffic, now

NAMESPACE = "pinn-demo"
NAME = "eu-options"
HOST = "pricing.example.com"
RATE = 40.0
STEPS = ((10, 12), (50, 12), (100, 12))
GATES: list[Manifest] = [
    {"name": "error-rate", "abort": {"above": "0.05", "forSeconds": 0, "consecutive": 2}, "minSamples": 40},
    {"name": "latency-p95", "abort": {"above": "1", "forSeconds": 0, "consecutive": 3}, "minSamples": 40},
    {"name": "latency-p99", "advance": {"below": "2"}, "minSamples": 40},
]
"""The Standard profile with the patience of seconds: a real team leaves this out."""


@dataclass(frozen=True, slots=True)
class Demo:
    """One run of the story on a line that is up."""

    line: Line
    screen: Screen

    def run(self) -> None:
        """Tell it from the beginning; what an earlier run left is used as it is."""
        service = Service(self.line.kube, NAME, NAMESPACE, host=HOST)
        self.line.kube.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})
        release = _last_release(service) or 1
        stable = self._serving(service, release)
        with Traffic(self.line.gateway, host=HOST, rate=RATE, seconds=900) as traffic:
            view = View(self.screen, service, traffic)
            view.skip_events()
            good = self._good(service, view, traffic, stable, release + 1)
            self._wrong(service, view, traffic, good, release + 2)
            self._bad(service, view, traffic, good, release + 3)
        self._farewell()

    def _serving(self, service: Service, release: int) -> str:
        """The revision that serves, the first one if there was none."""
        stable = revision_of(service.status(), "stable")
        if stable and service.status().get("phase") in ("Stable", "RolledBack"):
            self.screen.say(f"revision {stable} serves already, from an earlier run")
            return stable
        self.screen.say(f"release {release}, the first, is applied: nothing serves yet, so it needs no rollout")
        self._apply(service, image=self.line.images.inference, release=release)
        stable = service.wait_stable(seconds=180)
        self.screen.say(f"revision {stable} serves")
        return stable

    def _good(self, service: Service, view: View, traffic: Traffic, stable: str, release: int) -> str:
        self.screen.title(f"a good revision: release {release}, 10 % → 50 % → 100 %, {RATE:.0f} requests per second")
        began = now()
        self._apply(service, image=self.line.images.inference, release=release)
        status = view.follow(
            lambda status: status.get("phase") == "Stable" and revision_of(status, "stable") != stable, seconds=300
        )
        good = revision_of(status, "stable")
        self.screen.say(f"promoted: {good} serves alone, and its pods were never restarted", colour=GREEN)
        self.screen.say(f"the clients saw: {traffic.summary(began)}")
        return good

    def _wrong(self, service: Service, view: View, traffic: Traffic, good: str, release: int) -> None:
        self.screen.title(
            f"a wrong model: release {release}, a derived image whose puts of less than a week cost 1 % too much"
        )
        began = now()
        self._apply(service, image=self.line.images.faulty, release=release, env={"FAULT": "wrong"})
        status = view.follow(lambda status: status.get("phase") == "RolledBack", seconds=300)
        self._rolled_back(status, traffic, began, good)

    def _bad(self, service: Service, view: View, traffic: Traffic, good: str, release: int) -> None:
        self.screen.title(
            f"a bad revision: release {release}, which answers three of ten requests with 500 from 10 % on"
        )
        rejected = revision_of(service.status(), "canary")
        self._apply(service, image=self.line.images.faulty, release=release)
        status = view.follow(
            lambda status: (
                revision_of(status, "canary") != rejected and (status.get("rollout") or {}).get("weight") == 10
            ),
            seconds=300,
        )
        began = service.turn_bad(revision_of(status, "canary"), "errors", share=0.3)
        status = view.follow(lambda status: status.get("phase") == "RolledBack", seconds=300)
        self._rolled_back(status, traffic, began, good)
        self._incident(status["lastRollback"])

    def _rolled_back(self, status: Manifest, traffic: Traffic, began: float, good: str) -> None:
        record: Manifest = status["lastRollback"]
        self.screen.say(f"rolled back by itself: {record['reason']}: {record['message']}", colour=RED)
        self.screen.say(f"the clients saw: {traffic.summary(began)}")
        assert revision_of(status, "stable") == good

    def _incident(self, record: Manifest) -> None:
        self.screen.title("the incident, as status.lastRollback keeps it")
        rows = ("revision", "image", "time", "reason", "message", "gate", "value", "limit", "weight", "weightZeroTime",
                "capacityRemovedTime")  # fmt: skip
        for row in rows:
            if row in record:
                self.screen.say(f"  {row:20} {record[row]}")
        self.screen.say("  timeline")
        for entry in record.get("timeline", []):
            message = f"  {entry['message']}" if entry.get("message") else ""
            self.screen.say(f"    {entry['time']}  {entry['weight']:3} %  {entry['reason']}{message}")
        self.screen.say("  pods")
        for line in record.get("pods", []):
            self.screen.say(f"    {line}")

    def _apply(self, service: Service, *, image: str, release: int, env: dict[str, str] | None = None) -> None:
        service.apply(
            image=image,
            replicas=2,
            steps=STEPS,
            env={"RELEASE": str(release), **(env or {})},
            analysis={"intervalSeconds": 2, "abortIntervalSeconds": 1, "gates": GATES},
            rollback={"scaleDownDelaySeconds": 8, "drainSeconds": 3},
            verification={},
        )

    def _farewell(self) -> None:
        kube = self.line.kube
        self.screen.title("what there is now")
        self.screen.say(f"$ kubectl get pinnservices -n {NAMESPACE}")
        self.screen.say(kube.kubectl("get", "pinnservices", "-n", NAMESPACE).rstrip())
        request = json.dumps({"spot": 100, "strike": 95, "maturity": 0.5, "rate": 0.03, "volatility": 0.22})
        self.screen.say(f"""
Everything stays up. Look around:
  export KUBECONFIG={_short(kube.kubeconfig)} PATH="$PATH:{Path(program("kubectl")).parent}"
  kubectl get pinnservices -n {NAMESPACE} --watch
  kubectl get pinnservice {NAME} -n {NAMESPACE} -o yaml
  kubectl get events -n {NAMESPACE} --field-selector involvedObject.kind=PINNService
  kubectl edit pinnservice {NAME} -n {NAMESPACE}       # a change of image, env or resources is a new revision
  curl -s -H 'Host: {HOST}' -d '{request}' {self.line.gateway}/v1/price
  .venv/bin/python -m lab.traffic --url {self.line.gateway} --host {HOST} --rate 40 --seconds 60
  Prometheus: {self.line.prometheus.address}
Take it down:
  make demo-down""")


def _last_release(service: Service) -> int:
    """The release that the resource names; 0 if there is none."""
    env = service.read().get("spec", {}).get("env", [])
    return next((int(item["value"]) for item in env if item["name"] == "RELEASE"), 0)


def _short(path: Path) -> str:
    home = str(Path.home())
    return f"~{str(path).removeprefix(home)}" if str(path).startswith(home + "/") else str(path)
