"""Rules for every layer: in CI nothing may be skipped, so a missing tool is a failure there and a reason elsewhere."""

from __future__ import annotations

import os

import pytest
from hypothesis import settings

# In CI the same examples every time: what a run finds by luck belongs to whoever looks for it, not to a submission.
settings.register_profile("ci", derandomize=True, deadline=None)
if os.environ.get("CI") == "true":
    settings.load_profile("ci")


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    skipped = len(reporter.stats.get("skipped", [])) if reporter else 0
    if skipped and os.environ.get("CI") == "true" and exitstatus == pytest.ExitCode.OK:
        reporter.write_line(f"{skipped} tests were skipped: nothing may be skipped in CI", red=True)
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
