"""One object that prices both exercise styles: what a server holds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from pinn_inference.pricing.errors import ModelNotFoundError
from pinn_inference.pricing.types import OptionBatch, Quotes


class StyleModel(Protocol):
    """A model of one exercise style; `price` may be called from several threads at once."""

    @property
    def name(self) -> str: ...
    @property
    def version(self) -> str: ...
    @property
    def sha256(self) -> str: ...
    @property
    def error_bound(self) -> float: ...
    @property
    def greek_bounds(self) -> Mapping[str, float]:
        """Bounds of the Greeks' errors in their natural sizes, see `golden.greek_scales`; empty if none are known."""

    def price(self, batch: OptionBatch) -> Quotes:
        """Quotes in the batch's order; the batch holds options of this model's style only."""

    def warm_up(self) -> None:
        """Does all that a first call would otherwise have to do."""

    def self_check(self) -> None:
        """Raises ModelSelfCheckError when known prices come out wrong."""


@dataclass(frozen=True, slots=True)
class ModelSet:
    """The European model and, where one is shipped, the American one. Identity and bound are the European model's."""

    european: StyleModel
    american: StyleModel | None = None

    @property
    def name(self) -> str:
        return self.european.name

    @property
    def version(self) -> str:
        return self.european.version

    @property
    def sha256(self) -> str:
        return self.european.sha256

    @property
    def error_bound(self) -> float:
        return self.european.error_bound

    def price(self, batch: OptionBatch) -> Quotes:
        """Quotes in the batch's order, each row by the model of its style.

        Raises ModelNotFoundError for American options without an American model: a European price would be wrong.
        """
        american = batch.is_american
        if not american.any():
            return self.european.price(batch)
        if self.american is None:
            raise ModelNotFoundError("no American model is loaded: American options cannot be priced")
        if american.all():
            return self.american.price(batch)
        parts = ((~american, self.european), (american, self.american))
        return Quotes.assembled(len(batch), [(rows, model.price(batch.take(rows))) for rows, model in parts])

    def warm_up(self) -> None:
        self.european.warm_up()
        if self.american is not None:
            self.american.warm_up()

    def self_check(self) -> None:
        """Raises ModelSelfCheckError when known prices come out wrong."""
        self.european.self_check()
        if self.american is not None:
            self.american.self_check()
