"""The American put as least-squares problems: no price enters them, only the equations and their conditions.

First the boundary. With the notation of `pricing.integral_equation`, the value meets the payoff at b(w) exactly if
e^{b + (κ−λ)w/2} = N/D for every w; the residual is its logarithm, weighted by what it moves the value at the boundary:

    ρ = b + (κ − λ)·w/2 − ln N + ln D,    residual = ρ·(c + e^{b−λw/2}·D).

Then the premium. Duhamel's principle turns the pricing equation with its source κ/2 − λ/2·eˣ below the boundary into
e(x, w) = I[b](x, w), the integral over that source (Kim 1990); the residual is e − I[b] with the boundary found before.
Both are the pricing equation in integral form: unlike its differential form it needs no second derivatives, it bounds
the error of the price itself (see `pricing.american_certificate`) and it is as well conditioned as a regression.

Last what the premium owes to κ and λ, each in units in which a Greek is quoted, 2/w·e_κ and 2/w·e^{−x}·e_λ, and the
boundary in units of s: these are fitted to what the integral equation has at its solution (see
`pricing.integral_equation`). The premium found before cannot give them: where w or κ is small it owes them so little
that its equation hardly sees them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Final

import numpy as np

from pinn_inference.pricing import integral_equation
from pinn_inference.pricing.algebra import NumPyAlgebra
from pinn_inference.pricing.american_engine import TensorFlowAlgebra
from pinn_inference.pricing.american_integral import Places, premium_integral, quadrature
from pinn_inference.pricing.american_network import (
    BOUNDARY_INPUTS,
    PREMIUM_INPUTS,
    at_boundary,
    boundary_features,
    boundary_from_output,
    carry_form,
    parameter_count,
    premium_features,
    shapes,
)
from pinn_inference.pricing.network import Layer
from pinn_inference.pricing.types import FloatArray
from pinn_inference.tensorflow_runtime import Tensor
from pinn_inference.training.levenberg_marquardt import LinearisedResiduals

_WEIGHT_FLOOR: Final = 0.05


class _Residuals:
    """Least squares over the parameters of one perceptron, as compiled functions of their vector."""

    def __init__(self, tf: ModuleType, inputs: int, hidden: tuple[int, ...]) -> None:
        self._tf = tf
        self._shapes = shapes(inputs, hidden)
        vector = tf.TensorSpec([parameter_count(inputs, hidden)], tf.float64)
        self._residuals = tf.function(
            lambda parameters: self._evaluate(parameters, None)[0], input_signature=[vector], autograph=False
        )
        self._jacobian = tf.function(self._trace_jacobian, input_signature=[vector], autograph=False)

    def __call__(self, parameters: Tensor) -> Tensor:
        """Residuals of shape (m,) at parameters of shape (p,)."""
        return self._residuals(parameters)

    def linearise(self, parameters: Tensor) -> LinearisedResiduals:
        """Residuals with JᵀJ and Jᵀr; NumPy forms JᵀJ, since it computes one half of the symmetric product only."""
        residuals, jacobian = self._jacobian(parameters)
        matrix = jacobian.numpy()
        constant = self._tf.constant
        return LinearisedResiduals(
            residuals=residuals, gram=constant(matrix.T @ matrix), gradient=constant(matrix.T @ residuals.numpy())
        )

    def _evaluate(self, parameters: Tensor, tape: Tensor) -> tuple[Tensor, list[tuple[Tensor, Tensor]]]:
        algebra = TensorFlowAlgebra(self._tf, tape)
        layers, start = [], 0
        for rows, columns in self._shapes:
            end = start + rows * columns
            kernel = self._tf.reshape(parameters[start:end], [rows, columns])
            layers.append(Layer(kernel, parameters[end : end + columns]))
            start = end + columns
        return self._trace(algebra, tuple(layers)), algebra.recorded

    def _trace(self, algebra: TensorFlowAlgebra, layers: tuple[Layer, ...]) -> Tensor:
        raise NotImplementedError

    def _trace_jacobian(self, parameters: Tensor) -> tuple[Tensor, Tensor]:
        """A residual depends on its own points only, so the adjoints of one backward pass are the Jacobian's rows."""
        tf = self._tf
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            residuals, recorded = self._evaluate(parameters, tape)
        adjoints = tape.gradient(residuals, [outputs for _, outputs in recorded])
        blocks = []
        for (inputs, _), adjoint in zip(recorded, adjoints, strict=True):
            if len(inputs.shape) == 2:
                kernel, bias = tf.einsum("io,im->iom", inputs, adjoint), adjoint
            else:
                kernel, bias = tf.einsum("iko,ikm->iom", inputs, adjoint), tf.reduce_sum(adjoint, axis=1)
            blocks.append(tf.reshape(kernel, [tf.shape(kernel)[0], kernel.shape[1] * kernel.shape[2]]))
            blocks.append(bias)
        return residuals, tf.concat(blocks, axis=1)


class BoundaryResiduals(_Residuals):
    """ρ·(c + e^{b−λw/2}·D)/√n at n places; each residual sees its boundary at `nodes` earlier times too."""

    def __init__(self, tf: ModuleType, hidden: tuple[int, ...], at: Places, *, nodes: int) -> None:
        angle, weights = quadrature(nodes)
        sine, cosine = np.sin(angle), np.cos(angle)
        column = {name: getattr(at, name)[:, None] for name in ("s", "kappa", "lambda_")}
        s, kappa, lambda_ = column["s"], column["kappa"], column["lambda_"]
        w = s * s
        history = s * np.concatenate([[1.0], cosine])
        features, ratio = boundary_features(
            NumPyAlgebra(), history, np.broadcast_to(kappa, history.shape), np.broadcast_to(lambda_, history.shape)
        )
        left, elapsed = w * cosine**2, w * sine**2
        measure = weights * 2.0 * w * sine * cosine
        self._features = [tf.constant(feature) for feature in features]
        self._ratio = tf.constant(ratio)
        self._s = tf.constant(history)
        arrays = {
            "half_carry": 0.5 * (at.kappa - at.lambda_) * at.s**2,
            "drift": (0.5 * (at.kappa - at.lambda_ + 1.0))[:, None] * elapsed,
            "drift_now": 0.5 * (at.kappa - at.lambda_ + 1.0) * at.s**2,
            "root": s * sine,
            "root_now": at.s,
            "cash": 0.5 * kappa * measure * np.exp(0.5 * kappa * left),
            "asset": 0.5 * lambda_ * measure * np.exp(0.5 * lambda_ * left),
            "decay": 0.5 * at.lambda_ * at.s**2,
        }
        self._at = {name: tf.constant(array) for name, array in arrays.items()}
        self._scale = 1.0 / np.sqrt(len(at))
        super().__init__(tf, BOUNDARY_INPUTS, hidden)

    def _trace(self, algebra: TensorFlowAlgebra, layers: tuple[Layer, ...]) -> Tensor:
        tf, at = self._tf, self._at
        path = boundary_from_output(algebra, self._s, self._ratio, algebra.perceptron(layers, self._features))
        b, earlier = path[:, 0], path[:, 1:]
        upper_now = (b + at["drift_now"]) / at["root_now"]
        upper = (b[:, None] - earlier + at["drift"]) / at["root"]
        distribution = algebra.normal_distribution
        cash = distribution(upper_now - at["root_now"]) + tf.reduce_sum(
            at["cash"] * distribution(upper - at["root"]), axis=1
        )
        asset = distribution(upper_now) + tf.reduce_sum(at["asset"] * distribution(upper), axis=1)
        residual = b + at["half_carry"] - tf.math.log(cash) + tf.math.log(asset)
        return self._scale * residual * (_WEIGHT_FLOOR + tf.exp(b - at["decay"]) * asset)


class PremiumResiduals(_Residuals):
    """(e − I[b])·weight/√n at n points x = b + s·z above the boundary, see `small_premium_weight`."""

    def __init__(
        self,
        tf: ModuleType,
        hidden: tuple[int, ...],
        boundary: Sequence[Layer],
        z: FloatArray,
        at: Places,
        *,
        nodes: int,
    ) -> None:
        points = _Points.above(boundary, z, at, nodes=nodes)
        self._features = [tf.constant(feature) for feature in points.features]
        self._baseline = tf.constant(points.baseline)
        self._decay = tf.constant(z * z / (1.0 + z))
        self._target = tf.constant(points.integral)
        self._weight = tf.constant(small_premium_weight(at) / np.sqrt(len(z)))
        super().__init__(tf, PREMIUM_INPUTS, hidden)

    def _trace(self, algebra: TensorFlowAlgebra, layers: tuple[Layer, ...]) -> Tensor:
        output = algebra.perceptron(layers, self._features)
        return self._weight * (self._baseline * self._tf.exp(-self._decay * output) - self._target)


@dataclass(frozen=True, slots=True)
class _Points:
    """Points above a boundary: the perceptron's inputs, the premium's form without it, and what it must be."""

    features: list[FloatArray]
    baseline: FloatArray
    integral: FloatArray

    @classmethod
    def above(cls, boundary: Sequence[Layer], z: FloatArray, at: Places, *, nodes: int) -> _Points:
        algebra = NumPyAlgebra()
        features, ratio = boundary_features(algebra, at.s, at.kappa, at.lambda_)
        b = boundary_from_output(algebra, at.s, ratio, algebra.perceptron(boundary, features))
        known = at_boundary(algebra, b, at.s, at.kappa, at.lambda_)
        t = z / (1.0 + z)
        decay = z * (known.slope + z * (known.curvature * (1.0 - t) + 0.5 * t))
        return cls(
            features=premium_features(algebra, features, b, t, at.s, at.kappa, at.lambda_),
            baseline=known.premium * np.exp(-decay),
            integral=premium_integral(boundary, b + at.s * z, at, nodes=nodes),
        )


@dataclass(frozen=True, slots=True)
class Fit:
    """One perceptron's task at n points, of which `inputs` are the columns.

    rest + slope·output has to be 0, or with `of_log` rest + slope·exp(output).
    """

    inputs: list[FloatArray]
    rest: FloatArray
    slope: FloatArray
    of_log: bool = False


def carry_fits(boundary: Sequence[Layer], z: FloatArray, at: Places) -> dict[str, Fit]:
    """The tasks of `lag`, `rate` and `dividend` at x = b + s·z above a network's boundary.

    By the integral equation, about a millisecond a point.
    """
    algebra = NumPyAlgebra()
    s, kappa, lambda_ = at.s, at.kappa, at.lambda_
    features, ratio = boundary_features(algebra, s, kappa, lambda_)
    x = boundary_from_output(algebra, s, ratio, algebra.perceptron(boundary, features)) + s * z
    exact = integral_equation.early_exercise(integral_equation.PutTerms(x, s, kappa, lambda_))
    lag = -exact.boundary / s - algebra.softplus(ratio / s)
    form = carry_form(algebra, features, ratio, lag, x, s, kappa, lambda_)
    half_w = 0.5 * s * s
    return {
        "lag": Fit(features, rest=-lag, slope=np.ones_like(lag), of_log=True),
        "rate": Fit(
            form.inputs, rest=form.cash_fade * form.cash - exact.by_kappa / half_w, slope=form.cash_fade * form.t
        ),
        "dividend": Fit(
            form.inputs,
            rest=form.asset_fade * form.asset + exact.by_lambda / half_w * np.exp(-x),
            slope=form.asset_fade * form.t,
        ),
    }


class CarryResiduals(_Residuals):
    """(rest + slope·output)/√n of a `Fit`: an error of rho in units of strike and maturity, or of b in units of s."""

    def __init__(self, tf: ModuleType, hidden: tuple[int, ...], fit: Fit) -> None:
        scale = 1.0 / np.sqrt(len(fit.rest))
        self._features = [tf.constant(column) for column in fit.inputs]
        self._rest, self._slope = tf.constant(scale * fit.rest), tf.constant(scale * fit.slope)
        self._of_log = fit.of_log
        super().__init__(tf, len(fit.inputs), hidden)

    def _trace(self, algebra: TensorFlowAlgebra, layers: tuple[Layer, ...]) -> Tensor:
        output = algebra.perceptron(layers, self._features)
        return self._rest + self._slope * (self._tf.exp(output) if self._of_log else output)


def small_premium_weight(at: Places) -> FloatArray:
    """√(0.02/rT) below rT = 2 %, at most 10, else 1; shape (n,).

    A premium is at most about rT, and its part of rho is its share of that: where it is small, what counts is its
    relative error.
    """
    return np.sqrt(np.clip(0.02 / (0.5 * at.kappa * at.s * at.s), 1.0, 100.0))
