"""Stories of what is still judged wrongly. Each is strict: who puts a thing right takes its line away."""

from __future__ import annotations

import pytest

WRONG_NOW: dict[str, str] = {
    "a_canary_that_swallows_its_requests": "no requests are no proof",
    "a_pod_that_shares_the_load_is_in_the_selector": "the selector of the scale is stable's",
}
"""By the begin of the test's name."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what is known to be wrong."""
    for item in items:
        for name, reason in WRONG_NOW.items():
            if item.name.startswith(f"test_{name}"):
                item.add_marker(pytest.mark.xfail(strict=True, reason=reason))
