"""`pinn-inference train --style american`, and `pinn-inference verify` of an American model."""

from __future__ import annotations

import argparse
import sys
from itertools import accumulate, chain, islice, pairwise
from pathlib import Path
from typing import Final

import numpy as np

from pinn_inference.pricing import artefact as artefacts
from pinn_inference.pricing.american import AmericanModel
from pinn_inference.pricing.american_artefact import GREEKS, STYLE, AmericanArtefact, write_american
from pinn_inference.pricing.american_certificate import certify_american
from pinn_inference.pricing.american_engine import NumPyAmericanEngine
from pinn_inference.pricing.american_network import BOUNDARY_INPUTS, PREMIUM_INPUTS, parameter_count
from pinn_inference.pricing.certificate import Certificate
from pinn_inference.pricing.model import bundled_directory, load_numpy_model
from pinn_inference.training import saved_model
from pinn_inference.training.american_accuracy import (
    exchanged,
    greek_bounds,
    measure_american,
    sample_american,
    sample_domain,
)
from pinn_inference.training.american_saved_model import export_american
from pinn_inference.training.american_trainer import (
    ITERATIONS,
    AmericanTrainingConfig,
    AmericanTrainingResult,
    train_american,
)
from pinn_inference.training.american_verification import BOUND_TOLERANCE, verify_american
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

_MEASURED: Final = 20_000
"""Options priced by the integral equation after a training; a millisecond each."""


def run_train(arguments: argparse.Namespace) -> int:
    """Trains, certifies and writes; exit codes as for European models."""
    output: Path = arguments.output
    tolerance = BOUND_TOLERANCE if arguments.tolerance is None else arguments.tolerance
    try:
        config = config_of(arguments)
        checkpoint = claim(output, config.settings(), overwrite=arguments.overwrite, resume=arguments.resume)
    except (ValueError, OSError, CheckpointError) as error:
        print(f"pinn-inference train: {error}", file=sys.stderr)
        return 2
    boundary = parameter_count(BOUNDARY_INPUTS, config.boundary_hidden)
    premium = parameter_count(PREMIUM_INPUTS, config.premium_hidden)
    carry = parameter_count(PREMIUM_INPUTS, config.carry_hidden)
    print(
        f"training {boundary} parameters of the exercise boundary on {config.boundary_points} points, {premium} of "
        f"the premium on {config.premium_points} and twice {carry} of what it owes to rate and dividend on "
        f"{config.carry_points}; seed {config.seed}, at most {config.iterations} iterations"
        + (f"; going on after iteration {checkpoint.course[-1].iteration}" if checkpoint else ""),
        flush=True,
    )
    show = progress_printer(config.iterations)
    try:
        result = train_american(
            config,
            report=lambda stage, progress: show(f"{stage}  ", progress),
            resume=checkpoint,
            save=lambda state: state.write(output / CHECKPOINT_FILE),
        )
    except (KeyboardInterrupt, SystemExit) as interruption:
        return interrupted(interruption, output)
    last = result.course[-1]
    print(
        f"done after {last.iteration} iterations, {last.seconds:.1f} s, {result.cpu_seconds:.1f} s of processor time; "
        "certifying …",
        flush=True,
    )
    certificate = certify_american(result.networks)
    if not certificate.error_bound <= tolerance:
        print(
            f"pinn-inference train: the certified error bound is {certificate.error_bound:.2e}, the tolerance is "
            f"{tolerance:.2e}: no model was written. Train anew with more --iterations or another --seed, or give a "
            "larger --tolerance.",
            file=sys.stderr,
        )
        return 1
    return _write(output, arguments, result, certificate)


def run_verify(arguments: argparse.Namespace) -> int:
    """Prints the report; 0 when every check passed, else 1."""
    tolerance = BOUND_TOLERANCE if arguments.tolerance is None else arguments.tolerance
    report = verify_american(arguments.directory, expected_sha256=arguments.sha256, tolerance=tolerance)
    return print_report(report, as_json=arguments.json, directory=arguments.report)


def config_of(arguments: argparse.Namespace) -> AmericanTrainingConfig:
    """The options that were given, and the defaults for the others.

    `--hidden` holds for every network, `--boundary-points` for the boundary's equation and `--interior-points` for the
    others; `--iterations` is shared out among the stages as the default is. Raises ValueError, naming the option.
    """
    if arguments.seconds is not None:
        raise ValueError(
            "--seconds does not go with --style american: a boundary that is cut short leaves no time for the premium; "
            "give --iterations"
        )
    given = {
        "seed": arguments.seed,
        "threads": arguments.threads,
        "boundary_points": arguments.boundary_points,
        "premium_points": arguments.interior_points,
        "carry_points": arguments.interior_points,
        "boundary_hidden": arguments.hidden,
        "premium_hidden": arguments.hidden,
        "carry_hidden": arguments.hidden,
    }
    given = {name: value for name, value in given.items() if value is not None}
    if arguments.iterations is not None:
        given |= _shared_out(arguments.iterations)
    return AmericanTrainingConfig(**given)


def _shared_out(iterations: int) -> dict[str, tuple[int, ...]]:
    """A number of steps for each stage, one at least, in the proportions of the default."""
    default = AmericanTrainingConfig()
    parts = {name: getattr(default, name) for name in ITERATIONS}
    stages = tuple(chain.from_iterable(parts.values()))
    count, spare = len(stages), iterations - len(stages)
    if spare < 0:
        raise ValueError(f"iterations is {iterations}, it must be at least {count}: one for each stage")
    ends = [round(end * spare / (sum(stages) - count)) for end in accumulate((s - 1 for s in stages), initial=0)]
    shares = iter([1 + end - start for start, end in pairwise(ends)])
    return {name: tuple(islice(shares, len(part))) for name, part in parts.items()}


def _write(
    output: Path, arguments: argparse.Namespace, result: AmericanTrainingResult, certificate: Certificate
) -> int:
    """Measures and writes the model, the record last, and says what was written; the checkpoint has served."""
    name = arguments.name or STYLE
    european = load_numpy_model(bundled_directory())
    draft = AmericanArtefact(
        name=name,
        version="draft",
        sha256="",
        networks=result.networks,
        certificate=certificate,
        greek_bounds=np.zeros(len(GREEKS)),
        record={},
    )
    model = AmericanModel(draft, european, (NumPyAmericanEngine(result.networks),))
    domain = result.networks.domain
    measured = {
        "measured": measure_american(model, sample_american(_MEASURED, domain, seed=3)),
        "measured_domain": measure_american(model, sample_domain(_MEASURED, domain, seed=3)),
        "measured_calls": measure_american(model, exchanged(sample_domain(_MEASURED, domain, seed=4))),
    }
    exported = output / saved_model.DIRECTORY
    export_american(exported, draft, european.artefact)
    artefact = write_american(
        output,
        name=name,
        version=arguments.model_version,
        networks=result.networks,
        certificate=certificate,
        greek_bounds=greek_bounds(measured.values()),
        record={
            "files": saved_model.checksums(exported),
            "european": {"name": european.name, "version": european.version, "sha256": european.sha256},
            **{key: accuracy.record() for key, accuracy in measured.items()},
            "training": result.record(),
        },
    )
    picture = plot_loss(result.course, output / LOSS_FILE)
    (output / CHECKPOINT_FILE).unlink(missing_ok=True)
    print(f"wrote {output}: {artefact.name} {artefact.version}, sha256 {artefact.sha256}")
    print(f"certified error bound {certificate.error_bound:.2e} of the strike")
    print_accuracy("random options", measured["measured"].record())
    print_accuracy("puts of the whole domain", measured["measured_domain"].record())
    print_accuracy("calls of the whole domain", measured["measured_calls"].record())
    print(f"loss curve in {output / artefacts.RECORD_FILE}" + (f" and {picture}" if picture else ""))
    return 0
