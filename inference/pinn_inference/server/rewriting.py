"""Requests that are those of `/v1/price` and something more: that is taken out, and the rest read by the same rules."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, Final

import orjson

from pinn_inference.server.documents import Body, Document, read_document
from pinn_inference.server.errors import MAX_FAULTS, Fault, InvalidRequest
from pinn_inference.server.parsing import PriceRequest, demand_simple, parse_price_request, shown

_LEVELS: Final = 6
"""Of lists and objects that a valid request has at most: of columns, a list of schedules of dividends."""


def read_object(body: Body, *, max_batch: int) -> Document:
    """The document of a body, which is an object in which no key stands twice.

    Raises InvalidRequest in the words of `/v1/price`.
    """
    demand_simple(body, max_batch)
    read = read_document(body)
    if read.repeated or not isinstance(read.content, dict):
        parse_price_request(body, max_batch=max_batch)  # which tells where, or what it must be
    return read


def parse_rest(
    read: Document,
    rest: Any,
    faults: list[Fault],
    *,
    max_batch: int,
    reword: Callable[[Fault], Fault] = lambda fault: fault,
) -> PriceRequest:
    """Parse what is left of a document; `faults` are those of what was taken out, `reword` puts others into its words.

    Raises InvalidRequest with these and all others, in order of the options, BatchTooLarge for more than `max_batch`.
    """
    # The standard library writes NaN, as it reads it: the answer then names the field that holds one.
    flat = _flat(rest, _LEVELS)
    text = orjson.dumps(flat) if read.complaint is None else json.dumps(flat).encode()
    try:
        request = parse_price_request(text, max_batch=max_batch)
    except InvalidRequest as error:
        others = list(map(reword, error.faults))
        merged = sorted((*faults, *others), key=_place) if faults else others
        raise InvalidRequest(merged[:MAX_FAULTS], count=len(faults) + error.count) from None
    if faults:
        raise InvalidRequest(faults[:MAX_FAULTS], count=len(faults))
    return request


def _flat(value: Any, levels: int) -> Any:
    """The value with what is deeper than any valid request in a form that can be written again."""
    if isinstance(value, dict):
        return {name: _flat(inner, levels - 1) for name, inner in value.items()} if levels else shown(value)
    if isinstance(value, list):
        return [_flat(inner, levels - 1) for inner in value] if levels else shown(value)
    return value


def _place(fault: Fault) -> int:
    return -1 if fault.index is None else fault.index
