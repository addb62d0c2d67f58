"""The commands `pinn-inference train` and `pinn-inference verify`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Final

from pinn_inference.pricing import artefact as artefacts
from pinn_inference.pricing.artefact import EUROPEAN, Artefact, bundled_directory
from pinn_inference.pricing.certificate import Certificate, certify
from pinn_inference.pricing.engine import NumPyEngine
from pinn_inference.pricing.errors import ModelError, ModelNotFoundError
from pinn_inference.pricing.model import PinnModel
from pinn_inference.pricing.network import Architecture
from pinn_inference.training import saved_model
from pinn_inference.training.accuracy import measure, measure_domain
from pinn_inference.training.checkpoint import CHECKPOINT_FILE, CheckpointError
from pinn_inference.training.plot import plot_loss
from pinn_inference.training.session import (
    LOSS_FILE,
    claim,
    interrupted,
    print_accuracy,
    print_report,
    progress_printer,
)
from pinn_inference.training.trainer import TrainingConfig, TrainingResult, train
from pinn_inference.training.verification import BOUND_TOLERANCE, verify

STYLES: Final = (EUROPEAN, "american")


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
        "The same options give the same weights on one kind of processor. An interrupted training is continued by the "
        "same command with --resume.",
    )
    parser.add_argument("--style", choices=STYLES, default=EUROPEAN, help="of exercise (default: %(default)s)")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="where the model is written")
    parser.add_argument("--overwrite", action="store_true", help="replace what DIR already holds")
    parser.add_argument("--resume", action="store_true", help="continue an unfinished training in DIR, if there is one")
    parser.add_argument("--name", help="name of the model (default: its style)")
    parser.add_argument("--model-version", help="version of the model (default: the first 12 digits of its checksum)")
    parser.add_argument("--seed", type=int, default=defaults.seed, help="(default: %(default)s)")
    parser.add_argument(
        "--iterations", type=int, help=f"at most (default: {defaults.iterations}); American: all stages together"
    )
    parser.add_argument(
        "--seconds", type=float, help="European only: stop after this time; the result then depends on the machine"
    )
    parser.add_argument(
        "--hidden", type=_widths, metavar="W,W,…", help="widths of the hidden layers (default: 16,16, American: 20,20)"
    )
    parser.add_argument(
        "--interior-points", type=int, help=f"for the equation (default: {defaults.interior_points}, American: 8000)"
    )
    parser.add_argument(
        "--boundary-points",
        type=int,
        help=f"at the money (default: {defaults.boundary_points}); American: on the exercise boundary (default: 3000)",
    )
    parser.add_argument("--threads", type=int, help=f"(default: {defaults.threads}, American: 2)")
    parser.add_argument(
        "--tolerance",
        type=float,
        help="largest certified error with which a model is written, in units of D·√(FK) "
        f"(default: {BOUND_TOLERANCE}), American: of the strike (default: 1e-4)",
    )
    parser.set_defaults(run=run_train)


def _add_verify(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = subparsers.add_parser(
        "verify",
        help="check a model",
        description="Check a model directory: checksums, golden prices, residual, certificate, determinism, accuracy, "
        "no-arbitrage. "
        "The exit code is 0 when every check passed, else 1.",
    )
    parser.add_argument("directory", type=_model, metavar="DIR", help="the model directory, or a bundled model's name")
    parser.add_argument("--sha256", metavar="HEX", help="what the checksum of weights.npz must be")
    parser.add_argument(
        "--tolerance",
        type=float,
        help=f"largest certified error, as for train (default: {BOUND_TOLERANCE}, American: 1e-4)",
    )
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    parser.add_argument("--report", type=Path, metavar="DIR", help="also write it there: JSON, a page, a map of errors")
    parser.set_defaults(run=run_verify)


def run_train(arguments: argparse.Namespace) -> int:
    """Trains, certifies and writes.

    0 when written, 1 when the result misses the tolerance, 2 for senseless options, 130 when interrupted.
    """
    if arguments.style != EUROPEAN:
        return _american("run_train", arguments)
    output: Path = arguments.output
    tolerance = BOUND_TOLERANCE if arguments.tolerance is None else arguments.tolerance
    try:
        config = _config(arguments)
        checkpoint = claim(output, config.settings(), overwrite=arguments.overwrite, resume=arguments.resume)
    except (ValueError, OSError, CheckpointError) as error:
        print(f"pinn-inference train: {error}", file=sys.stderr)
        return 2
    print(
        f"training {config.architecture.parameter_count} parameters on {config.interior_points} points of the equation "
        f"and {config.boundary_points} at the money; seed {config.seed}, at most {config.iterations} iterations"
        + (f"; going on after iteration {checkpoint.course[-1].iteration}" if checkpoint else ""),
        flush=True,
    )
    path = output / CHECKPOINT_FILE
    try:
        result = train(
            config,
            report=partial(progress_printer(config.iterations), ""),
            resume=checkpoint,
            save=lambda state: state.write(path),
        )
    except (KeyboardInterrupt, SystemExit) as interruption:
        return interrupted(interruption, output)
    print(
        f"{'ended at a minimum' if result.converged else 'done'} after {result.course[-1].iteration} iterations, "
        f"{result.course[-1].seconds:.1f} s, {result.cpu_seconds:.1f} s of processor time; certifying …",
        flush=True,
    )
    certificate = certify(result.network)
    if not certificate.error_bound <= tolerance:
        print(
            f"pinn-inference train: the certified error bound is {certificate.error_bound:.2e}, the tolerance is "
            f"{tolerance:.2e}: no model was written. Go on with --resume and more --iterations, or give a larger "
            "--tolerance.",
            file=sys.stderr,
        )
        return 1
    return _write(output, arguments, result, certificate)


def run_verify(arguments: argparse.Namespace) -> int:
    """Prints the report; 0 when every check passed, else 1."""
    if _style(arguments.directory) != EUROPEAN:
        return _american("run_verify", arguments)
    tolerance = BOUND_TOLERANCE if arguments.tolerance is None else arguments.tolerance
    report = verify(arguments.directory, expected_sha256=arguments.sha256, tolerance=tolerance)
    return print_report(report, as_json=arguments.json, directory=arguments.report)


def _model(text: str) -> Path:
    """A directory, or the name of a bundled model where there is no such directory."""
    directory = Path(text)
    if not directory.exists():
        with suppress(ModelNotFoundError):
            return bundled_directory(text)
    return directory


def _style(directory: Path) -> str:
    """The style of a model, European where that cannot be read: the verification then says why."""
    try:
        return artefacts.style_of(directory)
    except ModelError:
        return EUROPEAN


def _american(command: str, arguments: argparse.Namespace) -> int:
    """The same command for American options."""
    run: Callable[[argparse.Namespace], int] = getattr(import_module("pinn_inference.training.american_cli"), command)
    return run(arguments)


def _config(arguments: argparse.Namespace) -> TrainingConfig:
    """The options that were given, and the defaults for the others; raises ValueError, naming the field."""
    given = {
        name: getattr(arguments, name)
        for name in ("seed", "iterations", "seconds", "interior_points", "boundary_points", "threads")
        if getattr(arguments, name) is not None
    }
    if arguments.hidden is not None:
        given["architecture"] = Architecture(hidden=arguments.hidden)
    return TrainingConfig(**given)


def _write(output: Path, arguments: argparse.Namespace, result: TrainingResult, certificate: Certificate) -> int:
    """Measures and writes the model, the record last, and says what was written; the checkpoint has served."""
    name = arguments.name or EUROPEAN
    draft = Artefact(name=name, version="draft", sha256="", network=result.network, certificate=certificate, record={})
    model = PinnModel(draft, (NumPyEngine(result.network, certificate),))
    accuracy, domain = measure(model), measure_domain(model)
    exported = output / saved_model.DIRECTORY
    saved_model.export(exported, result.network, certificate)
    artefact = artefacts.write(
        output,
        name=name,
        version=arguments.model_version,
        network=result.network,
        certificate=certificate,
        record={
            "files": saved_model.checksums(exported),
            "measured": accuracy.record(),
            "measured_domain": domain.record(),
            "training": result.record(),
        },
    )
    picture = plot_loss(result.course, output / LOSS_FILE)
    (output / CHECKPOINT_FILE).unlink(missing_ok=True)
    print(f"wrote {output}: {artefact.name} {artefact.version}, sha256 {artefact.sha256}")
    print(f"certified error bound {certificate.error_bound:.2e} · D·√(FK)")
    print_accuracy("random options", accuracy.record())
    print_accuracy("options of the stated domain", domain.record())
    print(f"loss curve in {output / artefacts.RECORD_FILE}" + (f" and {picture}" if picture else ""))
    return 0


def _widths(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of widths such as 16,16") from None
