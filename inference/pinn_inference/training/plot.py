"""A picture of the loss, where matplotlib is installed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pinn_inference.training.trainer import Progress


def plot_loss(course: Sequence[Progress], path: Path) -> Path | None:
    """Writes loss over iterations, and over seconds, as PNG and returns `path`; None without matplotlib.

    matplotlib is a development tool and not in the image: the curve itself is always in `model.json`.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return None
    figure = Figure(figsize=(9.0, 3.6), layout="constrained")
    by_iteration, by_time = figure.subplots(1, 2, sharey=True)
    losses = [at.loss for at in course]
    by_iteration.loglog([at.iteration for at in course], losses)
    by_iteration.set_xlabel("iteration")
    by_iteration.set_ylabel("sum of squared residuals")
    by_time.semilogy([at.seconds for at in course], losses)
    by_time.set_xlabel("seconds")
    for axes in (by_iteration, by_time):
        axes.grid(visible=True, which="major", alpha=0.3)
    figure.savefig(path, dpi=110)
    return path
