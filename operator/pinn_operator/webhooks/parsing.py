"""The JSON that a webhook is sent, and the one that it answers. Pure."""

from __future__ import annotations

import hashlib
import hmac
import json
import math
import unicodedata
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from pinn_operator.core.samples import SourceError, WebhookQuestion, WebhookVerdict

TEXT_LIMIT = 512
_EXPECTED = '{"verdict": "pass", "fail" or "hold", "message": text, "value": number}'


@dataclass(frozen=True, slots=True)
class Said:
    """One answer of a webhook. `message` is one line of at most `TEXT_LIMIT` characters."""

    verdict: WebhookVerdict
    message: str = ""
    value: float | None = None


def body_of(question: WebhookQuestion, *, namespace: str, name: str, now: datetime) -> bytes:
    """What is posted."""
    document = {
        "namespace": namespace,
        "name": name,
        "gate": question.gate,
        "canary": question.canary,
        "stable": question.stable,
        "weight": question.weight,
        "step": question.step,
        "time": now.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
    }
    return json.dumps(document, separators=(",", ":")).encode()


def signature(body: bytes, key: str) -> str:
    """The value of the header X-Pinn-Signature: HMAC-SHA256 (RFC 2104) of the bytes of the body, in hexadecimal."""
    return f"sha256={hmac.new(key.encode(), body, hashlib.sha256).hexdigest()}"


def parse_said(body: bytes) -> Said | SourceError:
    """The body of an answer. Anything unexpected is a SourceError that says what would be right.

    The body itself is never quoted: the address may be any server that the operator can reach.
    """
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        return SourceError(f"the answer is not JSON: want {_EXPECTED}")
    if not isinstance(document, dict):
        return SourceError(f"the answer is not a JSON object: want {_EXPECTED}")
    verdict = document.get("verdict")
    if not isinstance(verdict, str) or verdict not in {item.value for item in WebhookVerdict}:
        return SourceError('the answer has no verdict: want "verdict": "pass", "fail" or "hold"')
    message, value = document.get("message"), document.get("value")
    if message is not None and not isinstance(message, str):
        return SourceError('"message" of the answer must be a text')
    if value is not None and not _is_number(value):
        return SourceError('"value" of the answer must be a finite number')
    return Said(WebhookVerdict(verdict), one_line(message or ""), None if value is None else float(value))


def one_line(text: str) -> str:
    """A text that is safe to show: control characters are spaces, and it is at most `TEXT_LIMIT` long."""
    cut = text[:TEXT_LIMIT]
    return "".join(" " if unicodedata.category(letter).startswith("C") else letter for letter in cut).strip()


def _is_number(value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    try:
        return math.isfinite(float(value))
    except OverflowError:
        return False
