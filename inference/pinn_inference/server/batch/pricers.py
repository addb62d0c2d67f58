"""The child's pricer: the configured models, first on NumPy, later on TensorFlow."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np

from pinn_inference.pricing.american import AmericanModel, never_exercised, put_terms
from pinn_inference.pricing.american_network import inside
from pinn_inference.pricing.errors import ModelError, ModelNotFoundError
from pinn_inference.pricing.loading import load_models, load_numpy_models
from pinn_inference.pricing.model import bundled_directory
from pinn_inference.pricing.model_set import ModelSet, StyleModel
from pinn_inference.pricing.types import FallbackReason, OptionBatch, Quotes
from pinn_inference.server.batch.jobs import ModelLabels, price_without_model
from pinn_inference.tensorflow_runtime import load_tensorflow

log = logging.getLogger(__name__)


def model_pricer(options: dict[str, Any]) -> ModelPricer:
    """The product's factory; `options` as `BatchSettings.from_config` makes them."""
    return ModelPricer(options)


def slow_options(options: OptionBatch, american: StyleModel | None) -> int:
    """How many options the integral equation has to price, at milliseconds each, where `american` is what is in use."""
    if not options.is_american.any():
        return 0
    rows = options.take(options.is_american)
    rows = rows.take(~never_exercised(rows))
    if not isinstance(american, AmericanModel):
        return len(rows)
    puts = put_terms(rows)
    known = inside(american.artefact.networks.domain, puts.s, puts.kappa, puts.lambda_)
    return int(np.count_nonzero(~known))


class ModelPricer:
    """Prices by the configured models; where they cannot be used it prices without, and the log says why."""

    def __init__(self, options: dict[str, Any]) -> None:
        self._options = options
        self._sha256: str | None = options.get("model_sha256")
        self._american_sha256: str | None = options.get("american_model_sha256")
        self._models: ModelSet | None = None
        self.labels = ModelLabels()
        self.where = "numpy"
        try:
            self._models = load_numpy_models(
                *self._directories(), european_sha256=self._sha256, american_sha256=self._american_sha256
            )
        except ModelError as error:
            log.error("model not usable: batches are priced without", extra={"error": str(error)})  # noqa: TRY400
        else:
            self.labels = ModelLabels(european=_label(self._models.european), american=_label(self._models.american))

    def price(self, options: OptionBatch) -> Quotes:
        models = self._models
        if models is None or (models.american is None and options.is_american.any()):
            return price_without_model(options, FallbackReason.MODEL_UNAVAILABLE)
        return models.price(options)

    def slow_options(self, options: OptionBatch) -> int:
        return slow_options(options, None if self._models is None else self._models.american)

    def load_tensorflow(self, *, threads: int) -> dict[str, Any]:
        """Compile and check the models on TensorFlow, then price by them.

        Raises ModelError, and ImportError where TensorFlow is not installed.
        """
        if self._models is None:
            raise ModelNotFoundError("there is no model to load into TensorFlow")
        models = load_models(
            *self._directories(),
            european_sha256=self._sha256,
            american_sha256=self._american_sha256,
            threads=threads,
        )
        models.warm_up()
        models.self_check()
        self._models = models
        self.where = "tensorflow"
        devices = getattr(models.european, "devices", ())
        gpu = any("GPU" in device for device in devices)
        return {"status": "healthy", "version": load_tensorflow().__version__, "gpu_available": gpu, "devices": devices}

    def _directories(self) -> tuple[Path, Path | None]:
        """Of the European and of the American model, which may be absent; raises ModelNotFoundError."""
        given, american = self._options.get("model_dir"), self._options.get("american_model_dir")
        european = bundled_directory(self._options.get("model") or "european") if given is None else Path(given)
        if american is not None:
            return european, Path(american)
        try:
            return european, bundled_directory("american")
        except ModelNotFoundError:
            if self._american_sha256 is not None:
                raise
            return european, None


def _label(model: StyleModel | None) -> str:
    return "" if model is None else f"{model.name}/{model.version}"
