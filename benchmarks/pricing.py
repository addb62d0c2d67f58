"""Time of one call of the model and of the closed form, by batch size, in this process and on one core. JSON out.

    python3 benchmarks/pricing.py [--repeat 5] > benchmarks/results/pricing.json

Every call returns price and all five Greeks. `repeat` runs of 200 calls (30 for large batches); microseconds per call.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable

import numpy as np

from pinn_inference.pricing import closed_form
from pinn_inference.pricing.model import bundled_directory, load_model
from pinn_inference.tensorflow_runtime import load_tensorflow
from pinn_inference.training.accuracy import sample_options

SIZES = (1, 16, 256, 4096, 10_000, 65_536)


def microseconds(call: Callable[[], object], calls: int) -> dict[str, float]:
    """Median, 99th percentile and processor time of one call."""
    call()
    walls, cpu = [], time.process_time()
    for _ in range(calls):
        began = time.perf_counter()
        call()
        walls.append(1e6 * (time.perf_counter() - began))
    cpu = 1e6 * (time.process_time() - cpu) / calls
    return {
        "p50": round(statistics.median(walls), 1),
        "p99": round(float(np.quantile(walls, 0.99)), 1),
        "cpu": round(cpu, 1),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeat", type=int, default=5, help="runs per batch size (default: %(default)s)")
    arguments = parser.parse_args()
    began = time.perf_counter()
    tf = load_tensorflow(threads=1)
    imported = time.perf_counter()
    model = load_model(bundled_directory())
    model.warm_up()
    model.self_check()
    ready = time.perf_counter()
    options = sample_options(max(SIZES), seed=1)
    results = []
    for size in SIZES:
        batch = options.take(slice(0, size))
        calls = 200 if size <= 4096 else 30
        for name, price in (("pinn", model.price), ("closed_form", closed_form.price)):
            runs = [microseconds(lambda price=price, batch=batch: price(batch), calls) for _ in range(arguments.repeat)]
            results.append({"method": name, "batch": size, "calls": calls, "microseconds": runs})
            print(f"{name} {size}: {min(run['p50'] for run in runs)} µs", file=sys.stderr)
    report = {
        "what": "one call: price and five Greeks",
        "machine": {"architecture": platform.machine(), "cores": os.cpu_count(), "load_1min": os.getloadavg()[0]},
        "versions": {"python": platform.python_version(), "numpy": np.__version__, "tensorflow": tf.__version__},
        "model": {"sha256": model.sha256},
        "seconds": {"import_tensorflow": round(imported - began, 2), "load_warm_check": round(ready - imported, 2)},
        "results": results,
    }
    json.dump(report, sys.stdout, indent=1)
    print()
    return 0


if __name__ == "__main__":
    sys.exit(main())
