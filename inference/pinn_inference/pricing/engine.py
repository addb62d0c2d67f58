"""Prices a batch by the network in NumPy: exact float64, no TensorFlow, tile by tile within the processor's cache.

Engines are interchangeable behind `PricingEngine`; the model tries them in order, so that a device which fails is
followed by the CPU and then by the closed form. `NumPyEngine` is the engine of a process without TensorFlow, the last
resort of one with it, and the one that prices what is left of a batch after TensorFlow's fixed shapes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np

from pinn_inference.pricing.certificate import Certificate
from pinn_inference.pricing.mills import INV_SQRT_2PI, SQRT_HALF_PI
from pinn_inference.pricing.network import Network
from pinn_inference.pricing.reduction import ROUNDING
from pinn_inference.pricing.types import BoolArray, FloatArray, OptionBatch

_TILE: Final = 2048
"""Options evaluated together: 16 rows of them fill 256 KB, so that every pass stays in the second-level cache."""


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What an engine gives for a batch of n options.

    `values` of shape (7, n): price, delta, gamma, vega, theta, rho and error bound, in the units of `Quotes`.
    `w` = σ²T of shape (n,): where it is outside the trained domain the row of `values` means nothing, and may be NaN.
    """

    values: FloatArray
    w: FloatArray


class PricingEngine(Protocol):
    """Evaluates one network; calls may come from several threads at once."""

    @property
    def device(self) -> str:
        """Where it runs, for logs and health pages."""

    @property
    def batch_sizes(self) -> tuple[int, ...]:
        """One batch size for each function that the engine compiles, for whoever wants to try them all."""

    def price(self, batch: OptionBatch) -> Evaluation:
        """Prices, Greeks and bounds of a batch of any length; raises ModelRuntimeError when the device fails."""

    def warm_up(self) -> None:
        """Does all that a first call would otherwise have to do; raises ModelRuntimeError when the device fails."""


class NumPyEngine:
    """The network with its first derivatives by reverse accumulation, and the chain rule around it, in place.

    N_y and N_w come from one backward pass: two products with a hidden layer's matrix, where carrying both derivatives
    forward takes three. Units are rows and options are columns, with a row of ones that brings the biases into the
    products.
    """

    device = "NumPy"
    batch_sizes = (1,)

    def __init__(self, network: Network, certificate: Certificate) -> None:
        self._w_max = network.domain.w_max
        self._y_max = network.domain.y_max
        self._certificate = certificate
        self._passes = _Passes.of(network)

    def price(self, batch: OptionBatch) -> Evaluation:
        n = len(batch)
        evaluation = Evaluation(values=np.empty((7, n)), w=np.empty(n))
        workspace = _Workspace.of(self._passes, min(n, _TILE))
        with np.errstate(all="ignore"):
            for start in range(0, n, _TILE):
                rows = slice(start, min(start + _TILE, n))
                self._price_tile(batch, rows, workspace, evaluation)
        return evaluation

    def warm_up(self) -> None:
        """Nothing to do: NumPy compiles nothing."""

    def jets(self, y: FloatArray, w: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
        """N, N_y and N_w at n points within the domain, each of shape (n,)."""
        jets = np.empty((3, len(y)))
        workspace = _Workspace.of(self._passes, min(len(y), _TILE))
        for start in range(0, len(y), _TILE):
            rows = slice(start, min(start + _TILE, len(y)))
            jets[:, rows] = self._evaluate(y[rows], w[rows], workspace)
        return jets[0], jets[1], jets[2]

    def _price_tile(self, batch: OptionBatch, rows: slice, workspace: _Workspace, evaluation: Evaluation) -> None:
        """The formulas of `reduction`, in place: see there for their meaning."""
        spot, strike, maturity = batch.spot[rows], batch.strike[rows], batch.maturity[rows]
        rate, dividend, volatility = batch.rate[rows], batch.dividend[rows], batch.volatility[rows]
        price, delta, gamma, vega, theta, rho, error_bound = evaluation.values[:, rows]
        w = evaluation.w[rows]
        s, x, y, asset, cash, scale, density, part, other = workspace.scratch[2:, : len(spot)]

        np.sqrt(maturity, out=s)
        s *= volatility
        np.multiply(s, s, out=w)
        np.divide(spot, strike, out=x)
        np.log(x, out=x)
        np.subtract(rate, dividend, out=part)
        part *= maturity
        x += part
        np.abs(x, out=y)
        y /= s
        np.minimum(y, self._y_max, out=y)
        np.multiply(dividend, maturity, out=asset)
        np.negative(asset, out=asset)
        np.exp(asset, out=asset)
        asset *= spot
        np.multiply(rate, maturity, out=cash)
        np.negative(cash, out=cash)
        np.exp(cash, out=cash)
        cash *= strike
        np.multiply(asset, cash, out=scale)
        np.sqrt(scale, out=scale)

        n, n_y, n_w = self._evaluate(y, w, workspace)
        # density = √(AB)·φ(y), and nothing is left of the time value from y_max on.
        np.multiply(y, y, out=density)
        density *= -0.5
        np.exp(density, out=density)
        density *= INV_SQRT_2PI
        density *= scale
        density *= y < self._y_max
        np.multiply(y, n, out=part)
        n_y -= part  # N_y − y·N
        # time part: √(AB)·u_w = density/(2s)·[N + 2w·N_w − y·(N_y − y·N)], kept in n_w
        n_w *= w
        n_w *= 2.0
        n_w += n
        np.multiply(y, n_y, out=part)
        n_w -= part
        n_w *= density
        n_w /= s
        n_w *= 0.5
        # time value: s·density·N, kept in n; its halves and √(AB)·u_x make asset_part and cash_part
        n *= s
        n *= density
        n_y *= density
        np.copysign(1.0, x, out=part)
        n_y *= part
        np.multiply(n, 0.5, out=y)

        # side: ±1 where the option is exercised forward, else 0
        np.greater_equal(x, 0.0, out=workspace.flags[: len(spot)])
        side = _side(workspace.flags[: len(spot)], batch.is_call[rows])
        np.multiply(side, asset, out=part)
        np.multiply(side, cash, out=other)
        np.subtract(part, other, out=price)
        np.maximum(price, 0.0, out=price)
        price += n
        part += y
        part += n_y  # asset value A·∂V/∂A
        y -= n_y
        y -= other  # cash value B·∂V/∂B
        np.divide(part, spot, out=delta)
        np.multiply(spot, spot, out=gamma)
        np.divide(n_w, gamma, out=gamma)
        gamma *= 2.0
        n_w *= volatility
        np.multiply(n_w, maturity, out=vega)
        vega *= 2.0
        n_w *= volatility
        part *= dividend
        np.multiply(rate, y, out=theta)
        theta += part
        theta -= n_w
        y *= maturity
        np.negative(y, out=rho)

        # rounding_bound of `reduction`, and the certificate's bound for this s
        np.abs(rate, out=part)
        np.abs(dividend, out=other)
        part += other
        part *= maturity
        np.abs(x, out=x)
        part += x
        part += 1.0
        asset += cash
        part *= asset
        part *= ROUNDING
        np.multiply(self._certificate.at(s), scale, out=error_bound)
        error_bound += part

    def _evaluate(self, y: FloatArray, w: FloatArray, workspace: _Workspace) -> FloatArray:
        """N, N_y, N_w of one tile; the answer lies in the workspace."""
        passes, m = self._passes, len(y)
        inputs = workspace.inputs[:, :m]
        activations = [activation[:, :m] for activation in workspace.activations]
        squares, adjoint, jets = workspace.squares[:, :m], workspace.adjoint[:, :m], workspace.jets[:, :m]
        near = inputs[0]
        np.add(y, 2.0, out=near)
        np.divide(1.0, near, out=near)
        inputs[1] = w
        below = inputs
        for kernel, activation in zip(passes.forward, activations, strict=True):
            units = activation[:-1]
            np.matmul(kernel, below, out=units)
            np.tanh(units, out=units)
            below = activation
        np.matmul(passes.output, below, out=jets[0])
        # Backwards: d tanh = 1 − tanh². For the last hidden layer it is folded into the matrix and its bias.
        np.multiply(below[:-1], below[:-1], out=below[:-1])
        if len(activations) == 1:
            np.matmul(passes.backward[-1], below, out=jets[1:])
        else:
            incoming = below
            for kernel, activation in zip(reversed(passes.backward[1:]), reversed(activations[:-1]), strict=True):
                width = len(activation) - 1
                slopes, outgoing = squares[:width], adjoint[:width]
                units = activation[:-1]
                np.multiply(units, units, out=slopes)
                np.subtract(1.0, slopes, out=slopes)
                np.matmul(kernel, incoming, out=outgoing)
                np.multiply(outgoing, slopes, out=outgoing)
                incoming = outgoing
            np.matmul(passes.backward[0], incoming, out=jets[1:])
        n, n_y, n_w = jets
        n_y *= near
        n_y *= near
        decay, scratch = workspace.scratch[0, :m], workspace.scratch[1, :m]
        np.add(y, SQRT_HALF_PI, out=decay)
        decay *= y
        decay += 1.0
        np.divide(1.0, decay, out=decay)
        n *= decay
        n_w *= decay
        np.multiply(y, 2.0, out=scratch)
        scratch += SQRT_HALF_PI
        scratch *= n
        n_y -= scratch
        n_y *= decay
        return jets


def _side(above: BoolArray, is_call: BoolArray) -> FloatArray:
    """+1 for a call with x ≥ 0, −1 for a put with x < 0, else 0."""
    return np.subtract(above & is_call, ~(above | is_call), dtype=np.float64)


@dataclass(frozen=True, slots=True)
class _Passes:
    """A network's matrices as the tiles use them, each with a last column that multiplies the row of ones.

    `forward` leads from (1/(y + 2), w, 1) through the hidden layers; `output` from the last of them to Q;
    `backward[-1]` from the squares of the last hidden layer's activations, and the others from what lies above them,
    down to ∂Q/∂y·(y + 2)² and ∂Q/∂w.
    """

    forward: tuple[FloatArray, ...]
    output: FloatArray
    backward: tuple[FloatArray, ...]

    @classmethod
    def of(cls, network: Network) -> _Passes:
        first, *others, last = network.layers
        w_scale = 2.0 / network.domain.w_max
        # (y − 2)/(y + 2) = 1 − 4/(y + 2), with the derivative 4/(y + 2)².
        from_inputs = np.stack(
            [-4.0 * first.kernel[0], w_scale * first.kernel[1], first.bias + first.kernel[0] - first.kernel[1]], axis=1
        )
        forward = [from_inputs, *(np.hstack([layer.kernel.T, layer.bias[:, None]]) for layer in others)]
        backward = [first.kernel * np.array([[4.0], [w_scale]]), *(layer.kernel for layer in others)]
        # The output's kernel and the derivative 1 − h² of the last hidden layer, folded into the matrix below them.
        weighted = backward[-1] * last.kernel[:, 0]
        backward[-1] = np.hstack([-weighted, weighted.sum(axis=1, keepdims=True)])
        return cls(
            forward=tuple(np.ascontiguousarray(kernel) for kernel in forward),
            output=np.append(last.kernel[:, 0], last.bias),
            backward=tuple(np.ascontiguousarray(kernel) for kernel in backward),
        )

    @property
    def widths(self) -> tuple[int, ...]:
        """Units of each hidden layer."""
        return tuple(len(kernel) for kernel in self.forward)


@dataclass(frozen=True, slots=True)
class _Workspace:
    """Memory for tiles of one call; of its own, so that calls may run at the same time."""

    inputs: FloatArray
    activations: tuple[FloatArray, ...]
    squares: FloatArray
    adjoint: FloatArray
    jets: FloatArray
    scratch: FloatArray
    flags: BoolArray

    @classmethod
    def of(cls, passes: _Passes, tile: int) -> _Workspace:
        widest = max(passes.widths)
        return cls(
            inputs=np.ones((3, tile)),
            activations=tuple(np.ones((width + 1, tile)) for width in passes.widths),
            squares=np.empty((widest, tile)),
            adjoint=np.empty((widest, tile)),
            jets=np.empty((3, tile)),
            scratch=np.empty((11, tile)),
            flags=np.empty(tile, dtype=np.bool_),
        )
