"""The commands that the documentation has for the inference image, by the entry point that the image has."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from pinn_inference import __main__ as command
from pinn_inference.pricing.artefact import bundled_directory
from pinn_inference.server import cli as server_cli
from pinn_inference.training import cli as training_cli

ROOT = Path(__file__).resolve().parents[4]
RUN = re.compile(r"docker run ([^`\n]*?)\bpinn-inference\b ?([^`\n]*)")


def image() -> tuple[list[str], list[str]]:
    """Entry point and default command."""
    text = (ROOT / "Dockerfile.inference").read_text()
    entry, default = (re.findall(rf"^{word} (\[.*\])$", text, re.MULTILINE)[-1] for word in ("ENTRYPOINT", "CMD"))
    return json.loads(entry), json.loads(default)


def documented() -> list[str]:
    """What follows the image's name in each `docker run` of the documentation."""
    pages = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
    return sorted({match[2].strip() for page in pages for match in RUN.finditer(page.read_text())})


def words_of(given: str) -> list[str]:
    """What `pinn-inference` is given by the image."""
    entry, default = image()
    name, *words = [*entry, *(shlex.split(given) or default)]
    assert name == "pinn-inference"
    return words


def test_the_documentation_serves_verifies_and_trains_in_the_image() -> None:
    assert {given.split()[0] for given in documented() if given} == {"serve", "verify", "train"}
    assert "" in documented()


@pytest.mark.parametrize("given", [*documented(), "--port 8001", "--drain-seconds 1"])
def test_each_command_is_understood(given: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    for module, names in ((server_cli, ("serve", "check")), (training_cli, ("run_train", "run_verify"))):
        for name in names:
            monkeypatch.setattr(module, name, lambda arguments, name=name: asked.append(name) or 0)
    assert command.main(words_of(given)) == 0
    wanted = given.split()[0] if given and not given.startswith("--") else "serve"
    assert [name.removeprefix("run_") for name in asked] == [wanted]


def test_verify_takes_a_bundled_model_by_its_name() -> None:
    assert training_cli._model("european") == bundled_directory("european")
    assert training_cli._model("no-such-model") == Path("no-such-model")


def test_a_wrong_word_is_told_with_the_commands_there_are() -> None:
    arguments = [sys.executable, "-m", "pinn_inference", *words_of("verfy european")]
    ended = subprocess.run(arguments, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 2
    assert "serve" in ended.stderr
    assert "verify" in ended.stderr
