"""Texts that are too long for where they are shown."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pinn_operator.core.text import cut


@pytest.mark.parametrize(
    ("text", "limit", "shown"),
    [
        ("", 8, ""),
        ("as long as may be", 17, "as long as may be"),
        ("the registry has no image pinn:2", 20, "the registry has no…"),
        ("the registry has no image pinn:2", 24, "the registry has no…"),
        ("the registry has no image pinn:2", 26, "the registry has no image…"),
        ("error rate 0.3, limit 0.1", 16, "error rate 0.3…"),
        ("x" * 2000, 1024, "x" * 1023 + "…"),
        ("pod " + "x" * 2000, 10, "pod xxxxx…"),
    ],
)
def test_a_text_is_cut_between_words_and_shows_that_it_was(text: str, limit: int, shown: str) -> None:
    assert cut(text, limit) == shown


@given(text=st.text(), limit=st.integers(2, 40))
def test_what_was_cut_once_is_not_cut_again_and_never_too_long(text: str, limit: int) -> None:
    once = cut(text, limit)
    assert len(once) <= limit
    assert cut(once, limit) == once
    assert once.removesuffix("…") in text
