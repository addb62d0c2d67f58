"""Every reason that the operator can give is explained in one place, from which the docs are generated."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.kube import REPOSITORY
from pinn_operator.core.reasons import Reason, explained

OPERATOR = REPOSITORY / "operator" / "pinn_operator"
FOLDERS = ("core/rollout", "core/telling", "core/routers", "core/gates", "core/verification", "core/objects")
GIVERS = [
    *sorted(path for folder in FOLDERS for path in (OPERATOR / folder).glob("*.py")),
    OPERATOR / "core" / "decide.py",
    OPERATOR / "reconciler.py",
]

SOURCE = "".join(path.read_text() for path in OPERATOR.rglob("*.py") if path.name != "reasons.py")
WORD = re.compile(r"[A-Z][A-Za-z0-9]+")
CALLS = {"normal": 0, "warning": 0, "wait": 0, "Wait": 0, "timeline_with": 3, "Transition": 2, "Condemnation": 0}
"""Functions that take a reason, and where."""


def given(path: Path) -> Iterator[tuple[int, str]]:
    """Line and text of the literal reasons in a file."""
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.Call):
            continue
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        words = [keyword.value for keyword in node.keywords if keyword.arg == "reason"]
        if name in CALLS and len(node.args) > CALLS[name]:
            words.append(node.args[CALLS[name]])
        for word in words:
            for part in ast.walk(word):
                if isinstance(part, ast.Constant) and isinstance(part.value, str) and WORD.fullmatch(part.value):
                    yield part.lineno, part.value


@pytest.mark.parametrize("path", GIVERS, ids=lambda path: str(path.relative_to(OPERATOR)))
def test_every_reason_that_is_given_is_explained(path: Path) -> None:
    missing = [f"{path.name}:{line}: {reason}" for line, reason in given(path) if explained(reason) is None]
    assert not missing, "add them to core/reasons.py"


@pytest.mark.parametrize("reason", list(Reason))
def test_a_reason_is_one_word_with_a_sentence(reason: Reason) -> None:
    assert WORD.fullmatch(reason.value)
    assert re.fullmatch(r"[A-Z`].*\.", reason.meaning, re.DOTALL), reason.meaning
    assert not reason.advice.endswith("."), "advice is a phrase: the table needs no full stop"


@pytest.mark.parametrize("reason", ["ErrorRateAboveStable", "LatencyP95OutOfBounds"])
def test_a_reason_that_begins_with_a_gate_is_explained(reason: str) -> None:
    assert explained(reason) is not None


def test_a_stranger_s_reason_is_not_explained() -> None:
    assert explained("ImGood") is None


@pytest.mark.parametrize("reason", list(Reason))
def test_no_reason_is_explained_that_is_never_given(reason: Reason) -> None:
    assert re.search(rf'Reason\.{reason.name}\b|"{reason.value}"|{{.*}}{reason.value}"', SOURCE), "remove it"
