"""Phrases that conditions, columns and the next action share."""

from __future__ import annotations

from pinn_operator.core.status.values import GOES_ON, GateStatus, Phase, Status, Verdict

GRAVITY = (Verdict.FAIL, Verdict.ERROR, Verdict.NO_DATA, Verdict.COLLECTING, Verdict.PASS, Verdict.NOT_APPLICABLE)
"""From the worst to the best."""


def what_goes_on(status: Status) -> str:
    """The phase as a sentence with its revisions."""
    stable = status.stable.revision if status.stable else "none"
    canary = status.canary.revision if status.canary else "none"
    weight = status.rollout.weight if status.rollout else 0
    match status.phase:
        case Phase.PENDING:
            return f"revision {stable} starts"
        case Phase.SUSPENDED:
            return f"the rollout of {canary} is suspended at {weight}%, {stable} serves"
        case Phase.PROGRESSING if weight == 0:
            return f"revision {canary} has no traffic yet, {stable} serves"
        case Phase.PROGRESSING | Phase.BAKING:
            return f"revision {canary} has {weight}%, {stable} is kept for an instant return"
        case Phase.PROMOTING:
            return f"revision {stable} is promoted, the old capacity leaves"
        case Phase.ROLLING_BACK:
            return f"revision {canary} leaves, {stable} serves"
        case _:
            return f"revision {stable} serves"


def worst(gates: tuple[GateStatus, ...]) -> GateStatus | None:
    """The gate with the worst verdict, the first of several; None if there is none. Those that never hold come last."""
    rank = {verdict: place for place, verdict in enumerate(GRAVITY)}
    return min(
        gates, key=lambda gate: (not gate.holds and gate.verdict not in GOES_ON, rank.get(gate.verdict, len(rank))),
        default=None,
    )  # fmt: skip
