"""docs/reference.md is what the CRD says, and its examples are right."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from lab.kube import REPOSITORY, Manifest
from pinn_operator.core.api import parse_resource
from pinn_operator.core.wanted.spec import Spec
from tests.support import crd

EXAMPLES = sorted((REPOSITORY / "docs" / "examples").glob("*.yaml"))


def example(name: str) -> Manifest:
    manifest: Manifest = yaml.safe_load((REPOSITORY / "docs" / "examples" / f"{name}.yaml").read_text())
    return manifest


def test_the_reference_is_current() -> None:
    command = [sys.executable, str(REPOSITORY / "docs" / "generate_reference.py"), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_parses(path: Path) -> None:
    for manifest in yaml.safe_load_all(path.read_text()):
        spec = parse_resource(manifest).spec
        assert isinstance(spec, Spec), [str(error) for error in spec.errors]
        crd.validator("spec").validate(manifest["spec"])


def test_the_complete_example_shows_every_block() -> None:
    """Whatever the CRD has at the first two levels is in the example, except alternatives to what is shown."""
    shown = example("complete")["spec"]
    for name, node in crd.schema("spec")["properties"].items():
        assert name in shown
        missing = set(node.get("properties", {})) - set(shown[name] if isinstance(shown[name], dict) else [])
        assert missing <= {"bundled"}, f"{name}: {missing}"
