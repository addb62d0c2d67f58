"""How the gate memory-growth of profile Standard judges simulated pods, as JSON.

    python -m benchmarks.memory_growth --output benchmarks/results/memory_growth.json

Each trial is two hours at a weight, with a hold of 30 minutes: the memory of one pod, read every 15 s and judged by the
operator's own code every two minutes. The shapes are those of `lab/memory_shapes.py`; on top of each there is
no leak, or one of 20, 200 or 2,000 MB per hour.
"""

from __future__ import annotations

import argparse
import sys
from statistics import median
from typing import Any

from benchmarks.report import emit, parser, percentile
from lab.memory_shapes import HEALTHY
from lab.memory_trials import Trial, trial

LEAKS = (20.0, 200.0, 2000.0)
FALSE_GOAL = 0.001
"""Share of healthy pods that may be rejected."""
QUIET = frozenset({"plateau", "compiling", "filling", "jumping", "arenas"})
"""Shapes that end in a plateau: an hour shows a leak of 20 MB/h on top of them."""


def row(shape: str, leak: float, trials: list[Trial]) -> dict[str, Any]:
    """Shares of the trials, and minutes since the weight was written."""
    rejected = [it.rejected / 60 for it in trials if it.rejected is not None]
    passed = [it.passed / 60 for it in trials if it.passed is not None]
    return {
        "shape": shape,
        "leakMBPerHour": leak,
        "trials": len(trials),
        "rejected": round(len(rejected) / len(trials), 5),
        "passed": round(len(passed) / len(trials), 5),
        "minutesToReject": {"median": median(rejected), "most": percentile(rejected, 1)} if rejected else None,
        "minutesToPass": {"median": median(passed), "p95": percentile(passed, 0.95)} if passed else None,
    }


def goals(rows: list[dict[str, Any]]) -> dict[str, bool]:
    """What is wanted."""

    def of(leak: float) -> list[dict[str, Any]]:
        return [it for it in rows if it["leakMBPerHour"] == leak]

    healthy = of(0.0)
    trials = sum(it["trials"] for it in healthy)
    rejected = sum(it["rejected"] * it["trials"] for it in healthy)
    return {
        "healthy rejected at most 0.1 %": rejected <= FALSE_GOAL * trials,
        "2 GB/h rejected within half an hour": all(
            it["rejected"] == 1 and it["minutesToReject"]["most"] <= 30 for it in of(2000.0)
        ),
        "200 MB/h rejected within two hours, never passed": all(
            it["rejected"] >= 0.95 and it["passed"] == 0 for it in of(200.0)
        ),
        "20 MB/h never passed on what ends in a plateau": all(
            it["passed"] <= 0.01 for it in of(20.0) if it["shape"] in QUIET
        ),
    }


def main() -> int:
    options: argparse.ArgumentParser = parser(__doc__ or "")
    options.add_argument("--trials", type=int, default=100, help="of each shape and leak")
    options.add_argument("--healthy", type=int, default=450, help="of each shape without a leak")
    arguments = options.parse_args()
    rows = []
    for shape in HEALTHY:
        for leak in (0.0, *LEAKS):
            count = arguments.trials if leak else arguments.healthy
            rows.append(row(shape, leak, [trial(shape, leak, seed) for seed in range(count)]))
            print(rows[-1], file=sys.stderr, flush=True)
    wanted = goals(rows)
    return emit(
        {"test": "memory_growth", "rows": rows, "goals": wanted, "passed": all(wanted.values())}, arguments.output
    )


if __name__ == "__main__":
    sys.exit(main())
