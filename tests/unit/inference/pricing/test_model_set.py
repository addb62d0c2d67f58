"""Both exercise styles behind one object."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest

from pinn_inference.pricing import closed_form
from pinn_inference.pricing.errors import ModelNotFoundError
from pinn_inference.pricing.model import bundled_directory, load_numpy_model
from pinn_inference.pricing.model_set import ModelSet
from pinn_inference.pricing.types import Method, OptionBatch, Quotes
from pinn_inference.training.accuracy import sample_options


class AmericanByAnotherName:
    """Quotes that can be told from the European ones: the closed form, one dearer and with a boundary."""

    name, version, sha256, error_bound = "american", "1", "0" * 64, 1e-5
    greek_bounds: Mapping[str, float] = {"rho": 1e-3}

    def __init__(self) -> None:
        self.seen: list[OptionBatch] = []
        self.warm, self.checked = False, False

    def price(self, batch: OptionBatch) -> Quotes:
        self.seen.append(batch)
        quotes = closed_form.price(batch)
        method = np.full(len(batch), Method.INTEGRAL_EQUATION, dtype=np.int8)
        return replace(quotes, price=quotes.price + 1.0, method=method, exercise_boundary=0.5 * batch.strike)

    def warm_up(self) -> None:
        self.warm = True

    def self_check(self) -> None:
        self.checked = True


@pytest.fixture
def american() -> AmericanByAnotherName:
    return AmericanByAnotherName()


@pytest.fixture
def models(american: AmericanByAnotherName) -> ModelSet:
    return ModelSet(load_numpy_model(bundled_directory()), american)


def test_each_row_is_priced_by_the_model_of_its_style_and_stays_in_its_place(
    models: ModelSet, american: AmericanByAnotherName
) -> None:
    batch = sample_options(50, seed=1)
    styles = np.arange(50) % 3 == 0
    quotes = models.price(replace(batch, is_american=styles))
    european = models.european.price(batch)
    assert quotes.price[~styles].tolist() == european.price[~styles].tolist()
    assert quotes.price[styles].tolist() == (closed_form.price(batch).price[styles] + 1.0).tolist()
    assert quotes.exercise_boundary[styles].tolist() == [50.0] * 17
    assert np.isnan(quotes.exercise_boundary[~styles]).all()
    assert set(quotes.method[styles].tolist()) == {Method.INTEGRAL_EQUATION}
    assert quotes.method.dtype == np.int8
    assert [len(seen) for seen in american.seen] == [17]


@pytest.mark.parametrize("style", [False, True])
def test_a_batch_of_one_style_is_not_taken_apart(
    models: ModelSet, american: AmericanByAnotherName, style: bool
) -> None:
    batch = replace(sample_options(20, seed=2), is_american=np.full(20, style))
    assert len(models.price(batch)) == 20
    assert american.seen == ([batch] if style else [])


def test_an_empty_batch_has_no_style(models: ModelSet) -> None:
    assert len(models.price(sample_options(0, seed=1))) == 0


def test_american_options_are_refused_where_there_is_no_model_for_them(models: ModelSet) -> None:
    alone = ModelSet(models.european)
    batch = replace(sample_options(2, seed=1), is_american=np.array([False, True]))
    with pytest.raises(ModelNotFoundError, match="no American model"):
        alone.price(batch)
    alone.warm_up()
    alone.self_check()


def test_identity_is_that_of_the_european_model_and_checks_reach_both(
    models: ModelSet, american: AmericanByAnotherName
) -> None:
    models.warm_up()
    models.self_check()
    assert (american.warm, american.checked) == (True, True)
    assert (models.name, models.sha256) == ("european", models.european.sha256)
    assert (models.version, models.error_bound) == (models.european.version, models.european.error_bound)
