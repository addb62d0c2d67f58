"""Kubernetes quantities are read exactly, and all spellings of a value are one."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pinn_operator.core.wanted.quantity import canonical_quantity, parse_quantity

SPELLINGS = {
    "1": ["1", "1000m", "1.0", "1.", "+1", "1e0", "0.001k", "1000000u", 1],
    "0.25": ["250m", "0.25", ".25", "25e-2", "0.250"],
    "1073741824": ["1Gi", "1024Mi", "1048576Ki", "1073741824", 1073741824],
    "1000000000": ["1G", "1000M", "1e9", "1E9"],
    "1000000000000000000": ["1E", "1000P"],
    "0": ["0", "0m", "-0", "0Gi", "0.0"],
}


@pytest.mark.parametrize(("plain", "spelling"), [(plain, text) for plain, texts in SPELLINGS.items() for text in texts])
def test_every_spelling_of_a_value_has_one_canonical_form(plain: str, spelling: str | int) -> None:
    assert canonical_quantity(spelling) == plain


@pytest.mark.parametrize(
    "text", ["", "m", "1 Gi", "1gi", "1KB", "0x10", "1e", "--1", "1.2.3", "NaN", "inf", "1Gi ", "١"]
)
def test_what_is_no_quantity_is_refused_by_name(text: str) -> None:
    with pytest.raises(ValueError, match="is not a quantity") as refusal:
        parse_quantity(text)
    assert repr(text) in str(refusal.value)


@given(st.integers(-(10**18), 10**18), st.sampled_from(["", "n", "u", "m", "k", "M", "G", "Ki", "Mi", "Ti"]))
def test_canonical_form_keeps_the_exact_value(number: int, suffix: str) -> None:
    canonical = canonical_quantity(f"{number}{suffix}")
    assert parse_quantity(canonical) == parse_quantity(f"{number}{suffix}")
    assert canonical_quantity(canonical) == canonical
    assert Decimal(canonical) == parse_quantity(canonical)
