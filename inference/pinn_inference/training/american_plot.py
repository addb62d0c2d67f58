"""Pictures of an American model, where matplotlib is installed: price errors, and the exercise boundary over time."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np

from pinn_inference.pricing import integral_equation
from pinn_inference.pricing.american import AmericanModel
from pinn_inference.pricing.american_engine import boundary_of
from pinn_inference.pricing.american_integral import Places
from pinn_inference.pricing.american_network import AmericanDomain
from pinn_inference.pricing.types import FloatArray
from pinn_inference.training.american_accuracy import puts_at

MAP_FILE: Final = "error-map.png"
BOUNDARY_FILE: Final = "exercise-boundary.png"
_ROWS, _COLUMNS = 40, 61
_MAPPED: Final = ((2.0, 0.0), (2.0, 1.0), (1.0, 1.0), (1.0, 3.0))
"""κ = 2r/σ² and λ = 2q/σ² of the four maps."""
_DRAWN: Final = ((6.0, 0.0), (2.0, 0.0), (2.0, 1.0), (1.0, 1.0), (1.0, 1.5), (1.0, 3.0))


def plot_errors(model: AmericanModel, path: Path) -> Path | None:
    """Writes four maps of |price error|/K over ln(S/K) and σ√T as PNG; None without matplotlib. Some ten seconds."""
    try:
        from matplotlib.colors import LogNorm
        from matplotlib.figure import Figure
    except ImportError:
        return None
    artefact = model.artefact
    figure = Figure(figsize=(11.0, 7.6), layout="constrained")
    for axes, (kappa, lambda_) in zip(figure.subplots(2, 2).ravel(), _MAPPED, strict=True):
        s = _lives(artefact.networks.domain, kappa, lambda_, _ROWS)
        b = boundary_of(artefact.networks, s, np.full(_ROWS, kappa), np.full(_ROWS, lambda_))
        x = b[:, None] + s[:, None] * np.linspace(-1.0, 5.0, _COLUMNS)
        error = _errors(model, x, s, kappa, lambda_)
        top = max(float(np.max(error)), 1e-12)
        shown = np.maximum(error, top * 1e-4)
        picture = axes.pcolormesh(x, np.repeat(s[:, None], _COLUMNS, 1), shown, norm=LogNorm(top * 1e-4, top))
        axes.plot(b, s, color="white", linewidth=1)
        axes.set_title(f"κ = {kappa:g}, λ = {lambda_:g}: at most {top:.1e}", fontsize=10)
        axes.set_xlabel("ln(S/K)")
        axes.set_ylabel("σ√T")
        figure.colorbar(picture, ax=axes, label="price error per strike")
    figure.suptitle(f"{artefact.name} {artefact.version}: certified error bound {artefact.certificate.error_bound:.1e}")
    figure.savefig(path, dpi=110)
    return path


def plot_boundary(model: AmericanModel, path: Path) -> Path | None:
    """Writes boundary/strike over σ√T for some κ and λ as PNG; None without matplotlib."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return None
    networks = model.artefact.networks
    figure = Figure(figsize=(7.6, 4.8), layout="constrained")
    axes = figure.subplots()
    for kappa, lambda_ in _DRAWN:
        s = _lives(networks.domain, kappa, lambda_, 120)
        b = boundary_of(networks, s, np.full(len(s), kappa), np.full(len(s), lambda_))
        line = axes.plot(s, np.exp(b), label=f"κ = {kappa:g}, λ = {lambda_:g}")[0]
        some = s[5::19]
        batch = puts_at(networks.domain, np.zeros(len(some)), _places(some, kappa, lambda_))
        exact = integral_equation.price(batch).exercise_boundary / batch.strike
        axes.plot(some, exact, "x", color=line.get_color(), markersize=5)
    axes.set_xlabel("σ√T")
    axes.set_ylabel("exercise boundary / strike")
    axes.legend(fontsize=8)
    axes.grid(visible=True, alpha=0.3)
    figure.savefig(path, dpi=110)
    return path


def _lives(domain: AmericanDomain, kappa: float, lambda_: float, count: int) -> FloatArray:
    top = min(domain.s_max, float(np.sqrt(2.0 * domain.carry_max / max(kappa, lambda_))))
    lives: FloatArray = np.linspace(domain.s_min, top, count)
    return lives


def _places(s: FloatArray, kappa: float, lambda_: float) -> Places:
    return Places(s, np.full(len(s), kappa), np.full(len(s), lambda_))


def _errors(model: AmericanModel, x: FloatArray, s: FloatArray, kappa: float, lambda_: float) -> FloatArray:
    places = _places(np.repeat(s, x.shape[1]), kappa, lambda_)
    batch = puts_at(model.artefact.networks.domain, x.ravel(), places)
    error = np.abs(model.price(batch).price - integral_equation.price(batch).price) / batch.strike
    return error.reshape(x.shape)
