"""What keeps pods away and is not the revision's doing: how it is told apart, and in whose words it is said."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime

import pytest

from pinn_operator.core.observed import Observed, Pod, Workload
from pinn_operator.core.rollout.trouble import pull_failure, trouble
from tests.story.kubelet import IMAGE_ABSENT, NO_CREDENTIALS, REGISTRY_AWAY, TOO_MANY

START = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("cause", "reason"),
    [
        ("its node does not report", "NodeNotReporting"),
        ("ContainersNotReady: containers with unready status: [istio-proxy]", "SidecarNotReady"),
        ('ReadinessGatesNotReady: the status of pod readiness gate "target-health.elbv2.k8s.aws/x" is not "True"',
         "ReadinessGateNotPassed"),
    ],
)  # fmt: skip
def test_who_keeps_a_pod_unready_although_its_container_is_ready_is_told_apart(cause: str, reason: str) -> None:
    pod = Pod("eu-bbbb-x-1", "bbbb", START, "Running", ready=False, node="n", started=True, unready_cause=cause)
    found = trouble(Observed({"bbbb": Workload("bbbb", 1, 0, 0, settled=True)}, (pod,)), "bbbb")
    assert found is not None
    assert (found.reason, found.text) == (reason, f"{cause} (pod eu-bbbb-x-1)")


def pulling(words: str) -> str | None:
    pod = Pod("p", "r", START, "Pending", ready=False, waiting_reason="ErrImagePull", waiting_message=words)
    return pull_failure(pod)


NAMES = [
    "registry/pinn:2", "registry/pinn:1.403", "registry/pinn:403", "registry/pinn:20240129", "registry/pinn:build-4290",
    "registry/authorization/pinn:2", "registry/typeof/pinn:2", "registry/timeouts/pinn:eof", "registry/http-status:429",
    "registry.internal:4031/pinn:2", "140312345678.dkr.ecr.eu-west-1.amazonaws.com/pinn:2", "pinn:timeout", "pinn:429",
    *(f"registry/pinn@sha256:{hashlib.sha256(bytes([seed])).hexdigest()}" for seed in range(64)),
]  # fmt: skip


@pytest.mark.parametrize("image", NAMES)
@pytest.mark.parametrize(
    ("words", "kind"),
    [
        (IMAGE_ABSENT, "absent"), (REGISTRY_AWAY, "away"), (NO_CREDENTIALS, "refused"), (TOO_MANY, "limited"),
        ('Back-off pulling image "{image}": ErrImagePull: ' + IMAGE_ABSENT, "absent"),
        ("Error response from daemon: manifest for {image} not found: manifest unknown: manifest unknown", "absent"),
        ("name unknown: repository {image} not found", "absent"),
        ("unexpected status from HEAD request to https://{image}: 403 Forbidden", "refused"),
        ("unexpected status code https://{image}: 401 ", "refused"),
    ],
    ids=range(9),
)  # fmt: skip
def test_what_an_image_is_called_does_not_change_what_its_registry_says(image: str, words: str, kind: str) -> None:
    assert pulling(words.format(image=image)) == kind


@pytest.mark.parametrize(
    ("words", "kind"),
    [
        ("reading manifest 403 in docker.io/library/pinn: manifest unknown", "absent"),
        ("no matching manifest for linux/arm64/v8 in the manifest list entries", "absent"),
        ('failed to pull and unpack image "r/p:2": no match for platform in manifest: not found', "absent"),
        ("unexpected status from HEAD request to https://mirror/v2/p/manifests/2?ns=r: 404 Not Found", "absent"),
        ("unexpected status from HEAD request to https://r/v2/p/manifests/2: 503 Service Unavailable", "away"),
        ("failed to do request: Head: dial tcp: lookup registry: no such host", "away"),
        ("failed to copy: read: unexpected EOF", "away"),
        ("failed to extract layer sha256:aa: write /var/lib/x: no space left on device", "away"),
        ("tls: failed to verify certificate: x509: certificate signed by unknown authority", "away"),
        ("407 Proxy Authentication Required", "refused"),
        ('Back-off pulling image "registry/pinn:2"', "away"),
    ],
)  # fmt: skip
def test_what_a_registry_says_is_understood(words: str, kind: str) -> None:
    assert pulling(words) == kind
