"""The name of a revision: a hash of what the team wrote about its pods.

The hash sees the canonical JSON of the serving fields and nothing else: no defaults of the operator, no types of a
client library. So a newer operator, or a newer API server, never starts a rollout by itself. The prefix is the version
of this rule; a new rule would be "v2:" and would leave recorded revisions alone.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any, Final

from pinn_operator.core.manifest import Manifest
from pinn_operator.core.wanted.quantity import canonical_quantity

SERVING_FIELDS: Final = frozenset(
    {
        "image",
        "imagePullPolicy",
        "imagePullSecrets",
        "args",
        "resources",
        "env",
        "port",
        "probes",
        "serviceAccountName",
        "nodeSelector",
        "tolerations",
        "podAnnotations",
        "terminationGracePeriodSeconds",
        "model",
    }
)
"""The fields of `spec` that a pod is made from. Every other field is policy and never makes a new revision."""

_RULE: Final = "v1:"
_DIGITS: Final = 8
_QUANTITY_MAPS: Final = (("resources", "limits"), ("resources", "requests"))


def serving_fields(spec: Manifest) -> dict[str, Any]:
    """The serving fields of a raw `spec`, as the user wrote them."""
    return {key: value for key, value in spec.items() if key in SERVING_FIELDS}


def canonical_serving(serving: Manifest) -> str:
    """Canonical JSON of serving fields: sorted keys, no nulls, no empty containers, quantities as plain decimals.

    The order of a list is kept, because it can mean something (an environment variable may refer to an earlier one).
    """
    pruned = _without_empty(serving)
    for outer, inner in _QUANTITY_MAPS:
        quantities = pruned.get(outer, {}).get(inner)
        if quantities is not None:
            pruned[outer][inner] = {key: canonical_quantity(value) for key, value in quantities.items()}
    return json.dumps(pruned, sort_keys=True, separators=(",", ":"), allow_nan=False)


def revision_of(serving: Manifest) -> str:
    """The revision of serving fields: 8 hexadecimal digits of a SHA-256.

    Raises ValueError if a resource quantity is none; parsed specs hold only valid ones.
    """
    return hashlib.sha256((_RULE + canonical_serving(serving)).encode()).hexdigest()[:_DIGITS]


def _without_empty(value: Any) -> Any:
    """A deep copy without nulls and empty containers in mappings. List elements keep their places."""
    if isinstance(value, Mapping):
        pruned = {str(key): _without_empty(item) for key, item in value.items()}
        return {key: item for key, item in pruned.items() if item is not None and item != {} and item != []}
    if isinstance(value, (list, tuple)):
        return [_without_empty(item) for item in value]
    # YAML and JSON numbers of one value are one value: 8000.0 is how some tools write 8000.
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value
