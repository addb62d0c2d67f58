"""The page about the server names every setting, every field and every metric there is."""

from __future__ import annotations

from pathlib import Path

import pytest

from pinn_inference.pricing.types import FallbackReason
from pinn_inference.server.config import SETTINGS
from pinn_inference.server.metrics import ServerMetrics
from pinn_inference.server.parsing import FIELDS

PAGE = (Path(__file__).parents[3] / "docs" / "inference-server.md").read_text()


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: setting.variable)
def test_each_setting_is_in_the_table_with_its_variable_and_flag(setting: object) -> None:
    assert f"| `{setting.variable}` | `{setting.flag}` |" in PAGE  # type: ignore[attr-defined]


def test_each_field_and_each_reason_of_a_fallback_is_explained() -> None:
    names = [field.name for field in FIELDS] + [reason.label for reason in FallbackReason if reason]
    assert [name for name in names if f"`{name}`" not in PAGE] == []


def test_each_metric_is_listed() -> None:
    families = [family.name for family in ServerMetrics().registry.collect()]
    own = [name for name in families if not name.startswith(("process_", "python_"))]
    assert [name for name in own if name not in PAGE] == []
