"""The CRD in a real API server: what it refuses and in which words, what it fills in, and that our parser agrees."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings

from lab.kube import PINNSERVICES, Answer, Kube, KubeError, Manifest, wait_until
from pinn_operator.core.api import parse_spec, parse_time, status_from_manifest, status_to_manifest
from pinn_operator.core.status.values import Condition, Phase, RevisionStatus, Status
from pinn_operator.core.wanted.spec import InvalidSpec, Spec
from tests.support import crd, specs

pytestmark = pytest.mark.integration

COLLECTION = f"{PINNSERVICES}/namespaces/default/pinnservices"
MANY = settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))


def resource(spec: Manifest, *, name: str = "eu-options") -> Manifest:
    return {
        "apiVersion": "pinn.dev/v1alpha1", "kind": "PINNService",
        "metadata": {"name": name, "namespace": "default"}, "spec": spec,
    }  # fmt: skip


@pytest.fixture(scope="module")
def kube(control_plane: Path) -> Iterator[Kube]:
    """The control plane with the CRD installed."""
    kube = Kube(control_plane)
    kube.kubectl("apply", "--server-side", "--force-conflicts", "-f", str(crd.CRD))
    wait_until("the API is served", lambda: kube.request("GET", COLLECTION).status == 200, seconds=30)
    yield kube
    kube.close()


@pytest.fixture
def stored(kube: Kube) -> Iterator[Manifest]:
    """A stored PINNService that says only its image."""
    yield created(kube.request("POST", COLLECTION, resource({"image": "registry.example.com/pinn:1"})))
    kube.delete("pinnservice", "eu-options", "default")


def created(answer: Answer) -> Manifest:
    assert answer.status in (200, 201), answer.body
    body: Manifest = answer.body
    return body


def tried(kube: Kube, manifest: Manifest) -> Answer:
    """Create it for nothing, as strict as kubectl does."""
    return kube.request("POST", f"{COLLECTION}?dryRun=All&fieldValidation=Strict", manifest)


def stored_spec(answer: Answer) -> Spec:
    """The spec as it would be stored."""
    spec = parse_spec(answer.body["spec"])
    assert isinstance(spec, Spec), [str(error) for error in spec.errors]
    return spec


def causes(answer: Answer) -> list[tuple[str, str]]:
    """(field, message) of every fault that the API server names."""
    details = answer.body.get("details") or {}
    return [(item["field"], item["message"]) for item in details.get("causes", [])]


def test_the_schema_is_structural(kube: Kube) -> None:
    [definition] = (json.loads(kube.kubectl("get", "crd", "pinnservices.pinn.dev", "-o", "json"))["status"],)
    bad = [
        item for item in definition["conditions"] if item["type"] == "NonStructuralSchema" or item["status"] != "True"
    ]
    assert bad == []


def test_an_image_alone_is_complete_and_the_rest_is_filled_in(stored: Manifest) -> None:
    assert stored["spec"] == crd.with_defaults("spec", {"image": "registry.example.com/pinn:1"})
    assert parse_spec(stored["spec"]) == parse_spec({"image": "registry.example.com/pinn:1"})


@pytest.mark.parametrize("case", crd.invalid_cases(), ids=lambda case: str(case["name"]))
def test_it_is_refused_with_the_field_and_what_would_be_right(kube: Kube, case: Manifest) -> None:
    answer = tried(kube, resource(case["spec"], name=case.get("metadata_name", "eu-options")))
    assert answer.status in (400, 422), f"it was accepted: {answer.status}"
    words = case.get("api_words", case["words"])
    if words == "unknown field":  # told before anything is validated, and not as a cause
        assert f'unknown field "{case["path"]}"' in answer.body["message"]
        return
    found = [message for field, message in causes(answer) if field == case["path"]]
    assert found, f"no fault at {case['path']}, but {causes(answer)}"
    assert any(words in message for message in found), found


def test_several_faults_are_all_told_at_once(kube: Kube) -> None:
    manifest = resource(
        {
            "image": "registry.example.com/PINN:1",
            "replicas": 5000,
            "strategy": {"canary": {"steps": [{"weight": 50, "holdSeconds": 1}, {"weight": 10, "holdSeconds": 1}]}},
            "traffic": {"router": "HTTPRoute"},
            "analysis": {
                "intervalSeconds": 10,
                "abortIntervalSeconds": 20,
                "gates": [
                    {"name": "latency-p96", "abort": {"above": "1"}},
                    {"name": "latency-p95", "abort": {"above": "250ms"}},
                ],
            },
            "rollback": {"drainSeconds": 0},
        },
        name="3-month-options",
    )
    with pytest.raises(KubeError) as refused:
        kube.apply(manifest)
    told = str(refused.value)
    for path in (
        "metadata.name: ",
        "spec.image: ",
        "spec.replicas: ",
        "spec.strategy.canary.steps: ",
        "spec.traffic.parentRefs: ",
        "spec.analysis.abortIntervalSeconds: ",
        "spec.analysis.gates[0].query: ",
        "spec.analysis.gates[1].abort.above: ",
        "spec.rollback.drainSeconds: ",
    ):
        assert f"* {path}" in told, told


def test_a_change_is_checked_like_a_new_resource(kube: Kube, stored: Manifest) -> None:
    with pytest.raises(KubeError, match="router HTTPRoute needs at least one Gateway"):
        kube.merge("pinnservices", "eu-options", "default", {"spec": {"traffic": {"router": "HTTPRoute"}}})


def test_a_spec_that_keeps_the_rules_is_accepted_and_means_the_same_when_stored(kube: Kube) -> None:
    @given(specs.valid_specs())
    @MANY
    def check(spec: Manifest) -> None:
        answer = created(tried(kube, resource(spec)))
        assert answer["spec"] == crd.with_defaults("spec", spec)
        assert isinstance(parse_spec(answer["spec"]), Spec)
        assert parse_spec(answer["spec"]) == parse_spec(spec)

    check()


def test_the_api_server_and_the_parser_refuse_the_same_specs(kube: Kube) -> None:
    accepted = []

    @given(specs.odd_specs())
    @settings(MANY, max_examples=400)
    def check(spec: Manifest) -> None:
        answer, parsed = tried(kube, resource(spec)), parse_spec(spec)
        assert answer.status in (201, 400, 422), answer.body
        if answer.status == 201:
            assert not isinstance(parsed, InvalidSpec), [str(error) for error in parsed.errors]
            # What was written is parsed as what is stored, whose nulls are gone and whose defaults are filled in.
            assert replace(parsed, serving={}) == replace(stored_spec(answer), serving={})
        else:
            assert isinstance(parsed, InvalidSpec), answer.body["message"]
        accepted.append(answer.status == 201)

    check()
    assert 10 < sum(accepted) < len(accepted) - 10, "the specs were all good or all bad: this tested one side only"


def test_whatever_the_operator_writes_is_accepted_and_read_back_unchanged(kube: Kube, stored: Manifest) -> None:
    @given(specs.statuses())
    @MANY
    def check(status: Status) -> None:
        path = f"{COLLECTION}/eu-options/status?dryRun=All&fieldValidation=Strict"
        answer = created(kube.request("PUT", path, {**stored, "status": status_to_manifest(status)}))
        assert status_from_manifest(answer["status"]) == status

    check()


def test_a_replaced_status_keeps_nothing_of_the_old_one(kube: Kube, stored: Manifest) -> None:
    since = parse_time("2026-11-21T08:00:00.123456Z")
    first = Status(phase=Phase.PROGRESSING, canary=RevisionStatus("9d77e0aa", "a", since), reason="p95: 3/100 requests")
    live = stored
    for status in (first, Status(phase=Phase.STABLE)):
        path = f"{COLLECTION}/eu-options/status?fieldValidation=Strict"
        live = created(kube.request("PUT", path, {**live, "status": status_to_manifest(status)}))
        assert status_from_manifest(live["status"]) == status


def test_a_status_is_not_written_over_a_newer_one(kube: Kube, stored: Manifest) -> None:
    path, kind = f"{COLLECTION}/eu-options/status", "application/merge-patch+json"
    patch = {"metadata": {"resourceVersion": stored["metadata"]["resourceVersion"]}, "status": {"reason": "first"}}
    assert kube.request("PATCH", path, patch, content_type=kind).status == 200
    patch["status"] = {"reason": "second"}
    assert kube.request("PATCH", path, patch, content_type=kind).status == 409


def test_only_a_change_of_the_spec_is_a_new_generation(kube: Kube, stored: Manifest) -> None:
    path, kind = f"{COLLECTION}/eu-options", "application/merge-patch+json"
    changed = created(kube.request("PATCH", f"{path}/status", {"status": {"reason": "a"}}, content_type=kind))
    assert changed["metadata"]["generation"] == 1
    changed = created(kube.request("PATCH", path, {"spec": {"paused": True}}, content_type=kind))
    assert changed["metadata"]["generation"] == 2
    assert changed["status"] == {"reason": "a"}


def test_it_can_be_scaled_as_an_autoscaler_does(kube: Kube, stored: Manifest) -> None:
    status = status_to_manifest(Status(replicas=4, selector="pinn.dev/service=eu-options"))
    kind = "application/merge-patch+json"
    created(kube.request("PATCH", f"{COLLECTION}/eu-options/status", {"status": status}, content_type=kind))
    scale = created(kube.request("GET", f"{COLLECTION}/eu-options/scale"))
    assert scale["spec"] == {"replicas": 3}
    assert scale["status"] == {"replicas": 4, "selector": "pinn.dev/service=eu-options"}
    kube.kubectl("scale", "pinn/eu-options", "-n", "default", "--replicas=7")
    live = kube.get("pinnservices", "eu-options", "default")
    assert live is not None
    assert live["spec"]["replicas"] == 7


def test_kubectl_get_shows_the_rollout_in_one_line(kube: Kube, stored: Manifest) -> None:
    since = parse_time("2026-11-21T08:00:00Z")
    status = Status(
        phase=Phase.PROGRESSING, stable=RevisionStatus("a1f3c2d4", "a", since), step="2/3", weight="50/48.9",
        canary=RevisionStatus("9d77e0aa", "b", since), verdict="Collecting", reason="p95: 214/325 requests",
        conditions=(Condition("Ready", "True", "Serving", "", since, 1),),
    )  # fmt: skip
    patch = {"status": status_to_manifest(status)}
    kind = "application/merge-patch+json"
    created(kube.request("PATCH", f"{COLLECTION}/eu-options/status", patch, content_type=kind))
    header, line = kube.kubectl("get", "pinn", "-n", "default").splitlines()
    assert header.split() == [
        "NAME",
        "READY",
        "PHASE",
        "STEP",
        "WEIGHT",
        "STABLE",
        "CANARY",
        "VERDICT",
        "REASON",
        "AGE",
    ]
    shown = "eu-options True Progressing 2/3 50/48.9 a1f3c2d4 9d77e0aa Collecting p95: 214/325 requests"
    assert " ".join(line.split()).startswith(shown)


def test_resources_can_be_listed_by_phase(kube: Kube, stored: Manifest) -> None:
    patch = {"status": {"phase": "RolledBack"}}
    kind = "application/merge-patch+json"
    created(kube.request("PATCH", f"{COLLECTION}/eu-options/status", patch, content_type=kind))
    assert [item["metadata"]["name"] for item in kube.list("pinnservices", "default", fields="status.phase=RolledBack")]
    assert kube.list("pinnservices", "default", fields="status.phase=Baking") == []


def test_kubectl_explain_documents_a_field(kube: Kube) -> None:
    told = " ".join(kube.kubectl("explain", "pinnservice.spec.analysis.abortIntervalSeconds").split())
    assert "Seconds between two judgements of the abort bounds" in told
    assert "Default 2" in told


def test_the_example_of_every_field_is_accepted(kube: Kube) -> None:
    """The example of docs/reference.md, as users will copy it."""
    text = (crd.CRD.parents[1] / "docs" / "reference.md").read_text()
    examples = [block.split("```")[0] for block in text.split("```yaml\n")[1:]]
    assert examples
    for example in examples:
        for manifest in yaml.safe_load_all(example):
            manifest["metadata"]["namespace"] = "default"
            created(tried(kube, manifest))
