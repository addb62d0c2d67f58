"""The CRD itself: bounded, described, without a back door, and in step with the code that reads and writes it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import fields
from typing import Any

import pytest

from lab.kube import Manifest
from pinn_operator.core import api
from pinn_operator.core.status.json import CONDITION_LIMIT, GATE_STATUS_LIMIT, POD_LINE_LIMIT
from pinn_operator.core.status.values import HISTORY_LIMIT, MESSAGE_LIMIT, TIMELINE_LIMIT, Phase, Verdict
from pinn_operator.core.wanted import (
    gates,
    names,
    prometheus,
    queries,
    references,
    serving,
    strategy,
    traffic,
    verification,
    webhook,
)
from pinn_operator.core.wanted.metrics import METRICS, Better
from pinn_operator.core.wanted.profiles import gates_of
from pinn_operator.core.wanted.revision import SERVING_FIELDS
from pinn_operator.core.wanted.spec import (
    GateAction,
    MetricNames,
    Profile,
    RollbackMode,
    RouterKind,
    RouterMetricsKind,
    Severity,
    SourceKind,
    VerificationMode,
)
from tests.support import crd

[VERSION] = crd.definition()["spec"]["versions"]
NODES = [*crd.walk(crd.schema("spec"), "spec"), *crd.walk(crd.schema("status"), "status")]
BY_PATH = dict(NODES)


def rules(node: Manifest) -> list[str]:
    return [item["rule"] for item in node.get("x-kubernetes-validations", [])]


def pattern_of(path: str) -> str:
    """The regular expression that a string must match as a whole."""
    [found] = [match for rule in rules(BY_PATH[path]) if (match := re.fullmatch(r"self\.matches\('\^(.*)\$'\)", rule))]
    return found[1].replace("\\\\", "\\")


def test_its_names_are_those_of_the_code() -> None:
    spec = crd.definition()["spec"]
    assert spec["names"] == {
        "kind": api.KIND, "listKind": "PINNServiceList", "plural": api.PLURAL, "singular": "pinnservice",
        "shortNames": ["pinn"], "categories": ["pinn"],
    }  # fmt: skip
    assert (spec["group"], VERSION["name"], spec["scope"]) == (api.GROUP, api.VERSION, "Namespaced")


def test_it_can_be_scaled() -> None:
    assert VERSION["subresources"] == {
        "status": {},
        "scale": {
            "specReplicasPath": ".spec.replicas",
            "statusReplicasPath": ".status.replicas",
            "labelSelectorPath": ".status.selector",
        },
    }


def test_it_prints_what_an_sre_asks_first() -> None:
    shown = [column["name"] for column in VERSION["additionalPrinterColumns"] if not column.get("priority")]
    assert shown == ["Ready", "Phase", "Step", "Weight", "Stable", "Canary", "Verdict", "Reason", "Age"]


def test_unknown_fields_are_never_kept() -> None:
    assert "preserve-unknown-fields" not in crd.CRD.read_text()
    assert all("type" in node or node.get("x-kubernetes-int-or-string") for _, node in NODES)


@pytest.mark.parametrize(("path", "node"), NODES, ids=[path for path, _ in NODES])
def test_every_field_is_described_and_bounded(path: str, node: Manifest) -> None:
    if not path.endswith(("[]", "{}")):
        assert node.get("description"), "kubectl explain says nothing about it"
    match node.get("type"):
        case "string":
            assert "enum" in node or "maxLength" in node or node.get("format") == "date-time"
        case "array":
            assert "maxItems" in node
            assert "x-kubernetes-list-type" in node
        case "object" if "additionalProperties" in node:
            assert "maxProperties" in node
        case "integer":
            assert "minimum" in node
            assert path.startswith("status") or "maximum" in node


def test_serving_fields_have_no_defaults_because_the_revision_is_a_hash_of_what_was_written() -> None:
    for name in SERVING_FIELDS:
        nodes = crd.walk(crd.schema("spec")["properties"][name], name)
        assert [path for path, node in nodes if "default" in node] == []


def test_every_policy_field_has_a_default_or_says_what_its_absence_means() -> None:
    for path, node in NODES:
        name = path.split(".")[1].split("[")[0] if "." in path else ""
        if not path.startswith("spec.") or path.endswith(("[]", "{}")):
            continue
        parent = BY_PATH[path.rpartition(".")[0]] if "." in path else {}
        required = path.rpartition(".")[2] in parent.get("required", [])
        words = ("Default", "Required", "exactly one", "Exactly one", "For type", "more than", "less than")
        has_text = any(word in node["description"] for word in words)
        assert required or "default" in node or has_text or node["type"] == "object" or name in SERVING_FIELDS, path


def test_every_rule_says_in_words_what_would_be_right() -> None:
    root = [("", VERSION["schema"]["openAPIV3Schema"])]
    for path, node in [*root, *NODES]:
        for rule in node.get("x-kubernetes-validations", []):
            assert rule.get("message"), f"{path}: {rule['rule']}"


@pytest.mark.parametrize(
    ("path", "values"),
    [
        ("spec.traffic.router", RouterKind),
        ("spec.analysis.profile", Profile),
        ("spec.rollback.mode", RollbackMode),
        ("spec.analysis.gates[].severity", Severity),
        ("spec.analysis.gates[].action", GateAction),
        ("spec.analysis.sources[]", SourceKind),
        ("spec.analysis.routerMetrics", RouterMetricsKind),
        ("spec.verification.mode", VerificationMode),
        ("status.phase", Phase),
        ("status.rollout.gates[].verdict", Verdict),
    ],
)
def test_closed_sets_are_those_of_the_code(path: str, values: Any) -> None:
    assert BY_PATH[path]["enum"] == [item.value for item in values]


@pytest.mark.parametrize(
    ("path", "bound", "limit"),
    [
        ("status.rollout.timeline", "maxItems", TIMELINE_LIMIT),
        ("status.lastRollback.timeline", "maxItems", TIMELINE_LIMIT),
        ("status.history", "maxItems", HISTORY_LIMIT),
        ("status.rollout.gates", "maxItems", GATE_STATUS_LIMIT),
        ("status.rejected.pods", "maxItems", POD_LINE_LIMIT),
        ("status.conditions", "maxItems", CONDITION_LIMIT),
        ("spec.analysis.gates", "maxItems", gates.GATE_LIMIT),
        ("spec.analysis.gates[].query", "maxLength", queries.QUERY_LIMIT),
        ("spec.analysis.prometheus.headers", "maxItems", references.HEADER_LIMIT),
        ("spec.strategy.canary.steps", "maxItems", strategy.STEP_LIMIT),
    ],
)
def test_bounds_are_those_of_the_code(path: str, bound: str, limit: int) -> None:
    assert BY_PATH[path][bound] == limit


def test_every_text_of_the_status_may_be_as_long_as_the_code_writes_it() -> None:
    limits = {path: node["maxLength"] for path, node in NODES if path.startswith("status") and "maxLength" in node}
    assert set(limits.values()) == {MESSAGE_LIMIT}


def test_all_gates_of_a_profile_and_all_own_ones_have_room_in_the_status() -> None:
    assert gates.GATE_LIMIT + max(len(gates_of(profile)) for profile in Profile) <= GATE_STATUS_LIMIT


@pytest.mark.parametrize(
    ("path", "pattern"),
    [
        ("spec.image", serving.IMAGE),
        ("spec.serviceAccountName", serving.DNS_SUBDOMAIN),
        ("spec.model.persistentVolumeClaim.path", serving.VOLUME_PATH),
        ("spec.model.sha256", serving.DIGEST),
        ("spec.env[].name", serving.ENV_NAME),
        ("spec.traffic.parentRefs[].namespace", serving.DNS_LABEL),
        ("spec.traffic.hostnames[]", traffic.HOSTNAME),
        ("spec.traffic.pathPrefix", traffic.PATH_PREFIX),
        ("spec.analysis.prometheus.address", prometheus.PROMETHEUS_ADDRESS),
        ("spec.analysis.gates[].name", serving.DNS_LABEL),
        ("spec.analysis.gates[].webhook.url", webhook.WEBHOOK_URL),
        ("spec.analysis.prometheus.headers[].value", references.HEADER_VALUE),
        ("spec.analysis.prometheus.basicAuth.passwordSecretRef.key", references.DATA_KEY),
        ("spec.analysis.prometheus.caRef.name", serving.DNS_SUBDOMAIN),
        ("spec.analysis.metrics.requests", names.METRIC_NAME),
        ("spec.analysis.metrics.priceSquares", names.METRIC_NAME),
        ("spec.analysis.metrics.handlerLabel", names.LABEL_NAME),
        ("spec.verification.acknowledgedRevision", verification.REVISION),
        ("spec.probes.readiness.path", serving.PROBE_PATH),
    ],
)
def test_patterns_are_those_of_the_parser(path: str, pattern: re.Pattern[str]) -> None:
    # Only an anchored alternation needs the outer brackets.
    assert pattern_of(path) in (pattern.pattern, f"({pattern.pattern})")


def listed(values: Iterable[str]) -> str:
    """As a list of CEL."""
    return "[" + ", ".join(f"'{value}'" for value in values) + "]"


def test_the_built_in_metrics_and_the_profiles_are_those_of_the_code() -> None:
    [rule] = [rule for rule in rules(BY_PATH["spec.analysis"]) if "judges" not in rule and "self.profile" in rule]
    for profile in Profile:
        assert f"'{profile.value}': {listed(gate.name for gate in gates_of(profile))}" in rule
    assert f"!(g.name in {listed(METRICS)})" in rule
    found = rules(BY_PATH["spec.analysis.gates[]"])
    assert f"has(self.query) || has(self.webhook) || self.name in {listed(METRICS)}" in found
    assert f"!has(self.query) || !(self.name in {listed(METRICS)})" in found
    assert f"!has(self.webhook) || !(self.name in {listed(METRICS)})" in found
    texts = [BY_PATH["spec.analysis.gates"]["description"], BY_PATH["spec.analysis.gates[].name"]["description"]]
    assert all(name in text for name in METRICS for text in texts)


def test_the_good_side_of_each_built_in_metric_is_that_of_the_code() -> None:
    found = rules(BY_PATH["spec.analysis.gates[]"])
    more = listed(metric.name for metric in METRICS.values() if metric.better is Better.MORE)
    for bound, bad in (("advance", "above"), ("abort", "below")):
        allowed = f"has(self.query) || has(self.webhook) || self.name in {more}"
        assert f"{allowed} || !has(self.{bound}) || !has(self.{bound}.{bad})" in found
    for bound, bad in (("advance", "below"), ("abort", "above")):
        assert f"!(self.name in {more}) || !has(self.{bound}) || !has(self.{bound}.{bad})" in found


@pytest.mark.parametrize(
    ("start", "some"),
    [
        ("!has(self.relative) || self.name in {} ||", [name for name in METRICS if METRICS[name].comparable]),
        ("!(self.name in {}) || [has(self.advance)", gates.SHARES),
        ("!(self.name == 'memory') || [has(self.advance)", ["memory"]),
        ("!(self.name == 'memory-growth') || [has(self.advance)", ["memory-growth"]),
    ],
)
def test_what_is_special_of_some_metrics_is_that_of_the_code(start: str, some: Sequence[str]) -> None:
    assert set(some) <= set(METRICS)
    wanted = start.format(listed(some))
    assert [rule for rule in rules(BY_PATH["spec.analysis.gates[]"]) if rule.startswith(wanted)]


def test_a_query_may_hold_the_placeholders_that_are_filled_in() -> None:
    found = [rule for rule in rules(BY_PATH["spec.analysis.gates[].query"]) if "canary" in rule]
    assert found == [f"self.matches('^{queries.QUERY.pattern}$')"]


def test_the_names_of_metrics_that_are_documented_are_the_defaults() -> None:
    known = {**names.METRIC_FIELDS, **names.LABEL_FIELDS}
    assert set(BY_PATH["spec.analysis.metrics"]["properties"]) == set(known)
    assert set(known.values()) == {field.name for field in fields(MetricNames)}
    for field, attribute in known.items():
        text = BY_PATH[f"spec.analysis.metrics.{field}"]["description"]
        assert text.endswith(f" Default {getattr(MetricNames(), attribute)}.")
    [rule] = rules(BY_PATH["spec.analysis.metrics"])
    for field, attribute in names.LABEL_FIELDS.items():
        assert rule.count(f"has(self.{field}) ? self.{field} : '{getattr(MetricNames(), attribute)}'") == 2


def test_the_headers_that_may_not_be_set_are_those_of_the_code() -> None:
    found = rules(BY_PATH["spec.analysis.prometheus.headers[].name"])
    assert found == [
        f"self.matches('^{references.HEADER_NAME.pattern}$')",
        f"!(self.lowerAscii() in {listed(references.RESERVED_HEADERS)})",
    ]


def test_the_default_steps_are_those_of_the_parser() -> None:
    steps = [{"weight": step.weight, "holdSeconds": step.hold_seconds} for step in strategy.DEFAULT_STEPS]
    assert BY_PATH["spec.strategy.canary.steps"]["default"] == steps
    assert BY_PATH["spec.strategy"]["default"] == {"type": "Canary", "canary": {"steps": steps}}


def test_at_least_125_manifests_must_be_refused() -> None:
    cases = [case["name"] for case in crd.invalid_cases()]
    assert len(cases) == len(set(cases)) >= 125


def test_no_field_has_a_name_that_yaml_takes_for_a_boolean() -> None:
    names = {path.rpartition(".")[2].rstrip("[]{}") for path, _ in NODES}
    assert not names & {"n", "y", "on", "off", "no", "yes"}
