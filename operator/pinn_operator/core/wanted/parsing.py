"""The `spec` of a manifest as a `Spec`, or every fault of it at once.

The same rules are in crds/pinnservices.yaml, where the API server applies them. This parser applies them again because
an object may be older than the CRD, and because a revision record keeps a spec that no API server looks at. What the
CRD accepts parses, and the defaults here are those of the CRD.
"""

from __future__ import annotations

from typing import Final

from pinn_operator.core.manifest import Manifest
from pinn_operator.core.wanted.analysis import parse_analysis
from pinn_operator.core.wanted.fields import Fields
from pinn_operator.core.wanted.revision import serving_fields
from pinn_operator.core.wanted.rollback import parse_rollback
from pinn_operator.core.wanted.serving import check_serving
from pinn_operator.core.wanted.spec import (
    FieldError,
    InvalidSpec,
    Spec,
)
from pinn_operator.core.wanted.strategy import parse_steps
from pinn_operator.core.wanted.traffic import parse_traffic
from pinn_operator.core.wanted.verification import parse_verification

REPLICA_LIMIT: Final = 1000


def parse_spec(manifest: Manifest, *, path: str = "spec") -> Spec | InvalidSpec:
    """A `spec` as values, with defaults filled in; `InvalidSpec` with all faults at once when there are any.

    Never raises for bad input. `path` is how the object is called in the faults.
    """
    errors: list[FieldError] = []
    spec = Fields(manifest, path, errors)
    check_serving(spec)
    steps = parse_steps(spec.child_or_empty("strategy"))
    parsed = Spec(
        replicas=_replicas(spec),
        serving=serving_fields(manifest),
        steps=steps,
        traffic=parse_traffic(spec.child_or_empty("traffic")),
        analysis=parse_analysis(spec.child_or_empty("analysis")),
        rollback=parse_rollback(spec.child_or_empty("rollback")),
        paused=spec.boolean("paused", default=False),
        verification=parse_verification(spec.child_or_empty("verification")),
    )
    spec.close()
    return InvalidSpec(tuple(errors)) if errors else parsed


def _replicas(spec: Fields) -> int:
    """Elsewhere 2.0 is an integer. Here the API server refuses it: it reads this field for `kubectl scale` itself."""
    value = spec.raw("replicas")
    if isinstance(value, float) and value.is_integer():
        spec.fault("replicas", f"must be an integer written without a fraction: {value:.0f}, not {value}")
        return int(value)
    return spec.integer("replicas", minimum=0, maximum=REPLICA_LIMIT, default=3)
