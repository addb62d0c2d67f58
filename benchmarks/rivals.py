"""Accuracy and speed of our pricing beside others', in one run, on one core: JSON, a table, a picture.

    python -m benchmarks.rivals --output benchmarks/results/rivals.json \\
        --table benchmarks/results/rivals.md --plot docs/images/rivals.png

Everyone prices the same options. Errors are the largest of a sample, against 40 digits by mpmath (European) or
QuantLib's QdFp engine with more nodes than its scheme of high precision has (American). Contestants take turns,
round after round, so that a noisy neighbour meets all of them; the time is the median of the rounds' medians.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

_PINNED = "PINN_RIVALS_CORE"
_ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
_PACKAGES = ("numpy", "scipy", "tensorflow-cpu", "QuantLib", "vollib", "keras")
_LOCK = Path(__file__).resolve().parents[1] / "requirements" / "rivals.lock"


def run_on_one_core() -> int:
    """Starts this program anew on the last core, with one thread in every library, unless it runs so already."""
    if _PINNED not in os.environ:
        core = max(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {core})
        os.environ.update(dict.fromkeys(_ONE_THREAD, "1") | {_PINNED: str(core)})
        os.execv(sys.executable, [sys.executable, "-m", "benchmarks.rivals", *sys.argv[1:]])
    return int(os.environ[_PINNED])


@dataclass
class Result:
    """What one contestant showed. `microseconds` maps a batch size to the time of one call, each round's median."""

    name: str
    kind: str
    style: str
    note: str
    price_error: float | None = None
    greek_errors: dict[str, float] = field(default_factory=dict)
    microseconds: dict[int, list[float]] = field(default_factory=dict)

    def options_per_second(self, size: int) -> float:
        return size / statistics.median(self.microseconds[size]) * 1e6

    @property
    def best(self) -> float:
        """Options per second in the batch that suits it best."""
        return max(map(self.options_per_second, self.microseconds))

    def as_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "kind": self.kind,
            "style": self.style,
            "note": self.note,
            "largest_price_error_per_strike": self.price_error,
            "largest_greek_errors": self.greek_errors,
            "microseconds_per_call": {
                size: [round(each, 2) for each in times] for size, times in self.microseconds.items()
            },
            "options_per_second": {size: round(self.options_per_second(size)) for size in self.microseconds},
        }


def european_options(n: int, seed: int) -> Any:
    """Calls and puts: S/K 0.5..2, T a week to five years, σ 5..85 % (all log-uniform), r −1..10 %, q 0..6 %."""
    return _options(
        n, seed, days=(7, 1825), volatility=(0.05, 0.85), rate=(-0.01, 0.10), dividend=(0.0, 0.06), wide=2.0
    )


def american_options(n: int, seed: int) -> Any:
    """Calls and puts: S/K 0.7..1.4, T a month to three years, σ 15..60 % (log-uniform), r 0.5..8 %, q 0.5..6 %."""
    return _options(
        n,
        seed,
        days=(30, 1095),
        volatility=(0.15, 0.6),
        rate=(0.005, 0.08),
        dividend=(0.005, 0.06),
        wide=1.4,
        american=True,
    )


def _options(
    n: int,
    seed: int,
    *,
    days: tuple[int, int],
    volatility: tuple[float, float],
    rate: tuple[float, float],
    dividend: tuple[float, float],
    wide: float,
    american: bool = False,
) -> Any:
    import numpy as np

    from pinn_inference.pricing.types import OptionBatch

    rng = np.random.default_rng(seed)

    def log_uniform(low: float, high: float) -> Any:
        return np.exp(rng.uniform(np.log(low), np.log(high), n))

    return OptionBatch(
        spot=100.0 * log_uniform(1.0 / wide, wide),
        strike=np.full(n, 100.0),
        maturity=np.round(log_uniform(*days)) / 365.0,
        rate=rng.uniform(*rate, n),
        dividend=rng.uniform(*dividend, n),
        volatility=log_uniform(*volatility),
        is_call=rng.uniform(size=n) < 0.5,
        is_american=np.full(n, american),
    )


def european_reference(batch: Any) -> dict[str, Any]:
    """Black, Scholes and Merton with 40 digits, rounded to float64 at the end."""
    import numpy as np
    from mpmath import mp, mpf

    from benchmarks.contestants import VALUES, rows

    def quote(*option: Any) -> list[float]:
        *numbers, is_call = option
        s, k, t, r, q, v = map(mpf, numbers)
        sign = 1 if is_call else -1
        spread = v * mp.sqrt(t)
        d1 = (mp.log(s / k) + (r - q) * t) / spread + spread / 2
        held, owed = s * mp.exp(-q * t) * mp.ncdf(sign * d1), k * mp.exp(-r * t) * mp.ncdf(sign * (d1 - spread))
        vega = s * mp.exp(-q * t) * mp.npdf(d1) * mp.sqrt(t)
        theta = sign * (q * held - r * owed) - vega * v / (2 * t)
        return [
            float(value)
            for value in (sign * (held - owed), sign * held / s, vega / (s * s * v * t), vega, theta, sign * t * owed)
        ]

    with mp.workdps(40):
        found = [quote(*option) for option in rows(batch)]
    return dict(zip(VALUES, np.array(found).T, strict=True))


def greek_scales(batch: Any) -> dict[str, Any]:
    """Each Greek's natural size, as `golden.greek_scales`: what an error of it is measured in."""
    from pinn_inference.pricing import golden

    return dict(golden.greek_scales(batch))


def errors(found: dict[str, Any], exact: dict[str, Any], batch: Any) -> tuple[float, dict[str, float]]:
    """Largest price error per unit of strike, and of each Greek per unit of its natural size; NaN is infinite."""
    import numpy as np

    scales = greek_scales(batch)

    def largest(name: str, scale: Any) -> float:
        error = np.abs(np.asarray(found[name]) - exact[name]) / scale
        return float(f"{float(np.max(np.where(np.isnan(error), np.inf, error))):.3g}")

    greeks = {name: largest(name, scales[name]) for name in found if name != "price" and name in exact}
    return largest("price", batch.strike), greeks


def race(contestants: Sequence[Any], sample: Any, exact: dict[str, Any], many: Any, rounds: int) -> list[Result]:
    """Errors of everyone on `sample`, then the times of everyone in turn on the first options of `many`."""
    from benchmarks.stopwatch import calls_per_round, median_seconds

    results, turns = [], []
    for one in contestants:
        result = Result(one.name, one.kind, one.style, one.note)
        if one.has_accuracy:
            result.price_error, result.greek_errors = errors(one.prepare(sample)(), exact, sample)
        results.append(result)
        for size in one.sizes:
            call = one.prepare(many.take(slice(0, size)))
            turns.append((result, size, call, calls_per_round(call)))
        print(f"{one.name}: largest price error {result.price_error}", file=sys.stderr)
    for number in range(rounds):
        print(f"round {number + 1} of {rounds}", file=sys.stderr)
        for result, size, call, calls in turns:
            result.microseconds.setdefault(size, []).append(1e6 * median_seconds(call, calls))
    return results


def vectorized_rival(sample: Any, exact: dict[str, Any], many: Any, rounds: int, folder: Path) -> Result:
    """py_vollib_vectorized in an environment made for it; raises CalledProcessError where that cannot be made."""
    import numpy as np

    from benchmarks.contestants import MANY, in_units_of_ours
    from pinn_inference.pricing.types import COLUMNS

    python = folder / "venv" / "bin" / "python"
    uv = Path(sys.executable).parent / "uv"
    subprocess.run([uv, "venv", "--quiet", "--python", sys.executable, folder / "venv"], check=True, timeout=120)
    subprocess.run(
        [uv, "pip", "install", "--quiet", "--python", python, "--require-hashes", "-r", _LOCK], check=True, timeout=900
    )
    batches = {"sample": sample} | {str(size): many.take(slice(0, size)) for size in MANY}
    columns = {f"{key}.{name}": getattr(batch, name) for key, batch in batches.items() for name in COLUMNS}
    np.savez(folder / "options.npz", **columns)
    child = subprocess.run(
        [
            python,
            Path(__file__).with_name("vectorized_rival.py"),
            folder / "options.npz",
            str(rounds),
            folder / "answer.npz",
        ],
        check=True,
        timeout=900,
        stdout=subprocess.PIPE,
        text=True,
    )
    result = Result("py_vollib_vectorized", "library", "european", "NumPy and Numba; release of 2021, needs old pins")
    with np.load(folder / "answer.npz") as answer:
        found = in_units_of_ours({name: answer[name] for name in answer.files})
    result.price_error, result.greek_errors = errors(found, exact, sample)
    seconds: dict[str, list[float]] = json.loads(child.stdout.splitlines()[-1])
    result.microseconds = {int(size): [1e6 * each for each in times] for size, times in seconds.items()}
    return result


def table(results: Iterable[Result]) -> str:
    """Markdown, one row each."""
    columns = (
        "largest error of the price, per strike",
        "of a Greek, per natural size",
        "one option, µs",
        "options/s in a batch of 4,096",
        "of 65,536",
    )
    lines = ["| | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    for style in ("european", "american"):
        lines.append(f"| **{style.capitalize()}** | | | | | |")
        lines += [_row(result) for result in results if result.style == style]
    return "\n".join(lines) + "\n"


def _row(result: Result) -> str:
    error = "–" if result.price_error is None else f"{result.price_error:.1e}"
    worst = max(result.greek_errors.items(), key=lambda pair: pair[1], default=None)
    greek = "–" if worst is None else f"{worst[1]:.1e} ({worst[0]})"
    one = f"{statistics.median(result.microseconds[1]):,.3g}" if 1 in result.microseconds else "–"
    batch = next((size for size in (4096, 64) if size in result.microseconds), None)
    middle = (
        "–" if batch is None else _rate(result.options_per_second(batch)) + ("" if batch == 4096 else f" ({batch})")
    )
    large = _rate(result.options_per_second(65_536)) if 65_536 in result.microseconds else "as before"
    name = f"**{result.name}**" if result.kind == "ours" else result.name
    return f"| {name} | {error} | {greek} | {one} | {middle} | {large} |"


def _rate(per_second: float) -> str:
    if per_second >= 1e5:
        return f"{per_second / 1e6:.2f} M"
    return f"{per_second / 1e3:.1f} k" if per_second >= 1e3 else f"{per_second:.0f}"


_MARKS = {
    "ours": ("o", "#c0392b"),
    "formula": ("s", "#2c7fb8"),
    "library": ("^", "#555555"),
    "network": ("D", "#8e6bbf"),
}


def plot(results: Sequence[Result], path: Path) -> None:
    """Error over speed, both logarithmic, one panel for each style: better is further right and further down."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 6), dpi=110)
    panels = figure.subplots(1, 2)
    figure.subplots_adjust(left=0.06, right=0.99, bottom=0.09, top=0.93, wspace=0.15)
    for axes, style in zip(panels, ("european", "american"), strict=True):
        shown = [r for r in results if r.style == style and r.price_error is not None]
        for kind, (marker, colour) in _MARKS.items():
            ours = [r for r in shown if r.kind == kind]
            if ours:
                axes.plot([r.best for r in ours], [_height(r) for r in ours], marker, color=colour, ms=8, label=kind)
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_title(f"{style.capitalize()} options" + ("" if style == "european" else " (library: QuantLib)"))
        axes.set_xlabel("options per second on one core, in the batch that suits best")
        axes.set_ylabel("largest price error, per unit of strike")
        axes.grid(visible=True, which="major", alpha=0.3)
        axes.margins(x=0.2, y=0.15)
        axes.legend(loc="best", fontsize=9)
        _label(axes, shown)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)


def _height(result: Result) -> float:
    return max(result.price_error or 0.0, 1e-17)


def _label(axes: Any, results: Sequence[Result]) -> None:
    """Writes each name beside its point, where it covers neither a point nor another name."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.text import Text
    from matplotlib.transforms import Bbox

    renderer = FigureCanvasAgg(axes.figure).get_renderer()  # type: ignore[no-untyped-call]
    axes.figure.draw_without_rendering()
    points = [axes.transData.transform((r.best, _height(r))) for r in results]
    taken = [Bbox.from_extents(x - 7, y - 7, x + 7, y + 7) for x, y in points]
    taken.append(axes.get_legend().get_window_extent())
    frame = axes.get_window_extent()
    offsets = [(dx, dy) for away in range(0, 120, 13) for dy in (away, -away) for dx in (10, -10)]
    for result, _ in sorted(zip(results, points, strict=True), key=lambda pair: tuple(pair[1])):
        colour = _MARKS[result.kind][1]
        for dx, dy in offsets:
            text = axes.annotate(
                result.name.removeprefix("QuantLib, ") if result.style == "american" else result.name,
                (result.best, _height(result)),
                xytext=(dx, dy),
                textcoords="offset points",
                ha="left" if dx > 0 else "right",
                va="center",
                fontsize=8.5,
                color=colour,
                arrowprops={"arrowstyle": "-", "lw": 0.5, "color": colour} if dy else None,
            )
            # Of the text alone: an annotation's own extent includes its line.
            text.update_positions(renderer)
            box = Text.get_window_extent(text, renderer)
            within = frame.x0 < box.x0 and box.x1 < frame.x1 and frame.y0 < box.y0 and box.y1 < frame.y1
            if within and not any(box.overlaps(other) for other in taken):
                taken.append(box)
                break
            text.remove()


def _write(path: Path | None, text: str) -> None:
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--output", type=Path, help="also write the JSON here")
    parser.add_argument("--table", type=Path, help="write the table as Markdown here")
    parser.add_argument("--plot", type=Path, help="write the picture here")
    parser.add_argument("--without-vectorized", action="store_true", help="leave py_vollib_vectorized out")
    arguments = parser.parse_args()
    core = run_on_one_core()

    from benchmarks.contestants import american, american_reference, european
    from benchmarks.server import machine

    sample, many = european_options(2000, seed=1), european_options(65_536, seed=2)
    exact = european_reference(sample)
    results = race(european(), sample, exact, many, arguments.rounds)
    if not arguments.without_vectorized:
        with tempfile.TemporaryDirectory(prefix="pinn-rivals-") as folder:
            results.append(vectorized_rival(sample, exact, many, arguments.rounds, Path(folder)))
    sample, many = american_options(300, seed=3), american_options(65_536, seed=4)
    results += race(american(), sample, {"price": american_reference(sample)}, many, arguments.rounds)

    document = {
        "benchmark": "rivals",
        "date": datetime.now(UTC).date().isoformat(),
        "machine": {**machine(), "core": core, "rivals": {name: version(name) for name in _PACKAGES}},
        "settings": {
            "rounds": arguments.rounds,
            "european": _one_line(european_options),
            "american": _one_line(american_options),
            "greeks": "per unit of their natural size, see golden.greek_scales",
            "models": {name: _sha256_of_model(name) for name in ("european", "american")},
        },
        "results": [result.as_json() for result in results],
    }
    text = json.dumps(document, indent=1, ensure_ascii=False)
    print(text)
    print(table(results), file=sys.stderr)
    _write(arguments.output, text + "\n")
    _write(arguments.table, table(results))
    if arguments.plot is not None:
        plot(results, arguments.plot)
    return 0


def _sha256_of_model(name: str) -> str:
    from pinn_inference.pricing.artefact import RECORD_FILE, bundled_directory

    return str(json.loads((bundled_directory(name) / RECORD_FILE).read_text())["sha256"])


def _one_line(function: Callable[..., Any]) -> str:
    return " ".join((function.__doc__ or "").split())


if __name__ == "__main__":
    sys.exit(main())
