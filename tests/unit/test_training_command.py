"""`pinn-inference train` and `verify`, from options to files and exit codes."""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path

import pytest

from pinn_inference.pricing import artefact
from pinn_inference.pricing.model import bundled_directory
from pinn_inference.training.cli import add_parsers
from pinn_inference.training.trainer import Progress, TrainingConfig, thin


def run(*arguments: str | Path) -> int:
    parser = argparse.ArgumentParser()
    add_parsers(parser.add_subparsers(required=True))
    parsed = parser.parse_args([str(argument) for argument in arguments])
    code: int = parsed.run(parsed)
    return code


SMALL = ("--iterations", "12", "--hidden", "6,5", "--interior-points", "128", "--boundary-points", "16")


def test_a_seed_gives_the_same_weights_every_time_and_another_seed_others(tmp_path: Path) -> None:
    for name, seed in (("a", "7"), ("b", "7"), ("c", "8")):
        assert run("train", "--output", tmp_path / name, *SMALL, "--seed", seed, "--tolerance", "1e9") == 0
    digests = {name: artefact.read(tmp_path / name).sha256 for name in "abc"}
    assert digests["a"] == digests["b"] != digests["c"]


def test_training_shows_its_progress_and_keeps_its_record(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = run(
        "train", "--output", tmp_path / "m", *SMALL, "--tolerance", "1e9", "--name", "desk", "--model-version", "3"
    )
    assert code == 0
    shown = capsys.readouterr().out
    assert "iteration     1/12" in shown
    assert "iteration    12/12" in shown
    assert "certified error bound" in shown
    model = artefact.read(tmp_path / "m")
    assert (model.name, model.version) == ("desk", "3")
    training = model.record["training"]
    assert training["iterations"] == 12
    assert training["seed"] == 0
    losses = [point["loss"] for point in training["loss_curve"]]
    assert losses == sorted(losses, reverse=True)
    assert training["versions"].keys() >= {"tensorflow", "numpy", "python", "pinn-inference"}
    assert model.record["measured"]["price"] > 0.0
    assert (tmp_path / "m" / "loss.png").stat().st_size > 1000


def test_a_model_that_misses_the_tolerance_is_not_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("train", "--output", tmp_path / "m", *SMALL) == 1
    assert "nothing was written" in capsys.readouterr().err
    assert list((tmp_path / "m").iterdir()) == []


def test_a_model_is_not_overwritten_unless_asked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copy(bundled_directory() / "model.json", tmp_path / "model.json")
    assert run("train", "--output", tmp_path, *SMALL) == 2
    assert "--overwrite" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--iterations", "0", "iterations is 0"),
        ("--seconds", "-1", "seconds is -1.0"),
        ("--seed", "-4", "seed is -4"),
        ("--hidden", "16,0", "hidden is (16, 0)"),
        ("--interior-points", "2", "interior_points is 2"),
        ("--threads", "0", "threads is 0"),
    ],
)
def test_a_senseless_option_is_refused_by_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], option: str, value: str, message: str
) -> None:
    assert run("train", "--output", tmp_path / "m", f"{option}={value}") == 2
    assert message in capsys.readouterr().err


def test_a_time_limit_stops_the_training(tmp_path: Path) -> None:
    code = run("train", "--output", tmp_path / "m", *SMALL[2:], "--seconds", "0.01", "--tolerance", "1e9")
    assert code == 0
    assert artefact.read(tmp_path / "m").record["training"]["iterations"] < TrainingConfig().iterations


def test_the_loss_curve_is_thinned_with_its_ends_kept() -> None:
    course = tuple(Progress(iteration=i, loss=1.0 / i, damping=1.0, seconds=float(i)) for i in range(1, 5001))
    kept = thin(course, 100)
    assert len(kept) <= 100
    assert (kept[0].iteration, kept[-1].iteration) == (1, 5000)


def test_the_shipped_model_passes_every_check(capsys: pytest.CaptureFixture[str]) -> None:
    digest = artefact.read(bundled_directory()).sha256
    assert run("verify", bundled_directory(), "--sha256", digest) == 0
    shown = capsys.readouterr().out
    assert "checks passed" in shown
    assert "FAIL" not in shown
    for name in ("files and checksum", "golden", "residual", "certified error bound", "parity", "butterfly"):
        assert name in shown


def test_verify_reports_wrong_weights_and_fails(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("verify", bundled_directory(), "--sha256", "0" * 64, "--json") == 1
    report = json.loads(capsys.readouterr().out)
    assert report["passed"] is False
    assert report["model"] is None
    assert report["checks"][0]["detail"].startswith("ModelChecksumMismatch: ")


def test_verify_of_an_absent_model_fails_with_the_path(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("verify", tmp_path / "none") == 1
    assert "ModelNotFound" in capsys.readouterr().out


def test_verify_condemns_a_model_that_was_hardly_trained(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("train", "--output", tmp_path / "m", *SMALL, "--tolerance", "1e9") == 0
    capsys.readouterr()
    assert run("verify", tmp_path / "m", "--json") == 1
    report = json.loads(capsys.readouterr().out)
    failed = {check["name"] for check in report["checks"] if not check["passed"]}
    assert {"certified error bound", "price against closed form", "golden: at the money call"} <= failed
    passed = {check["name"] for check in report["checks"] if check["passed"]}
    assert {"files and checksum", "certificate is this network's", "bound holds", "put-call parity"} <= passed
