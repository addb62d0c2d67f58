"""docs/gates.md and docs/rollouts.md against the code: examples parse, and their queries read what our server has."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml
from prometheus_client import generate_latest

from lab.kube import REPOSITORY
from pinn_inference.server.metrics import ServerMetrics
from pinn_operator.core.api import parse_resource
from pinn_operator.core.samples import WebhookQuestion
from pinn_operator.core.wanted.metrics import METRICS, Better
from pinn_operator.core.wanted.queries import PLACEHOLDERS
from pinn_operator.core.wanted.spec import GateAction, RouterMetricsKind, Spec
from pinn_operator.webhooks.parsing import Said, body_of, parse_said, signature
from tests.support import crd
from tests.unit.operator.test_webhooks import NOW, QUESTION

PAGE = (REPOSITORY / "docs" / "gates.md").read_text()
PAGES = {name: (REPOSITORY / "docs" / name).read_text() for name in ("gates.md", "rollouts.md")}
_TARGET_METRICS = {"up"}
"""Of Prometheus itself."""


def blocks(page: str, kind: str) -> list[str]:
    return [block.split("```")[0] for block in page.split(f"```{kind}\n")[1:]]


def examples() -> list[Any]:
    found = []
    for name, page in PAGES.items():
        for number, block in enumerate(blocks(page, "yaml")):
            document = yaml.safe_load(block)
            if "spec" in document:
                found.append(pytest.param(document["spec"], id=f"{name} {number}"))
    return found


def queries() -> list[Any]:
    return [
        pytest.param(gate["query"], id=gate["name"])
        for example in examples()
        for gate in example.values[0].get("analysis", {}).get("gates", [])
        if "query" in gate
    ]


@pytest.mark.parametrize("spec", examples())
def test_every_example_is_a_valid_spec(spec: dict[str, Any]) -> None:
    whole = {"image": "registry.example.com/pinn-inference:1.4.0", **spec}
    parsed = parse_resource({"metadata": {"name": "eu-options"}, "spec": whole}).spec
    assert isinstance(parsed, Spec), [str(error) for error in parsed.errors]
    crd.validator("spec").validate(whole)


@pytest.mark.parametrize("query", queries())
def test_every_query_reads_what_the_bundled_server_or_prometheus_has(query: str) -> None:
    text = generate_latest(ServerMetrics().registry).decode()
    known = set(re.findall(r"^# TYPE (\S+) ", text, re.MULTILINE)) | _TARGET_METRICS
    read = set(re.findall(r"\b([a-z_]+)\{", query))
    assert read
    for name in read:
        assert name in known or re.sub(r"_(bucket|total|count|sum)$", "", name) in known, name


def test_every_built_in_metric_is_described_with_its_good_side() -> None:
    rows = {}
    for line in PAGE.split("## Built-in metrics")[1].split("##")[0].splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")] if line.startswith("| `") else [""]
        rows |= dict.fromkeys(re.findall(r"`([a-z0-9-]+)`", cells[0]), cells)
    assert set(rows) == set(METRICS)
    for name, metric in METRICS.items():
        assert rows[name][3] == ("less" if metric.better is Better.LESS else "more")
        assert rows[name][4] == ("yes" if metric.comparable else ""), name


def test_every_placeholder_action_and_router_is_described() -> None:
    for name in PLACEHOLDERS:
        assert f"`{{{{ {name} }}}}`" in PAGE
    for action in GateAction:
        assert f"| `{action.value}`" in PAGE
    for kind in RouterMetricsKind:
        assert f"`{kind.value}`" in PAGE


def test_the_example_of_a_webhook_is_what_is_sent_and_understood() -> None:
    [sent] = [block for block in PAGE.split("```\n") if block.startswith("POST /canary")]
    question: WebhookQuestion = QUESTION
    shown = yaml.safe_load(sent.split("\n\n")[1])
    real = yaml.safe_load(body_of(question, namespace="pricing", name="eu-options", now=NOW))
    assert {**real, "gate": "desk-checks"} == shown
    [answer] = blocks(PAGE, "json")
    assert isinstance(parse_said(answer.encode()), Said)


def test_the_example_of_checking_a_signature_checks_ours() -> None:
    [code] = blocks(PAGE, "python")
    scope: dict[str, Any] = {}
    exec(code, scope)
    assert scope["signed"](b"{}", signature(b"{}", "key"), b"key")
    assert not scope["signed"](b"{} ", signature(b"{}", "key"), b"key")
