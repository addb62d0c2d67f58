"""Whether a live object holds what is wanted. Only what differs is written: a pass without news writes nothing."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from pinn_operator.core.manifest import Manifest
from pinn_operator.core.observed import Observed
from pinn_operator.core.wanted.quantity import canonical_quantity

DIGEST_ANNOTATION: Final = "pinn.dev/manifest-digest"
"""Digest of the manifest that was last applied: shows that a field was taken out of it, which `covers` cannot see."""

_ATOMIC_MAPS: Final = frozenset({"selector", "matchLabels", "nodeSelector"})
"""Maps that server-side apply replaces as a whole, so that a key too many counts as a difference."""
_LIST_KEYS: Final[Mapping[str, tuple[str, ...]]] = {
    "containers": ("name",),
    "env": ("name",),
    "imagePullSecrets": ("name",),
    "ownerReferences": ("uid",),
    "ports": ("containerPort", "port", "protocol"),
    "volumeMounts": ("mountPath",),
    "volumes": ("name",),
}
"""Lists that server-side apply merges by key: elements of other managers may stand beside ours."""
_PLAIN: Final = frozenset({str, int, bool})
_QUANTITY_MAPS: Final = frozenset({"limits", "requests"})


def changed(manifests: Sequence[Manifest], observed: Observed) -> Iterator[Manifest]:
    """Those of the wanted manifests that the live objects do not hold, each with its digest."""
    for manifest in manifests:
        metadata = manifest["metadata"]
        annotations = {**(metadata.get("annotations") or {}), DIGEST_ANNOTATION: _digest(manifest)}
        stamped = {**manifest, "metadata": {**metadata, "annotations": annotations}}
        # Items of a LIST carry neither apiVersion nor kind.
        content = {key: value for key, value in stamped.items() if key not in ("apiVersion", "kind")}
        if not covers(observed.objects.get((manifest["kind"], metadata["name"])), content):
            yield stamped


def covers(live: Any, desired: Any, *, field: str = "") -> bool:
    """Whether `live` holds every field of `desired` with its value; what the API server adds does not matter.

    Follows the merge rules of server-side apply: lists with a key are compared by key, other lists element by element,
    atomic maps exactly. Quantities are compared by value. Empty strings and containers equal absent ones, because the
    API server leaves them out.
    """
    if live is None:
        return desired is None or desired in ("", [], {}, ())
    if isinstance(desired, Mapping):
        if not isinstance(live, Mapping) or (field in _ATOMIC_MAPS and not live.keys() <= desired.keys()):
            return False
        inner = "quantity" if field in _QUANTITY_MAPS else None
        for key, value in desired.items():
            there = live.get(key)
            # Most values are plain and as wanted, in every pass: they are not worth a call.
            if type(there) is type(value) and type(value) in _PLAIN and there == value:
                continue
            if not covers(there, value, field=inner or key):
                return False
        return True
    if isinstance(desired, (list, tuple)):
        return isinstance(live, (list, tuple)) and _covers_list(live, desired, _LIST_KEYS.get(field))
    if field == "quantity":
        return canonical_quantity(live) == canonical_quantity(desired)
    return type(live) is type(desired) and bool(live == desired)


def _covers_list(live: Sequence[Any], desired: Sequence[Any], keys: tuple[str, ...] | None) -> bool:
    if keys is None:
        return len(live) == len(desired) and all(map(covers, live, desired))
    by_key = {tuple(item.get(key) for key in keys): item for item in live}
    return all(covers(by_key.get(tuple(item.get(key) for key in keys)), item) for item in desired)


def _digest(manifest: Manifest) -> str:
    text = json.dumps(manifest, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]
