"""The invariants of a rollout in short histories of everything at once: some, or as many as asked for.

A history is the state in which it begins (one of those of `STARTS`, which were themselves reached by passes) and up to
eleven things that happen, each but a disturbance followed by a pass of the operator. A disturbance is what the next
pass meets: death between two writes, another operator, a refused write, an old read. After every pass each invariant of
`tests.story.invariants` is checked, and at the end that the operator comes to rest.

They are drawn by the standard library: hypothesis draws others for each change of the source, since it looks there for
constants, and a run would find by chance what the last change has nothing to do with. One that fails is shortened.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import pytest

from pinn_operator.core.samples import SourceError
from pinn_operator.core.status.values import Phase
from tests.story.invariants import DRAIN, MIN_SAMPLES, weight_of
from tests.story.machine import OWN_ILLS, Disturbance, Machine

STEPS = [{"weight": weight, "holdSeconds": 6} for weight in (10, 50, 100)]
TRAFFIC: dict[str, dict[str, Any]] = {
    "HTTPRoute": {"router": "HTTPRoute", "parentRefs": [{"name": "edge", "namespace": "edge"}]},
    "Replicas": {"router": "Replicas"},
}
GATES = [
    {"name": "error-rate", "minSamples": MIN_SAMPLES},
    {"name": "latency-p95", "minSamples": 1, "relative": {"margin": "0.001"}},
    {"name": "cache-hit-rate", "dryRun": True},
    {"name": "memory", "dryRun": True},
    {"name": "availability", "dryRun": True},
    {"name": "drift", "query": "drift", "advance": {"below": "0.5"}, "abort": {"above": "0.8"}},
]
KINDS = {"HTTPRoute": 4000, "Replicas": 3000, "HTTPRoute with prices": 3000}
"""What the team wants, and how many histories of it each part has: about six minutes of one core in all."""
AWAY = SourceError("connection refused")

Happening = tuple[str, Any]
History = tuple[str, tuple[Happening, ...]]


def team_spec(kind: str) -> dict[str, Any]:
    """One of `KINDS`."""
    router, _, prices = kind.partition(" with ")
    return {
        "image": "pinn:1", "replicas": 3, "traffic": TRAFFIC[router],
        "strategy": {"type": "Canary", "canary": {"steps": STEPS}},
        "verification": {"options": 8} if prices else {"mode": "Disabled"},
        "analysis": {
            "profile": "Strict", "sources": ["Pods"], "intervalSeconds": 4, "abortIntervalSeconds": 2, "gates": GATES,
        },
        "rollback": {"drainSeconds": DRAIN, "scaleDownDelaySeconds": 10, "readyDeadlineSeconds": 20,
                     "unreadySeconds": 5},
    }  # fmt: skip


# --- where a history begins -------------------------------------------------------------------------------------------


def _until(machine: Machine, condition: Callable[[Machine], bool]) -> Machine:
    for _ in range(90):
        if condition(machine):
            return machine
        machine.happen("time", 1.0)
    raise AssertionError(f"not reached: {machine}")


@cache
def start(kind: str, name: str) -> Machine:
    """A machine in that state. Copy it."""
    if name == "nothing":
        return Machine(team_spec(kind))
    before, condition, *happenings = STARTS[name]
    machine = start(kind, before).copied()
    for happening in happenings:
        machine.happen(*happening)
    return _until(machine, condition)


def _at(phase: Phase, weight: int | None = None) -> Callable[[Machine], bool]:
    def reached(machine: Machine) -> bool:
        state = machine.state
        settled = weight is None or (weight_of(state) == weight and state.rollout and state.rollout.programmed_time)
        return state.phase is phase and bool(settled)

    return reached


STARTS: dict[str, tuple[Any, ...]] = {
    "first revision": ("nothing", _at(Phase.PENDING), ("time", 0.0)),
    "stable": ("nothing", _at(Phase.STABLE)),
    "applied": ("stable", _at(Phase.PROGRESSING), ("image", "pinn:2")),
    "at 10%": ("applied", _at(Phase.PROGRESSING, 10)),
    "at 50%": ("at 10%", _at(Phase.PROGRESSING, 50)),
    "baking": ("at 50%", _at(Phase.BAKING, 100)),
    "promoting": ("baking", _at(Phase.PROMOTING)),
    "promoted": ("promoting", _at(Phase.STABLE)),
    "rolling back": ("at 50%", _at(Phase.ROLLING_BACK), ("drift", 0.9), ("drift", 0.1)),
    "rolled back": ("rolling back", _at(Phase.ROLLED_BACK)),
    "turned back": ("at 50%", _at(Phase.ROLLING_BACK), ("image", "pinn:3")),
    "suspended": ("at 50%", _at(Phase.SUSPENDED), ("pods", ("canary", "evicted"))),
    "stable is dead": ("at 10%", _at(Phase.BAKING, 100), ("ill", ("stable", "crashes"))),
}

# --- what may happen --------------------------------------------------------------------------------------------------


def _each(what: str, *how: Any) -> list[Happening]:
    return [(what, item) for item in how]


HAPPENINGS: tuple[Happening, ...] = (
    *_each("time", 0.0, 0.5, *(1.0, 2.0, 3.0, 5.0, 8.0, 13.0) * 6, 30.0, 30.0, 60.0, 60.0, 130.0, 310.0),
    *_each("image", "pinn:1", "pinn:2", "pinn:2", "pinn:3"),
    *_each("replicas", 0, 1, 3, 5),
    *_each("paused", True, False, "perhaps", "perhaps", False),
    *_each(
        "steps", STEPS, [{"weight": 100, "holdSeconds": 3}],
        [{"weight": 30, "holdSeconds": 5}, {"weight": 100, "holdSeconds": 5}],
        [{"weight": weight, "holdSeconds": 2} for weight in (5, 20, 60, 100)],
    ),
    *_each("mode", "Hold", "Auto"),
    *_each("router", *TRAFFIC.values()),
    *_each("retry", "1", "1", "2"),
    *_each("drift", 0.1, 0.1, 0.6, 0.9, 0.9, None, AWAY, float("nan")),
    *_each(
        "errors", ("canary", 1.0), ("canary", 1.0), ("canary", 0.2), ("canary", 0.0), ("stable", 1.0), ("both", 1.0),
        ("both", 0.0),
    ),
    *_each("slow", ("canary", 0.3), ("canary", 0.3), ("canary", 1.0), ("both", 0.3), ("both", 0.0)),
    *_each("ill", *((whose, ill) for whose in ("canary", "stable") for ill in sorted(OWN_ILLS))),
    *_each("ill", *((whose, ill) for whose in ("canary", "both") for ill in ("no room", "registry away", "no key"))),
    *_each("well", None, None),
    *_each(
        "pods", *((whose, how) for whose in ("canary", "stable", "both")
                  for how in ("killed by force", "evicted", "preempted", "blink")),
    ),
    *_each("prices", "late", "away", "answered"),
    *_each("wrong", "canary"),
    *_each("quota", 3, 4, 1000),
    *_each("traffic", 0.0, 2.0, 20.0),
    *_each("readable", False, True),
    *_each("accepted", False, True),
    *_each("obeyed", False, True),
    *_each("served", False, True),
    *_each("clock", -3600.0, -20.0, 0.0, 40.0, 7200.0),
    *_each("weight edited", 0, 3, 40, 100),
    *_each("deleted", ("HTTPRoute", ""), ("Service", ""), ("Service", "-stable"), ("Service", "-canary")),
    *_each("deleted", ("Deployment", "stable"), ("Deployment", "canary")),
    *_each("deleted", ("ControllerRevision", "stable"), ("ControllerRevision", "canary")),
    *_each("scaled by hand", *((whose, replicas) for whose in ("stable", "canary") for replicas in (0, 1, 7))),
    *_each("status lost", None),
    *_each("hurry", None, None, None),
    *_each("down", 1, 3),
    *_each("disturbed", *(Disturbance("dies", after) for after in range(5))),
    *_each("disturbed", *(Disturbance("another in between", after) for after in range(5))),
    *_each("disturbed", *(Disturbance("is refused", after) for after in range(4))),
    *_each(
        "disturbed", Disturbance("dies before the commit"), Disturbance("another commits first"), Disturbance("stale"),
        Disturbance("stale"), Disturbance("stale"),
    ),
)  # fmt: skip
assert len(HAPPENINGS) <= 256, len(HAPPENINGS)


def history(drawn: bytes) -> History:
    """One byte for each."""
    names = list(STARTS)
    return names[drawn[0] % len(names)], tuple(HAPPENINGS[byte * len(HAPPENINGS) // 256] for byte in drawn[1:])


def histories(kind: str, number: int, count: int) -> Iterator[History]:
    """The same ones for the same arguments, whatever else there is."""
    drawn = random.Random(f"{kind}/{number}")
    for _ in range(count):
        yield history(drawn.randbytes(drawn.randint(2, 12)))


def play(kind: str, told: History) -> Machine:
    name, happenings = told
    machine = start(kind, name).copied()
    for happening in happenings:
        machine.happen(*happening)
    come_to_rest(machine)
    return machine


def come_to_rest(machine: Machine) -> None:
    """Without news the operator writes nothing more, after the few passes in which it reads what it has written."""
    machine.disturbances, machine.passes_missed, machine.hurried = (), 0, False
    for _ in range(6):
        version, objects = machine.version, machine.objects
        machine.pass_by(0.0)
        if machine.version == version and machine.objects is objects:
            return
    raise AssertionError(f"passes without news go on writing: {machine}")


FOUND: dict[str, tuple[str, History]] = {
    "a lost status is found again with the spec of what serves, also when the newest spec is invalid": (
        "HTTPRoute",
        ("applied", (("router", TRAFFIC["Replicas"]), ("ill", ("canary", "no room")),
                     ("pods", ("both", "killed by force")), ("paused", "perhaps"), ("status lost", None))),
    ),
    "what the pods have just answered says nothing new in the same moment": (
        "HTTPRoute with prices",
        ("at 10%", (("mode", "Hold"), ("mode", "Hold"), ("errors", ("canary", 1.0)), ("errors", ("both", 0.0)))),
    ),
    "while pods are asked about errors beside stable these are not acted on": (
        "HTTPRoute with prices", ("at 10%", (("errors", ("canary", 1.0)), ("time", 0.5))),
    ),
    "what a held rollback is told by the pods is heard once": (
        "HTTPRoute with prices",
        ("at 50%", (("time", 1.0), ("time", 5.0), ("errors", ("canary", 1.0)), ("mode", "Hold"),
                    ("errors", ("stable", 1.0)))),
    ),
    "requests to a new pod are the operator's own from the moment on in which it is asked": (
        "HTTPRoute with prices",
        ("applied", (("time", 2.0), ("time", 0.0), ("time", 2.0), ("time", 13.0), ("traffic", 0.0), ("time", 60.0),
                     ("steps", [{"weight": 100, "holdSeconds": 3}]))),
    ),
    "a fault upstream that is settled now is not measured again now": (
        "HTTPRoute with prices", ("baking", (("slow", ("both", 0.3)), ("time", 0.0))),
    ),
    "wrong prices hold a canary that is scaled to nothing from that moment on": (
        "HTTPRoute with prices", ("at 10%", (("mode", "Hold"), ("wrong", "canary"), ("replicas", 0))),
    ),
    "an old read of a pod that was away for a moment may take it to be away still": (
        "HTTPRoute", ("at 10%", (("pods", ("canary", "blink")), ("time", 1.0), ("disturbed", Disturbance("stale")),
                                 ("time", 3.0))),
    ),
    "a revision whose end is committed keeps no capacity because somebody gives it weight before it is written": (
        "HTTPRoute",
        ("rolling back", (("time", 1.0), ("time", 1.0), ("time", 2.0), ("disturbed", Disturbance("dies")),
                          ("time", 8.0), ("weight edited", 3))),
    ),
    "pods that both failed are not asked again in the same moment": (
        "HTTPRoute with prices",
        ("baking", (("errors", ("both", 1.0)), ("time", 0.0), ("time", 0.0), ("time", 0.5))),
    ),
    "a canary that loses its weight when stable is back is compared from that moment on": (
        "HTTPRoute with prices",
        ("applied", (("replicas", 1), ("accepted", False), ("scaled by hand", ("stable", 0)), ("time", 130.0))),
    ),
    "what pods are asked from this very moment on is in no count yet": (
        "HTTPRoute with prices", ("at 10%", (("time", 8.0), ("errors", ("canary", 0.2)), ("traffic", 0.0))),
    ),
    "what was counted in this very moment is not carried as well": (
        "HTTPRoute",
        (
            "stable is dead",
            (
                ("replicas", 1), ("errors", ("canary", 1.0)), ("disturbed", Disturbance("dies before the commit")),
                ("time", 0.5), ("replicas", 1), ("replicas", 1),
            ),
        ),
    ),
    "pods that come back after they were gone have to fall silent before their capacity goes": (
        "HTTPRoute",
        ("suspended", (("obeyed", False), ("pods", ("both", "blink")), ("image", "pinn:3"), ("time", 8.0))),
    ),
    "so have those that somebody had scaled away by hand": (
        "HTTPRoute with prices",
        ("at 10%", (("obeyed", False), ("scaled by hand", ("canary", 0)), ("image", "pinn:3"), ("time", 8.0))),
    ),
    "the newest valid spec stays in force when the revision that it asked for has left": (
        "HTTPRoute",
        (
            "turned back",
            (
                *[("time", 1.0)] * 5, ("time", 2.0), ("image", "pinn:2"), ("router", {"router": "Replicas"}),
                ("paused", "perhaps"),
            ),
        ),
    ),
    "what was measured before pods are asked is written with it": (
        "HTTPRoute with prices", ("at 10%", (("time", 5.0), ("errors", ("canary", 0.2)), ("traffic", 0.0))),
    ),
    "errors that no pod of stable could be asked about may be upstream": (
        "HTTPRoute with prices",
        (
            "turned back",
            (
                ("pods", ("canary", "killed by force")), ("time", 8.0), ("errors", ("both", 1.0)),
                ("ill", ("stable", "crashes")), ("time", 0.0), ("time", 5.0),
            ),
        ),
    ),
    "a sample that was asked before the weight was repaired says nothing of it": (
        "HTTPRoute with prices", ("baking", (("time", 2.0), ("errors", ("canary", 0.2)), ("served", False))),
    ),
    "the same answers are not counted twice": (
        "HTTPRoute with prices", ("baking", (("errors", ("canary", 0.2)), ("time", 0.0))),
    ),
    "a revision whose pods are being asked in the bake, and whose steps change meanwhile, may go back to such a step": (
        "HTTPRoute with prices",
        (
            "baking",
            (
                ("errors", ("canary", 1.0)),
                ("steps", [{"weight": weight, "holdSeconds": 2} for weight in (5, 20, 60, 100)]),
            ),
        ),
    ),
    "gates that passed a moment ago do not speak for one that has no data now": (
        "HTTPRoute with prices", ("at 10%", (("time", 8.0), ("time", 5.0), ("hurry", None), ("drift", None))),
    ),
    "a doubt is settled once, together with what was measured until then": (
        "HTTPRoute with prices",
        (
            "baking",
            (("time", 1.0), ("time", 1.0), ("errors", ("canary", 0.2)), ("errors", ("both", 1.0)), ("time", 2.0)),
        ),
    ),
    "a weight that somebody writes as it is was not changed": (
        "HTTPRoute", ("baking", (("traffic", 0.0), ("weight edited", 100), ("time", 5.0))),
    ),
    "pods that somebody gives traffic by hand, while their removal is under way, go after that traffic": (
        "HTTPRoute",
        (
            "turned back",
            (
                ("pods", ("both", "killed by force")), ("disturbed", Disturbance("dies", after=0)), ("time", 8.0),
                ("weight edited", 3),
            ),
        ),
    ),
    "a pod whose image came late has its time to become ready from then on": (
        "HTTPRoute", ("applied", (("ill", ("canary", "registry away")), ("time", 30.0), ("well", None))),
    ),
    "a pod that found no room at first has its time to become ready from its start": (
        "Replicas", ("applied", (("ill", ("canary", "no room")), ("time", 60.0), ("well", None))),
    ),
    "a gate that begins to fail between two judgements does not make the others be judged at the same moment": (
        "Replicas", ("at 50%", (("scaled by hand", ("stable", 7)), ("scaled by hand", ("canary", 7)))),
    ),
    "the gates stay armed under an invalid spec though somebody deleted the record of what serves": (
        "HTTPRoute",
        ("promoting", (("paused", "perhaps"), ("deleted", ("ControllerRevision", "stable")), ("weight edited", 0))),
    ),
    "pods that a router which lags finds again keep their place until they are silent": (
        "HTTPRoute",
        (
            "baking",
            (("errors", ("canary", 1.0)), ("obeyed", False), ("pods", ("both", "preempted")), ("time", 13.0)),
        ),
    ),
    "a fault that is held is forgotten with the weight that it was measured at": (
        "HTTPRoute", ("baking", (("mode", "Hold"), ("drift", 0.9), ("weight edited", 40))),
    ),
    "patience with a pod begins anew with the weight, also where a fault is held": (
        "HTTPRoute", ("at 10%", (("mode", "Hold"), ("clock", 40.0), ("pods", ("canary", "killed by force")))),
    ),
    "an order is executed once, also when a repository brings it back after another one": (
        "HTTPRoute", ("rolled back", (("retry", "2"), ("retry", "1"), ("retry", "2"))),
    ),
    "prices that were asked for by a pass that another one overtook are taken when they are there": (
        "HTTPRoute with prices", ("applied", (("disturbed", Disturbance("another commits first")), ("time", 2.0))),
    ),
    "a canary that was verified while stable was away is compared with it before it gets weight": (
        "HTTPRoute with prices",
        ("applied", (("wrong", "canary"), ("pods", ("stable", "blink")), *(("time", 1.0),) * 6)),
    ),
    "a canary that never had traffic does not get all of it because stable blinks": (
        "HTTPRoute", ("applied", (("pods", ("stable", "blink")), ("time", 1.0), ("time", 1.0))),
    ),
    "what a pass has decided that lost its conflict counts for nothing": (
        "HTTPRoute", ("at 10%", (("disturbed", Disturbance("another commits first")), ("time", 1.0)) * 8),
    ),
    "prices that turn wrong while stable is dead are held against the canary when stable can be asked": (
        "HTTPRoute with prices", ("stable is dead", (("wrong", "canary"), ("well", None), ("time", 5.0))),
    ),
    "a canary that gives its traffic back to be compared is asked for its prices in that very pass": (
        "HTTPRoute with prices",
        (
            "first revision",
            (
                ("time", 1.0), ("clock", 40.0), ("image", "pinn:2"), ("time", 2.0),
                ("pods", ("stable", "killed by force")), ("time", 1.0),
            ),
        ),
    ),
    "a canary that gives its traffic back gets no weight in that very pass before it was compared": (
        "HTTPRoute with prices",
        (
            "first revision",
            (
                ("time", 1.0), ("clock", 40.0), ("image", "pinn:2"), ("time", 2.0),
                ("pods", ("stable", "killed by force")), ("weight edited", 0),
            ),
        ),
    ),
    "a verification, a weight, a sight of it and a sample may follow each other without a pause": (
        "HTTPRoute with prices", ("applied", (("down", 3), ("time", 2.0))),
    ),
    "a paused rollout whose stable revision is dead makes the canary stable for no third revision": (
        "Replicas", ("stable is dead", (("paused", True), ("image", "pinn:3"))),
    ),
    "gates that passed at a moment to come, after the clock was set back, have not passed now": (
        "HTTPRoute",
        (
            "at 10%",
            (
                ("mode", "Auto"), ("time", 8.0), ("errors", ("both", 1.0)), ("readable", True), ("time", 13.0),
                ("scaled by hand", ("stable", 7)), ("clock", -20.0),
            ),
        ),
    ),
    "a canary in doubt goes back to its step when stable is back, and is compared with it there": (
        "HTTPRoute with prices",
        ("at 10%", (("errors", ("both", 1.0)), ("pods", ("stable", "preempted")), ("time", 310.0))),
    ),
    "a doubt ends with the weight that somebody else changed": (
        "HTTPRoute with prices",
        (
            "at 10%",
            (("deleted", ("Deployment", "stable")), ("errors", ("canary", 1.0)), ("router", TRAFFIC["Replicas"])),
        ),
    ),
    "a canary in doubt that is scaled to nothing begins anew, without traffic": (
        "HTTPRoute with prices", ("baking", (("errors", ("canary", 1.0)), ("replicas", 0))),
    ),
    "what fails for everybody before stable is back is held against the canary that cannot be asked for prices": (
        "HTTPRoute", ("stable is dead", (("errors", ("both", 1.0)), ("time", 2.0), ("well", None))),
    ),
}  # fmt: skip
"""Histories that once broke an invariant, by what is right."""


@pytest.mark.parametrize("told", FOUND.values(), ids=FOUND)
def test_what_was_found_once_stays_right(told: tuple[str, History]) -> None:
    play(*told)


def test_a_canary_that_fails_all_clients_goes_although_passes_are_too_rare_to_hear_a_second_opinion() -> None:
    told: History = ("baking", (("prices", "late"), ("errors", ("canary", 1.0)), *(("time", 13.0),) * 3))
    assert play("HTTPRoute with prices", told).state.phase in (Phase.ROLLING_BACK, Phase.ROLLED_BACK)


def test_requests_are_counted_once_after_the_clock_was_set_back() -> None:
    machine = start("HTTPRoute", "at 10%").copied()
    for happening in (("readable", False), ("clock", -3600.0), ("time", 1.0), ("time", 1.0), ("time", 3.0)):
        machine.happen(*happening)
    assert machine.state.rollout is not None
    [counted] = [gate.samples for gate in machine.state.rollout.gates if gate.name == "error-rate"]
    assert counted == 2, "as many as were read before that"


def test_what_serves_is_adopted_under_an_invalid_spec_when_the_status_is_lost() -> None:
    machine = play("HTTPRoute", ("at 50%", (("paused", "perhaps"), ("status lost", None))))
    assert machine.state.stable is not None
    assert machine.state.stable.image == "pinn:1"
    assert machine.live_weights()["eu-options-canary"] == 0


EXAMPLES = int(os.environ.get("PINN_EXAMPLES", "0"))
"""So many histories in each test instead of the usual, which are the same in each run; `pytest -s` shows the seed,
`PINN_SEED` repeats it."""
SEED = int(os.environ.get("PINN_SEED", "0")) or (random.randrange(1, 2**32) if EXAMPLES else 1)
PARTS = 2
"""Of the histories of a kind, so that two cores share them evenly."""


@pytest.mark.parametrize("part", range(PARTS))
@pytest.mark.parametrize("kind", KINDS)
def test_every_pass_of_every_history_keeps_the_invariants(kind: str, part: int) -> None:
    if EXAMPLES:
        print(f"{kind}: {EXAMPLES} histories, PINN_SEED={SEED}, part {part}")
    for told in histories(kind, SEED * PARTS + part, EXAMPLES or KINDS[kind]):
        try:
            play(kind, told)
        except AssertionError as fault:
            raise AssertionError(f"{kind}: {shortened(kind, told)}") from fault
        except Exception as fault:
            fault.add_note(f"{kind}: {told}")
            raise


def shortened(kind: str, told: History) -> History:
    """Without what need not happen for it to fail."""
    start_name, happenings = told
    place = 0
    while place < len(happenings):
        fewer = (*happenings[:place], *happenings[place + 1 :])
        if fails(kind, (start_name, fewer)):
            happenings = fewer
        else:
            place += 1
    return start_name, happenings


def fails(kind: str, told: History) -> bool:
    try:
        play(kind, told)
    except AssertionError:
        return True
    return False
