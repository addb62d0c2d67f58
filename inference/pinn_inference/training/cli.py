"""The commands `pinn-inference train` and `pinn-inference verify`."""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Final

from pinn_inference.pricing import artefact as artefacts
from pinn_inference.pricing.artefact import Artefact
from pinn_inference.pricing.certificate import Certificate, certify
from pinn_inference.pricing.engine import NumPyEngine
from pinn_inference.pricing.model import PinnModel
from pinn_inference.pricing.network import Architecture, Network
from pinn_inference.training.accuracy import Accuracy, measure
from pinn_inference.training.plot import plot_loss
from pinn_inference.training.trainer import Progress, TrainingConfig, train
from pinn_inference.training.verification import BOUND_TOLERANCE, VerificationReport, verify

_PROGRESS_SECONDS: Final = 5.0


def add_parsers(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Registers `train` and `verify`; each sets `run`, which takes the parsed arguments and returns the exit code."""
    _add_train(subparsers)
    _add_verify(subparsers)


def _add_train(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    defaults = TrainingConfig()
    parser = subparsers.add_parser(
        "train",
        help="train a model",
        description="Train a network on the pricing equation alone, certify it and write it as a model directory. "
        "The same options give the same weights on one kind of processor.",
    )
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="where the model is written")
    parser.add_argument("--overwrite", action="store_true", help="replace a model that DIR already holds")
    parser.add_argument("--name", default="european", help="name of the model (default: %(default)s)")
    parser.add_argument("--model-version", help="version of the model (default: the first 12 digits of its checksum)")
    parser.add_argument("--seed", type=int, default=defaults.seed, help="(default: %(default)s)")
    parser.add_argument("--iterations", type=int, default=defaults.iterations, help="at most (default: %(default)s)")
    parser.add_argument("--seconds", type=float, help="stop after this time; the result then depends on the machine")
    parser.add_argument(
        "--hidden",
        type=_widths,
        default=defaults.architecture.hidden,
        metavar="W,W,…",
        help="widths of the hidden layers (default: 16,16)",
    )
    parser.add_argument(
        "--interior-points", type=int, default=defaults.interior_points, help="for the equation (default: %(default)s)"
    )
    parser.add_argument(
        "--boundary-points", type=int, default=defaults.boundary_points, help="at the money (default: %(default)s)"
    )
    parser.add_argument("--threads", type=int, default=defaults.threads, help="(default: %(default)s)")
    parser.add_argument(
        "--tolerance",
        type=float,
        default=BOUND_TOLERANCE,
        help="largest certified error, in units of D·√(FK), with which a model is written (default: %(default)s)",
    )
    parser.set_defaults(run=run_train)


def _add_verify(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = subparsers.add_parser(
        "verify",
        help="check a model",
        description="Check a model directory: checksum, golden prices, residual, certificate, accuracy, no-arbitrage. "
        "The exit code is 0 when every check passed, else 1.",
    )
    parser.add_argument("directory", type=Path, metavar="DIR", help="the model directory")
    parser.add_argument("--sha256", metavar="HEX", help="what the checksum of weights.npz must be")
    parser.add_argument(
        "--tolerance",
        type=float,
        default=BOUND_TOLERANCE,
        help="largest certified error in units of D·√(FK) (default: %(default)s)",
    )
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    parser.set_defaults(run=run_verify)


def run_train(arguments: argparse.Namespace) -> int:
    """Trains, certifies and writes; 0 when written, 1 when the result misses the tolerance, 2 for senseless options."""
    output: Path = arguments.output
    try:
        config = TrainingConfig(
            seed=arguments.seed,
            iterations=arguments.iterations,
            seconds=arguments.seconds,
            architecture=Architecture(hidden=arguments.hidden),
            interior_points=arguments.interior_points,
            boundary_points=arguments.boundary_points,
            threads=arguments.threads,
        )
        _claim(output, overwrite=arguments.overwrite)
    except (ValueError, OSError) as error:
        print(f"pinn-inference train: {error}", file=sys.stderr)
        return 2
    print(
        f"training {config.architecture.parameter_count} parameters on {config.interior_points} points of the equation "
        f"and {config.boundary_points} at the money; seed {config.seed}, at most {config.iterations} iterations",
        flush=True,
    )
    result = train(config, report=_progress_printer(config.iterations))
    print(
        f"{'ended at a minimum' if result.converged else 'done'} after {result.course[-1].iteration} iterations, "
        f"{result.course[-1].seconds:.1f} s, {result.cpu_seconds:.1f} s of processor time; certifying …",
        flush=True,
    )
    certificate = certify(result.network)
    if not certificate.error_bound <= arguments.tolerance:
        print(
            f"pinn-inference train: the certified error bound is {certificate.error_bound:.2e}, the tolerance is "
            f"{arguments.tolerance:.2e}: nothing was written. Train longer, or give a larger --tolerance.",
            file=sys.stderr,
        )
        return 1
    accuracy = _measured(arguments.name, result.network, certificate)
    artefact = artefacts.write(
        output,
        name=arguments.name,
        version=arguments.model_version,
        network=result.network,
        certificate=certificate,
        record={"measured": accuracy.record(), "training": result.record()},
    )
    picture = plot_loss(result.course, output / "loss.png")
    print(f"wrote {output}: {artefact.name} {artefact.version}, sha256 {artefact.sha256}")
    print(f"certified error bound {certificate.error_bound:.2e} · D·√(FK)")
    for name, value in artefact.record["measured"].items():
        print(f"  measured {name:15s} {value:g}")
    print(f"loss curve in {output / artefacts.RECORD_FILE}" + (f" and {picture}" if picture else ""))
    return 0


def run_verify(arguments: argparse.Namespace) -> int:
    """Prints the report; 0 when every check passed, else 1."""
    report = verify(arguments.directory, expected_sha256=arguments.sha256, tolerance=arguments.tolerance)
    print(_as_json(report) if arguments.json else _as_text(report))
    return 0 if report.passed else 1


def _measured(name: str, network: Network, certificate: Certificate) -> Accuracy:
    """The accuracy of a network that is not on disk yet."""
    draft = Artefact(name=name, version="draft", sha256="", network=network, certificate=certificate, record={})
    return measure(PinnModel(draft, (NumPyEngine(network, certificate),)))


def _widths(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of widths such as 16,16") from None


def _claim(output: Path, *, overwrite: bool) -> None:
    """Finds out before the training whether its result can be written."""
    if (output / artefacts.RECORD_FILE).exists() and not overwrite:
        raise FileExistsError(f"{output} already holds a model; give another --output, or --overwrite")
    output.mkdir(parents=True, exist_ok=True)
    if not os.access(output, os.W_OK):
        raise PermissionError(f"{output} is not writable")


def _progress_printer(iterations: int) -> Callable[[Progress], None]:
    """Prints the first steps, then one line every five seconds."""
    printed_at = -_PROGRESS_SECONDS

    def report(progress: Progress) -> None:
        nonlocal printed_at
        if progress.seconds - printed_at < _PROGRESS_SECONDS and progress.iteration not in (1, iterations):
            return
        printed_at = progress.seconds
        print(
            f"iteration {progress.iteration:5d}/{iterations}  {progress.seconds:6.1f} s  loss {progress.loss:.3e}  "
            f"damping {progress.damping:.1e}",
            flush=True,
        )

    return report


def _as_json(report: VerificationReport) -> str:
    model = report.artefact
    return json.dumps(
        {
            "passed": report.passed,
            "directory": str(report.directory),
            "model": model and {"name": model.name, "version": model.version, "sha256": model.sha256},
            "checks": [
                {**asdict(check), "value": check.value if math.isfinite(check.value) else None}
                for check in report.checks
            ],
        },
        indent=1,
        allow_nan=False,
    )


def _as_text(report: VerificationReport) -> str:
    lines = [f"model {report.directory}"]
    if report.artefact is not None:
        lines[0] += f": {report.artefact.name} {report.artefact.version}"
    for check in report.checks:
        verdict = "ok  " if check.passed else "FAIL"
        lines.append(f"{verdict}  {check.name:46s} {check.value:9.2e} ≤ {check.limit:7.1e}  {check.detail}")
    failed = sum(not check.passed for check in report.checks)
    lines.append(
        f"{failed} of {len(report.checks)} checks failed" if failed else f"all {len(report.checks)} checks passed"
    )
    return "\n".join(lines)
