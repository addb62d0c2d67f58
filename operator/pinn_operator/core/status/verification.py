"""What the status says of a revision's prices."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final

WORST_LIMIT: Final = 5
STABLE_POD_LIMIT: Final = 8


class VerificationVerdict(StrEnum):
    """What is known of a revision's prices."""

    PENDING = "Pending"
    """They are being asked for."""
    PASS = "Pass"  # noqa: S105
    FAIL = "Fail"
    ERROR = "Error"
    """They could not be asked for, which is not the revision's fault: it is tried again."""
    NOT_APPLICABLE = "NotApplicable"
    """The server has no interface for prices."""


@dataclass(frozen=True, slots=True)
class PriceCell:
    """An option that is priced wrong: what it is, both values, and how far they are apart."""

    option: str
    """Style, type and inputs, like `european put S=100 K=95 T=0.0137 r=0.03 q=0.01 σ=0.2`."""
    quantity: str
    """What was compared: `price`, a Greek, or a rule such as `put-call parity`."""
    pod: str = ""
    canary: float | None = None
    """What the canary gave; absent if it gave none."""
    expected: float | None = None
    """What stable gave, or the bound that the rule sets."""
    tolerance: float = 0.0
    excess: float = 0.0
    """The difference in units of the tolerance."""


@dataclass(frozen=True, slots=True)
class VerificationStatus:
    """What was asked of a revision's pods, and what it showed."""

    revision: str
    verdict: VerificationVerdict
    start_time: datetime
    """When it was first due."""
    time: datetime | None = None
    """When it was last decided."""
    reason: str = ""
    message: str = ""
    protocol: str = ""
    """`/v1/price` or `Open Inference Protocol`."""
    stable: str = ""
    """The revision whose pods were asked the same; empty if none of them could be."""
    options: int = 0
    """How many options were asked for."""
    tolerance: float | None = None
    """Of the strike, by which prices could differ beside the error bounds when it was decided."""
    compared: int = 0
    """How many of them were priced by both revisions."""
    styles: str = ""
    """`european`, `american` or both."""
    pods: tuple[str, ...] = ()
    """The canary's pods whose prices were found good, the newest 20."""
    stable_pods: tuple[str, ...] = ()
    worst: tuple[PriceCell, ...] = ()
    """The cells furthest out of tolerance, at most 5."""
    attempts: int = 0
    """How often it was tried."""
    suspicion: str = ""
    """What the last attempt showed and the next one must confirm."""
    retry_time: datetime | None = None
    """When it is tried again at the earliest."""
    acknowledged_time: datetime | None = None
    """When a difference was accepted because `spec.verification.acknowledgedRevision` names this revision."""
    fallbacks: int = 0
    """Of the options that are asked again in traffic, so many did not come from the revision's model."""
    sample_time: datetime | None = None
    """When a sample in traffic was last found good; written every few minutes."""
