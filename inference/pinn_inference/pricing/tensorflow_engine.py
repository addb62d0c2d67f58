"""Prices large batches in TensorFlow: one compiled function from options to prices, Greeks and bounds, in float64.

XLA compiles for fixed shapes only, and a second at a time: a batch is padded to the next of a few sizes, all compiled
at warm-up, so that no request ever waits for a compilation. On a CPU the compiled function walks through tiles that
fit the second-level cache and stops after the last one that holds options, so that padding costs nothing; a GPU takes
the whole batch at once. Batches too small to be worth a call go to NumPy.
"""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Final

import numpy as np

from pinn_inference.pricing.certificate import Certificate
from pinn_inference.pricing.engine import Evaluation, NumPyEngine
from pinn_inference.pricing.errors import ModelRuntimeError
from pinn_inference.pricing.mills import INV_SQRT_2PI, SQRT_HALF_PI
from pinn_inference.pricing.network import Network
from pinn_inference.pricing.reduction import ROUNDING
from pinn_inference.pricing.types import FloatArray, OptionBatch
from pinn_inference.tensorflow_runtime import Tensor, load_tensorflow

COLUMNS: Final = ("spot", "strike", "maturity", "rate", "dividend", "volatility")
_ROWS: Final = 8
"""What a price is read from for each option: the seven rows of `Evaluation.values`, then w."""
_CPU_TILE: Final = 2048
_CPU_SIZES: Final = (16_384, 32_768, 65_536)
_GPU_SIZES: Final = (16_384, 65_536, 262_144)
_SMALLEST: Final = 12_288
"""Fewer options NumPy prices faster on one core: a call into TensorFlow costs 0.3 ms."""


class TensorFlowEngine:
    """Compiled functions on one device; `sizes` are the padded batch sizes in growing order, multiples of `tile`; a
    tile of 0 stands for the whole batch.

    `smallest` is the number of options from which on the device is used. Construction traces and does not touch the
    device; `warm_up` compiles.
    """

    def __init__(
        self,
        network: Network,
        certificate: Certificate,
        *,
        device: str = "/CPU:0",
        sizes: tuple[int, ...] | None = None,
        tile: int | None = None,
        smallest: int = _SMALLEST,
        threads: int | None = None,
    ) -> None:
        self._tf = load_tensorflow(threads=threads)
        self.device = device
        on_cpu = "CPU" in device
        self.batch_sizes = sizes or (_CPU_SIZES if on_cpu else _GPU_SIZES)
        self._tile = (_CPU_TILE if on_cpu else 0) if tile is None else tile
        self._smallest = smallest
        self._small = NumPyEngine(network, certificate)
        self._formula = Formula(self._tf, network, certificate)
        with self._tf.device(device):
            self._functions = {size: self._trace(size) for size in self.batch_sizes}

    def price(self, batch: OptionBatch) -> Evaluation:
        n, largest = len(batch), self.batch_sizes[-1]
        if n < self._smallest:
            return self._small.price(batch)
        rows = np.empty((_ROWS, n))
        for start in range(0, n, largest):
            stop = min(start + largest, n)
            if stop - start >= self._smallest:
                self._price_padded(batch, slice(start, stop), rows[:, start:stop])
            else:
                rest = self._small.price(batch.take(slice(start, stop)))
                rows[:-1, start:stop], rows[-1, start:stop] = rest.values, rest.w
        return Evaluation(values=rows[:-1], w=rows[-1])

    def warm_up(self) -> None:
        """Compiles every function; about a second each."""
        for size in self.batch_sizes:
            one = np.ones(size)
            self._price_padded(
                OptionBatch(one, one, one, 0.0 * one, 0.0 * one, one, one > 0.0),
                slice(0, size),
                np.empty((_ROWS, size)),
            )

    def _price_padded(self, batch: OptionBatch, rows: slice, out: FloatArray) -> None:
        tf = self._tf
        n = rows.stop - rows.start
        size = next(size for size in self.batch_sizes if size >= n)
        columns = [getattr(batch, name)[rows] for name in COLUMNS]
        columns.append(np.where(batch.is_call[rows], 1.0, -1.0))
        if n < size:
            padded = np.ones((len(columns), size))
            for row, column in zip(padded, columns, strict=True):
                row[:n] = column
            columns = list(padded)
        try:
            with tf.device(self.device):
                answer = self._functions[size](tf.constant(n, tf.int32), *map(tf.constant, columns))
                values = np.asarray(memoryview(answer))  # .numpy() would copy
        except Exception as error:  # a device that fails raises whatever it likes, a BufferError for one
            raise ModelRuntimeError(f"{self.device}: {getattr(error, 'message', repr(error))}") from error
        if not self._tile:
            out[...] = values[:_ROWS, :n]
            return
        whole = n - n % self._tile
        out[:, :whole].reshape(_ROWS, -1, self._tile)[...] = values[: whole // self._tile, :_ROWS].transpose(1, 0, 2)
        if whole < n:
            out[:, whole:] = values[whole // self._tile, :_ROWS, : n - whole]

    def _trace(self, size: int) -> Tensor:
        """The function for `size` options: their number, then the columns; shape (rows, size), or tiles of that."""
        tf = self._tf
        body = self._formula.in_tiles_of(self._tile) if self._tile else self._formula.whole
        columns = [tf.TensorSpec([size], tf.float64)] * (len(COLUMNS) + 1)
        return tf.function(
            body, jit_compile=True, autograph=False, input_signature=[tf.TensorSpec([], tf.int32), *columns]
        ).get_concrete_function()


class Formula:
    """Network and chain rule as one graph: the formulas of `reduction` and `NumPyEngine`, see there."""

    def __init__(self, tf: ModuleType, network: Network, certificate: Certificate) -> None:
        self._tf = tf
        self._y_max = network.domain.y_max
        self._certificate = certificate
        *self._hidden, self._last = network.layers
        self._w_scale = 2.0 / network.domain.w_max

    def whole(self, _count: Tensor, *columns: Tensor) -> Tensor:
        """Shape (rows, n) for columns of shape (n,)."""
        return self.rows(*columns)

    def in_tiles_of(self, tile: int) -> Callable[..., Tensor]:
        """The function of shape (n/tile, rows, tile) for columns of shape (n,); tiles from `count` on are left at 0."""
        tf = self._tf

        def tiled(count: Tensor, *columns: Tensor) -> Tensor:
            tiles = [tf.reshape(column, [-1, tile]) for column in columns]

            def step(index: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
                update = self.rows(*(column[index] for column in tiles))
                return index + 1, tf.tensor_scatter_nd_update(rows, [[index]], update[None])

            end = (count + (tile - 1)) // tile
            start = (0, tf.zeros([tiles[0].shape[0], _ROWS + 1, tile], tf.float64))
            return tf.while_loop(lambda index, _rows: index < end, step, start)[1]

        return tiled

    def rows(
        self,
        spot: Tensor,
        strike: Tensor,
        maturity: Tensor,
        rate: Tensor,
        dividend: Tensor,
        volatility: Tensor,
        sign: Tensor,
    ) -> Tensor:
        """Shape (9, n): the rows of `_ROWS`, and 1/(y + 2); `sign` is 1 for a call and −1 for a put."""
        tf = self._tf
        s = volatility * tf.sqrt(maturity)
        w = s * s
        x = tf.math.log(spot / strike) + (rate - dividend) * maturity
        y = tf.minimum(tf.abs(x) / s, self._y_max)
        asset = spot * tf.exp(-dividend * maturity)
        cash = strike * tf.exp(-rate * maturity)
        scale = tf.sqrt(asset * cash)
        near = 1.0 / (y + 2.0)
        n, n_y, n_w = self._jets(y, near, w)
        density = tf.where(y < self._y_max, tf.exp(-0.5 * y * y) * INV_SQRT_2PI * scale, tf.zeros_like(y))
        slope = n_y - y * n
        time_value = s * density * n
        time_part = density / (2.0 * s) * (n + 2.0 * w * n_w - y * slope)
        tilt = tf.where(x >= 0.0, density, -density) * slope
        side = tf.where((x >= 0.0) == (sign > 0.0), sign, tf.zeros_like(sign))
        asset_value = 0.5 * time_value + tilt + side * asset
        cash_value = 0.5 * time_value - tilt - side * cash
        digits = 1.0 + tf.abs(x) + (tf.abs(rate) + tf.abs(dividend)) * maturity
        return tf.stack(
            [
                tf.maximum(side * (asset - cash), 0.0) + time_value,
                asset_value / spot,
                2.0 * time_part / (spot * spot),
                2.0 * volatility * maturity * time_part,
                dividend * asset_value + rate * cash_value - volatility * volatility * time_part,
                -maturity * cash_value,
                self._bound(s) * scale + ROUNDING * (asset + cash) * digits,
                w,
                # An output has to be kept. Were it none, XLA would compute it again for each of the units it goes into,
                # logarithm and all: half the speed.
                near,
            ]
        )

    def _bound(self, s: Tensor) -> Tensor:
        """`Certificate.at`."""
        tf, knots = self._tf, len(self._certificate.s)
        position = tf.cast(tf.math.ceil(s * (knots / self._certificate.s[-1]) - 1.0), tf.int32)
        return tf.gather(tf.constant(self._certificate.bound), tf.clip_by_value(position, 0, knots - 1))

    def _jets(self, y: Tensor, near: Tensor, w: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """N, N_y and N_w by reverse accumulation, written out: units are rows, options are columns."""
        tf = self._tf
        below = tf.stack([1.0 - 4.0 * near, self._w_scale * w - 1.0])
        activations = []
        for layer in self._hidden:
            below = tf.tanh(tf.matmul(layer.kernel.T, below) + layer.bias[:, None])
            activations.append(below)
        q = tf.matmul(self._last.kernel.T, below)[0] + self._last.bias[0]
        adjoint = self._last.kernel
        for layer, activation in zip(reversed(self._hidden), reversed(activations), strict=True):
            adjoint = tf.matmul(layer.kernel, adjoint * (1.0 - activation * activation))
        decay = 1.0 / (1.0 + y * (SQRT_HALF_PI + y))
        n = q * decay
        n_y = (adjoint[0] * 4.0 * near * near - n * (SQRT_HALF_PI + 2.0 * y)) * decay
        return n, n_y, adjoint[1] * self._w_scale * decay


def tensorflow_engines(
    network: Network, certificate: Certificate, *, threads: int | None = None
) -> tuple[TensorFlowEngine, ...]:
    """An engine for every device that TensorFlow finds, best first; the CPU is always among them, and last.

    Raises ImportError where TensorFlow is not installed.
    """
    tf = load_tensorflow(threads=threads)
    devices = ["/GPU:0"] if tf.config.list_physical_devices("GPU") else []
    return tuple(
        TensorFlowEngine(network, certificate, device=device, threads=threads) for device in [*devices, "/CPU:0"]
    )
