"""py_vollib_vectorized, run by `rivals.py` in an environment of its own: options from an .npz, JSON and prices out.

python benchmarks/vectorized_rival.py OPTIONS.npz ROUNDS ANSWER.npz
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.stopwatch import calls_per_round, median_seconds


def main() -> int:
    options, rounds, answer = Path(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
    import py_vollib_vectorized

    def price(batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        arguments = (
            np.where(batch["is_call"], "c", "p"),
            batch["spot"],
            batch["strike"],
            batch["maturity"],
            batch["rate"],
            batch["volatility"],
            batch["dividend"],
        )
        value = py_vollib_vectorized.vectorized_black_scholes_merton(*arguments, return_as="numpy")
        greeks = py_vollib_vectorized.get_all_greeks(*arguments, model="black_scholes_merton", return_as="dict")
        return {"price": value, **{name: np.asarray(column) for name, column in greeks.items()}}

    batches = {}
    with np.load(options) as stored:
        for key in stored.files:
            size, name = key.split(".")
            batches.setdefault(size, {})[name] = stored[key]
    np.savez(answer, **price(batches.pop("sample")))
    seconds = {}
    for size, batch in batches.items():
        call = lambda batch=batch: price(batch)  # noqa: E731
        calls = calls_per_round(call)
        seconds[size] = [median_seconds(call, calls) for _ in range(rounds)]
    print(json.dumps(seconds))
    return 0


if __name__ == "__main__":
    sys.exit(main())
