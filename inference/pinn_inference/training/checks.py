"""What the verifications of both exercise styles share: their report, and the checks that any model directory gets."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np

from pinn_inference.pricing.artefact import RECORD_FILE
from pinn_inference.pricing.certificate import Certificate
from pinn_inference.pricing.errors import ModelError
from pinn_inference.pricing.golden import CheckResult
from pinn_inference.pricing.types import FloatArray

_CERTIFICATE_DIGITS: Final = 1e-2
"""How far a recomputed bound may exceed the stored one: least squares differ between linear algebra libraries."""


class Identified(Protocol):
    """A model as read from disk, of either style."""

    @property
    def name(self) -> str: ...
    @property
    def version(self) -> str: ...
    @property
    def sha256(self) -> str: ...
    @property
    def certificate(self) -> Certificate: ...
    @property
    def record(self) -> Mapping[str, Any]: ...


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture that was written to `path`, with what a page says about it."""

    path: Path
    heading: str
    alternative: str
    caption: str


def _no_pictures(_directory: Path) -> list[Picture]:
    return []


@dataclass(frozen=True, slots=True)
class VerificationReport:
    """All checks in the order they ran; `artefact` is None when the files could not be read.

    `draw` writes the model's pictures into a directory; none where matplotlib is not installed.
    """

    directory: Path
    artefact: Identified | None
    checks: tuple[CheckResult, ...]
    draw: Callable[[Path], list[Picture]] = field(default=_no_pictures)

    @property
    def passed(self) -> bool:
        return all(check.passed for check in self.checks)


def check(name: str, value: float, limit: float, detail: str) -> CheckResult:
    """Passed where `value` is at most `limit`; NaN never is."""
    return CheckResult(name=name, passed=value <= limit, value=value, limit=limit, detail=detail)


def unreadable(directory: Path, error: ModelError) -> VerificationReport:
    """The report of a model whose files could not be read."""
    detail = f"{error.reason}: {error}"
    failed = CheckResult(name="files and checksum", passed=False, value=1.0, limit=0.0, detail=detail)
    return VerificationReport(directory=directory, artefact=None, checks=(failed,))


def check_files(directory: Path, artefact: Identified, *, asked_for: bool) -> Iterator[CheckResult]:
    """The weights, whose checksum was compared when they were read, and whatever else the record gives one for."""
    yield check("files and checksum", 0.0, 0.0, f"sha256 {artefact.sha256}" + (", as asked for" if asked_for else ""))
    others = artefact.record.get("files", {})
    if not others:
        return
    wrong = [name for name, sha256 in others.items() if _sha256(directory, name) != sha256]
    detail = f"not as in {RECORD_FILE}: {', '.join(wrong)}" if wrong else f"{len(others)} as recorded"
    yield check("other files", len(wrong), 0.0, detail)


def check_certificate(stored: Certificate, computed: Certificate, tolerance: float, unit: str) -> Iterator[CheckResult]:
    """A bound that was computed again: whether it is small enough, and whether it is the one that the model carries."""
    same_knots = stored.s.shape == computed.s.shape and bool(np.allclose(stored.s, computed.s, rtol=1e-12))
    excess = float(np.max(computed.bound / stored.bound - 1.0)) if same_knots else float("inf")
    yield check("certified error bound", computed.error_bound, tolerance, f"of the price, in units of {unit}")
    yield check("certificate is this network's", excess, _CERTIFICATE_DIGITS, "recomputed over stored bound, less 1")


def difference(found: FloatArray, expected: FloatArray) -> float:
    """The largest difference relative to 1 + size; NaN where a number is none."""
    return float(np.max(np.abs(found - expected) / (np.abs(expected) + 1.0)))


def _sha256(directory: Path, name: str) -> str | None:
    path = (directory / name).resolve()
    if not path.is_relative_to(directory.resolve()):
        return None
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return None
