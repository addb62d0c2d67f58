"""The JSON that a webhook is sent, and the one that it answers. Pure."""

from __future__ import annotations

import hashlib
import hmac
import json
import math
import unicodedata
from dataclasses import dataclass
from datetime import UTC, datetime

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
    """The body of an answer. One without a verdict is a SourceError that says what would be right.

    A message or value that cannot be shown does not take the verdict away: it is left out, and the message says so. The
    body itself is never quoted: the address may be any server that the operator can reach.
    """
    try:
        # As floats: an integer of thousands of digits is a fault of the value alone.
        document = json.loads(body, parse_int=float)
    except (ValueError, RecursionError):
        return SourceError(f"the answer is not JSON: want {_EXPECTED}")
    if not isinstance(document, dict):
        return SourceError(f"the answer is not a JSON object: want {_EXPECTED}")
    verdict = document.get("verdict")
    if not isinstance(verdict, str) or verdict not in {item.value for item in WebhookVerdict}:
        what = "no verdict" if verdict is None else "a verdict that is none of the three"
        return SourceError(f'the answer has {what}: want "verdict": "pass", "fail" or "hold"')
    message, value = document.get("message"), document.get("value")
    left_out = []
    if message is not None and not isinstance(message, str):
        message, left_out = None, ['"message" is left out: it is no text']
    if value is not None and not (isinstance(value, float) and math.isfinite(value)):
        value = None
        left_out.append('"value" is left out: it is no finite number')
    note = f"({'; '.join(left_out)})" if left_out else ""
    text = one_line((message or "")[: TEXT_LIMIT - len(note) - 1])
    return Said(WebhookVerdict(verdict), f"{text} {note}".strip(), value)


def one_line(text: str) -> str:
    """A text that is safe to show: control characters are spaces, and it is at most `TEXT_LIMIT` long."""
    cut = text[:TEXT_LIMIT]
    return "".join(" " if unicodedata.category(letter).startswith("C") else letter for letter in cut).strip()
