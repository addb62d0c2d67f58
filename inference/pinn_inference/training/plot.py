"""Pictures of a training and of a model's errors, where matplotlib is installed.

matplotlib is not in the image: the numbers are always in `model.json` and in the report.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pinn_inference.pricing import closed_form
from pinn_inference.pricing.mills import normal_density
from pinn_inference.pricing.model import PinnModel
from pinn_inference.pricing.network import evaluate, residual
from pinn_inference.pricing.types import FloatArray
from pinn_inference.training.accuracy import STATED_MONEYNESS, STATED_VARIANCE, DomainGrid
from pinn_inference.training.checkpoint import Progress


def plot_loss(course: Sequence[Progress], path: Path) -> Path | None:
    """Writes the loss over the iterations as PNG and returns `path`; None without matplotlib."""
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


def plot_errors(model: PinnModel, path: Path) -> Path | None:
    """Writes maps over ln(F/K) and σ√T as PNG and returns `path`; None without matplotlib.

    Errors of price, delta and gamma against the closed form, and the residual of the equation; the dotted line frames
    the domain for which the accuracy is promised, and where nothing is drawn there is no time value left.
    """
    try:
        from matplotlib.colors import LogNorm
        from matplotlib.figure import Figure
    except ImportError:
        return None
    artefact = model.artefact
    s, x, maps = _maps(model)
    figure = Figure(figsize=(11.0, 7.6), layout="constrained")
    for axes, (title, values) in zip(figure.subplots(2, 2).ravel(), maps.items(), strict=True):
        top = float(np.nanmax(values))
        picture = axes.pcolormesh(x, s, values, norm=LogNorm(top * 1e-4, top), cmap="viridis", rasterized=True)
        low, high = np.sqrt(STATED_VARIANCE)
        reach = STATED_MONEYNESS
        axes.plot([-reach, reach, reach, -reach, -reach], [low, low, high, high, low], ":", color="grey", linewidth=1)
        axes.set_title(f"{title}, at most {top:.1e}", fontsize=10)
        axes.set_xlabel("ln(F/K)")
        axes.set_ylabel("σ√T")
        figure.colorbar(picture, ax=axes)
    figure.suptitle(f"{artefact.name} {artefact.version}: certified error bound {artefact.certificate.error_bound:.1e}")
    figure.savefig(path, dpi=110)
    return path


def _maps(
    model: PinnModel, rows: int = 240, columns: int = 361
) -> tuple[FloatArray, FloatArray, dict[str, FloatArray]]:
    """σ√T and ln(F/K), each of shape (rows, columns), and what to draw there by its title."""
    network = model.artefact.network
    w_max = network.domain.w_max * (1.0 - 1e-12)
    grid = DomainGrid.of(rows=rows, columns=columns, is_call=True, carry=(0.0, 0.0), w_max=w_max)
    found, exact = model.price(grid.batch), closed_form.price(grid.batch)
    s = np.repeat(grid.s[:, None], columns, axis=1)
    y, w = (np.abs(grid.x) / s).ravel(), (s * s).ravel()
    gamma = grid.table(exact.gamma)
    largest = np.max(np.abs(gamma), axis=1, keepdims=True)
    equation = normal_density(y) * np.abs(residual(evaluate(network, y, w), y, w))
    return (
        s,
        grid.x,
        {
            "price error per strike": grid.table(np.abs(found.price - exact.price) / grid.batch.strike),
            "delta error": grid.table(np.abs(found.delta - exact.delta)),
            "gamma error per its largest at that σ√T": np.abs(grid.table(found.gamma) - gamma) / largest,
            "residual of the equation, φ·|R|": grid.table(equation),
        },
    )
