"""Evaluates the American model's networks with their first derivatives: in NumPy, and compiled by TensorFlow."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Final, Protocol

import numpy as np

from pinn_inference.pricing.algebra import Number, NumPyAlgebra, ScalarAlgebra
from pinn_inference.pricing.american_network import (
    AmericanNetworks,
    boundary,
    premium_gradient,
)
from pinn_inference.pricing.errors import ModelRuntimeError
from pinn_inference.pricing.network import Layer
from pinn_inference.pricing.types import FloatArray
from pinn_inference.tensorflow_runtime import Tensor, load_tensorflow

_SQRT_HALF: Final = 0.7071067811865476
_TILE: Final = 1024
_SIZES: Final = (4_096, 16_384, 65_536)
_SMALLEST: Final = 1_024
"""Fewer options NumPy prices as fast as a call into TensorFlow and its padding."""
_ROWS: Final = 6
_KEPT: Final = 11
"""Columns that are inputs of a perceptron, each once: five of the boundary's, and two times three of the others'."""
_ARRAYS_PAY: Final = 8
"""From so many options on one array evaluation is faster than as many evaluations in floats."""


@dataclass(frozen=True, slots=True)
class PremiumJets:
    """Early exercise premium of n puts in units of their strikes, and the boundary; all of shape (n,).

    `e` and its derivatives at x = ln(S/K), s = σ√T, κ = 2r/σ² and λ = 2q/σ²; `b` = ln(boundary/strike). Where x ≤ b
    only `b` means something.
    """

    e: FloatArray
    e_x: FloatArray
    e_s: FloatArray
    e_kappa: FloatArray
    e_lambda: FloatArray
    b: FloatArray


class AmericanEngine(Protocol):
    """Evaluates one pair of networks; calls may come from several threads at once."""

    @property
    def device(self) -> str:
        """Where it runs, for logs and health pages."""

    def evaluate(self, x: FloatArray, s: FloatArray, kappa: FloatArray, lambda_: FloatArray) -> PremiumJets:
        """The jets of n options, all columns of shape (n,) and within the domain; raises ModelRuntimeError."""

    def warm_up(self) -> None:
        """Does all that a first call would otherwise have to do; raises ModelRuntimeError."""


_SCALARS: Final = ScalarAlgebra()


class NumPyAmericanEngine:
    """NumPy in tiles that stay in the processor's cache, and plain floats for one option."""

    device = "NumPy"

    def __init__(self, networks: AmericanNetworks) -> None:
        self._networks = networks
        self._algebra = NumPyAlgebra()

    def evaluate(self, x: FloatArray, s: FloatArray, kappa: FloatArray, lambda_: FloatArray) -> PremiumJets:
        rows = np.empty((_ROWS, len(x)))
        if len(x) < _ARRAYS_PAY:
            for column, terms in enumerate(zip(x.tolist(), s.tolist(), kappa.tolist(), lambda_.tolist(), strict=True)):
                try:
                    rows[:, column] = self.evaluate_one(*terms)
                except (ArithmeticError, ValueError):  # where an array would hold infinities or NaN
                    rows[:, column] = np.nan
            return PremiumJets(*rows)
        # Below the boundary the form of the premium may overflow; nobody reads it there.
        with np.errstate(all="ignore"):
            for start in range(0, len(x), _TILE):
                tile = slice(start, start + _TILE)
                variables = (x[tile], s[tile], kappa[tile], lambda_[tile])
                for row, column in zip(rows, premium_gradient(self._algebra, self._networks, *variables), strict=True):
                    row[tile] = column
        return PremiumJets(*rows)

    def evaluate_one(
        self, x: float, s: float, kappa: float, lambda_: float
    ) -> tuple[float, float, float, float, float, float]:
        """(e, e_x, e_s, e_κ, e_λ, b) of one option, in some 30 µs."""
        b = boundary(_SCALARS, self._networks, s, kappa, lambda_)
        # Below the boundary the form of the premium may overflow; nobody reads it there.
        return premium_gradient(_SCALARS, self._networks, max(x, b), s, kappa, lambda_)

    def warm_up(self) -> None:
        """Nothing to do: NumPy compiles nothing."""


class TensorFlowAlgebra:
    """Tensors; remembers each perceptron layer's inputs and pre-activations when it is given a tape."""

    def __init__(self, tf: ModuleType, tape: Tensor = None) -> None:
        self._tf = tf
        self._tape = tape
        self.recorded: list[tuple[Tensor, Tensor]] = []
        self.kept: list[Tensor] = []

    def exp(self, a: Tensor) -> Tensor:
        return self._tf.exp(a)

    def log(self, a: Tensor) -> Tensor:
        return self._tf.math.log(a)

    def sqrt(self, a: Tensor) -> Tensor:
        return self._tf.sqrt(a)

    def softplus(self, a: Tensor) -> Tensor:
        return self._tf.nn.softplus(a)

    def sigmoid(self, a: Tensor) -> Tensor:
        return self._tf.sigmoid(a)

    def normal_distribution(self, a: Tensor) -> Tensor:
        return 0.5 * self._tf.math.erfc(a * -_SQRT_HALF)

    def perceptron(self, layers: Sequence[Layer], inputs: Sequence[Number]) -> Tensor:
        if isinstance(layers[0].kernel, np.ndarray):  # trained: of the gradient nothing is computed, it is not used
            return self.perceptron_gradient(layers, inputs)[0]
        hidden = self._tf.stack(list(inputs), axis=-1)
        for index, layer in enumerate(layers):
            outputs = self._tf.tensordot(hidden, layer.kernel, 1) + layer.bias
            if self._tape is not None:
                self._tape.watch(outputs)
                self.recorded.append((hidden, outputs))
            hidden = self._tf.tanh(outputs) if index < len(layers) - 1 else outputs
        return hidden[..., 0]

    def perceptron_gradient(self, layers: Sequence[Layer], inputs: Sequence[Number]) -> tuple[Tensor, Tensor]:
        """Units are rows and options are columns, which XLA computes twice as fast as the other way round."""
        tf = self._tf
        self.kept.extend(column for column in inputs if not any(column is other for other in self.kept))
        hidden, activations = tf.stack(list(inputs)), []
        for layer in layers[:-1]:
            hidden = tf.tanh(tf.matmul(layer.kernel.T, hidden) + layer.bias[:, None])
            activations.append(hidden)
        last = layers[-1]
        adjoint = last.kernel
        for layer, activation in zip(reversed(layers[:-1]), reversed(activations), strict=True):
            adjoint = tf.matmul(layer.kernel, adjoint * (1.0 - activation * activation))
        return tf.matmul(last.kernel.T, hidden)[0] + last.bias[0], adjoint


class TensorFlowAmericanEngine:
    """One compiled function for each of a few padded batch sizes; float64.

    On a CPU the function walks through tiles and stops after the last that holds options, as the European one does.
    """

    def __init__(
        self,
        networks: AmericanNetworks,
        *,
        device: str = "/CPU:0",
        sizes: tuple[int, ...] = _SIZES,
        tile: int = _TILE,
        smallest: int = _SMALLEST,
        threads: int | None = None,
    ) -> None:
        self._tf = load_tensorflow(threads=threads)
        self.device = device
        self.batch_sizes = sizes
        self._networks = networks
        self._tile = tile if "CPU" in device else None
        self._smallest = smallest
        self._small = NumPyAmericanEngine(networks)
        with self._tf.device(device):
            self._functions = {size: self._trace(size) for size in sizes}

    def evaluate(self, x: FloatArray, s: FloatArray, kappa: FloatArray, lambda_: FloatArray) -> PremiumJets:
        n, largest = len(x), self.batch_sizes[-1]
        if n < self._smallest:
            return self._small.evaluate(x, s, kappa, lambda_)
        rows = np.empty((_ROWS, n))
        for start in range(0, n, largest):
            part = slice(start, min(start + largest, n))
            self._evaluate_padded((x[part], s[part], kappa[part], lambda_[part]), rows[:, part])
        return PremiumJets(*rows)

    def warm_up(self) -> None:
        """Compiles every function; a second or two each."""
        for size in self.batch_sizes:
            columns = tuple(np.full(size, value) for value in (0.1, 0.2, 1.0, 0.5))
            self._evaluate_padded(columns, np.empty((_ROWS, size)))

    def _evaluate_padded(self, columns: Sequence[FloatArray], out: FloatArray) -> None:
        tf, n = self._tf, len(columns[0])
        size = next(size for size in self.batch_sizes if size >= n)
        if n < size:
            padded = np.empty((len(columns), size))
            for row, column in zip(padded, columns, strict=True):
                row[:n] = column
                row[n:] = column[0]
            columns = tuple(padded)
        try:
            with tf.device(self.device):
                tensor = self._functions[size](tf.constant(n, tf.int32), *map(tf.constant, columns))
                answer = np.asarray(memoryview(tensor))  # .numpy() would copy all rows
        except Exception as error:  # a device that fails raises whatever it likes, a BufferError for one
            raise ModelRuntimeError(f"{self.device}: {getattr(error, 'message', repr(error))}") from error
        if self._tile is None:
            out[...] = answer[:_ROWS, :n]
            return
        whole = n - n % self._tile
        out[:, :whole].reshape(_ROWS, -1, self._tile)[...] = answer[: whole // self._tile, :_ROWS].transpose(1, 0, 2)
        if whole < n:
            out[:, whole:] = answer[whole // self._tile, :_ROWS, : n - whole]

    def _trace(self, size: int) -> Tensor:
        tf = self._tf
        column = tf.TensorSpec([size], tf.float64)
        body = self._whole if self._tile is None else self._in_tiles
        return tf.function(
            body, jit_compile=True, autograph=False, input_signature=[tf.TensorSpec([], tf.int32), *[column] * 4]
        ).get_concrete_function()

    def _whole(self, _count: Tensor, *columns: Tensor) -> Tensor:
        return self._jets(*columns)

    def _in_tiles(self, count: Tensor, *columns: Tensor) -> Tensor:
        tf, tile = self._tf, self._tile or 1
        tiles = [tf.reshape(column, [-1, tile]) for column in columns]

        def step(index: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
            update = self._jets(*(column[index] for column in tiles))
            return index + 1, tf.tensor_scatter_nd_update(rows, [[index]], update[None])

        end = (count + (tile - 1)) // tile
        start = (0, tf.zeros([tiles[0].shape[0], _ROWS + _KEPT, tile], tf.float64))
        return tf.while_loop(lambda index, _rows: index < end, step, start)[1]

    def _jets(self, x: Tensor, s: Tensor, kappa: Tensor, lambda_: Tensor) -> Tensor:
        """Shape (17, n): the rows of `_ROWS`, then the inputs of the perceptrons.

        An output has to be kept. Were the inputs none, XLA would compute them again for each unit they go into: a
        quarter of the speed.
        """
        algebra = TensorFlowAlgebra(self._tf)
        jets = premium_gradient(algebra, self._networks, x, s, kappa, lambda_)
        return self._tf.stack([*jets, *algebra.kept])


def american_engines(networks: AmericanNetworks, *, threads: int | None = None) -> tuple[AmericanEngine, ...]:
    """An engine for every device that TensorFlow finds, best first; the CPU is always among them, and last.

    Raises ImportError where TensorFlow is not installed.
    """
    tf = load_tensorflow(threads=threads)
    devices = ["/GPU:0"] if tf.config.list_physical_devices("GPU") else []
    return tuple(TensorFlowAmericanEngine(networks, device=device, threads=threads) for device in [*devices, "/CPU:0"])


def boundary_of(networks: AmericanNetworks, s: FloatArray, kappa: FloatArray, lambda_: FloatArray) -> FloatArray:
    """b(s, κ, λ) of n options in NumPy, for checks and pictures; shape (n,)."""
    b: FloatArray = boundary(NumPyAlgebra(), networks, s, kappa, lambda_)
    return b
