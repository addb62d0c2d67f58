"""What a cache hit saves, as JSON.

    python -m benchmarks.cache_hit --output benchmarks/results/cache_hit.json

In process, one thread. A *miss* is a quote of which the cache knows nothing: its cell has to be built. A *hit* is a
quote with the rate and the volatility moved a little, which finds that cell. Beside them what the requirement does not
ask for but a reader needs to judge the cache: an *exact* hit, the same option again, and *uncached*, the network asked
directly; and American options, of which only exact repeats hit, through the server's own model: priced by the network,
and, outside its domain, by the integral equation.
"""

from __future__ import annotations

import random
import sys
import time

from benchmarks.report import emit, milliseconds, parser
from pinn_inference.pricing.artefact import bundled_directory, read
from pinn_inference.pricing.cache import QuoteCache
from pinn_inference.pricing.scalar import ScalarPricer, single
from pinn_inference.pricing.types import Method
from pinn_inference.server.config import ServerConfig
from pinn_inference.server.served_model import load_configured_model

Inputs = tuple[float, float, float, float, float, float, bool]


def random_inputs(source: random.Random) -> Inputs:
    """An option as a desk quotes it."""
    return (
        source.uniform(60.0, 160.0),
        100.0,
        source.uniform(0.02, 2.0),
        source.uniform(0.0, 0.06),
        source.uniform(0.0, 0.04),
        source.uniform(0.1, 0.6),
        source.random() < 0.5,
    )


def nearby(inputs: Inputs, source: random.Random) -> Inputs:
    """Rate and volatility moved by up to one and two per cent of themselves."""
    spot, strike, maturity, rate, dividend, volatility, is_call = inputs
    rate *= 1.0 + source.uniform(-0.01, 0.01)
    volatility *= 1.0 + source.uniform(-0.02, 0.02)
    return spot, strike, maturity, rate, dividend, volatility, is_call


def american(iterations: int) -> dict[str, float]:
    """Medians in milliseconds."""
    model = load_configured_model(ServerConfig())
    model.warm_up()
    source = random.Random(3)
    network: list[float] = []
    equation: list[float] = []
    hit: list[float] = []
    clock = time.perf_counter
    while len(network) < iterations or len(equation) < iterations // 20:
        spot, strike, maturity, rate, dividend, volatility, is_call = random_inputs(source)
        # A rate below zero is outside the network's domain.
        outside = len(network) >= iterations
        option = (spot, strike, maturity, -0.01 if outside else rate, dividend, volatility, is_call, True)
        times = [clock()]
        quote = model.quote_american(option)
        times.append(clock())
        if quote is None:
            times[0] = clock()
            answer = model.price(single(*option))
            times[1] = clock()
            if answer.method[0] == Method.INTEGRAL_EQUATION:
                equation.append(times[1] - times[0])
            continue
        network.append(times[1] - times[0])
        began = clock()
        model.quote_american(option)
        hit.append(clock() - began)
    return {
        "network_p50_ms": milliseconds(network, 0.5),
        "integral_equation_p50_ms": milliseconds(equation, 0.5),
        "exact_hit_p50_ms": milliseconds(hit, 0.5),
    }


def main() -> int:
    command = parser(__doc__ or "")
    command.add_argument("--iterations", type=int, default=3000)
    arguments = command.parse_args()
    artefact = read(bundled_directory())
    cache, direct = QuoteCache(artefact), ScalarPricer(artefact)
    source = random.Random(1)
    miss: list[float] = []
    hit: list[float] = []
    exact: list[float] = []
    uncached: list[float] = []
    clock = time.perf_counter
    for turn in range(arguments.iterations + 200):
        inputs = random_inputs(source)
        near = nearby(inputs, source)
        cache.reset()
        times = [clock()]
        first = cache.quote(*inputs)
        times.append(clock())
        second = cache.quote(*near)
        times.append(clock())
        third = cache.quote(*near)
        times.append(clock())
        direct.quote(*near)
        times.append(clock())
        if first is None or second is None or third is None or first.cached or not third.cached:
            raise RuntimeError(f"the cache did not do what it is for: {inputs}")
        # The first turns warm the interpreter up; one in some tens crosses into the next cell and is no hit.
        if turn >= 200 and second.cached:
            miss.append(times[1] - times[0])
            hit.append(times[2] - times[1])
            exact.append(times[3] - times[2])
            uncached.append(times[4] - times[3])
    miss_p50, hit_p50, uncached_p50 = (milliseconds(times, 0.5) for times in (miss, hit, uncached))
    speedup = round(miss_p50 / hit_p50, 2)
    return emit(
        {
            "test": "cache_hit",
            "iterations": len(miss),
            "miss_p50_ms": miss_p50,
            "miss_p95_ms": milliseconds(miss, 0.95),
            "hit_p50_ms": hit_p50,
            "hit_p95_ms": milliseconds(hit, 0.95),
            "exact_hit_p50_ms": milliseconds(exact, 0.5),
            "exact_hit_p95_ms": milliseconds(exact, 0.95),
            "uncached_p50_ms": uncached_p50,
            "uncached_p95_ms": milliseconds(uncached, 0.95),
            "speedup_p50": speedup,
            "speedup_over_uncached_p50": round(uncached_p50 / hit_p50, 2),
            "exact_speedup_over_uncached_p50": round(uncached_p50 / milliseconds(exact, 0.5), 2),
            "american": american(arguments.iterations // 5),
            "savings_p50_ms": round(miss_p50 - hit_p50, 5),
            "passed": speedup > 2.0,
        },
        arguments.output,
    )


if __name__ == "__main__":
    sys.exit(main())
