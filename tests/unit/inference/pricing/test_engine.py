"""The engines: one set of formulas in NumPy tiles and in compiled TensorFlow, whatever the batch and the device."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from pinn_inference.pricing import artefact
from pinn_inference.pricing.artefact import Artefact
from pinn_inference.pricing.certificate import Certificate
from pinn_inference.pricing.engine import NumPyEngine
from pinn_inference.pricing.errors import ModelRuntimeError
from pinn_inference.pricing.model import PinnModel, bundled_directory, load_model, load_numpy_model
from pinn_inference.pricing.network import Architecture, Domain, Network, evaluate
from pinn_inference.pricing.reduction import from_network, reduce, rounding_bound
from pinn_inference.pricing.tensorflow_engine import TensorFlowEngine
from pinn_inference.pricing.types import FallbackReason, FloatArray, Method, OptionBatch
from pinn_inference.tensorflow_runtime import load_tensorflow
from pinn_inference.training.accuracy import sample_options
from pinn_inference.training.equation import initial_parameters

ROWS = ("price", "delta", "gamma", "vega", "theta", "rho", "error_bound")


@pytest.fixture(scope="module")
def bundled() -> Artefact:
    return artefact.read(bundled_directory())


@pytest.fixture(scope="module")
def numpy_engine(bundled: Artefact) -> NumPyEngine:
    return NumPyEngine(bundled.network, bundled.certificate)


@pytest.fixture(scope="module")
def small_tensorflow(bundled: Artefact) -> TensorFlowEngine:
    """Real compiled functions, small enough to try every size around their edges."""
    return TensorFlowEngine(bundled.network, bundled.certificate, sizes=(32, 64), tile=16, smallest=8)


def by_the_book(model: Artefact, batch: OptionBatch) -> FloatArray:
    """The rows of an evaluation from the plain functions of `reduction` and `network`."""
    reduced = reduce(batch)
    domain = model.network.domain
    inner = replace(reduced, y=np.minimum(reduced.y, domain.y_max))
    jets = evaluate(model.network, inner.y, inner.w)
    alive = reduced.y < domain.y_max
    n, n_y, n_w = (np.where(alive, jet, 0.0) for jet in (jets.n, jets.n_y, jets.n_w))
    values = from_network(batch, inner, n=n, n_y=n_y, n_w=n_w)
    bound = reduced.scale * model.certificate.at(inner.s) + rounding_bound(batch, reduced)
    return np.stack([*(getattr(values, name) for name in ROWS[:-1]), bound])


def largest_difference(found: FloatArray, expected: FloatArray) -> float:
    return float(np.max(np.abs(found - expected) / (np.abs(expected) + 1.0), initial=0.0))


@pytest.mark.parametrize("n", [0, 1, 2047, 2048, 2049, 5000])
def test_numpy_tiles_give_what_the_plain_formulas_give(bundled: Artefact, numpy_engine: NumPyEngine, n: int) -> None:
    batch = sample_options(n, seed=3)
    evaluation = numpy_engine.price(batch)
    assert evaluation.values.shape == (7, n)
    assert evaluation.w == pytest.approx(batch.volatility**2 * batch.maturity, rel=1e-15)
    assert largest_difference(evaluation.values, by_the_book(bundled, batch)) < 2e-13


@pytest.mark.parametrize("hidden", [(5,), (7, 4), (4, 6, 5), (3, 4, 5, 6)])
def test_both_engines_take_networks_of_any_depth(hidden: tuple[int, ...]) -> None:
    architecture = Architecture(hidden=hidden)
    network = Network.from_vector(initial_parameters(architecture, seed=4), architecture, Domain())
    certificate = Certificate(s=np.linspace(0.5, 2.5, 5), bound=np.linspace(1.0, 2.0, 5))
    model = Artefact("any", "1", "", network, certificate, {})
    batch = sample_options(40, seed=5)
    expected = by_the_book(model, batch)
    compiled = TensorFlowEngine(network, certificate, sizes=(48,), tile=16, smallest=1)
    for engine in (NumPyEngine(network, certificate), compiled):
        assert largest_difference(engine.price(batch).values, expected) < 1e-12


@pytest.mark.parametrize("n", [0, 1, 7, 8, 15, 16, 17, 31, 32, 33, 48, 63, 64, 65, 71, 72, 128, 129, 200])
def test_a_batch_of_any_size_is_padded_to_a_compiled_shape_and_comes_out_whole(
    numpy_engine: NumPyEngine, small_tensorflow: TensorFlowEngine, n: int
) -> None:
    batch = sample_options(n, seed=n)
    found, expected = small_tensorflow.price(batch), numpy_engine.price(batch)
    assert found.values.shape == (7, n)
    assert largest_difference(found.values, expected.values) < 1e-12
    assert found.w == pytest.approx(expected.w, rel=1e-15)


def test_a_device_that_takes_the_batch_at_once_gives_the_same(bundled: Artefact, numpy_engine: NumPyEngine) -> None:
    """As on a GPU, where tiles would be slow."""
    engine = TensorFlowEngine(bundled.network, bundled.certificate, sizes=(64,), tile=0, smallest=1)
    batch = sample_options(50, seed=2)
    assert largest_difference(engine.price(batch).values, numpy_engine.price(batch).values) < 1e-12


def test_nothing_is_compiled_after_the_warm_up(bundled: Artefact, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = TensorFlowEngine(bundled.network, bundled.certificate, sizes=(32, 64), tile=16, smallest=8)
    engine.warm_up()
    traces = []
    tf = load_tensorflow()
    monkeypatch.setattr(tf, "function", lambda *args, **kwargs: traces.append(args))
    functions = dict(engine._functions)
    for n in range(8, 200, 7):
        engine.price(sample_options(n, seed=n))
    assert traces == []
    assert engine._functions == functions, "one function for each size, and no other"


def test_columns_may_be_views_that_are_read_only_and_not_aligned(
    numpy_engine: NumPyEngine, small_tensorflow: TensorFlowEngine
) -> None:
    batch = sample_options(40, seed=9)
    body = b"!" + b"".join(getattr(batch, name).tobytes() for name in ("spot", "strike", "maturity"))
    views = [np.frombuffer(body, dtype=np.float64, count=40, offset=1 + index * 320) for index in range(3)]
    from_body = replace(batch, spot=views[0], strike=views[1], maturity=views[2])
    for engine in (numpy_engine, small_tensorflow):
        assert engine.price(from_body).values.tolist() == engine.price(batch).values.tolist()


def test_rows_outside_the_domain_disturb_no_other_row(
    bundled: Artefact, numpy_engine: NumPyEngine, small_tensorflow: TensorFlowEngine
) -> None:
    batch = sample_options(48, seed=11)
    wild = replace(batch, volatility=batch.volatility.copy(), maturity=batch.maturity.copy())
    wild.volatility[::5] = [0.0, 1e300, np.nan, 9.0, np.inf, 1e-200, 0.0, 3.0, 50.0, 7.0]
    wild.maturity[::5] = 1.0
    wild.maturity[10] = 0.0
    calm = np.ones(48, dtype=bool)
    calm[::5] = False
    for engine in (numpy_engine, small_tensorflow):
        found, expected = engine.price(wild).values[:, calm], engine.price(batch).values[:, calm]
        assert found.tolist() == expected.tolist()
        quotes = PinnModel(bundled, (engine,)).price(
            replace(wild, volatility=np.nan_to_num(wild.volatility, posinf=1e300))
        )
        assert {FallbackReason(code).label for code in quotes.reason[~calm]} == {"zero_variance", "out_of_domain"}
        assert np.isfinite(quotes.price).all()


def test_the_shipped_model_prices_large_batches_in_tensorflow_and_small_ones_in_numpy() -> None:
    model, plain = load_model(bundled_directory()), load_numpy_model(bundled_directory())
    assert model.devices[-2:] == ("/CPU:0", "NumPy")
    assert plain.devices == ("NumPy",)
    model.warm_up()
    model.self_check()
    for n in (100, 20_000, 70_000):
        batch = sample_options(n, seed=n)
        found, expected = model.price(batch), plain.price(batch)
        assert (found.method == Method.PINN).all()
        for name in ROWS:
            assert largest_difference(getattr(found, name), getattr(expected, name)) < 1e-12, name


def test_a_server_process_loads_and_prices_without_tensorflow() -> None:
    program = (
        "import sys\n"
        "from pinn_inference.pricing.model import bundled_directory, load_numpy_model\n"
        "from pinn_inference.pricing.model_set import ModelSet\n"
        "model = ModelSet(load_numpy_model(bundled_directory()))\n"
        "model.warm_up(); model.self_check()\n"
        "print('tensorflow' in sys.modules, 'scipy' in sys.modules)\n"
    )
    paths = {"PYTHONPATH": str(Path(bundled_directory()).parents[2])}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, env=paths)
    assert (done.returncode, done.stdout.strip()) == (0, "False False"), done.stderr


@pytest.fixture
def tf() -> Iterator[ModuleType]:
    return load_tensorflow()


@pytest.mark.parametrize(
    ("error", "message"),
    [
        ("ResourceExhaustedError", "OOM when allocating tensor with shape[8,65536]"),
        ("InternalError", "CUDA_ERROR_ILLEGAL_ADDRESS: an illegal memory access was encountered"),
        ("UnknownError", "Failed to get convolution algorithm"),
        ("FailedPreconditionError", "DNN library initialization failed"),
    ],
)
def test_an_error_of_the_device_is_followed_by_the_next_device(
    bundled: Artefact, tf: ModuleType, error: str, message: str
) -> None:
    """The error is TensorFlow's own, as it comes from the compiled function."""

    def fails(*_arguments: Any) -> Any:
        raise getattr(tf.errors, error)(None, None, message)

    device = TensorFlowEngine(bundled.network, bundled.certificate, sizes=(32,), tile=16, smallest=8)
    device._functions = {32: fails}
    batch = sample_options(20, seed=1)
    with pytest.raises(ModelRuntimeError, match=message[:12]):
        device.price(batch)
    healthy = NumPyEngine(bundled.network, bundled.certificate)
    quotes = PinnModel(bundled, (device, healthy)).price(batch)
    assert (quotes.method == Method.PINN).all()
    assert quotes.price.tolist() == healthy.price(batch).values[0].tolist()


def test_a_gpu_takes_memory_as_it_needs_it_and_xla_the_whole_width_of_the_processor() -> None:
    program = (
        "import os\n"
        "from pinn_inference.tensorflow_runtime import load_tensorflow\n"
        "load_tensorflow()\n"
        "print(os.environ['TF_FORCE_GPU_ALLOW_GROWTH'], os.environ['XLA_FLAGS'])\n"
    )
    paths = {"PYTHONPATH": str(Path(bundled_directory()).parents[2])}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, env=paths)
    assert done.stdout.split() == ["true", "--xla_cpu_prefer_vector_width=512"], done.stderr
