"""Implied volatilities: how exact and how fast, beside lets_be_rational and vollib, in this process and on one core.

    python -m benchmarks.implied_volatility --output benchmarks/results/implied_volatility.json

European: total volatilities against 40 digits by mpmath, for the same prices as lets_be_rational (the successor of
py_lets_be_rational) gets; then the time of a batch of options whose prices tell their volatilities, the best and the
median of `--repeat` calls by processor time, since others may use the machine. American: prices by the integral
equation, searched on by the networks. `passed` is whether a million European options a second were inverted, and no
less exactly than by lets_be_rational.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from typing import Any, Final

import mpmath as mp
import numpy as np
from lets_be_rational import normalised_implied_volatility_from_a_transformed_rational_guess as reference
from vollib.black_scholes_merton.implied_volatility import implied_volatility as vollib_implied_volatility

from benchmarks.report import emit, parser
from pinn_inference.pricing import closed_form, integral_equation
from pinn_inference.pricing.american import load_numpy_american
from pinn_inference.pricing.american_implied_volatility import AmericanSearch
from pinn_inference.pricing.artefact import bundled_directory
from pinn_inference.pricing.implied_volatility import Outcome, implied_volatility, total_volatility
from pinn_inference.pricing.model import load_numpy_model
from pinn_inference.pricing.types import FloatArray, OptionBatch

_SIZES: Final = (1, 100, 10_000, 65_536)
_ONE_BY_ONE: Final = 2_000
_EPS: Final = float(np.finfo(np.float64).eps)
_GOAL: Final = 1e6


def quoted(n: int, *, seed: int) -> OptionBatch:
    """European options as desks quote them: four standard deviations around the forward, a week to three years."""
    draw = np.random.default_rng(seed)
    maturity, volatility = 10 ** draw.uniform(-1.7, 0.5, n), 10 ** draw.uniform(-1.0, -0.1, n)
    rate, dividend = draw.uniform(0.0, 0.08, n), draw.uniform(0.0, 0.05, n)
    moneyness = volatility * np.sqrt(maturity) * draw.uniform(-4.0, 4.0, n)
    spot = 100.0 * np.exp(moneyness - (rate - dividend) * maturity)
    is_call = moneyness < 0.0  # the side that is out of the money: the other has fewer digits of time value left
    return OptionBatch(spot, np.full(n, 100.0), maturity, rate, dividend, volatility, is_call)


def exactness(n: int) -> dict[str, Any]:
    """Errors of total volatilities, in units of float64's last place, of both for the same prices below the middle."""
    draw = np.random.default_rng(1)
    k, s = 10 ** draw.uniform(-6.0, 1.0, 4 * n), 10 ** draw.uniform(-3.0, 0.7, 4 * n)
    rows = []
    with mp.workdps(40):
        for one_k, one_s in zip(k.tolist(), s.tolist(), strict=True):
            x, t = mp.mpf(one_k), mp.mpf(one_s)
            most = mp.exp(-x / 2)
            beta = mp.ncdf(-x / t + t / 2) * most - mp.ncdf(-x / t - t / 2) / most
            if 1e-280 < beta < most / 2 and len(rows) < n:
                slope = mp.npdf(x / t) * mp.exp(-t * t / 8)
                rows.append((one_k, float(beta), float(most - beta), t + (mp.mpf(float(beta)) - beta) / slope))
        price, rest = (np.array([row[i] for row in rows]) for i in (1, 2))
        ours = total_volatility(np.array([row[0] for row in rows]), price, rest)[0].tolist()
        theirs = [float(reference(beta, -one_k, 1.0)) for one_k, beta, _, _ in rows]
        errors = {
            name: [abs(float(mp.mpf(one) / row[3] - 1)) / _EPS for one, row in zip(found, rows, strict=True)]
            for name, found in (("ours", ours), ("lets_be_rational", theirs))
        }
    return {
        "points": len(rows),
        "unit": "2.2e-16 of the total volatility",
        **{name: {"largest": round(max(e), 2), "mean": round(statistics.fmean(e), 2)} for name, e in errors.items()},
    }


def processor_seconds(call: Callable[[], object], repeat: int) -> tuple[float, float]:
    """The best and the median of so many calls."""
    call()
    taken = []
    for _ in range(repeat):
        began = time.process_time()
        call()
        taken.append(time.process_time() - began)
    return min(taken), statistics.median(taken)


def rate(n: int, seconds: float) -> int:
    return round(n / seconds)


def european_speed(options: OptionBatch, price: FloatArray, repeat: int) -> list[dict[str, Any]]:
    results = []
    for size in _SIZES:
        rows = slice(0, size)
        batch, asked = options.take(rows), price[rows]
        best, median = processor_seconds(
            lambda batch=batch, asked=asked: implied_volatility(batch, asked), repeat if size > 1000 else 20 * repeat
        )
        results.append({"who": "ours", "batch": size, "per_second": rate(size, best), "median": rate(size, median)})
        print(results[-1], file=sys.stderr)
    return results


def rivals_speed(options: OptionBatch, price: FloatArray, repeat: int) -> list[dict[str, Any]]:
    """One option at a time, which is how both take them."""
    few = options.take(slice(0, _ONE_BY_ONE))
    asset, cash = few.spot * np.exp(-few.dividend * few.maturity), few.strike * np.exp(-few.rate * few.maturity)
    normal = list(zip((price[:_ONE_BY_ONE] / np.sqrt(asset * cash)).tolist(), np.log(asset / cash).tolist(),
                      np.where(few.is_call, 1.0, -1.0).tolist(), strict=True))  # fmt: skip
    columns = (price[:_ONE_BY_ONE], few.spot, few.strike, few.maturity, few.rate, few.dividend)
    flags = np.where(few.is_call, "c", "p").tolist()
    rows = list(zip(*(column.tolist() for column in columns), flags, strict=True))
    calls = {
        "lets_be_rational": lambda: [reference(*row) for row in normal],
        "vollib": lambda: [vollib_implied_volatility(*row) for row in rows],
    }
    results = []
    for name, call in calls.items():
        best, median = processor_seconds(call, repeat)
        n = len(rows)
        results.append({"who": name, "batch": 1, "per_second": rate(n, best), "median": rate(n, median)})
        print(results[-1], file=sys.stderr)
    return results


def american(n: int) -> dict[str, Any]:
    """Errors, bounds and time of American volatilities."""
    draw = np.random.default_rng(0)
    options = OptionBatch(
        100.0 * np.exp(draw.normal(0.0, 0.25, n)),
        np.full(n, 100.0),
        draw.uniform(0.1, 2.0, n),
        draw.uniform(0.005, 0.1, n),
        draw.uniform(0.0, 0.1, n),
        draw.uniform(0.1, 0.6, n),
        draw.uniform(size=n) < 0.5,
        np.ones(n, dtype=np.bool_),
    )
    price = integral_equation.price(options).price
    model = load_numpy_american(bundled_directory("american"), load_numpy_model(bundled_directory()))
    began, priced = time.process_time(), 0
    search = AmericanSearch(options, price)
    while (trial := search.trial) is not None:
        search.learn(model.price(trial))
        priced += len(trial)
    seconds, found = time.process_time() - began, search.found
    known = found.outcome == Outcome.FOUND
    errors, bounds = np.abs(found.volatility - options.volatility)[known], found.error_bound[known]
    return {
        "options": n,
        "found": int(known.sum()),
        "not_identifiable": int((found.outcome == Outcome.NOT_IDENTIFIABLE).sum()),
        "largest_error": float(f"{errors.max():.2e}"),
        "median_error": float(f"{np.median(errors):.2e}"),
        "median_bound": float(f"{np.median(bounds):.2e}"),
        "errors_beyond_their_bound": int((errors > bounds).sum()),
        "prices_per_option": round(priced / n, 2),
        "microseconds_per_option": round(1e6 * seconds / n, 1),
    }


def main() -> int:
    arguments = parser(__doc__ or "")
    arguments.add_argument("--repeat", type=int, default=9)
    arguments.add_argument("--points", type=int, default=1000, help="prices whose volatilities are known to 40 digits")
    arguments.add_argument("--american", type=int, default=1000, help="American options")
    options = arguments.parse_args()
    quotes = quoted(max(_SIZES), seed=2)
    price = closed_form.price(quotes).price
    found = implied_volatility(quotes, price)
    known = found.outcome == Outcome.FOUND
    exact = exactness(options.points)
    speed = european_speed(quotes, price, options.repeat)
    exact_enough = exact["ours"]["largest"] <= exact["lets_be_rational"]["largest"] + 4.0
    document = {
        "test": "implied volatility",
        "passed": speed[-1]["per_second"] >= _GOAL and exact_enough,
        "goal_per_second": _GOAL,
        "rivals": {name: version(name) for name in ("lets_be_rational", "vollib", "mpmath")},
        "european": {
            "found": round(float(known.mean()), 4),
            "total_volatility_error": exact,
            "largest_error_over_bound": round(
                float((np.abs(found.volatility - quotes.volatility) / found.error_bound)[known].max()), 3
            ),
            "by_processor_time": [*speed, *rivals_speed(quotes, price, 3)],
        },
        "american": american(options.american),
    }
    return emit(document, options.output)


if __name__ == "__main__":
    sys.exit(main())
