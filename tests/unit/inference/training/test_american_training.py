"""`pinn-inference train --style american` and `verify` of what it wrote."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pinn_inference.pricing.american_artefact import PERCEPTRONS, read_american
from pinn_inference.training import american_cli
from pinn_inference.training.american_trainer import AmericanTrainingConfig, train_american
from pinn_inference.training.checkpoint import Checkpoint, Progress
from tests.unit.inference.training.test_command import run

SMALL = ("--style", "american", "--hidden", "4", "--interior-points", "100", "--boundary-points", "80")
CONFIG = AmericanTrainingConfig(
    boundary_hidden=(4,),
    premium_hidden=(4,),
    boundary_points=80,
    premium_points=100,
    carry_hidden=(4,),
    carry_points=100,
    boundary_iterations=(3, 2),
    premium_iterations=(2, 2),
    carry_iterations=(1, 2, 2),
    refine=10,
    threads=1,
)


class Stop(Exception):
    """Ends a training in its middle."""


def ignore(_stage: str, _progress: Progress) -> None:
    """Shows nothing."""


@pytest.mark.parametrize("stop_after", [2, 3, 6, 8, 10, 12])
def test_a_resumed_training_ends_with_the_weights_of_one_that_was_not_interrupted(
    tmp_path: Path, stop_after: int
) -> None:
    def interrupt(_stage: str, progress: Progress) -> None:
        if progress.iteration == stop_after:
            raise Stop

    whole = train_american(CONFIG, report=ignore)
    path = tmp_path / "checkpoint.npz"
    with pytest.raises(Stop):
        train_american(CONFIG, report=interrupt, save=lambda state: state.write(path))
    resumed = train_american(CONFIG, report=ignore, resume=Checkpoint.read(path))
    assert [at.iteration for at in resumed.course] == [at.iteration for at in whole.course]
    for name in PERCEPTRONS:
        for one, other in zip(getattr(whole.networks, name), getattr(resumed.networks, name), strict=True):
            assert one.kernel.tolist() == other.kernel.tolist()
            assert one.bias.tolist() == other.bias.tolist()


def test_a_short_training_is_written_and_its_verification_condemns_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(american_cli, "_MEASURED", 500)
    output = tmp_path / "m"
    assert run("train", "--output", output, *SMALL, "--iterations", "10", "--tolerance", "1e9", "--name", "desk") == 0
    shown = capsys.readouterr().out
    assert "boundary 1/3  iteration     1/10" in shown
    assert "certified error bound" in shown
    model = read_american(output)
    assert model.name == "desk"
    assert model.record["training"]["iterations"] == 10
    assert model.record["measured"]["options"] == 500
    assert (output / "saved_model" / "saved_model.pb").is_file()
    assert not (output / "checkpoint.npz").exists()
    assert run("train", "--output", output, *SMALL) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert run("verify", output, "--json") == 1
    report = json.loads(capsys.readouterr().out)
    failed = {check["name"] for check in report["checks"] if not check["passed"]}
    assert {"certified error bound", "price against the integral equation", "golden: put at the money"} <= failed
    passed = {check["name"] for check in report["checks"] if check["passed"]}
    assert {
        "files and checksum",
        "other files",
        "certificate is this network's",
        "single quotes agree",
        "value meets the payoff",
        "smooth pasting",
        "calls are puts exchanged",
    } <= passed


def test_a_model_that_misses_the_tolerance_is_not_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("train", "--output", tmp_path / "m", *SMALL, "--iterations", "10") == 1
    assert "no model was written" in capsys.readouterr().err
    assert not (tmp_path / "m" / "model.json").exists()


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--iterations", "9", "iterations is 9, it must be at least 10"),
        ("--seconds", "5", "--seconds does not go with --style american"),
        ("--hidden", "0", "hidden is (0,)"),
        ("--interior-points", "2", "premium_points is 2"),
        ("--boundary-points", "2", "boundary_points is 2"),
        ("--threads", "0", "threads is 0"),
    ],
)
def test_an_option_that_does_not_fit_is_refused_by_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], option: str, value: str, message: str
) -> None:
    assert run("train", "--style", "american", "--output", tmp_path / "m", f"{option}={value}") == 2
    assert message in capsys.readouterr().err
