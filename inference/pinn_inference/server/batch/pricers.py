"""The child's pricer: the configured models, first on NumPy, later on TensorFlow."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from pinn_inference.pricing.errors import ModelError, ModelNotFoundError
from pinn_inference.pricing.model import bundled_directory, load_model, load_numpy_model
from pinn_inference.pricing.model_set import ModelSet
from pinn_inference.pricing.types import FallbackReason, OptionBatch, Quotes
from pinn_inference.server.batch.jobs import ModelLabels, price_without_model
from pinn_inference.tensorflow_runtime import load_tensorflow

log = logging.getLogger(__name__)


def model_pricer(options: dict[str, Any]) -> ModelPricer:
    """The product's factory; `options` as `BatchSettings.from_config` makes them."""
    return ModelPricer(options)


class ModelPricer:
    """Prices by the European model; a model that cannot be used leaves the closed form, and the log says why."""

    def __init__(self, options: dict[str, Any]) -> None:
        self._options = options
        self._models: ModelSet | None = None
        self.where = "numpy"
        try:
            european = load_numpy_model(self._directory(), expected_sha256=options.get("model_sha256"))
        except ModelError as error:
            log.error("model not usable: batches are priced in closed form", extra={"error": str(error)})  # noqa: TRY400
            self.labels = ModelLabels()
        else:
            self._models = ModelSet(european)
            self.labels = ModelLabels(european=f"{european.name}/{european.version}")

    def price(self, options: OptionBatch) -> Quotes:
        models = self._models
        if models is None or (models.american is None and options.is_american.any()):
            return price_without_model(options, FallbackReason.MODEL_UNAVAILABLE)
        return models.price(options)

    def rescue(self, options: OptionBatch, reason: FallbackReason) -> Quotes:
        return price_without_model(options, reason)

    def load_tensorflow(self, *, threads: int) -> dict[str, Any]:
        """Compile and check the models on TensorFlow, then price by them.

        Raises ModelError, and ImportError where TensorFlow is not installed.
        """
        if self._models is None:
            raise ModelNotFoundError("there is no model to load into TensorFlow")
        european = load_model(self._directory(), expected_sha256=self._options.get("model_sha256"), threads=threads)
        european.warm_up()
        european.self_check()
        self._models = ModelSet(european, self._models.american)
        self.where = "tensorflow"
        return describe_tensorflow(european.devices)

    def _directory(self) -> Path:
        given = self._options.get("model_dir")
        return bundled_directory(self._options.get("model") or "european") if given is None else Path(given)


def describe_tensorflow(devices: tuple[str, ...]) -> dict[str, Any]:
    """TensorFlow as the health page shows it."""
    gpu = any("GPU" in device for device in devices)
    return {"status": "healthy", "version": load_tensorflow().__version__, "gpu_available": gpu, "devices": devices}
