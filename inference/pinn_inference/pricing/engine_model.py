"""What a model of either exercise style is beside its prices: its identity, its engines, its warm-up and self-check."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Generic, Protocol, TypeVar

from pinn_inference.pricing.certificate import Certificate
from pinn_inference.pricing.errors import ModelRuntimeError, ModelSelfCheckError
from pinn_inference.pricing.golden import CheckResult

log = logging.getLogger(__name__)


class _Artefact(Protocol):
    @property
    def name(self) -> str: ...
    @property
    def version(self) -> str: ...
    @property
    def sha256(self) -> str: ...
    @property
    def certificate(self) -> Certificate: ...


class _Engine(Protocol):
    @property
    def device(self) -> str: ...
    def warm_up(self) -> None: ...


ArtefactOfStyle = TypeVar("ArtefactOfStyle", bound=_Artefact)
EngineOfStyle = TypeVar("EngineOfStyle", bound=_Engine)


class EngineModel(Generic[ArtefactOfStyle, EngineOfStyle]):
    """An artefact and the engines that evaluate it, which are tried in order."""

    def __init__(self, artefact: ArtefactOfStyle, engines: Sequence[EngineOfStyle]) -> None:
        if not engines:
            raise ValueError("a model needs at least one engine")
        self.artefact = artefact
        self._engines = tuple(engines)

    @property
    def name(self) -> str:
        return self.artefact.name

    @property
    def version(self) -> str:
        return self.artefact.version

    @property
    def sha256(self) -> str:
        """Checksum of the weights file."""
        return self.artefact.sha256

    @property
    def error_bound(self) -> float:
        """The certificate over the whole domain, in its own units; every quote carries its own, in currency."""
        return self.artefact.certificate.error_bound

    @property
    def greek_bounds(self) -> Mapping[str, float]:
        """Bounds of the Greeks' errors in their natural sizes, by name; empty where none were measured."""
        return {}

    @property
    def device(self) -> str:
        """The device that is tried first."""
        return self._engines[0].device

    @property
    def engines(self) -> tuple[EngineOfStyle, ...]:
        """The engines in the order in which they are tried."""
        return self._engines

    @property
    def devices(self) -> tuple[str, ...]:
        """The engines' devices, in their order."""
        return tuple(engine.device for engine in self._engines)

    def warm_up(self) -> None:
        """Compiles whatever an engine compiles, so that no request pays for first use.

        Raises ModelRuntimeError when the last engine fails.
        """
        for position, engine in enumerate(self._engines):
            try:
                engine.warm_up()
            except ModelRuntimeError as error:
                if position == len(self._engines) - 1:
                    raise
                log.warning("device failed at warm-up", extra={"device": engine.device, "error": str(error)})

    def check_golden_prices(self) -> list[CheckResult]:
        """One result for each thing checked."""
        raise NotImplementedError

    def self_check(self) -> None:
        """Raises ModelSelfCheckError, naming every golden option that came out wrong."""
        failed = [result for result in self.check_golden_prices() if not result.passed]
        if failed:
            raise ModelSelfCheckError("; ".join(f"{result.name}: {result.detail}" for result in failed))
