"""Schemathesis takes the served document at its word: what it allows, what it forbids, and what it says comes back."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.process import Process, serving

# JSON Schema cannot say that all lists of a request have one length, that a day is to come, nor where a shift leads:
# what it allows may be refused for that.
_CONFIG = """
[checks]
negative_data_rejection.expected-statuses = [400, 404, 405, 413]

[parameters]
"path.version" = "{version}"

[[operations]]
include-operation-id = ["price", "imply", "scenarios", "v2_infer", "v2_infer_version"]
checks.positive_data_acceptance.enabled = false
"""


@pytest.fixture(scope="module")
def server() -> Iterator[Process]:
    with serving("--max-batch", "1000", "--max-body-bytes", "1000000") as process:
        process.wait_until_ready()
        yield process


@pytest.mark.timeout(300)
def test_every_operation_takes_and_answers_what_the_document_says(server: Process, tmp_path: Path) -> None:
    _, models = server.get("/v2/models/european")
    config = tmp_path / "schemathesis.toml"
    config.write_text(_CONFIG.format(version=models["versions"][0]))
    schemathesis = Path(sys.executable).with_name("schemathesis")
    run = subprocess.run(
        [
            schemathesis, "--config-file", config, "run", f"http://127.0.0.1:{server.port}/openapi.json",
            "--phases", "examples,coverage,fuzzing", "--max-examples", "10", "--generation-deterministic",
            "--request-timeout", "20", "--no-color", "--warnings", "off",
        ],
        cwd=tmp_path, capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert run.returncode == 0, run.stdout[-20_000:] + run.stderr[-2000:]
    assert [entry for entry in server.logs if entry.get("level") == "error"] == []
