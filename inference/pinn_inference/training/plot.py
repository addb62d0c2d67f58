"""A picture of the loss, where matplotlib is installed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pinn_inference.training.trainer import Progress


def plot_loss(course: Sequence[Progress], path: Path) -> Path | None:
    """Writes the loss over the iterations as PNG and returns `path`; None without matplotlib.

    matplotlib is a development tool and not in the image: the curve itself is always in `model.json`.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return None
    figure = Figure(figsize=(6.4, 3.6), layout="constrained")
    axes = figure.subplots()
    axes.loglog([at.iteration for at in course], [at.loss for at in course])
    axes.set_xlabel("iteration")
    axes.set_ylabel("sum of squared residuals")
    axes.grid(visible=True, which="major", alpha=0.3)
    figure.savefig(path, dpi=110)
    return path
