"""The inference image as a pod, restricted like those of the operator: it verifies, trains and serves by TensorFlow."""

from __future__ import annotations

import math
import random
from typing import Any

import pytest

from lab.kube import Kube, Manifest, is_ready, wait_until
from lab.line import Line
from lab.pricing import random_option

BATCH = 20_000
"""Options: enough for TensorFlow, which leaves small batches to NumPy."""


def pod(name: str, namespace: str, image: str, words: list[str]) -> Manifest:
    """A pod that runs the image's entry point with these words, and is not started again."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "restartPolicy": "Never",
            "automountServiceAccountToken": False,
            "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [
                {
                    "name": "inference",
                    "image": image,
                    "imagePullPolicy": "IfNotPresent",
                    "args": words,
                    "ports": [{"containerPort": 8000}],
                    "readinessProbe": {
                        "httpGet": {"path": "/health/deployment/readiness", "port": 8000},
                        "periodSeconds": 1,
                    },
                    "resources": {"requests": {"cpu": "10m", "memory": "256Mi"}, "limits": {"memory": "1536Mi"}},
                    "securityContext": {
                        "allowPrivilegeEscalation": False,
                        "readOnlyRootFilesystem": True,
                        "capabilities": {"drop": ["ALL"]},
                    },
                    "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],
                }
            ],
            "volumes": [{"name": "tmp", "emptyDir": {}}],
        },
    }


def start(kube: Kube, name: str, namespace: str, image: str, words: list[str]) -> None:
    """Creates the pod; a namespace that was made this moment gets its service account a moment later."""
    kube.kubectl("wait", "--for=create", "serviceaccount/default", "-n", namespace, "--timeout=30s")
    kube.apply(pod(name, namespace, image, words))


def finished(kube: Kube, name: str, namespace: str) -> tuple[str, str]:
    """Phase and log of a pod once its container has ended."""

    def phase() -> str:
        found = kube.get("pods", name, namespace)
        now: str = found["status"].get("phase", "") if found else ""
        return now if now in ("Succeeded", "Failed") else ""

    ended = wait_until(f"pod {name} to end", phase, seconds=400)
    return ended, kube.kubectl("logs", name, "-n", namespace)


class TestTheInferenceImage:
    @pytest.mark.parametrize("model", ["european", "american"])
    def test_it_verifies_its_own_model(self, line: Line, namespace: str, turn: None, model: str) -> None:
        name = f"verify-{model}"
        start(line.kube, name, namespace, line.images.inference, ["verify", model])
        phase, log = finished(line.kube, name, namespace)
        assert phase == "Succeeded", log

    def test_it_trains_a_model(self, line: Line, namespace: str, turn: None) -> None:
        words = ["train", "--output", "/tmp/model", "--iterations", "40", "--tolerance", "1"]
        start(line.kube, "train", namespace, line.images.inference, words)
        phase, log = finished(line.kube, "train", namespace)
        assert phase == "Succeeded", log
        assert "wrote /tmp/model" in log

    def test_its_batch_process_loads_tensorflow_and_prices_by_it(self, line: Line, namespace: str, turn: None) -> None:
        kube = line.kube
        start(kube, "serve", namespace, line.images.inference, ["serve"])
        wait_until("a ready pod", lambda: is_ready(kube.get("pods", "serve", namespace) or {}), seconds=60)
        proxy = f"/api/v1/namespaces/{namespace}/pods/serve:8000/proxy"

        def tensorflow() -> Any:
            found = kube.request("GET", f"{proxy}/health/detailed").body["components"]["tensorflow"]
            return found if found["status"] == "healthy" else None

        loaded = wait_until("TensorFlow in the batch process", tensorflow, seconds=180)
        assert loaded["gpu_available"] is False
        source = random.Random(4)
        options = [random_option(source) for _ in range(BATCH)]
        answer = kube.request("POST", f"{proxy}/v1/price", {"options": [option.body() for option in options]})
        results = answer.body["results"]
        assert len(results) == BATCH
        assert {result["method"] for result in results} == {"pinn"}
        assert all(option.is_price(result["price"]) for option, result in zip(options, results, strict=True))
        assert all(math.isfinite(result["gamma"]) for result in results)
