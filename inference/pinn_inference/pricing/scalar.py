"""One European option at a time, in about ten microseconds: the same formulas as `model` and `reduction`, for floats.

An array call costs half a microsecond whatever its length, and a batch of one goes through a hundred of them. Here the
reduction is plain `math`, and the network is ten array calls on buffers that exist already, with the value and its two
derivatives as the three rows of one matrix. Biases are folded into the kernels by a column of ones.
"""

from __future__ import annotations

import math
import threading
from typing import Final, NamedTuple, Protocol

import numpy as np

from pinn_inference.pricing.artefact import Artefact
from pinn_inference.pricing.mills import INV_SQRT_2PI, SQRT_HALF_PI
from pinn_inference.pricing.model import MIN_VARIANCE
from pinn_inference.pricing.network import Network
from pinn_inference.pricing.reduction import MOST, ROUNDING
from pinn_inference.pricing.types import FallbackReason, FloatArray, Method, OptionBatch, Quotes

_SATURATED: Final = 40.0  # tanh(40) is 1.0 in float64, and its slope 0


class ScalarQuote(NamedTuple):
    """Price and Greeks of one option, in the units of `Quotes`; `exercise_boundary` is NaN for European options.

    `cached` says whether the cache knew what this price was made of, see `cache`.
    """

    price: float
    delta: float
    gamma: float
    vega: float
    theta: float
    rho: float
    error_bound: float
    exercise_boundary: float = math.nan
    method: Method = Method.PINN
    reason: FallbackReason = FallbackReason.NONE
    cached: bool = False
    far_boundary: float = math.nan

    @classmethod
    def of(cls, quotes: Quotes, row: int = 0) -> ScalarQuote:
        """One row of a batch's quotes."""
        return cls(
            float(quotes.price[row]),
            float(quotes.delta[row]),
            float(quotes.gamma[row]),
            float(quotes.vega[row]),
            float(quotes.theta[row]),
            float(quotes.rho[row]),
            float(quotes.error_bound[row]),
            float(quotes.exercise_boundary[row]),
            Method(int(quotes.method[row])),
            FallbackReason(int(quotes.reason[row])),
            far_boundary=float(quotes.far_boundary[row]),
        )

    def as_cached(self) -> ScalarQuote:
        """This quote as the cache will answer it."""
        return self if self.cached else self._replace(cached=True)


class PointSource(Protocol):
    """Gives N, N_y and N_w at one point of the domain, and whether a cache knew them."""

    @property
    def error(self) -> float:
        """How far each of the three may be from the network's own value."""

    def evaluate(self, y: float, w: float) -> tuple[float, float, float, bool]:
        """For y ≥ 0 and 0 < w ≤ w_max, zeros beyond y_max; safe to call from several threads."""


class ScalarNetwork:
    """The network at one point. Each thread that calls it has buffers of its own (2 KB)."""

    error: Final = 0.0

    def __init__(self, network: Network) -> None:
        self._y_max = network.domain.y_max
        self._w_scale = 2.0 / network.domain.w_max
        self._buffers = _Buffers(network)

    def evaluate(self, y: float, w: float) -> tuple[float, float, float, bool]:
        """N, N_y, N_w, and False: nothing is remembered."""
        if y > self._y_max:
            return 0.0, 0.0, 0.0, False
        entries, value, stages, kernel = self._buffers.all
        reach = 1.0 / (y + 2.0)
        entries[0] = (y - 2.0) * reach
        entries[1] = self._w_scale * w - 1.0
        entries[3] = 4.0 * reach * reach
        for stage in stages:
            value.dot(stage.kernel, stage.rows)
            activation, complement = stage.activation, stage.complement
            _tanh(activation, activation)
            _multiply(activation, activation, complement)
            _subtract(stage.ones, complement, complement)
            _multiply(stage.slopes, complement, stage.slopes)
            value = stage.rows
        q, q_y, q_w = value.dot(kernel).tolist()
        decay = 1.0 / (1.0 + SQRT_HALF_PI * y + y * y)
        n = q * decay
        return n, (q_y - n * (SQRT_HALF_PI + 2.0 * y)) * decay, q_w * decay, False


class ScalarPricer:
    """Prices single European options by the network; safe to call from several threads.

    `source` gives N and its derivatives; without one it is the artefact's network itself.
    """

    def __init__(self, artefact: Artefact, source: PointSource | None = None) -> None:
        self._source = source or ScalarNetwork(artefact.network)
        self._evaluate = self._source.evaluate
        self._source_error = self._source.error
        self._w_max = artefact.network.domain.w_max
        self._bounds: list[float] = artefact.certificate.bound.tolist()
        self._last_knot = len(self._bounds) - 1
        self._knots_per_s = len(self._bounds) / float(artefact.certificate.s[-1])

    def quote(
        self,
        spot: float,
        strike: float,
        maturity: float,
        rate: float,
        dividend: float,
        volatility: float,
        is_call: bool,
    ) -> ScalarQuote | None:
        """Price and Greeks, arguments in the units of `OptionBatch`.

        None where the network has no answer: σ²T outside its domain or zero, or a number that is not finite. The
        vector path then answers and gives the reason.
        """
        try:
            s = volatility * math.sqrt(maturity)
            w = s * s
            if not (s > 0.0 and MIN_VARIANCE <= w <= self._w_max):
                return None
            x = math.log(spot / strike) + (rate - dividend) * maturity
            asset = spot * math.exp(-dividend * maturity)
            cash = strike * math.exp(-rate * maturity)
            scale = math.sqrt(asset) * math.sqrt(cash)
            y = abs(x) / s
            n, n_y, n_w, cached = self._evaluate(y, w)
            slope = n_y - y * n
            density = math.exp(-0.5 * y * y) * INV_SQRT_2PI
            u = s * density * n
            u_x = density * slope if x >= 0.0 else -density * slope
            time_part = scale * (density / (2.0 * s) * (n + 2.0 * w * n_w - y * slope))
            side = (1.0 if is_call else -1.0) if (x >= 0.0) == is_call else 0.0
            asset_value = scale * (0.5 * u + u_x) + side * asset
            cash_value = scale * (0.5 * u - u_x) - side * cash
            price = max(side * (asset - cash), 0.0) + scale * u
            delta = asset_value / spot
            gamma = 2.0 * time_part / (spot * spot)
            vega = 2.0 * volatility * maturity * time_part
            theta = dividend * asset_value + rate * cash_value - volatility * volatility * time_part
            rho = -maturity * cash_value
            # As in `Certificate.at`; who is beyond the last knot by a rounding error belongs to it.
            knot = min(max(math.ceil(s * self._knots_per_s - 1.0), 0), self._last_knot)
            bound = self._bounds[knot] + s * density * self._source_error
            digits = 1.0 + abs(x) + (abs(rate) + abs(dividend)) * maturity
            error_bound = scale * bound + ROUNDING * (asset + cash) * digits
            if error_bound > strike and error_bound > price:  # as in `cap_bound`
                error_bound = min(error_bound, max(price, asset if is_call else cash) * MOST)
        except (ArithmeticError, ValueError):
            return None
        # One sum tells whether all of them are finite: an infinity or a NaN in any makes it one.
        if not math.isfinite(price + delta + gamma + vega + theta + rho + error_bound):
            return None
        return ScalarQuote(price, delta, gamma, vega, theta, rho, error_bound, cached=cached)


def single(
    spot: float,
    strike: float,
    maturity: float,
    rate: float,
    dividend: float,
    volatility: float,
    is_call: bool,
    is_american: bool = False,
) -> OptionBatch:
    """The option as a batch of one, for the vector path; arguments in the order of the cache's `OptionKey`."""
    columns = np.array((spot, strike, maturity, rate, dividend, volatility), dtype=np.float64)
    return OptionBatch(
        columns[0:1],
        columns[1:2],
        columns[2:3],
        columns[3:4],
        columns[4:5],
        columns[5:6],
        np.array((is_call,), dtype=np.bool_),
        np.array((is_american,), dtype=np.bool_),
    )


_tanh, _multiply, _subtract = np.tanh, np.multiply, np.subtract


class _Stage:
    """One hidden layer: its kernel with the bias as last row, and room for its output.

    `rows` is (3, width + 1): activations, and their derivatives by y and by w; the last column is 1, 0, 0 and carries
    the next layer's bias.
    """

    __slots__ = ("activation", "complement", "kernel", "ones", "rows", "slopes")

    def __init__(self, kernel: FloatArray, bias: FloatArray) -> None:
        inputs, width = kernel.shape
        self.kernel = np.zeros((inputs + 1, width + 1))
        self.kernel[:inputs, :width] = kernel
        self.kernel[inputs, :width] = bias
        self.kernel[inputs, width] = _SATURATED
        self.rows = np.zeros((3, width + 1))
        self.activation = self.rows[0]
        self.slopes = self.rows[1:]
        self.complement = np.empty(width + 1)
        self.ones = np.ones(width + 1)


class _Buffers(threading.local):
    """What one thread works in: BLAS lets other threads run meanwhile, so shared buffers would give wrong prices."""

    def __init__(self, network: Network) -> None:
        inputs = np.zeros((3, 3))  # rows: the value, ∂/∂y, ∂/∂w; columns: (y − 2)/(y + 2), 2w/w_max − 1, one
        inputs[0, 2] = 1.0
        inputs[2, 1] = 2.0 / network.domain.w_max
        last = network.layers[-1]
        self.all = (
            inputs.reshape(-1),
            inputs,
            tuple(_Stage(layer.kernel, layer.bias) for layer in network.layers[:-1]),
            np.append(last.kernel[:, 0], last.bias),
        )
