"""An American model on disk: `weights.npz` and `model.json` as a European one has, see `artefact`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Final

import numpy as np

from pinn_inference.pricing.american_network import (
    BOUNDARY_INPUTS,
    PREMIUM_INPUTS,
    AmericanDomain,
    AmericanNetworks,
)
from pinn_inference.pricing.artefact import Arrays, ModelFiles, archive, read_files, write_files
from pinn_inference.pricing.certificate import Certificate
from pinn_inference.pricing.errors import ModelFormatError
from pinn_inference.pricing.network import Layer
from pinn_inference.pricing.types import FloatArray

STYLE: Final = "american"
GREEKS: Final = ("delta", "gamma", "vega", "theta", "rho")
GAMMA_JUMPS: Final = 0.02
"""Within so many σ√T of the exercise boundary, where gamma jumps, nothing is said of gamma's error."""
PERCEPTRONS: Final = {
    "boundary": BOUNDARY_INPUTS,
    "premium": PREMIUM_INPUTS,
    "lag": BOUNDARY_INPUTS,
    "rate": PREMIUM_INPUTS,
    "dividend": PREMIUM_INPUTS,
}
"""The perceptrons of `AmericanNetworks` by name, with the number of their inputs."""


@dataclass(frozen=True, slots=True)
class AmericanArtefact:
    """An American model as read from disk; `certificate` is in units of the strike, see `american_certificate`.

    `greek_bounds` of shape (5,) bounds the errors of `GREEKS`, in their natural sizes (`golden.greek_scales`).
    """

    name: str
    version: str
    sha256: str
    networks: AmericanNetworks
    certificate: Certificate
    greek_bounds: FloatArray
    record: Mapping[str, Any]


def read_american(directory: Path, *, expected_sha256: str | None = None) -> AmericanArtefact:
    """Reads and checks a model; arguments and errors as for `artefact.read`."""
    return parse_american(read_files(directory, style=STYLE, expected_sha256=expected_sha256))


def parse_american(files: ModelFiles) -> AmericanArtefact:
    """The model in these files; raises ModelFormatError."""
    arrays = Arrays(files.weights, files.origin)
    limits = arrays.array("domain", len(fields(AmericanDomain))).tolist()
    domain = AmericanDomain(*limits)
    grows = 0.0 < domain.s_min < domain.s_max and 0.0 < domain.kappa_min < domain.kappa_max
    if not grows or domain.carry_max <= 0.0 or domain.z_max <= 0.0:
        raise ModelFormatError(f"{files.origin}: domain is {limits}, it must be positive and each range must grow")
    return AmericanArtefact(
        name=files.name,
        version=files.version,
        sha256=files.sha256,
        networks=AmericanNetworks(
            domain=domain, **{name: arrays.layers(f"{name}_", inputs) for name, inputs in PERCEPTRONS.items()}
        ),
        certificate=arrays.certificate(domain.s_max),
        greek_bounds=arrays.array("greek_bounds", len(GREEKS)),
        record=files.record,
    )


def write_american(
    directory: Path,
    *,
    name: str,
    version: str | None,
    networks: AmericanNetworks,
    certificate: Certificate,
    greek_bounds: FloatArray,
    record: Mapping[str, Any],
) -> AmericanArtefact:
    """Writes a model; `version` defaults to the first 12 digits of the checksum. Equal models give equal files."""
    arrays = {
        "domain": np.array([getattr(networks.domain, field.name) for field in fields(AmericanDomain)]),
        "certificate_s": certificate.s,
        "certificate_bound": certificate.bound,
        "greek_bounds": greek_bounds,
    }
    perceptrons = {name: getattr(networks, name) for name in PERCEPTRONS}
    for part, layers in perceptrons.items():
        for index, layer in enumerate(layers):
            arrays[f"{part}_kernel_{index}"] = layer.kernel
            arrays[f"{part}_bias_{index}"] = layer.bias
    sha256 = write_files(
        directory,
        archive(arrays),
        {
            "style": STYLE,
            "name": name,
            "version": version,
            "error_bound": certificate.error_bound,
            "greek_bounds": dict(zip(GREEKS, greek_bounds.tolist(), strict=True)),
            "domain": asdict(networks.domain),
            "network": {
                **{f"{name}_hidden": _widths(layers) for name, layers in perceptrons.items()},
                "activation": "tanh",
                "parameters": sum(
                    layer.kernel.size + layer.bias.size for layers in perceptrons.values() for layer in layers
                ),
            },
            **record,
        },
    )
    return read_american(directory, expected_sha256=sha256)


def _widths(layers: tuple[Layer, ...]) -> list[int]:
    return [len(layer.bias) for layer in layers[:-1]]
