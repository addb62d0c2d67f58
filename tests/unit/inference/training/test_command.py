"""`pinn-inference train` and `verify`, from options to files and exit codes."""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pinn_inference.pricing import artefact
from pinn_inference.pricing.model import bundled_directory, load_numpy_model
from pinn_inference.pricing.network import Architecture
from pinn_inference.pricing.tensorflow_engine import COLUMNS
from pinn_inference.tensorflow_runtime import load_tensorflow
from pinn_inference.training import plot
from pinn_inference.training.accuracy import sample_options
from pinn_inference.training.checkpoint import CHECKPOINT_FILE, Checkpoint, CheckpointError, Progress
from pinn_inference.training.cli import add_parsers
from pinn_inference.training.trainer import TrainingConfig, thin, train


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
    assert model.record["measured_domain"]["price"] > 0.0
    assert model.record["style"] == "european"
    assert (tmp_path / "m" / "loss.png").stat().st_size > 1000
    assert sorted(path.name for path in (tmp_path / "m").iterdir()) == [
        "loss.png",
        "model.json",
        "saved_model",
        "weights.npz",
    ]


def test_a_model_that_misses_the_tolerance_is_not_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("train", "--output", tmp_path / "m", *SMALL) == 1
    assert "no model was written" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "m").iterdir()] == [CHECKPOINT_FILE], (
        "to go on from, with more iterations"
    )


def settings(**changes: Any) -> TrainingConfig:
    given = {"iterations": 12, "interior_points": 128, "boundary_points": 16}
    return TrainingConfig(architecture=Architecture(hidden=(6, 5)), **(given | changes))


def test_an_interrupted_training_goes_on_to_the_same_weights(tmp_path: Path) -> None:
    """Interrupted twice, at whatever step; the second time from a checkpoint that was itself resumed."""
    whole = train(settings(), report=lambda progress: None)

    def interrupt(at: int) -> Any:
        def report(progress: Progress) -> None:
            if progress.iteration == at:
                raise KeyboardInterrupt

        return report

    path = tmp_path / CHECKPOINT_FILE
    for at in (5, 9):
        resume = Checkpoint.read(path) if path.exists() else None
        with pytest.raises(KeyboardInterrupt):
            train(settings(), report=interrupt(at), resume=resume, save=lambda state: state.write(path))
        assert Checkpoint.read(path).course[-1].iteration == at
    resumed = train(settings(), report=lambda progress: None, resume=Checkpoint.read(path))
    assert resumed.network.to_vector().tolist() == whole.network.to_vector().tolist()
    assert [at.loss for at in resumed.course] == [at.loss for at in whole.course]
    assert [at.iteration for at in resumed.course] == list(range(1, 13))
    seconds = [at.seconds for at in resumed.course]
    assert seconds == sorted(seconds)


def test_a_training_that_was_terminated_is_continued_by_the_same_command(tmp_path: Path) -> None:
    """As a pod is: SIGTERM, and later the same command with --resume."""
    options = ["--iterations", "100", *SMALL[2:], "--tolerance", "1e9"]
    command = [sys.executable, "-u", "-m", "pinn_inference", "train", "--resume", *options, "--output"]
    # The rest as here: what the linear algebra is told of the processor decides the last bits.
    environment = {**os.environ, "PYTHONPATH": str(bundled_directory().parents[2]), "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(
        [*command, str(tmp_path / "m")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        cwd=tmp_path,
    )
    assert process.stdout is not None
    assert process.stdout.readline().startswith("training")
    assert "iteration     1/100" in process.stdout.readline()
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 143
    assert "--resume goes on from" in errors
    assert run("train", "--resume", "--output", tmp_path / "m", *options) == 0
    assert run("train", "--output", tmp_path / "whole", *options) == 0
    resumed, whole = (artefact.read(tmp_path / name) for name in ("m", "whole"))
    assert resumed.record["training"]["iterations"] == whole.record["training"]["iterations"] == 100
    assert resumed.sha256 == whole.sha256
    assert not (tmp_path / "m" / CHECKPOINT_FILE).exists()


def test_more_iterations_continue_a_training_that_missed_the_tolerance(tmp_path: Path) -> None:
    assert run("train", "--output", tmp_path / "m", *SMALL) == 1
    more = ("--iterations", "20", *SMALL[2:], "--tolerance", "1e9")
    assert run("train", "--output", tmp_path / "m", *more, "--resume") == 0
    assert run("train", "--output", tmp_path / "whole", *more) == 0
    assert artefact.read(tmp_path / "m").sha256 == artefact.read(tmp_path / "whole").sha256


def test_an_unfinished_training_is_neither_dropped_nor_mixed_up(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("train", "--output", tmp_path / "m", *SMALL) == 1
    capsys.readouterr()
    assert run("train", "--output", tmp_path / "m", *SMALL) == 2
    assert "--resume continues it, --overwrite drops it" in capsys.readouterr().err
    assert run("train", "--output", tmp_path / "m", *SMALL, "--resume", "--seed", "3") == 2
    assert "the unfinished training has seed 0, not 3" in capsys.readouterr().err
    assert run("train", "--output", tmp_path / "m", *SMALL, "--overwrite", "--seed", "3", "--tolerance", "1e9") == 0
    assert artefact.read(tmp_path / "m").record["training"]["seed"] == 3


def test_resume_begins_anew_where_there_is_nothing_to_continue(tmp_path: Path) -> None:
    assert run("train", "--output", tmp_path / "m", *SMALL, "--resume", "--tolerance", "1e9") == 0
    assert (tmp_path / "m" / "model.json").exists()


@pytest.mark.parametrize("content", [b"", b"no archive", b"PK\x03\x04"])
def test_a_file_that_is_no_checkpoint_is_refused_with_its_path(
    tmp_path: Path, content: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / CHECKPOINT_FILE).write_bytes(content)
    assert run("train", "--output", tmp_path, *SMALL, "--resume") == 2
    assert f"{tmp_path / CHECKPOINT_FILE} is not a checkpoint" in capsys.readouterr().err


def test_a_checkpoint_survives_the_way_to_disk_and_back(tmp_path: Path) -> None:
    course = tuple(Progress(iteration=i, loss=0.1 / i, damping=3.0**-i, seconds=float(i)) for i in range(1, 4))
    state = Checkpoint({"seed": 1, "hidden": [3, 2]}, np.array([0.1, -0.2]), 1e-9, 2.5, course)
    state.write(tmp_path / "c.npz")
    again = Checkpoint.read(tmp_path / "c.npz")
    assert again.parameters.tolist() == state.parameters.tolist()
    assert replace(again, parameters=state.parameters) == state
    with pytest.raises(CheckpointError, match=r"has hidden \[3, 2\], not \[4\]"):
        again.require({"seed": 1, "hidden": [4]})
    assert [path.name for path in tmp_path.iterdir()] == ["c.npz"]


def test_the_saved_model_s_signature_gives_the_model_s_quotes(tmp_path: Path) -> None:
    assert run("train", "--output", tmp_path / "m", *SMALL, "--tolerance", "1e9") == 0
    check_saved_model(tmp_path / "m")


def test_the_shipped_saved_model_gives_the_shipped_model_s_quotes() -> None:
    check_saved_model(bundled_directory())


def check_saved_model(directory: Path) -> None:
    tf = load_tensorflow()
    signature = tf.saved_model.load(str(directory / "saved_model")).signatures["serving_default"]
    batch = sample_options(500, seed=4)
    batch.volatility[:3] = [0.0, 1e-12, 20.0]
    batch.maturity[:3] = 1.0
    answer = signature(**{name: tf.constant(getattr(batch, name)) for name in (*COLUMNS, "is_call")})
    quotes = load_numpy_model(directory).price(batch)
    assert sorted(answer) == ["delta", "error_bound", "gamma", "price", "rho", "theta", "vega"]
    for name, found in answer.items():
        assert found.dtype == tf.float64
        assert np.isnan(found.numpy()[:3]).all(), "outside the domain nothing answers instead"
        assert found.numpy()[3:] == pytest.approx(getattr(quotes, name)[3:], rel=1e-11, abs=1e-11), name
    recorded = artefact.read(directory).record["files"]
    assert "saved_model/saved_model.pb" in recorded
    for name, digest in recorded.items():
        assert hashlib.sha256((directory / name).read_bytes()).hexdigest() == digest, name


def test_american_training_is_another_module_s(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    with pytest.raises(SystemExit):
        run("train", "--output", tmp_path, "--style", "bermudan")
    assert "'european', 'american'" in capsys.readouterr().err


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


def test_the_shipped_model_passes_every_check_and_its_report_shows_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    digest = artefact.read(bundled_directory()).sha256
    assert run("verify", bundled_directory(), "--sha256", digest, "--report", tmp_path / "report") == 0
    shown = capsys.readouterr().out
    assert "checks passed" in shown
    assert "FAIL" not in shown
    for name in ("files and checksum", "other files", "golden", "residual", "certified error bound", "parity"):
        assert name in shown
    for name in ("butterfly", "calendar", "vertical", "two evaluations give equal bits", "SavedModel agrees"):
        assert name in shown
    report = json.loads((tmp_path / "report" / "report.json").read_text())
    assert report["passed"] is True
    assert report["model"]["sha256"] == digest
    assert len(report["checks"]) == len(shown.splitlines()) - 2
    page = (tmp_path / "report" / "report.html").read_text()
    assert page.count('<tr class="passed">') == len(report["checks"])
    assert "http" not in page, "the page needs no other file"
    assert (tmp_path / "report" / "error-map.png").read_bytes()[:4] == b"\x89PNG"
    assert len(re.findall(r"data:image/png;base64,[A-Za-z0-9+/]{1000}", page)) == 1


def test_without_matplotlib_the_report_says_so_and_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    monkeypatch.setitem(sys.modules, "matplotlib.colors", None)
    model = load_numpy_model(bundled_directory())
    assert plot.plot_errors(model, tmp_path / "map.png") is None
    assert plot.plot_loss([], tmp_path / "loss.png") is None
    assert list(tmp_path.iterdir()) == []


def test_a_report_of_a_model_that_cannot_be_read_is_written_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("verify", tmp_path / "<none>", "--report", tmp_path / "report") == 1
    assert sorted(path.name for path in (tmp_path / "report").iterdir()) == ["report.html", "report.json"]
    page = (tmp_path / "report" / "report.html").read_text()
    assert '<tr class="failed">' in page
    assert "&lt;none&gt;" in page


def test_a_report_that_cannot_be_written_fails_the_verification(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    assert run("verify", tmp_path / "none", "--report", tmp_path / "file" / "report") == 1
    assert "no report was written" in capsys.readouterr().err


def test_verify_notices_a_saved_model_that_was_changed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(bundled_directory(), tmp_path / "m")
    path = tmp_path / "m" / "saved_model" / "saved_model.pb"
    path.write_bytes(path.read_bytes()[:-100])
    assert run("verify", tmp_path / "m", "--json") == 1
    report = json.loads(capsys.readouterr().out)
    failed = {check["name"]: check["detail"] for check in report["checks"] if not check["passed"]}
    assert failed.keys() == {"other files", "SavedModel agrees"}
    assert "saved_model/saved_model.pb" in failed["other files"]


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
    assert {
        "certified error bound",
        "price against closed form",
        "golden: at the money call",
        "sampled Greeks",
    } <= failed
    passed = {check["name"] for check in report["checks"] if check["passed"]}
    assert {"files and checksum", "certificate is this network's", "bound holds", "put-call parity"} <= passed
