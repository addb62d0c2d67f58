"""Kubernetes quantities ("250m", "1.5", "2Gi", "1e3") as numbers.

Grammar: k8s.io/apimachinery/pkg/api/resource, `Quantity`.
"""

from __future__ import annotations

import re
from decimal import Context, Decimal

_QUANTITY = re.compile(
    r"(?P<number>[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+))"
    r"(?P<suffix>[KMGTPE]i|[numkMGTPE]|[eE][+-]?[0-9]{1,2})?",
    re.ASCII,
)
_DECIMAL_EXPONENT = {"n": -9, "u": -6, "m": -3, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_BINARY_EXPONENT = {"Ki": 10, "Mi": 20, "Gi": 30, "Ti": 40, "Pi": 50, "Ei": 60}
_EXACT = Context(prec=400)
"""Digits enough that no product of a bounded string and a suffix is rounded."""


def parse_quantity(text: str) -> Decimal:
    """The exact value of a quantity, for example `Decimal("0.25")` of "250m".

    Raises:
        ValueError: `text` is not a quantity.
    """
    match = _QUANTITY.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is not a quantity like '0.5', '250m' or '2Gi'")
    number, suffix = Decimal(match["number"]), match["suffix"]
    if suffix is None:
        return number
    if suffix in _BINARY_EXPONENT:
        return _EXACT.multiply(number, Decimal(2 ** _BINARY_EXPONENT[suffix]))
    exponent = _DECIMAL_EXPONENT[suffix] if suffix in _DECIMAL_EXPONENT else int(suffix[1:])
    return _EXACT.scaleb(number, exponent)


def canonical_quantity(value: str | int | float) -> str:
    """The plain decimal of a quantity, the same for every way to write it: "0.25" for "250m", "1024" for "1Ki".

    Raises:
        ValueError: `value` is not a quantity.
    """
    number = parse_quantity(value if isinstance(value, str) else str(Decimal(str(value))))
    text = f"{number:f}"
    text = text.rstrip("0").rstrip(".") if "." in text else text
    return "0" if text in {"-0", "+0", ""} else text
