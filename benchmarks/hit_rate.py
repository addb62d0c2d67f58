"""How often a noisy quote hits the cache, and how far its price is from the uncached one, as JSON.

    python -m benchmarks.hit_rate --output benchmarks/results/hit_rate.json

Base quotes as a desk asks them; around each of them the rate moves by 1 % and the volatility by 2 %, read in both ways:
of themselves, and in percentage points. The cache starts empty, without the warm-up that a server does.
"""

from __future__ import annotations

import random
import sys
from typing import Any

from benchmarks.cache_hit import Inputs, nearby, random_inputs
from benchmarks.report import emit, parser
from pinn_inference.pricing.artefact import Artefact, bundled_directory, read
from pinn_inference.pricing.cache import QuoteCache
from pinn_inference.pricing.scalar import ScalarPricer

GOAL = 0.8
PRICE_TOLERANCE = 1e-7
"""Most by which a cached price may differ, in strikes."""


def within_points(inputs: Inputs, source: random.Random) -> Inputs:
    """Rate and volatility moved by up to one and two percentage points."""
    spot, strike, maturity, rate, dividend, volatility, is_call = inputs
    rate += source.uniform(-0.01, 0.01)
    volatility = max(volatility + source.uniform(-0.02, 0.02), 0.01)
    return spot, strike, maturity, rate, dividend, volatility, is_call


def measure(artefact: Artefact, *, bases: int, repeats: int, relative: bool) -> dict[str, Any]:
    source = random.Random(2)
    cache, direct = QuoteCache(artefact), ScalarPricer(artefact)
    move = nearby if relative else within_points
    worst = 0.0
    for _ in range(bases):
        base = random_inputs(source)
        for _ in range(repeats):
            inputs = move(base, source)
            cached, uncached = cache.quote(*inputs), direct.quote(*inputs)
            if cached is None or uncached is None:
                raise RuntimeError(f"not priced by the network: {inputs}")
            worst = max(worst, abs(cached.price - uncached.price) / inputs[1])
    stats = cache.stats()
    return {
        "noise": "r and σ by 1 % and 2 % of themselves" if relative else "r and σ by 1 and 2 percentage points",
        "quotes": bases * repeats,
        "hit_rate": round(stats.total.hit_rate, 4),
        "hits_by_level": {"quotes": stats.quotes.hits, "cells": stats.cells.hits},
        "largest_price_difference_per_strike": worst,
    }


def main() -> int:
    command = parser(__doc__ or "")
    command.add_argument("--bases", type=int, default=20, help="base quotes")
    command.add_argument("--repeats", type=int, default=200, help="noisy quotes around each")
    arguments = command.parse_args()
    artefact = read(bundled_directory())
    runs = [
        measure(artefact, bases=arguments.bases, repeats=arguments.repeats, relative=relative)
        for relative in (True, False)
    ]
    passed = all(
        run["hit_rate"] > GOAL and run["largest_price_difference_per_strike"] <= PRICE_TOLERANCE for run in runs
    )
    document = {
        "test": "hit_rate",
        "iterations": sum(run["quotes"] for run in runs),
        "goal": GOAL,
        "hit_rate": min(run["hit_rate"] for run in runs),
        "runs": runs,
        "passed": passed,
    }
    return emit(document, arguments.output)


if __name__ == "__main__":
    sys.exit(main())
