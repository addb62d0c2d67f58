"""What can go wrong between the operator and the API server, as exceptions.

ClusterError
├── Unreachable          no answer: connection refused or lost, time-out, TLS
├── NotOwned             the object exists and belongs to somebody else
├── NotListed            a Secret or ConfigMap that the chart does not let the operator read
├── CredentialsError     no kubeconfig, no service account, or neither can be read
└── ApiError             the API server answered, and refused
    ├── Unauthorized     401
    ├── Forbidden        403
    ├── NotFound         404: the object, or the whole kind
    ├── Conflict         409: somebody was faster, read again
    │   └── AlreadyExists
    ├── Gone             410: the version to go on from is too old
    ├── Invalid          400, 415, 422: what was sent is wrong, and will be wrong again
    ├── TooManyRequests  429
    └── ServerError      5xx
"""

from __future__ import annotations

import json
from typing import Any

from pinn_operator.core.text import cut

MESSAGE_LIMIT = 1024


class ClusterError(Exception):
    """Base of everything in this module."""


class Unreachable(ClusterError):
    """The API server gave no answer."""


class NotOwned(ClusterError):
    """An object of that name exists, and this PINNService is not its controller."""


class NotListed(ClusterError):
    """A Secret or ConfigMap that the operator may not read; the words say where it is to be listed."""


class CredentialsError(ClusterError):
    """There is nothing to log in with."""


class ApiError(ClusterError):
    """The API server refused. `reason` is Kubernetes' own (`AlreadyExists`), `retry_after` is in seconds."""

    def __init__(
        self, status: int, reason: str, message: str, *, request: str, retry_after: float | None = None
    ) -> None:
        super().__init__(f"{request}: {status} {reason}: {message}")
        self.status = status
        self.reason = reason
        self.message = message
        self.request = request
        self.retry_after = retry_after


class Unauthorized(ApiError):
    """401."""


class Forbidden(ApiError):
    """403: RBAC, a quota or an admission policy."""


class NotFound(ApiError):
    """404. `object_missing` is False when the API server does not know the kind at all."""

    @property
    def object_missing(self) -> bool:
        return self.message != "the server could not find the requested resource"


class Conflict(ApiError):
    """409."""


class AlreadyExists(Conflict):
    """409 on create."""


class Gone(ApiError):
    """410: the version to go on from is too old."""


class Invalid(ApiError):
    """400, 415 or 422."""


class TooManyRequests(ApiError):
    """429."""


class ServerError(ApiError):
    """5xx."""


_BY_STATUS: dict[int, type[ApiError]] = {
    400: Invalid,
    401: Unauthorized,
    403: Forbidden,
    404: NotFound,
    409: Conflict,
    410: Gone,
    415: Invalid,
    422: Invalid,
    429: TooManyRequests,
}


def error_from_answer(status: int, body: bytes, *, request: str, retry_after: str | None = None) -> ApiError:
    """The exception for an HTTP answer of 300 and more. The body is a `metav1.Status` or, from a proxy, anything."""
    reason, message, seconds = "", "", _seconds(retry_after)
    try:
        document: Any = json.loads(body)
    except ValueError:
        document = None
    if isinstance(document, dict):
        reason = str(document.get("reason") or "")
        message = str(document.get("message") or "")
        details = document.get("details")
        if seconds is None and isinstance(details, dict):
            seconds = _seconds(details.get("retryAfterSeconds"))
    elif body:
        message = body[:MESSAGE_LIMIT].decode(errors="replace").strip()
    kind = _BY_STATUS.get(status, ServerError if status >= 500 else ApiError)
    if kind is Conflict and reason == "AlreadyExists":
        kind = AlreadyExists
    return kind(status, reason or kind.__name__, cut(message, MESSAGE_LIMIT), request=request, retry_after=seconds)


def _seconds(value: Any) -> float | None:
    """A Retry-After in seconds; the date form is not used by API servers and counts as absent."""
    try:
        seconds = float(value)
    except (TypeError, ValueError):
        return None
    return seconds if 0 < seconds < 3600 else None
