"""The parser of a PINNService: what the CRD accepts parses, with the CRD's defaults; every fault is named at once."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings

from lab.kube import Manifest
from pinn_operator.core.api import parse_resource, parse_spec
from pinn_operator.core.wanted.profiles import gates_of
from pinn_operator.core.wanted.spec import InvalidSpec, Profile, RouterKind, Severity, Spec, Step
from tests.support import crd, specs


def parsed(manifest: Manifest) -> Spec:
    """The spec; fails with its faults if it has any."""
    spec = parse_spec(manifest)
    assert isinstance(spec, Spec), [str(error) for error in spec.errors]
    return spec


def faults(manifest: Manifest) -> dict[str, str]:
    """Path to message of every fault."""
    spec = parse_spec(manifest)
    assert isinstance(spec, InvalidSpec)
    return {error.path: error.message for error in spec.errors}


def own_gate(**changes: Any) -> Manifest:
    return {"image": "a", "analysis": {"gates": [{"name": "drift", "query": "up", "abort": {"above": "1"}, **changes}]}}


def test_an_image_alone_is_a_complete_spec() -> None:
    spec = parsed({"image": "registry.example.com/pinn-inference:1.4.0"})
    assert spec.serving == {"image": "registry.example.com/pinn-inference:1.4.0"}
    assert spec.steps == (Step(10, 1800), Step(50, 3600), Step(100, 86400))
    assert (spec.replicas, spec.paused, spec.traffic.router) == (3, False, RouterKind.REPLICAS)
    assert spec.analysis.gates == gates_of(Profile.STANDARD)


@pytest.mark.parametrize("case", crd.invalid_cases(), ids=lambda case: str(case["name"]))
def test_the_parser_refuses_what_the_api_server_refuses(case: Manifest) -> None:
    resource = parse_resource({"metadata": {"name": case.get("metadata_name", "eu")}, "spec": case["spec"]})
    assert isinstance(resource.spec, InvalidSpec), "it was accepted"
    found = [error.message for error in resource.spec.errors if error.path == case.get("parser_path", case["path"])]
    assert found, f"no fault at the path, but {[str(error) for error in resource.spec.errors]}"
    words = case.get("parser_words", case["words"])
    assert any(words in message for message in found), found


@given(specs.valid_specs())
@settings(deadline=None)
def test_a_spec_that_keeps_the_rules_fits_the_schema_and_parses(manifest: Manifest) -> None:
    crd.validator("spec").validate(manifest)
    parsed(manifest)


@given(specs.valid_specs())
@settings(deadline=None)
def test_the_parser_has_the_defaults_of_the_crd(manifest: Manifest) -> None:
    assert parsed(manifest) == parsed(crd.with_defaults("spec", manifest))


@given(specs.odd_specs())
@settings(max_examples=200, deadline=None)
def test_a_spec_that_parses_fits_the_schema(manifest: Manifest) -> None:
    """The other direction for structure: the parser is not laxer than the schema."""
    manifest = without_nulls(manifest)
    if isinstance(parse_spec(manifest), Spec):
        crd.validator("spec").validate(manifest)


@given(specs.odd_specs())
@settings(max_examples=200, deadline=None)
def test_no_manifest_makes_the_parser_raise(manifest: Manifest) -> None:
    parse_spec(manifest)
    parse_resource({"metadata": manifest, "spec": manifest, "status": manifest})


@pytest.mark.parametrize("manifest", [{}, {"spec": None}, {"spec": []}, {"metadata": "a", "spec": "b", "status": 3}])
def test_an_object_of_another_shape_is_an_invalid_spec(manifest: Manifest) -> None:
    assert isinstance(parse_resource(manifest).spec, InvalidSpec)


def test_all_faults_are_named_at_once() -> None:
    found = faults(
        {
            "replicas": -1,
            "strategy": {"canary": {"steps": [{"weight": 50, "holdSeconds": 1}, {"weight": 10, "holdSeconds": 1}]}},
            "traffic": {"router": "HTTPRoute"},
            "analysis": {"gates": [{"name": "latency-p95", "abort": {"above": "fast"}}]},
        }
    )
    assert set(found) == {
        "spec.image",
        "spec.replicas",
        "spec.strategy.canary.steps[1].weight",
        "spec.traffic.parentRefs",
        "spec.analysis.gates[0].abort.above",
    }


def test_the_path_begins_as_the_caller_says() -> None:
    spec = parse_spec({}, path="data.spec")
    assert isinstance(spec, InvalidSpec)
    assert [error.path for error in spec.errors] == ["data.spec.image"]


def test_a_fault_says_the_path_and_what_would_be_right() -> None:
    spec = parse_spec({"image": "a", "replicas": 2000})
    assert isinstance(spec, InvalidSpec)
    assert [str(error) for error in spec.errors] == ["spec.replicas: must be from 0 to 1000, not 2000"]


def test_only_serving_fields_reach_the_revision() -> None:
    spec = parsed({"image": "a", "port": 9000, "replicas": 5, "paused": True, "analysis": {"profile": "Flash"}})
    assert spec.serving == {"image": "a", "port": 9000}


@pytest.mark.parametrize(
    ("patience", "expected"), [({"consecutive": 2}, (0, 2)), ({"forSeconds": 9}, (9, 1)), ({}, (300, 1))]
)
def test_a_bound_that_names_one_patience_drops_the_other(patience: dict[str, int], expected: tuple[int, int]) -> None:
    gates = [{"name": "error-rate", "abort": {"above": "0.02", **patience}}]
    abort = parsed({"image": "a", "analysis": {"gates": gates}}).analysis.gates[0].abort
    assert abort is not None
    assert (abort.for_seconds, abort.consecutive) == expected


def test_a_changed_gate_keeps_what_it_does_not_say() -> None:
    [_, gate, *_] = parsed(
        {"image": "a", "analysis": {"gates": [{"name": "latency-p95", "abort": {"above": "1"}, "severity": "P0"}]}}
    ).analysis.gates
    [_, standard, *_] = gates_of(Profile.STANDARD)
    assert gate.advance == standard.advance
    assert gate.relative == standard.relative
    assert gate.abort is not None
    assert standard.abort is not None
    assert (gate.abort.above, gate.abort.for_seconds, gate.severity) == (1.0, standard.abort.for_seconds, Severity.P0)


def test_own_gates_follow_those_of_the_profile() -> None:
    gates = parsed(own_gate(severity="P0")).analysis.gates
    assert [gate.name for gate in gates] == [*(gate.name for gate in gates_of(Profile.STANDARD)), "drift"]
    assert (gates[-1].metric, gates[-1].query, gates[-1].severity) == (None, "up", Severity.P0)


def test_a_built_in_gate_that_the_profile_lacks_is_added() -> None:
    manifest = {"image": "a", "analysis": {"gates": [{"name": "latency-p50", "abort": {"above": "100m"}}]}}
    gate = parsed(manifest).analysis.gates[-1]
    assert gate.metric == "latency-p50"
    assert gate.relative is None


def test_comparing_can_be_switched_off() -> None:
    manifest = {"image": "a", "analysis": {"gates": [{"name": "error-rate", "relative": {"enabled": False}}]}}
    gate = parsed(manifest).analysis.gates[0]
    assert gate.relative is not None
    assert not gate.relative.enabled


@pytest.mark.parametrize(
    ("text", "number"), [("250m", 0.25), ("1", 1.0), ("0.02", 0.02), ("2k", 2000.0), ("1e-3", 0.001), ("1Ki", 1024.0)]
)
def test_thresholds_are_quantities(text: str, number: float) -> None:
    gate = parsed(own_gate(abort={"above": text})).analysis.gates[-1]
    assert gate.abort is not None
    assert gate.abort.above == number


def test_an_integer_may_be_written_as_a_float() -> None:
    assert parsed({"image": "a", "terminationGracePeriodSeconds": 60.0})


def test_replicas_have_no_fraction_as_the_api_server_wants_it_for_kubectl_scale() -> None:
    spec = parse_spec({"image": "a", "replicas": 4.0})
    assert isinstance(spec, InvalidSpec)
    assert [str(it) for it in spec.errors] == [
        "spec.replicas: must be an integer written without a fraction: 4, not 4.0"
    ]


def test_a_null_is_an_absent_field() -> None:
    assert parsed({"image": "a", "replicas": None, "traffic": None}) == parsed({"image": "a"})


def test_a_resource_keeps_its_raw_spec_for_the_record() -> None:
    resource = parse_resource(
        {
            "metadata": {
                "name": "eu", "namespace": "pricing", "uid": "u", "generation": 7, "resourceVersion": "42",
                "deletionTimestamp": "2026-11-21T08:00:00Z",
            },
            "spec": {"image": "a"},
        }
    )  # fmt: skip
    assert resource.spec_manifest == {"image": "a"}
    assert (resource.name, resource.namespace, resource.uid) == ("eu", "pricing", "u")
    assert (resource.generation, resource.resource_version, resource.deleting) == (7, "42", True)


def without_nulls(value: Any) -> Any:
    """As the API server prunes nulls before it validates."""
    if isinstance(value, dict):
        return {key: without_nulls(item) for key, item in value.items() if item is not None}
    return [without_nulls(item) for item in value] if isinstance(value, list) else value
