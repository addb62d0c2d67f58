"""A resource, its operators and a tiny cluster, cheap enough for a million histories.

The core is the real one: the spec and the status are read from JSON in each pass, objects are those that the operator
wrote, and pods are what a kubelet reports. Time goes in leaps; whoever has traffic answers evenly in each. What the
operator is spared in `tests.story.world` it meets here: it dies between any two writes, writes are refused, another
operator works at the same moment, and what it reads of its objects may be old.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any
from unittest.mock import patch

from pinn_operator.core import decide as deciding
from pinn_operator.core.api import Resource, parse_resource
from pinn_operator.core.decision import Action, Decision, Delete
from pinn_operator.core.gates.questions import due
from pinn_operator.core.objects.desired import Desired
from pinn_operator.core.objects.plan import plan
from pinn_operator.core.observed import Observed, RevisionRecord, Route, Termination
from pinn_operator.core.rollout.sight import UNSILENT_SECONDS
from pinn_operator.core.routers.http_route import parse_route
from pinn_operator.core.samples import (
    FAMILY_LABEL,
    AnyAnswer,
    PodQuestion,
    PricePod,
    PriceQuestion,
    Query,
    Question,
    Series,
    SourceError,
)
from pinn_operator.core.situation import situation_of
from pinn_operator.core.status.values import Status
from pinn_operator.core.telling.facts import Facts
from pinn_operator.core.telling.report import report
from pinn_operator.core.verification.questions import due_prices
from pinn_operator.core.wanted.spec import RouterKind
from pinn_operator.kube.parsing import parse_record, parse_selector, parse_workload
from pinn_operator.pods.history import CLOCK_SECONDS
from tests.story.invariants import DRAIN, Invariants, Made, as_written, is_valid, spec_in_force, weight_of
from tests.story.kubelet import IMAGE_ABSENT, NO_KEY, NO_ROOM, QUOTA, REGISTRY_AWAY, StoryPod
from tests.story.prices import Oracle, Pricing
from tests.story.prometheus import EPOCH, REQUESTS, START
from tests.support.prices import off_by, same

NAME = "eu-options"
RATE = 20.0
"""Requests a second."""
LAG_SECONDS = 5.0
"""A pass lists what it sees: an API server's cache lags by no more."""
STARTUP = 2.0
"""Seconds until a pod is ready."""
READS = 60
"""Reads of a pod that are kept."""
LATENCY = "pinn_inference_latency_seconds_bucket"
SLOW_SECONDS = 1.0
_LABELS = {"method": "POST", "handler": "/v1/price", FAMILY_LABEL: REQUESTS}
Read = tuple[float, float, float, float]
"""A moment, and good, bad and slow answers by then: a slow one is good or bad as well."""
"""Unix seconds by the operator's clock; good and bad answers."""


@dataclass(frozen=True)
class Disturbance:
    """What the next pass meets."""

    kind: str
    after: int = 0
    """So many writes are done before."""


class Machine(Invariants):
    """One PINNService. It is copied before each history: whatever is shared is never changed in place."""

    def __init__(self, spec: dict[str, Any]) -> None:
        super().__init__()
        self.spec, self._read = spec, _parsed(json.dumps(spec))
        self.generation, self.version, self.seconds, self.clock_offset = 1, 1, 0.0, 0.0
        self.order = ""
        self.state = Status()
        """As it was read from JSON after its commit."""
        self.objects: dict[tuple[str, str], dict[str, Any]] = {}
        self.pods: list[StoryPod] = []
        self.counted: dict[str, tuple[float, float, float]] = {}
        """Good, bad and slow answers by pod, those that are gone included."""
        self.reads: dict[str, tuple[Read, ...]] = {}
        self.ills: dict[str, str] = {}
        """What is wrong with an image."""
        self.errors: dict[str, float] = {}
        """The share of bad answers of an image."""
        self.slow: dict[str, float] = {}
        """The share of answers of an image that take a second."""
        self.failed_alone = False
        """The canary gave bad answers while it had all traffic, so that no other revision could be compared with it."""
        self.drift: float | SourceError | None = 0.1
        """What the query of the team's own gate answers."""
        self.wrong: set[str] = set()
        """Images whose model prices wrong."""
        self.prices = "answered"
        """Or the pods are `away`, refuse their connections; or `late`: the answer is not there yet."""
        self.asked = ""
        """The question for prices that is on its way."""
        self.rate, self.readable = RATE, True
        self.blind_since = float("-inf")
        self.route_accepted = self.route_kind_served = self.route_obeyed = True
        self.in_force: dict[str, int] = {}
        """The weights by which the router divides requests."""
        self.route_generation = self.accepted_generation = 0
        self.quota = 1000
        self.disturbances: tuple[Disturbance, ...] = ()
        self.hurried = False
        """The next pass is made at once."""
        self.passes_missed = 0
        self.seen_before: Observed | None = None
        self.seen_at = 0.0
        self.tampered = False
        """Somebody else wrote or deleted an object since `seen_before`."""
        self.edited_at = float("-inf")
        """When somebody last wrote other weights into the route."""
        self.late_writes = False
        """Another operator's writes came after those of a newer status."""
        self.facts: Facts | None = None
        self.made = 0
        self._serial = 0
        self._records: dict[str, tuple[dict[str, Any], RevisionRecord]] = {}
        self._planned: tuple[tuple[Any, ...], tuple[Action, ...]] = ((), ())

    def copied(self) -> Machine:
        """A machine of its own in the same state."""
        other = copy.copy(self)
        other.pods = [copy.copy(pod) for pod in self.pods]
        for name in ("objects", "counted", "reads", "ills", "errors", "slow", "in_force", "rejected_at", "_records"):
            setattr(other, name, dict(getattr(self, name)))
        for name in ("ever_ill", "orders", "wrong"):
            setattr(other, name, set(getattr(self, name)))
        return other

    @property
    def now(self) -> datetime:
        """By the operator's clock."""
        return START + timedelta(seconds=self.seconds + self.clock_offset)

    def __str__(self) -> str:
        state = self.state
        return (
            f"t={self.seconds}: {state.phase} {state.step} {state.weight} {state.verdict} {state.reason} {state.next}"
        )

    # --- a pass -------------------------------------------------------------------------------------------------------

    def pass_by(self, seconds: float = 1.0) -> None:
        """Time passes, and then the operator makes a pass."""
        if self.hurried:
            self.hurried, seconds = False, 0.0
        self.live(seconds)
        if self.passes_missed > 0:
            self.passes_missed -= 1
            return
        disturbances, self.disturbances = self.disturbances, ()
        with ExitStack() as stack:
            stack.enter_context(patch.object(deciding, "report", self._reported))
            stack.enter_context(patch.object(deciding, "plan", self._plan))
            self._pass({item.kind: item.after for item in disturbances})

    def _pass(self, met: Mapping[str, int]) -> None:
        fresh, memory = self.observe(), self.memory()
        stale = "stale" in met and self.seen_before is not None and self.seconds - self.seen_at <= LAG_SECONDS
        observed = self.seen_before if stale and self.seen_before is not None else fresh
        self.read_is_old = observed is not fresh
        decision, read = self._decided(observed, checked=not (stale and self.tampered))
        self.seen_before, self.seen_at, self.tampered = fresh, self.seconds, False
        if "dies before the commit" in met:
            self.remember(memory)
            self._forget()
            return
        if "another commits first" in met:
            version = self.version
            self.remember(memory)
            self._pass({})
            if self.version != version:
                # A conflict: everything is dropped, and the pass is made again.
                self._pass({})
                return
        self._commit(decision, read)
        refused = False
        for done, action in enumerate(decision.actions):
            if met.get("another in between") == done:
                version = self.version
                self._pass({})
                self.late_writes = self.version != version or self.late_writes
            if met.get("dies") == done:
                self._forget()
                return
            if met.get("is refused") == done:
                refused = True
                break
            self._act(action)
        if not (stale or refused or self.late_writes):
            self._the_live_weight_is_the_wanted_one()
        self.late_writes = False

    def _decided(self, observed: Observed, *, checked: bool) -> tuple[Decision, Status]:
        """What is decided, and its status as it is read again."""
        resource = self._resource()
        situation = situation_of(resource, observed)
        samples = self._answers((*due(situation, self.now), *due_prices(situation, self.now)))
        decision = deciding.decide_in(situation, samples, self.now)
        facts, self.made = self.facts, self.made + 1
        again, read = None, self.state
        if decision.status != self.state:
            written = as_written(resource, decision.status)
            again, read = deciding.decide(written, observed, samples, self.now), written.status
            self._validated(decision.status)
        spec = spec_in_force(resource, observed)
        if spec is None:
            assert not any(record.spec for record in observed.records.values()), "an invalid spec disarmed the gates"
        elif checked:
            self.check(Made(NAME, self.now, resource, observed, samples, decision, again, facts, spec))
        return decision, read

    def _reported(self, facts: Facts) -> Status:
        self.facts = facts
        return report(facts)

    def _plan(self, resource: Resource, desired: Desired, observed: Observed) -> tuple[Action, ...]:
        """`plan` is pure and is half of a pass: its answer is kept until something is different."""
        asked = (id(resource.spec), desired, id(observed.objects), observed.route_kind_served)
        if self._planned[0] != asked:
            self._planned = (asked, plan(resource, desired, observed))
        return self._planned[1]

    def _validated(self, status: Status) -> None:
        """The whole schema takes milliseconds: once for each kind of status."""
        kind = (
            status.phase, status.rollout is None, status.canary is None, status.rejected is None,
            tuple((item.type, item.status, item.reason) for item in status.conditions),
        )  # fmt: skip
        if kind not in _VALID:
            is_valid(status)
            _VALID.add(kind)

    def _resource(self) -> Resource:
        return replace(
            self._read,
            generation=self.generation,
            resource_version=str(self.version),
            status=self.state,
            retry=self.order,
        )

    def _commit(self, decision: Decision, read: Status) -> None:
        if read == self.state:
            return
        orders = [event for event in decision.events if event.reason == "Retried"]
        if orders and not self.status_was_lost:
            assert self.order not in self.orders, f"order {self.order} was executed twice"
            self.orders.add(self.order)
        self.state = read
        self.version += 1

    def _act(self, action: Action) -> None:
        if isinstance(action, Delete):
            self.remove(action.kind, action.name)
        else:
            self.write(dict(action.manifest))

    def _the_live_weight_is_the_wanted_one(self) -> None:
        """A weight below is repaired, one above is reverted."""
        spec = self.facts.spec if self.facts is not None else None
        if spec is None or spec.traffic.router is not RouterKind.HTTP_ROUTE:
            return
        if self.state.stable is None or not self.route_kind_served:
            return
        weights = self.live_weights()
        assert weights, "the route is absent"
        assert weights[f"{NAME}-canary"] == weight_of(self.state), "a foreign weight was left"

    def _forget(self) -> None:
        """The process died: what it had read of pods, and was asking, is gone with it."""
        self.reads, self.asked = {}, ""

    # --- what is asked ------------------------------------------------------------------------------------------------

    def _answers(self, questions: Iterable[Question]) -> dict[str, AnyAnswer]:
        answers: dict[str, AnyAnswer] = {}
        for question in questions:
            if isinstance(question, Query):
                answers[question.key] = self._of_the_query(question)
            elif isinstance(question, PodQuestion):
                answers[question.key] = tuple(self._of_the_pods(question))
            elif isinstance(question, PriceQuestion):
                # An answer takes longer than the pass that asks first.
                asked, self.asked = self.asked, question.identity
                if asked == question.identity and self.prices != "late":
                    answers |= self._of_the_models(question)
        return answers

    def _of_the_models(self, question: PriceQuestion) -> Mapping[str, AnyAnswer]:
        oracle = Oracle(self._pricing)
        oracle.reachable = self.prices != "away"
        oracle.answers([question], 0.0)
        return oracle.answers([question], question.timeout_seconds * 2)

    def _pricing(self, asked: PricePod) -> Pricing | None:
        pod = next((pod for pod in self.pods if pod.name == asked.name and pod.ready), None)
        if pod is None:
            return None
        return Pricing(
            WRONG if pod.image in self.wrong else same,
            errors=self.errors.get(pod.image, 0.0),
            slow=self.slow.get(pod.image, 0.0),
        )

    def _of_the_query(self, question: Query) -> tuple[Series, ...] | SourceError:
        if isinstance(self.drift, SourceError):
            return self.drift
        return () if self.drift is None else (Series({}, ((question.end.timestamp(), self.drift),)),)

    def _of_the_pods(self, question: PodQuestion) -> Iterator[Series]:
        start = question.start.timestamp() if question.start is not None else float("-inf")
        for pod in question.pods:
            reads = self.reads.get(pod, ())
            first = next((index for index, read in enumerate(reads) if read[0] > start), len(reads))
            known = reads[max(0, first - 1) :]
            if not known:
                continue
            if LATENCY in question.families:
                for bound in ("0.025", "0.1", "0.5", "2", "+Inf"):
                    quick = float(bound) < SLOW_SECONDS
                    points = tuple((read[0], read[1] + read[2] - quick * read[3]) for read in known)
                    yield Series({FAMILY_LABEL: LATENCY, "pod": pod, "le": bound}, points)
            for status, column in (("200", 1), ("500", 2)) if REQUESTS in question.families else ():
                points = tuple((read[0], read[column]) for read in known)
                yield Series({**_LABELS, "pod": pod, "status": status}, points)

    # --- what is seen -------------------------------------------------------------------------------------------------

    def observe(self) -> Observed:
        """The objects and pods as they are now."""
        workloads, selectors, records, route = {}, {}, {}, None
        for (kind, name), manifest in self.objects.items():
            if kind == "Deployment":
                workload = parse_workload({**manifest, "status": self._workload_status(name)})
                workloads[workload.revision] = workload
            elif kind == "Service":
                selectors[name] = parse_selector(manifest)
            elif kind == "ControllerRevision":
                record = self._record(name, manifest)
                records[record.revision] = record
            elif self.route_kind_served:
                route = self._route(manifest)
        pods = tuple(pod.seen() for pod in self.pods)
        return Observed(workloads, pods, selectors, route, self.route_kind_served, records, self.objects)

    def _workload_status(self, deployment: str) -> dict[str, Any]:
        revision = deployment.removeprefix(f"{NAME}-")
        ready = sum(pod.ready for pod in self.pods if pod.revision == revision and pod.deleted is None)
        status: dict[str, Any] = {"availableReplicas": ready, "readyReplicas": ready}
        if len(self._living(revision)) < self.objects["Deployment", deployment]["spec"]["replicas"]:
            message = QUOTA.format(name=f"{deployment}-x", used=self.quota)
            status["conditions"] = [{"type": "ReplicaFailure", "status": "True", "message": message}]
        return status

    def _route(self, manifest: dict[str, Any]) -> Route:
        stamp = {"observedGeneration": self.accepted_generation}
        conditions = [{"type": kind, "status": "True", **stamp} for kind in ("Accepted", "ResolvedRefs")]
        parents = [{"parentRef": parent, "conditions": conditions} for parent in manifest["spec"]["parentRefs"]]
        metadata = {**manifest["metadata"], "namespace": "pricing", "generation": self.route_generation}
        return parse_route({**manifest, "metadata": metadata, "status": {"parents": parents}})

    def _record(self, name: str, manifest: dict[str, Any]) -> RevisionRecord:
        known = self._records.get(name)
        if known is None or known[0] is not manifest:
            known = self._records[name] = (manifest, parse_record(manifest))
        return known[1]

    @property
    def _routed(self) -> bool:
        router: str = self.spec["traffic"]["router"]
        return router == "HTTPRoute"

    def live_weights(self) -> dict[str, int]:
        """Of the route itself, by Service."""
        route = self.objects.get(("HTTPRoute", NAME))
        backends = route["spec"]["rules"][0]["backendRefs"] if route else ()
        return {item["name"]: item["weight"] for item in backends}

    # --- what really happens ------------------------------------------------------------------------------------------

    def answered(self, revision: str) -> float:
        return sum(sum(counts[:2]) for pod, counts in self.counted.items() if pod.startswith(f"{NAME}-{revision}-"))

    def must_keep_capacity(self, revision: str) -> str:
        if self.clock_was_set or self.rerouted or self.status_was_lost:
            return ""
        gone = self.state.rollout is None or revision not in self._in_the_rollout()
        if self.seconds - self.edited_at <= 2 * DRAIN and gone:
            # Nobody but this edit gave it requests. They end first, and then its pods.
            reached = self.live_weights().get(f"{NAME}-canary", 0) and self._selected(f"{NAME}-canary") == revision
            return "it has traffic" if reached else ""
        mine = [pod for pod in self.pods if pod.revision == revision]
        newest = max((pod.last_request for pod in mine), default=float("-inf"))
        # Without reads of the pods their silence is not known and is waited for; and it is not waited for for ever.
        zero = self.state.rollout.programmed_time if self.state.rollout else None
        late = zero is not None and (self.now - zero).total_seconds() >= UNSILENT_SECONDS
        excused = late or self.seconds - self.blind_since < UNSILENT_SECONDS
        recent = self.seconds - newest < DRAIN
        return f"it answered {self.seconds - newest} s ago" if recent and not excused else ""

    def _in_the_rollout(self) -> set[str]:
        held = (self.state.stable, self.state.canary, self.state.previous)
        return {one.revision for one in held if one is not None}

    def _selected(self, service: str) -> str:
        manifest = self.objects.get(("Service", service), {})
        return str(manifest.get("spec", {}).get("selector", {}).get("pinn.dev/revision", ""))

    def foreign_weight(self, status: Status) -> bool:
        return self._routed and self.live_weights().get(f"{NAME}-canary", 0) != weight_of(status)

    def cannot_be_told_apart(self, status: Status) -> bool:
        # Somebody may have given it all traffic by hand.
        return self.failed_alone or bool(self.wrong)

    def prices_wrong(self, image: str) -> bool:
        return image in self.wrong

    @property
    def sources_answer(self) -> bool:
        return not isinstance(self.drift, SourceError)

    # --- the cluster --------------------------------------------------------------------------------------------------

    def live(self, seconds: float) -> None:
        """A leap in time: pods come, start and go; the router follows; whoever has traffic answers."""
        alone = weight_of(self.state) == 100 or self.live_weights().get(f"{NAME}-canary") == 100
        ill = any(self.errors.values()) or any(self.slow.values())
        self.failed_alone = alone and (self.failed_alone or ill)
        self._make_pods()
        self.seconds += seconds
        for pod in list(self.pods):
            self._kubelet(pod)
        if self.route_accepted:
            self.accepted_generation = self.route_generation
        if self.route_obeyed:
            self.in_force = self.live_weights()
        if seconds:
            for part in (0.5, 1.0) if seconds > 1 else (1.0,):
                self._traffic(seconds * (0.5 if seconds > 1 else 1.0), self.seconds - seconds * (1.0 - part))

    def _make_pods(self) -> None:
        wanted = {
            name.removeprefix(f"{NAME}-"): manifest
            for (kind, name), manifest in self.objects.items() if kind == "Deployment"
        }  # fmt: skip
        self.pods = [pod for pod in self.pods if pod.revision in wanted]
        for revision, manifest in wanted.items():
            mine, replicas = self._living(revision), manifest["spec"]["replicas"]
            for pod in mine[replicas:]:
                self.pods.remove(pod)
            counted = sum(pod.phase != "Failed" for pod in self.pods)
            for _ in range(min(replicas - len(mine), self.quota - counted)):
                self._serial += 1
                image = manifest["spec"]["template"]["spec"]["containers"][0]["image"]
                self.pods.append(StoryPod(f"{NAME}-{revision}-abc-{self._serial}", revision, image, self.seconds))

    def _living(self, revision: str) -> list[StoryPod]:
        return [pod for pod in self.pods if pod.revision == revision and pod.phase != "Failed" and pod.deleted is None]

    def _kubelet(self, pod: StoryPod) -> None:
        if pod.phase == "Failed":
            return
        if pod.deleted is not None:
            if self.seconds >= pod.deleted + pod.grace:
                self.pods.remove(pod)
            return
        ill = self.ills.get(pod.image, "")
        if not pod.node:
            pod.unscheduled = NO_ROOM if ill == "no room" else ""
            pod.node = "" if pod.unscheduled else "node-1"
        if not pod.node or not self._started(pod, ill):
            return
        ready = ill not in ("is never ready", "crashes", "is killed") and self.seconds >= pod.unready_until
        if ill == "is killed":
            pod.termination, pod.restarts = Termination("OOMKilled", 137), max(1, pod.restarts)
        if ill == "crashes":
            pod.termination, pod.restarts, pod.waiting = Termination("Error", 1, "bye"), 2, "CrashLoopBackOff"
        elif pod.waiting == "CrashLoopBackOff":
            pod.waiting = ""
        assert pod.started is not None
        begins = pod.started + STARTUP
        self._set_ready(pod, ready and self.seconds >= begins, max(begins, pod.unready_until))

    def _started(self, pod: StoryPod, ill: str) -> bool:
        if pod.started is not None:
            return True
        words = {"cannot be pulled": IMAGE_ABSENT, "registry away": REGISTRY_AWAY}
        if ill in words:
            pod.waiting, pod.waiting_message = "ImagePullBackOff", words[ill].format(image=pod.image)
        elif ill == "no key":
            pod.waiting, pod.waiting_message = "CreateContainerConfigError", NO_KEY
        else:
            late = bool(pod.waiting or pod.unscheduled)
            pod.started, pod.phase, pod.waiting, pod.waiting_message = pod.created, "Running", "", ""
            pod.started = self.seconds if late else pod.created
        return pod.started is not None

    def _set_ready(self, pod: StoryPod, ready: bool, at: float) -> None:
        pod.container_ready = ready
        if ready != pod.ready:
            pod.ready, pod.ready_changed = ready, min(self.seconds, at) if ready else self.seconds
        pod.was_ready = pod.was_ready or ready

    def _traffic(self, seconds: float, until: float) -> None:
        """Requests of so many seconds up to a moment, and a read of every pod then."""
        requests = self.rate * seconds
        if not self._routed:
            self._answer(NAME, requests, until)
        elif self.in_force:
            for service, weight in self.in_force.items():
                self._answer(service, requests * weight / 100.0, until)
        if not self.readable:
            self.blind_since = self.seconds
            return
        at = EPOCH + until + self.clock_offset
        for pod in self.pods:
            if pod.started is not None and pod.phase == "Running" and pod.waiting != "CrashLoopBackOff":
                known = self.reads.get(pod.name, ())
                if known and at <= known[-1][0] - CLOCK_SECONDS:
                    # The clock was set back, and what was read before is of no use.
                    known = ()
                if not known or at > known[-1][0]:
                    self.reads[pod.name] = (*known[-READS:], (at, *self.counted.get(pod.name, (0.0, 0.0, 0.0))))

    def _answer(self, service: str, requests: float, until: float) -> None:
        if requests <= 0:
            return
        selector = self.objects.get(("Service", service), {}).get("spec", {}).get("selector", {})
        revision = selector.get("pinn.dev/revision")
        backends = [pod for pod in self.pods if pod.ready and selector and revision in (None, pod.revision)]
        for pod in backends:
            each, (good, bad, slow) = requests / len(backends), self.counted.get(pod.name, (0.0, 0.0, 0.0))
            share, late = self.errors.get(pod.image, 0.0), self.slow.get(pod.image, 0.0)
            self.counted[pod.name] = (good + each * (1 - share), bad + each * share, slow + each * late)
            pod.last_request = until

    # --- writes -------------------------------------------------------------------------------------------------------

    def write(self, manifest: dict[str, Any]) -> None:
        """Somebody, or the operator, writes an object."""
        self.objects = {**self.objects, (manifest["kind"], manifest["metadata"]["name"]): manifest}
        self.route_generation += manifest["kind"] == "HTTPRoute"

    def remove(self, kind: str, name: str) -> None:
        """Somebody, or the operator, deletes an object."""
        self.objects = {key: value for key, value in self.objects.items() if key != (kind, name)}

    # --- what may happen ----------------------------------------------------------------------------------------------

    def happen(self, what: str, how: Any) -> None:
        """Something happens to the team; whatever wakes the operator is followed by a pass."""
        getattr(self, f"_happens_{what.replace(' ', '_')}")(how)
        if what not in ("disturbed", "hurry", "down"):
            self.pass_by(how if what == "time" else 1.0)

    def _happens_time(self, seconds: float) -> None:
        """It passes."""

    def _happens_hurry(self, _: None) -> None:
        self.hurried = True

    def _happens_down(self, passes: int) -> None:
        self.passes_missed = passes
        self._forget()

    def _happens_disturbed(self, by: Disturbance) -> None:
        self.disturbances = (*self.disturbances, by)

    def _apply(self, **changes: Any) -> None:
        self.spec = {**self.spec, **changes}
        self._read = _parsed(json.dumps(self.spec))
        self.generation += 1

    def _happens_image(self, image: str) -> None:
        self.images_written += 1
        self._apply(image=image)

    def _happens_replicas(self, replicas: int) -> None:
        self._apply(replicas=replicas)

    def _happens_paused(self, paused: Any) -> None:
        """`perhaps` is no answer: the spec is invalid."""
        self._apply(paused=paused)

    def _happens_steps(self, steps: list[dict[str, Any]]) -> None:
        self._apply(strategy={"type": "Canary", "canary": {"steps": steps}})

    def _happens_mode(self, mode: str) -> None:
        self._apply(rollback={**self.spec["rollback"], "mode": mode})

    def _happens_router(self, traffic: dict[str, Any]) -> None:
        self._apply(traffic=traffic)
        self.rerouted = True

    def _happens_retry(self, order: str) -> None:
        self.order = order
        self.rejected_at = {}

    def _happens_drift(self, value: float | SourceError | None) -> None:
        self.drift = value
        self.drifted = self.drifted or (isinstance(value, float) and value > 0.8)

    def _happens_errors(self, how: tuple[str, float]) -> None:
        for image in self._images(how[0]):
            self.errors[image] = how[1]
            if how[0] != "both":
                self.ever_ill.add(image)

    def _happens_slow(self, how: tuple[str, float]) -> None:
        for image in self._images(how[0]):
            self.slow[image] = how[1]
            if how[0] != "both":
                self.ever_ill.add(image)

    def _happens_ill(self, how: tuple[str, str]) -> None:
        for image in self._images(how[0]):
            self.ills[image] = how[1]
            if how[1] in OWN_ILLS:
                self.ever_ill.add(image)

    def _happens_well(self, _: None) -> None:
        self.ills, self.errors, self.slow, self.quota = {}, {}, {}, 1000

    def _happens_prices(self, prices: str) -> None:
        self.prices = prices

    def _happens_wrong(self, whose: str) -> None:
        self.wrong |= self._images(whose)
        self.ever_ill |= self._images(whose)

    def _images(self, whose: str) -> set[str]:
        found = {who: getattr(self.state, who).image for who in ("stable", "canary") if getattr(self.state, who)}
        return {image for who, image in found.items() if whose in (who, "both")}

    def _happens_pods(self, how: tuple[str, str]) -> None:
        """The pods of a revision are taken away, or blink."""
        for pod in [pod for pod in self.pods if pod.image in self._images(how[0]) and pod.phase != "Failed"]:
            if how[1] == "killed by force":
                self.pods.remove(pod)
            elif how[1] == "evicted":
                pod.disruption = pod.failed = ("Evicted", "The node was low on resource: memory.")
                pod.phase, pod.ended, pod.termination = "Failed", True, Termination("Error", 137)
                self._set_ready(pod, False, self.seconds)
            elif how[1] == "preempted":
                pod.disruption, pod.deleted = ("PreemptionByScheduler", "preempting"), self.seconds
                self._set_ready(pod, False, self.seconds)
            else:
                pod.unready_until = self.seconds + 3.0
                self._set_ready(pod, False, self.seconds)

    def _happens_quota(self, pods: int) -> None:
        self.quota = pods

    def _happens_traffic(self, rate: float) -> None:
        self.rate = rate

    def _happens_readable(self, readable: bool) -> None:
        self.readable = readable

    def _happens_accepted(self, accepted: bool) -> None:
        self.route_accepted = accepted

    def _happens_obeyed(self, obeyed: bool) -> None:
        self.route_obeyed = obeyed

    def _happens_served(self, served: bool) -> None:
        self.route_kind_served = served

    def _happens_clock(self, offset: float) -> None:
        self.clock_offset, self.clock_was_set = offset, True

    def _happens_weight_edited(self, weight: int) -> None:
        route = self.objects.get(("HTTPRoute", NAME))
        if route is None:
            return
        [rule] = route["spec"]["rules"]
        backends = [
            {**item, "weight": weight if item["name"].endswith("-canary") else 100 - weight}
            for item in rule["backendRefs"]
        ]
        if backends == rule["backendRefs"]:
            return
        self.write({**route, "spec": {**route["spec"], "rules": [{**rule, "backendRefs": backends}]}})
        self.tampered, self.edited_at = True, self.seconds
        self.answered_before = self.answered(self.state.canary.revision) if self.state.canary else 0.0

    def _happens_deleted(self, what: tuple[str, str]) -> None:
        """The part of the name after that of the resource, or whose revision it is."""
        revision = getattr(self.state, what[1], None)
        self.remove(what[0], f"{NAME}-{revision.revision}" if revision is not None else NAME + what[1])
        self.tampered = True

    def _happens_scaled_by_hand(self, how: tuple[str, int]) -> None:
        revision = getattr(self.state, how[0])
        deployment = self.objects.get(("Deployment", f"{NAME}-{revision.revision}" if revision else ""))
        if deployment is not None:
            self.write({**deployment, "spec": {**deployment["spec"], "replicas": how[1]}})
            self.tampered = True

    def _happens_status_lost(self, _: None) -> None:
        self.state, self.status_was_lost = Status(), True
        self.version += 1
        self.rejected_at = {}


WRONG = off_by(0.01)
OWN_ILLS = frozenset({"is never ready", "crashes", "is killed", "cannot be pulled"})
"""What a container does itself."""
_VALID: set[Any] = set()


@lru_cache(maxsize=512)
def _parsed(spec: str) -> Resource:
    metadata = {"name": NAME, "namespace": "pricing", "uid": "u-1", "generation": 1, "resourceVersion": "1"}
    return parse_resource({"metadata": metadata, "spec": json.loads(spec)})
