"""The model's life: loaded in the background, checked, then used; and the closed form whenever it cannot be.

Loading runs in a thread while HTTP already answers. The server is ready when the weights are loaded, their checksum is
right, the warm-up is done and the golden prices are right; TensorFlow is not needed for that, it is loaded later, by
the batch process. A model that fails any of these is never used and the server never becomes ready: it stays up, says
why, and prices in closed form. A model is never replaced in a running process: another model comes in another pod.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from typing import Any

from pinn_inference.pricing.cache import OptionKey, QuoteCache
from pinn_inference.pricing.loading import ModelSources
from pinn_inference.pricing.scalar import ScalarQuote
from pinn_inference.pricing.types import BoolArray, FallbackReason, OptionBatch, Quotes
from pinn_inference.server.batch.jobs import price_without_model, slow_rows
from pinn_inference.server.config import ServerConfig
from pinn_inference.server.metrics import ServerMetrics
from pinn_inference.server.served_model import ModelLoader, PricingModel, load_configured_model, quotes_by_batch

log = logging.getLogger(__name__)


class Stage(StrEnum):
    """The checks between start and ready, in their order; the values name them in the readiness answer."""

    WEIGHTS_LOADED = "weights_loaded"
    WARM_UP_DONE = "warm_up_done"
    GOLDEN_PRICES_RIGHT = "golden_prices_right"


_FAILURE_REASONS: Mapping[Stage, str] = {
    Stage.WEIGHTS_LOADED: "ModelLoadFailed",
    Stage.WARM_UP_DONE: "ModelWarmUpFailed",
    Stage.GOLDEN_PRICES_RIGHT: "ModelSelfCheckFailed",
}


@dataclass(frozen=True, slots=True)
class Check:
    """One condition of readiness: met, not met yet, or failed, with a sentence about it."""

    name: str
    ok: bool
    message: str


@dataclass(frozen=True, slots=True)
class Readiness:
    """Whether traffic may come, and why (not): `reason` is a CamelCase word for machines, `message` is for people."""

    ready: bool
    reason: str
    message: str
    checks: tuple[Check, ...]
    model: Mapping[str, Any]


class PricingEngine:
    """Prices by the model when it is ready, else by the closed form; tells how far loading has come."""

    def __init__(
        self, config: ServerConfig, *, metrics: ServerMetrics, load_model: ModelLoader = load_configured_model
    ) -> None:
        self._config = config
        self._metrics = metrics
        self._load_model = load_model
        self._model: PricingModel | None = None
        self._label: str | None = None
        self._stage = Stage.WEIGHTS_LOADED
        self._failure: tuple[str, str] | None = None
        self._loaded: dict[str, Any] = {}
        self._started = time.monotonic()
        self._thread: threading.Thread | None = None
        self._draining = False
        self._trouble = ""
        self.settled = asyncio.Event()
        """Set when loading has ended, well or not."""

    # --- life -------------------------------------------------------------------------------------------------------

    def start_loading(self) -> None:
        """Begin to load in a thread of its own; call once, from the event loop."""
        loop = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._load, args=(loop,), name="model-loader", daemon=True)
        self._thread.start()

    def begin_draining(self) -> None:
        """Turn unready for good; pricing goes on."""
        self._draining = True
        self._show_readiness()

    def hold_back(self, trouble: str) -> None:
        """Be unready for this reason as well, a sentence; an empty one ends that. Pricing goes on."""
        self._trouble = trouble
        self._show_readiness()

    def _show_readiness(self) -> None:
        self._metrics.ready.set(self._model is not None and not self._draining and not self._trouble)

    @property
    def draining(self) -> bool:
        return self._draining

    @property
    def loading(self) -> bool:
        """The loader's thread is still at work."""
        return self._thread is not None and self._thread.is_alive()

    def _load(self, loop: asyncio.AbstractEventLoop) -> None:
        try:
            model = self._load_model(self._config)
            self._loaded = {
                "name": model.name,
                "version": model.version,
                "sha256": model.sha256,
                "error_bound": model.error_bound,
            }
            american = model.american
            if american is not None:
                self._loaded["american"] = {
                    "name": american.name,
                    "version": american.version,
                    "sha256": american.sha256,
                    "error_bound": american.error_bound,
                    "greek_bounds": dict(american.greek_bounds),
                }
            self._stage = Stage.WARM_UP_DONE
            model.warm_up()
            self._stage = Stage.GOLDEN_PRICES_RIGHT
            model.self_check()
            # What was imported stays for good: the collector need not walk its million objects again and again.
            gc.collect()
            gc.freeze()
        except Exception as error:
            reason = getattr(error, "reason", None) or _FAILURE_REASONS[self._stage]
            self._failure = (str(reason), f"{error}" or type(error).__name__)
            log.exception("model not usable: pricing in closed form", extra={"reason": reason, "error": str(error)})
        else:
            self._label = f"{model.name}/{model.version}"
            self._model = model
            if model.cache is not None:
                self._metrics.show_cache(model.cache)
            for one in (model, american):
                if one is not None:
                    self._metrics.model_info.labels(one.name, one.version, one.sha256).set(1)
            self._show_readiness()
            seconds = round(time.monotonic() - self._started, 3)
            log.info("ready", extra={"model": self._loaded, "seconds_since_start": seconds})
        _tell(loop, self.settled)

    # --- state ------------------------------------------------------------------------------------------------------

    @property
    def model_label(self) -> str | None:
        """`name/version` of the model in use, None while there is none."""
        return self._label

    @property
    def model_ready(self) -> bool:
        return self._model is not None

    def label(self, *, american: bool = False) -> str:
        """`name/version` of the model in use for a style, empty where there is none."""
        model = self._model
        if model is None:
            return ""
        return model.american_label if american else self._label or ""

    @property
    def greek_bounds(self) -> Mapping[str, float]:
        """Of the model in use for American options, see `StyleModel`; empty where there is none."""
        model = self._model
        return {} if model is None or model.american is None else model.american.greek_bounds

    @property
    def prices_american(self) -> bool:
        """Whether a model for American options is in use."""
        return self._model is not None and self._model.american is not None

    @property
    def cache(self) -> QuoteCache | None:
        """The cache in use; None without a usable model, or if it has none."""
        return self._model.cache if self._model is not None else None

    @property
    def sources(self) -> ModelSources | None:
        """What the model in use was made of; None without one, or if it exists in this process alone."""
        return self._model.sources if self._model is not None else None

    @property
    def failure(self) -> tuple[str, str] | None:
        """(reason, message) of a model that cannot be used."""
        return self._failure

    def readiness(self) -> Readiness:
        """May requests come here? Never depends on load or hit rate, only on the model and on draining."""
        checks = self._checks()
        if self._draining:
            reason, message = "Draining", "the server is shutting down: it answers what still arrives"
        elif self._failure is not None:
            reason, message = self._failure
        elif self._model is None:
            reason = "ModelLoading" if self._stage == Stage.WEIGHTS_LOADED else "ModelWarmingUp"
            message = f"waiting for {self._stage.value}"
        elif self._trouble:
            reason, message = "BatchProcessFailed", self._trouble
        else:
            reason, message = "Ready", f"model {self.model_label} is loaded, warm and right"
        model: dict[str, Any] = dict(self._loaded)
        if self._config.model_sha256 is not None:
            model["expected_sha256"] = self._config.model_sha256
        return Readiness(reason == "Ready", reason, message, checks, model)

    def _checks(self) -> tuple[Check, ...]:
        checks: list[Check] = []
        stages = list(Stage)
        reached = len(stages) if self._model is not None else stages.index(self._stage)
        for position, stage in enumerate(stages):
            if position < reached:
                checks.append(Check(stage.value, True, "done"))
            elif position == reached and self._failure is not None:
                checks.append(Check(stage.value, False, self._failure[1]))
            else:
                checks.append(Check(stage.value, False, "not reached" if self._failure is not None else "pending"))
        if self._trouble:
            checks.append(Check("batch_process", False, self._trouble))
        checks.append(Check("accepting_traffic", not self._draining, "shutting down" if self._draining else "done"))
        return tuple(checks)

    # --- pricing ----------------------------------------------------------------------------------------------------

    def price(self, options: OptionBatch) -> Quotes:
        """Price a batch, on any thread.

        An evaluation that raises is counted and answered in closed form: the request must not suffer from the model.
        American options outside the domain of their model, or without one, take some milliseconds each.

        Raises EngineFailed for more of them than can be priced without the model.
        """
        model = self._model
        if model is None or (model.american is None and options.is_american.any()):
            return price_without_model(options, FallbackReason.MODEL_UNAVAILABLE)
        try:
            return model.price(options)
        except Exception as error:  # noqa: BLE001 - counted and logged there
            self._count_failure(error)
            return price_without_model(options, FallbackReason.DEVICE_ERROR)

    def slow_rows(self, options: OptionBatch) -> BoolArray:
        """Which of the options would take milliseconds each: American ones that no network prices."""
        return slow_rows(options, self._model.american if self._model is not None else None)

    def quote(self, options: Sequence[OptionKey]) -> list[ScalarQuote]:
        """Price a few European options, on the event loop; as `price`."""
        model = self._model
        if model is None:
            return quotes_by_batch(self.price, options)
        try:
            return model.quote(options)
        except Exception as error:  # noqa: BLE001 - counted and logged there
            self._count_failure(error)
            return quotes_by_batch(partial(price_without_model, reason=FallbackReason.DEVICE_ERROR), options)

    def quote_quickly(self, options: Sequence[OptionKey]) -> list[ScalarQuote] | None:
        """Price a few options of either style on the event loop; None if that would hold it up."""
        model = self._model
        quotes = []
        for option in options:
            quote: ScalarQuote | None = None
            if not option[7]:
                (quote,) = self.quote([option])
            elif model is not None:
                try:
                    quote = model.quote_american(option)
                except Exception as error:  # noqa: BLE001 - counted and logged there
                    self._count_failure(error)
            if quote is None:
                return None
            quotes.append(quote)
        return quotes

    def _count_failure(self, error: Exception) -> None:
        self._metrics.prediction_errors.labels(type(error).__name__).inc()
        log.warning("evaluation failed: priced in closed form", extra={"error": repr(error)}, exc_info=error)


def _tell(loop: asyncio.AbstractEventLoop, event: asyncio.Event) -> None:
    try:
        loop.call_soon_threadsafe(event.set)
    except RuntimeError:
        log.debug("the event loop is gone: nobody waits for the model any more")
