"""Reads a manifest field by field and collects every fault, with its path, instead of stopping at the first."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from decimal import ROUND_UP, Decimal
from enum import StrEnum
from typing import Any, TypeVar

from pinn_operator.core.text import cut
from pinn_operator.core.wanted.quantity import parse_quantity
from pinn_operator.core.wanted.spec import FieldError

E = TypeVar("E", bound=StrEnum)
_LARGEST = Decimal(2**63 - 1)
_SMALLEST = Decimal("1e-9")


class Fields:
    """One JSON object of a manifest at `path`.

    A reader that meets a fault records it in `errors` and returns a harmless value, so that the rest is read as well;
    whoever reads must look at `errors` before using the result. A null is an absent field, as in Kubernetes.
    """

    def __init__(self, value: Mapping[str, Any], path: str, errors: list[FieldError]) -> None:
        self._value = value
        self._known: set[str] = set()
        self.path = path
        self.errors = errors

    def at(self, name: str) -> str:
        """The path of a field of this object."""
        return f"{self.path}.{name}"

    def fault(self, name: str, message: str) -> None:
        """Records a fault of a field of this object; of the object itself when `name` is empty."""
        self.errors.append(FieldError(self.at(name) if name else self.path, message))

    def has(self, name: str) -> bool:
        """Whether the field is there."""
        return self._value.get(name) is not None

    def raw(self, name: str) -> Any:
        """The field as it is, None when it is absent. Marks it as known."""
        self._known.add(name)
        return self._value.get(name)

    def close(self) -> None:
        """Records every field that nobody asked for: a misspelt name must not be taken for a default."""
        for name in self._value:
            if name not in self._known:
                known = ", ".join(sorted(self._known))
                self.fault(str(name), f"unknown field, or one that this version does not have yet; known here: {known}")

    def require(self, name: str, expected: str) -> None:
        """Records a fault when the field is absent."""
        if not self.has(name):
            self.fault(name, f"is required: {expected}")

    def optional_text(
        self, name: str, *, limit: int, pattern: re.Pattern[str] | None = None, expected: str = ""
    ) -> str | None:
        """A string of at most `limit` characters that matches `pattern` as a whole; None when absent."""
        value = self.raw(name)
        if value is None:
            return None
        return self._checked_text(name, value, limit=limit, pattern=pattern, expected=expected)

    def text(
        self,
        name: str,
        *,
        limit: int,
        pattern: re.Pattern[str] | None = None,
        expected: str = "",
        default: str | None = None,
    ) -> str:
        """As `optional_text`; absent gives `default`, or a fault when there is none."""
        value = self.optional_text(name, limit=limit, pattern=pattern, expected=expected)
        if value is None and default is None:
            self.require(name, expected or "a string")
        return value if value is not None else default or ""

    def texts(
        self, name: str, *, items: int, limit: int, pattern: re.Pattern[str] | None = None, expected: str = ""
    ) -> tuple[str, ...]:
        """A list of at most `items` strings."""
        return tuple(
            self._checked_text(f"{name}[{index}]", value, limit=limit, pattern=pattern, expected=expected)
            for index, value in enumerate(self._list(name, items=items))
        )

    def integer(self, name: str, *, minimum: int, maximum: int, default: int | None = None) -> int:
        """An integer within its bounds; absent gives `default`, or a fault when there is none."""
        value = self.optional_integer(name, minimum=minimum, maximum=maximum)
        if value is None and default is None:
            self.require(name, f"an integer from {minimum} to {maximum}")
        return value if value is not None else default or 0

    def optional_integer(self, name: str, *, minimum: int, maximum: int) -> int | None:
        """As `integer`; absent gives None."""
        value = self.raw(name)
        if value is None:
            return None
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int):
            self.fault(name, f"must be an integer from {minimum} to {maximum}, not {_shown(value)}")
            return None
        if not minimum <= value <= maximum:
            self.fault(name, f"must be from {minimum} to {maximum}, not {value}")
        return value

    def boolean(self, name: str, *, default: bool) -> bool:
        """True or false."""
        value = self.raw(name)
        if value is None:
            return default
        if not isinstance(value, bool):
            self.fault(name, f"must be true or false, not {_shown(value)}")
            return default
        return value

    def choice(self, name: str, kind: type[E], *, default: E) -> E:
        """One of the values of a closed set."""
        value = self.raw(name)
        if value is None:
            return default
        if not isinstance(value, str) or value not in {item.value for item in kind}:
            self.fault(name, f"must be one of {', '.join(item.value for item in kind)}, not {_shown(value)}")
            return default
        return kind(value)

    def optional_choice(self, name: str, kind: type[E]) -> E | None:
        """As `choice`; absent gives None."""
        value = self.one_of(name, [item.value for item in kind])
        return kind(value) if value in {item.value for item in kind} else None

    def choices(self, name: str, kind: type[E], *, items: int) -> tuple[E, ...]:
        """A list of at least one of the values of a closed set, each once."""
        found: list[E] = []
        values = [item.value for item in kind]
        given = self._list(name, items=items)
        if isinstance(self.raw(name), list | tuple) and not given:
            self.fault(name, f"must have at least 1 item of {', '.join(values)}")
        for index, value in enumerate(given):
            if not isinstance(value, str) or value not in values:
                self.fault(f"{name}[{index}]", f"must be one of {', '.join(values)}, not {_shown(value)}")
            elif kind(value) in found:
                self.fault(f"{name}[{index}]", f"{_shown(value)} is there twice")
            else:
                found.append(kind(value))
        return tuple(found)

    def one_of(self, name: str, values: Sequence[str], *, default: str | None = None) -> str | None:
        """As `choice`, for sets that have no type of their own."""
        value = self.raw(name)
        if value is None:
            return default
        if value not in values:
            self.fault(name, f"must be one of {', '.join(values)}, not {_shown(value)}")
            return default
        return str(value)

    def quantity(self, name: str, *, limit: int = 32) -> Decimal | None:
        """A quantity string such as "0.5" or "250m"; None when absent."""
        text = self.optional_text(name, limit=limit, expected='a quantity in quotes, like "0.5" or "250m"')
        if text is None or not isinstance(self._value.get(name), str):
            return None
        try:
            return as_stored(parse_quantity(text))
        except ValueError:
            self.fault(name, f'must be a quantity in quotes, like "0.5" or "250m", not {_shown(text)}')
            return None

    def child(self, name: str) -> Fields | None:
        """A nested object; None when absent."""
        value = self.raw(name)
        if value is None:
            return None
        if not isinstance(value, Mapping):
            self.fault(name, f"must be an object, not {_shown(value)}")
            return None
        return Fields(value, self.at(name), self.errors)

    def child_or_empty(self, name: str) -> Fields:
        """A nested object; an empty one when absent."""
        return self.child(name) or Fields({}, self.at(name), self.errors)

    def children(self, name: str, *, items: int, key: str | None = None) -> tuple[Fields, ...]:
        """A list of at most `items` objects, whose `key` field, when given, differs between them."""
        found: list[Fields] = []
        keys: set[str] = set()
        for index, value in enumerate(self._list(name, items=items)):
            if not isinstance(value, Mapping):
                self.fault(f"{name}[{index}]", f"must be an object, not {_shown(value)}")
                continue
            found.append(Fields(value, self.at(f"{name}[{index}]"), self.errors))
            if key is None:
                continue
            identity = str(value.get(key))
            if identity in keys:
                self.fault(f"{name}[{index}].{key}", f"{_shown(identity)} is there twice; each {key} may be used once")
            keys.add(identity)
        return tuple(found)

    def mapping(self, name: str, *, items: int) -> Iterator[tuple[str, Any]]:
        """The entries of a map with free keys and at most `items` of them."""
        value = self.raw(name)
        if value is None:
            return
        if not isinstance(value, Mapping):
            self.fault(name, f"must be an object, not {_shown(value)}")
            return
        if len(value) > items:
            self.fault(name, f"must have at most {items} entries, not {len(value)}")
        for key, item in value.items():
            if item is not None:
                yield str(key), item

    def _list(self, name: str, *, items: int) -> Sequence[Any]:
        value = self.raw(name)
        if value is None:
            return ()
        if not isinstance(value, list | tuple):
            self.fault(name, f"must be a list, not {_shown(value)}")
            return ()
        if len(value) > items:
            self.fault(name, f"must have at most {items} items, not {len(value)}")
        return value

    def _checked_text(
        self, name: str, value: Any, *, limit: int, pattern: re.Pattern[str] | None, expected: str
    ) -> str:
        if not isinstance(value, str):
            self.fault(name, f"must be {expected or 'a string'}, not {_shown(value)}")
            return ""
        if len(value) > limit:
            self.fault(name, f"must have at most {limit} characters, not {len(value)}")
        elif pattern is not None and pattern.fullmatch(value) is None:
            self.fault(name, f"must be {expected}, not {_shown(value)}")
        return value


def as_stored(value: Decimal) -> Decimal:
    """A quantity as the API server compares it: rounded away from zero to 1e-9, and at most 2^63 − 1."""
    if abs(value) > _LARGEST:
        return _LARGEST.copy_sign(value)
    # Nineteen digits before the point and nine after it fit the default precision of 28.
    return value.quantize(_SMALLEST, rounding=ROUND_UP)


def _shown(value: object) -> str:
    return cut(repr(value), 64)
