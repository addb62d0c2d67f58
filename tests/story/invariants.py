"""The invariants of a rollout, each by name, as checks of one pass.

A pass is what it found, what it decided and why. What really happened (which pods answered, who is ill, what share the
router gives) is told by the world in which the pass was made, and not by the operator.
"""

from __future__ import annotations

import json
from abc import abstractmethod
from dataclasses import dataclass, replace
from datetime import datetime

from pinn_operator.core.api import Resource, status_from_manifest, status_to_manifest
from pinn_operator.core.decision import Apply, Decision, Delete
from pinn_operator.core.gates.judgement import Condemnation
from pinn_operator.core.gates.questions import due
from pinn_operator.core.observed import Observed
from pinn_operator.core.rollout.doubt import ANSWER, UPSTREAM_AGAIN
from pinn_operator.core.rollout.steps import hold_of
from pinn_operator.core.rollout.takeover import UNANSWERED_SECONDS
from pinn_operator.core.rollout.triggers import pod_failure
from pinn_operator.core.samples import PriceAnswers, Samples, prices_of
from pinn_operator.core.situation import accepted_spec, situation_of
from pinn_operator.core.status.values import WATCHED, Phase, Status
from pinn_operator.core.status.verification import VerificationVerdict
from pinn_operator.core.telling.facts import Facts
from pinn_operator.core.verification.questions import OPINION_PATIENCE, PRICES, verification_of
from pinn_operator.core.wanted.spec import RollbackMode, RouterKind, Spec, VerificationMode
from tests.support.crd import validator

MIN_SAMPLES, DRAIN, BYTES = 10, 8, 64 * 1024
POD_REASONS = {"CrashLoopBackOff", "OOMKilled", "ImageUnavailable", "NotReady"}


@dataclass(frozen=True)
class Made:
    """One pass: what it found, and what it decided."""

    name: str
    now: datetime
    """By the operator's clock."""
    resource: Resource
    observed: Observed
    samples: Samples
    decision: Decision
    again: Decision | None
    """The same pass with its own status committed; None if it changed nothing."""
    facts: Facts | None
    spec: Spec
    """In force."""

    @property
    def before(self) -> Status:
        return self.resource.status

    @property
    def after(self) -> Status:
        return self.decision.status


def weight_of(status: Status) -> int:
    """The canary's wanted weight; 0 without a rollout."""
    return status.rollout.weight if status.rollout else 0


class Invariants:
    """Whoever watches passes: `check` looks at each, and remembers what the next ones need."""

    def __init__(self) -> None:
        self.images_written = 0
        """How often somebody asked for a revision."""
        self.rejected_at: dict[str, int] = {}
        """When each revision was rejected, by `images_written`."""
        self.answered_before = 0.0
        """Requests of the canary up to the last change of weight."""
        self.clock_was_set = self.rerouted = self.status_was_lost = self.read_is_old = False
        """Things after which times, or what is known of traffic, are not what they were."""
        self.ever_ill: set[str] = set()
        """Images that did something by themselves for which they may be rejected."""
        self.drifted = False
        """The gate of the team's own was beyond its bound: any revision may be rejected for that."""
        self.orders: set[str] = set()
        """Orders to retry that were carried out."""

    def memory(self) -> tuple[float, dict[str, int]]:
        """What is remembered of the passes so far."""
        return self.answered_before, dict(self.rejected_at)

    def remember(self, memory: tuple[float, dict[str, int]]) -> None:
        """A pass was checked whose status was not committed: what was remembered before it is what counts."""
        self.answered_before, self.rejected_at = memory[0], dict(memory[1])

    # --- what really happens, as the world knows it -------------------------------------------------------------------

    @abstractmethod
    def answered(self, revision: str) -> float:
        """How many requests the pods of a revision have answered, those that are gone included."""

    @abstractmethod
    def must_keep_capacity(self, revision: str) -> str:
        """Why the revision must keep its pods, by what its clients see; empty if it need not."""

    @abstractmethod
    def foreign_weight(self, status: Status) -> bool:
        """The router's objects hold another weight than the one that the status speaks of."""

    @property
    @abstractmethod
    def sources_answer(self) -> bool:
        """Whether what the gates are judged by can be asked at all."""

    def cannot_be_told_apart(self, status: Status) -> bool:
        """All answers are bad just now and the canary alone answers, say: nobody could tell whose fault it is."""
        return False

    def prices_wrong(self, image: str) -> bool:
        """The model of an image prices wrong."""
        return False

    # --- one pass -----------------------------------------------------------------------------------------------------

    def check(self, made: Made) -> None:
        """Raises AssertionError, in words, if the pass breaks an invariant."""
        before, after = made.before, made.after
        self._idempotent(made)
        self._rises_on_evidence_only(made)
        self._prices_come_before_weight(made)
        self._a_fault_ends_at_zero(made)
        self._traffic_has_somebody_to_answer_it(made)
        self._the_rejected_stay_away(made)
        self._another_revision_starts_from_stable(made)
        self._an_order_is_executed_once(made)
        self._traffic_goes_first_and_capacity_after_silence(made)
        self._the_route_is_whole(made)
        self._the_infrastructure_rejects_nothing(made)
        self._what_can_answer_gets_the_traffic(made)
        self._whatever_does_not_move_says_why(made)
        self._gates_are_armed_from_the_write_of_a_weight(made)
        if weight_of(before) != weight_of(after) or before.canary != after.canary:
            self.answered_before = self.answered(after.canary.revision) if after.canary else 0.0

    def _idempotent(self, made: Made) -> None:
        """A pass without news writes nothing and tells nothing."""
        if made.again is None:
            assert (made.decision.events, made.decision.transitions) == ((), ()), "told without a change"
            return
        assert made.again.status == made.after, "deciding again decides something new"
        assert (made.again.events, made.again.transitions) == ((), ()), "told twice"
        assert made.again.actions == made.decision.actions, "deciding again writes something else"

    def _rises_on_evidence_only(self, made: Made) -> None:
        """Weight rises only on a Pass newer than the last change, after the hold, and not for a paused spec."""
        before, after = made.before, made.after
        promoted = after.phase is Phase.PROMOTING and before.phase is not Phase.PROMOTING
        rises = weight_of(after) > weight_of(before) and after.rollout is not None and after.canary == before.canary
        if not rises and not promoted:
            return
        if before.phase is Phase.PROMOTING and before.previous is not None and after.stable is not None:
            assert before.stable is not None
            assert after.stable.revision == before.previous.revision, "weight while a revision is promoted"
            assert not made.observed.can_answer(before.stable.revision), "the old revision came back without need"
            return
        assert before.canary is not None, "weight in the pass that starts the rollout"
        assert before.rollout is not None
        assert not made.spec.paused, "paused, or the spec is invalid"
        if weight_of(before) == 0 or _stable_cannot_answer(made):
            return
        seen, hold = before.rollout.programmed_time, hold_of(made.spec, before.rollout)
        assert seen is not None, "rose from a weight that was never seen in force"
        assert (made.now - seen).total_seconds() >= hold, "rose before the hold at its weight was over"
        assert self.sources_answer, "rose without a metric source"
        assert before.rollout.weight_time <= seen < made.now
        assert made.facts is not None
        assert made.facts.judgement.all_pass, "rose although not every gate passed in this very pass"
        answered = self.answered(before.canary.revision) - self.answered_before
        assert round(answered, 6) >= MIN_SAMPLES or self.clock_was_set, (
            f"rose on {answered} requests since the last change of weight"
        )
        assert not self.foreign_weight(before), "rose on what was measured under a foreign weight"

    def _prices_come_before_weight(self, made: Made) -> None:
        """No revision gets weight before its prices were compared, or it was said why they cannot be."""
        before, after = made.before, made.after
        if made.spec.verification.mode is VerificationMode.OFF or after.canary is None or after.rollout is None:
            return
        known, earlier = (verification_of(status, after.canary.revision) for status in (after, before))
        if known is not None and known.verdict is VerificationVerdict.PASS and known != earlier:
            # While no pod of stable answers, nobody could tell.
            wrong = _stable_priced(made) and self.prices_wrong(after.canary.image)
            assert not wrong, "wrong prices passed"
        if before.canary != after.canary or not weight_of(after) or _stable_cannot_answer(made):
            return
        given_back = _stood_in(before) and not _stood_in(after)
        if weight_of(before) and not given_back:
            return
        assert known is not None, "weight before anybody asked for prices"
        assert known.verdict in (VerificationVerdict.PASS, VerificationVerdict.NOT_APPLICABLE), known.verdict
        assert known.stable or known.verdict is VerificationVerdict.NOT_APPLICABLE, "weight without a comparison"

    def _a_fault_ends_at_zero(self, made: Made) -> None:
        """A rollback is looked at first: a Fail beyond its bound ends at weight 0 in the pass that decides it."""
        before, after, spec = made.before, made.after, made.spec
        if before.phase not in (Phase.PROGRESSING, Phase.BAKING) or spec.rollback.mode is RollbackMode.HOLD:
            return
        if before.canary is None or before.stable is None or before.rollout is None:
            return
        assert made.facts is not None
        fault = made.facts.judgement.condemnation or pod_failure(
            made.observed, before.canary.revision, rollback=spec.rollback, now=made.now,
            patience_from=before.rollout.weight_time,
            excused={item.pod: item.restarts for item in before.rollout.excused},
        )  # fmt: skip
        if fault is None:
            return
        stable, canary = before.stable.revision, before.canary.revision
        if weight_of(before) and not made.observed.available(stable) and made.observed.available(canary):
            assert spec.replicas == 0 or weight_of(after) >= weight_of(before), "the only healthy copy lost traffic"
            return
        if self._second_opinion_is_asked(made, fault):
            return
        assert after.phase in (Phase.ROLLING_BACK, Phase.ROLLED_BACK), f"{fault.reason} was not acted on"
        assert weight_of(after) == 0
        assert after.last_rollback is not None
        assert after.last_rollback.revision == canary

    def _second_opinion_is_asked(self, made: Made, fault: Condemnation) -> bool:
        """Pods of both are asked for a moment; or, with all traffic at the canary, have just spoken for it."""
        before, after = made.before.rollout, made.after.rollout
        asks = made.spec.verification.mode is not VerificationMode.OFF
        if before is None or after is None or not asks:
            return False
        if before.weight < 100:
            beside = after.doubt if fault.share is not None else None
            return beside is not None and beside.open and made.now < beside.time + ANSWER
        if not fault.alone:
            return False
        if after.weight_time != before.weight_time:
            # Somebody else had changed the weight that the fault was measured at; or the canary gets less from now on
            # (stable is back, or the steps are others), and beside stable it is judged.
            return True
        doubt = after.doubt
        if doubt is None:
            return False
        if doubt.open:
            return made.now - doubt.time <= OPINION_PATIENCE or self.clock_was_set
        # What both revisions' pods failed is not asked again at once.
        return doubt.settled_time is not None and made.now - doubt.settled_time <= UPSTREAM_AGAIN

    def _traffic_has_somebody_to_answer_it(self, made: Made) -> None:
        """No weight goes to a revision without an available replica, and none is taken from the only healthy copy."""
        before, after = made.before, made.after
        if after.canary is None or after.canary != before.canary or made.spec.replicas == 0:
            return
        assert after.stable is not None
        canary = made.observed.available(after.canary.revision)
        stable = made.observed.available(after.stable.revision)
        if weight_of(after) > weight_of(before):
            assert canary > 0, "weight went to a revision without replicas"
        if weight_of(after) < weight_of(before):
            assert stable > 0 or canary == 0, "weight was taken from the only healthy copy"

    def _the_rejected_stay_away(self, made: Made) -> None:
        """A rejected revision is not tried again by itself."""
        before, after = made.before, made.after
        if after.rejected is not None:
            self.rejected_at.setdefault(after.rejected.revision, self.images_written)
        if after.retry != before.retry:
            # Ordered while its rollback was still in flight, and taken up after it.
            self.rejected_at = {}
        if after.phase is Phase.PROGRESSING and before.phase is not Phase.PROGRESSING:
            assert after.canary is not None
            if before.rollout is None or before.canary != after.canary:
                rejected = self.rejected_at.pop(after.canary.revision, -1)
                assert rejected < self.images_written, "a rejected revision came back"

    def _another_revision_starts_from_stable(self, made: Made) -> None:
        """A third revision starts from weight 0, and a return to the stable revision is immediate."""
        before, after = made.before, made.after
        if after.canary is not None and after.canary != before.canary:
            if before.phase is Phase.PROMOTING and after.canary == before.previous and after.phase is Phase.BAKING:
                assert after.stable is not None
                assert not made.observed.can_answer(after.stable.revision), "the old revision came back without need"
                return
            assert weight_of(after) == 0, "a revision started with weight"
        asked = isinstance(made.resource.spec, Spec) and before.phase in WATCHED and before.rollout is not None
        if not asked or before.canary is None or after.target == before.canary.revision:
            return
        assert before.stable is not None
        alone = not made.observed.available(before.stable.revision)
        is_replaced = before.rollout.return_step is not None and before.canary.since < before.stable.since
        kept = alone or (is_replaced and after.target == before.stable.revision)
        assert weight_of(after) == 0 or kept, "a revision that nobody asks for any more keeps its traffic"

    def _an_order_is_executed_once(self, made: Made) -> None:
        """Whatever is re-applied, restarted or lost meanwhile: one order to retry is one new try."""
        if made.after.retry is None or made.after.retry == made.before.retry or self.status_was_lost:
            return
        order = made.after.retry.id
        assert made.before.retry is None or made.before.retry.id != order, "an order was executed twice in a row"
        assert order == made.resource.retry, "an order that nobody gave"

    def _traffic_goes_first_and_capacity_after_silence(self, made: Made) -> None:
        """Stable keeps its capacity, and no revision loses its own before it was seen to be silent."""
        observed, spec, before, after = made.observed, made.spec, made.before, made.after
        if after.stable is None:
            assert made.decision.actions == (), "something is written although nothing is known to serve"
            return
        shrunk = False
        for action in made.decision.actions:
            if isinstance(action, Delete):
                gone = action.name.removeprefix(f"{made.name}-")
                assert action.kind == "HTTPRoute" or not observed.pods_of(gone), f"{action.kind} of living pods"
            if not isinstance(action, Apply):
                continue
            kind = action.manifest["kind"]
            assert kind != "HTTPRoute" or not shrunk, "capacity was removed before traffic"
            if kind != "Deployment":
                continue
            revision = action.manifest["metadata"]["name"].removeprefix(f"{made.name}-")
            wanted = action.manifest["spec"]["replicas"]
            live = observed.workloads[revision].replicas if revision in observed.workloads else 0
            if revision == after.stable.revision:
                assert wanted == spec.replicas, "stable does not keep its capacity"
            if wanted >= live or spec.replicas == 0 or before.phase is Phase.PENDING:
                continue
            shrunk = True
            if after.canary and after.rollout and revision == after.canary.revision:
                assert wanted >= 1, "a canary lost all its capacity"
                assert after.phase in WATCHED
            elif revision != after.stable.revision:
                assert wanted == 0
                why = self.must_keep_capacity(revision)
                assert not why, f"{revision} loses its capacity: {why}"

    def _the_route_is_whole(self, made: Made) -> None:
        """Weights sum to 100."""
        for action in made.decision.actions:
            if isinstance(action, Delete) and action.kind == "HTTPRoute":
                assert made.spec.traffic.router is RouterKind.REPLICAS
            if isinstance(action, Apply) and action.manifest["kind"] == "HTTPRoute":
                [rule] = action.manifest["spec"]["rules"]
                weights = [backend["weight"] for backend in rule["backendRefs"]]
                assert sum(weights) == 100
                assert min(weights) >= 0

    def _the_infrastructure_rejects_nothing(self, made: Made) -> None:
        """Only what the container did itself, or what it answered, rejects a revision."""
        rejected = made.after.rejected
        if rejected is None or made.before.rejected is not None or self.status_was_lost or self.clock_was_set:
            return
        if rejected.reason in POD_REASONS:
            if self.read_is_old and rejected.reason == "NotReady":
                # A pod that was away when that was read is taken to be away still.
                return
            assert rejected.image in self.ever_ill, f"{rejected.image} did nothing: {rejected.message}"
        else:
            to_blame = self.drifted or rejected.image in self.ever_ill or self.cannot_be_told_apart(made.before)
            assert to_blame, f"{rejected.image} is good: {rejected.message}"

    def _what_can_answer_gets_the_traffic(self, made: Made) -> None:
        """When stable cannot answer and the canary, which has traffic, can, it gets all of it; one that never had any
        only after a while."""
        before, after, observed = made.before, made.after, made.observed
        took_over = _stood_in(after) and before.rollout and before.rollout.return_step is None
        if took_over and not weight_of(before) and before.phase is not Phase.PROMOTING:
            assert before.stable is not None
            pods = observed.living(before.stable.revision)
            newest = max((pod.ready_changed or pod.created for pod in pods), default=None)
            down = None if newest is None else (made.now - newest).total_seconds()
            assert before.stable.fault or down is None or down >= UNANSWERED_SECONDS, "all traffic after a moment"
        if before.phase not in (Phase.PROGRESSING, Phase.BAKING) or after.canary != before.canary or made.spec.paused:
            return
        assert before.canary is not None
        if before.canary.revision != after.target or weight_of(before) == 0 or made.spec.replicas == 0:
            return
        if _stable_cannot_answer(made) and observed.available(before.canary.revision):
            stable = after.stable.revision if after.stable else ""
            rejected = after.phase is Phase.ROLLING_BACK and observed.available(stable)
            assert weight_of(after) == 100 or rejected, "what can answer does not get the traffic"

    def _whatever_does_not_move_says_why(self, made: Made) -> None:
        """Whatever stops a rollout from moving is a `Wait`, and `status.next` prints it."""
        before, after, facts = made.before, made.after, made.facts
        assert facts is not None
        if after.rollout is None or after.phase not in (*WATCHED, Phase.ROLLING_BACK, Phase.PROMOTING):
            return
        moved = (before.phase, before.rollout and before.rollout.weight_time, before.canary) != (
            after.phase, after.rollout.weight_time, after.canary
        )  # fmt: skip
        assert moved or facts.waits, "the rollout does not move, and nothing says why"
        if not moved:
            assert after.next is not None
            assert after.next.waiting_for.startswith(facts.waits[0].text[:80])

    def _gates_are_armed_from_the_write_of_a_weight(self, made: Made) -> None:
        """Whatever the spec says by now, an invalid one included."""
        rollout = made.before.rollout
        if made.before.phase in WATCHED and rollout and rollout.weight > 0 and made.now > rollout.weight_time:
            assert due(situation_of(made.resource, made.observed), made.now), "nothing is asked"


def _stood_in(status: Status) -> bool:
    """The canary has all traffic because stable could not answer."""
    return status.rollout is not None and status.rollout.return_step is not None


def _stable_priced(made: Made) -> bool:
    """A pod of stable priced what the canary was asked in this pass."""
    answers = prices_of(made.samples, PRICES)
    pods = answers.pods if isinstance(answers, PriceAnswers) else ()
    return any(reply.good for item in pods if not item.pod.canary for reply in item.replies)


def _stable_cannot_answer(made: Made) -> bool:
    stable = made.before.stable
    assert stable is not None
    return made.observed.available(stable.revision) == 0 or bool(stable.fault)


def spec_in_force(resource: Resource, observed: Observed) -> Spec | None:
    """The spec whose gates are armed; None if there never was one."""
    return accepted_spec(resource, observed)


def as_written(resource: Resource, status: Status) -> Resource:
    """The resource as the next pass reads it: its status goes through JSON. Fails if that changes or outgrows it."""
    written = status_to_manifest(status)
    assert len(json.dumps(written)) < BYTES, "the status outgrows its bound"
    read = status_from_manifest(written)
    assert read == status, "the status is not read as it was written"
    return replace(resource, status=read)


def is_valid(status: Status) -> None:
    """The status is one that the CRD allows."""
    faults = [
        f"{error.json_path}: {error.message}" for error in validator("status").iter_errors(status_to_manifest(status))
    ]
    assert not faults, faults
