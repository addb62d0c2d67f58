"""The child's pricer: the configured models, first on NumPy, later on TensorFlow."""

from __future__ import annotations

from typing import Any

from pinn_inference.pricing.loading import ModelSources, numpy_models, tensorflow_models
from pinn_inference.pricing.model_set import StyleModel
from pinn_inference.pricing.types import BoolArray, FallbackReason, OptionBatch, Quotes
from pinn_inference.server.batch.jobs import ModelLabels, price_without_model, slow_rows
from pinn_inference.tensorflow_runtime import load_tensorflow


def model_pricer(options: dict[str, Any], models: bytes) -> ModelPricer:  # noqa: ARG001 - there is nothing to choose
    """The product's factory; `models` are packed `ModelSources`. Errors as for `ModelPricer`."""
    return ModelPricer(ModelSources.unpacked(models))


class ModelPricer:
    """Prices by the models of the server, which gives each child the files that it has read and checked itself.

    Raises ModelSelfCheckError when known prices come out wrong in this process: it had better not price then.
    """

    def __init__(self, sources: ModelSources) -> None:
        self._sources = sources
        self._models = numpy_models(sources)
        self._models.warm_up()
        self._models.self_check()
        european, american = self._models.european, self._models.american
        self.labels = ModelLabels(
            european=_label(european),
            american=_label(american),
            greek_bounds={} if american is None else american.greek_bounds,
        )
        self.where = "numpy"

    def price(self, options: OptionBatch) -> Quotes:
        if self._models.american is None and options.is_american.any():
            return price_without_model(options, FallbackReason.MODEL_UNAVAILABLE)
        return self._models.price(options)

    def slow_rows(self, options: OptionBatch) -> BoolArray:
        return slow_rows(options, self._models.american)

    def load_tensorflow(self, *, threads: int) -> dict[str, Any]:
        """Compile and check the models on TensorFlow, then price by them.

        Raises ModelError, and ImportError where TensorFlow is not installed.
        """
        models = tensorflow_models(self._sources, threads=threads)
        models.warm_up()
        models.self_check()
        self._models = models
        self.where = "tensorflow"
        devices = getattr(models.european, "devices", ())
        gpu = any("GPU" in device for device in devices)
        return {"status": "healthy", "version": load_tensorflow().__version__, "gpu_available": gpu, "devices": devices}


def _label(model: StyleModel | None) -> str:
    return "" if model is None else f"{model.name}/{model.version}"
