"""The field `greeks` of a request for prices: Greeks with bounds of their errors, by their names, for all options.

It stands beside the fields of a single option, beside `options` or beside `columns`. A request without it is read as it
always was; one with it is read without it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

import orjson

from pinn_inference.pricing import first_order as first
from pinn_inference.pricing import second_order as second
from pinn_inference.pricing.american import never_exercised
from pinn_inference.pricing.second_order import Greek
from pinn_inference.pricing.types import Quotes
from pinn_inference.server.documents import Body, read_document
from pinn_inference.server.errors import Fault
from pinn_inference.server.parsing import PriceRequest, demand_simple, parse_price_request, parse_quickly, shown
from pinn_inference.server.rewriting import parse_rest

FIELD: Final = "greeks"
NAMES: Final = (*first.NAMES, *second.NAMES)
_KEY: Final = FIELD.encode()
_AT_HEAD: Final = re.compile(rb'[ \t\r\n]*\{[ \t\r\n]*"greeks"[ \t\r\n]*:[ \t\r\n]*(\[[^][{}]*\])[ \t\r\n]*,')
_AT_TAIL: Final = re.compile(rb',[ \t\r\n]*"greeks"[ \t\r\n]*:[ \t\r\n]*(\[[^][{}]*\])[ \t\r\n]*\}[ \t\r\n]*\Z')
_TAIL_BYTES: Final = 512
_RULE: Final = "must be a list of names, each once, of " + ", ".join(NAMES)


def parse_request(body: Body, *, max_batch: int) -> PriceRequest:
    """Parse the body of `POST /v1/price`, with or without `greeks`; raises what `parse_price_request` does."""
    names, rest = _quickly(bytes(body))
    if names is not None:
        return _with(parse_price_request(rest, max_batch=max_batch), names)
    demand_simple(body, max_batch)
    read = read_document(body)
    content = read.content
    if read.repeated or not isinstance(content, dict) or FIELD not in content:
        return parse_price_request(body, max_batch=max_batch)
    asked = content[FIELD]
    faults = [] if _is_valid(asked) else [Fault(FIELD, _RULE, value=_told(asked))]
    others = {name: value for name, value in content.items() if name != FIELD}
    return replace(parse_rest(read, others, faults, max_batch=max_batch), greeks=tuple(asked))


def parse_request_quickly(body: Body, *, max_batch: int) -> PriceRequest | None:
    """As `parse_request`, for valid requests in their usual forms; None sends a body there."""
    names, rest = _quickly(bytes(body))
    if names is None:
        return None
    found = parse_quickly(rest, max_batch=max_batch)
    return found and _with(found, names)


def _with(request: PriceRequest, names: tuple[str, ...]) -> PriceRequest:
    return replace(request, greeks=names) if names else request


def greeks_of(
    request: PriceRequest, answer: Quotes, *, american_bounds: Mapping[str, float]
) -> dict[str, Greek] | None:  # fmt: skip
    """Those that were asked for, by name; None if none were.

    Those of first order are as in `answer`, whose bounds for American options `american_bounds` are, see
    `StyleModel.greek_bounds`. American options have those of second order where they are never exercised early, and are
    as European ones: of the others the networks' derivatives are not known well enough.
    """
    if not request.greeks:
        return None
    options, escrow = request.options, request.escrow
    as_european = ~options.is_american | (never_exercised(options) & ~options.waits_for_dividends)
    found: dict[str, Greek] = {}
    if names := [name for name in request.greeks if name in first.NAMES]:
        found |= first.first_order(
            options, answer, names, as_european=as_european, bounds=american_bounds, escrow=escrow
        )
    if names := [name for name in request.greeks if name in second.NAMES]:
        found |= second.second_order(options, names, known=as_european, escrow=escrow)
    return {name: found[name] for name in request.greeks}


def _quickly(text: bytes) -> tuple[tuple[str, ...] | None, bytes]:
    """The names, none where there is no such field, and the body without them; None where it is neither without the
    field nor has it first or last with valid names.
    """
    if _KEY not in text and b"\\u" not in text:
        return (), text
    head = _AT_HEAD.match(text)
    if head is not None:
        names, rest = head[1], b"{" + text[head.end() :]
    else:
        start = max(0, len(text) - _TAIL_BYTES)
        tail = _AT_TAIL.search(text[start:])
        if tail is None:
            return None, text
        names, rest = tail[1], text[: start + tail.start()] + b"}"
    try:
        asked = orjson.loads(names)
    except orjson.JSONDecodeError:
        return None, text
    return (tuple(asked), rest) if _is_valid(asked) and _KEY not in rest else (None, text)


def _is_valid(asked: Any) -> bool:
    if not isinstance(asked, list) or not all(isinstance(name, str) and name in NAMES for name in asked):
        return False
    return len(set(asked)) == len(asked) > 0


def _told(asked: Any) -> Any:
    """What was found: the first name that is wrong, where there is one."""
    names = asked if isinstance(asked, list) else []
    strangers = [name for name in names if not isinstance(name, str) or name not in NAMES]
    return shown(strangers[0] if strangers else asked)
