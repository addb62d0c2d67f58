"""The models of the batch process: the bytes that the server read, which nothing can change, checked once more."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pinn_inference.pricing.artefact import bundled_directory, read, write
from pinn_inference.pricing.errors import ModelSelfCheckError
from pinn_inference.pricing.loading import ModelSources, read_sources
from pinn_inference.server.batch.pricers import ModelPricer
from pinn_inference.server.batch.sealed import content_of, seal
from pinn_inference.training.accuracy import sample_options

SOURCES = read_sources(bundled_directory(), bundled_directory("american"))


def test_sources_travel_as_bytes() -> None:
    assert ModelSources.unpacked(SOURCES.packed()) == SOURCES
    alone = replace(SOURCES, american=None)
    assert ModelSources.unpacked(alone.packed()) == alone


@pytest.mark.parametrize("content", [b"", b"weights", bytes(1_000_000)])
def test_sealed_bytes_are_read_as_often_as_one_likes_and_never_changed(content: bytes) -> None:
    descriptor = seal(content)
    try:
        assert content_of(descriptor) == content_of(descriptor) == content
        for change in (lambda: os.pwrite(descriptor, b"x", 0), lambda: os.ftruncate(descriptor, len(content) + 1)):
            with pytest.raises(PermissionError):
                change()
        assert content_of(descriptor) == content
    finally:
        os.close(descriptor)


def test_a_child_checks_known_prices_before_it_prices_by_numpy(tmp_path: Path) -> None:
    model = read(bundled_directory())
    *first, last = model.network.layers
    network = replace(model.network, layers=(*first, replace(last, bias=last.bias + 1e-2)))
    write(tmp_path, name="european", version="wrong", network=network, certificate=model.certificate, record={})
    with pytest.raises(ModelSelfCheckError, match="at the money call"):
        ModelPricer(read_sources(tmp_path, None))


def test_a_child_s_labels_are_those_of_what_it_prices_by() -> None:
    pricer = ModelPricer(SOURCES)
    batch = sample_options(50, seed=3)
    american = replace(batch, is_american=np.ones(len(batch), dtype=bool))
    assert SOURCES.american is not None
    assert pricer.labels.european == f"european/{SOURCES.european.version}"
    assert pricer.labels.version(american=True) == SOURCES.american.version
    assert pricer.price(american).price.sum() > pricer.price(batch).price.sum()
    alone = ModelPricer(replace(SOURCES, american=None))
    assert (alone.labels.american, alone.labels.version(american=True)) == ("", None)
