"""The name of a revision depends on what the team wrote about its pods, and on nothing else."""

from __future__ import annotations

import copy
import json
import random
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pinn_operator.core.wanted.revision import SERVING_FIELDS, canonical_serving, revision_of, serving_fields

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "revisions.json").read_text())

FULL: dict[str, Any] = next(case["serving"] for case in GOLDEN if case["name"] == "every field")

texts = st.text(st.characters(codec="utf-8"), max_size=8)
values = st.recursive(
    texts | st.integers(-1000, 1000) | st.booleans(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)
servings = st.fixed_dictionaries(
    {"image": texts},
    optional=dict.fromkeys(sorted(SERVING_FIELDS - {"image", "resources"}), values)
    | {
        "resources": st.dictionaries(
            st.sampled_from(["requests", "limits"]),
            st.dictionaries(st.sampled_from(["cpu", "memory"]), st.sampled_from(["1", "250m", "2Gi", 3])),
        )
    },
)


@pytest.mark.parametrize("case", GOLDEN, ids=lambda case: case["name"])
def test_no_release_changes_the_hash_of_a_recorded_spec(case: dict[str, Any]) -> None:
    assert revision_of(case["serving"]) == case["revision"], (
        "an operator with this change would start a rollout of every service that has such a spec"
    )


def test_golden_file_names_each_hash_once_unless_it_says_so() -> None:
    hashes: dict[str, str] = {}
    for case in GOLDEN:
        same = case.get("sameAs")
        if same:
            assert case["revision"] == next(item["revision"] for item in GOLDEN if item["name"] == same)
        else:
            assert case["revision"] not in hashes, f"{case['name']} and {hashes[case['revision']]} share a hash"
            hashes[case["revision"]] = case["name"]


@given(servings, st.randoms(use_true_random=False))
def test_order_of_keys_does_not_matter(serving: dict[str, Any], order: random.Random) -> None:
    assert revision_of(_shuffled(serving, order)) == revision_of(serving)


@given(servings)
def test_nulls_and_empty_containers_are_as_good_as_absent(serving: dict[str, Any]) -> None:
    padded = {**serving}
    for name in SERVING_FIELDS - serving.keys():
        padded[name] = random.Random(name).choice([None, {}, [], {"inner": {"deeper": None}}])
    assert revision_of(padded) == revision_of(serving)


@given(servings)
def test_hash_is_eight_hexadecimal_digits_and_leaves_its_argument_alone(serving: dict[str, Any]) -> None:
    before = copy.deepcopy(serving)
    assert re.fullmatch("[0-9a-f]{8}", revision_of(serving))
    assert serving == before


@pytest.mark.parametrize(
    ("one", "other"),
    [("1", "1000m"), (1, "1"), ("0.5", "500m"), ("2", "2.0")],
)
def test_two_spellings_of_a_quantity_are_one_revision(one: str, other: str) -> None:
    def serving(cpu: str) -> dict[str, Any]:
        return {"image": "a:1", "resources": {"requests": {"cpu": cpu}, "limits": {"cpu": cpu, "memory": "1Gi"}}}

    assert revision_of(serving(one)) == revision_of(serving(other))


def test_gibibytes_and_mebibytes_of_one_size_are_one_revision() -> None:
    sizes = [{"image": "a:1", "resources": {"limits": {"memory": size}}} for size in ("2Gi", "2048Mi", "2147483648")]
    assert len({revision_of(size) for size in sizes}) == 1


def test_a_number_that_a_tool_wrote_as_a_float_is_the_same_number() -> None:
    assert revision_of({"image": "a:1", "port": 8080.0}) == revision_of({"image": "a:1", "port": 8080})


def test_a_change_of_any_leaf_is_another_revision() -> None:
    seen = {revision_of(FULL): "unchanged"}
    for path, value in _leaves(FULL):
        changed = copy.deepcopy(FULL)
        target: Any = changed
        for key in path[:-1]:
            target = target[key]
        target[path[-1]] = _other(value)
        revision = revision_of(changed)
        assert revision not in seen, f"a change of {path} gives the hash of {seen[revision]}"
        seen[revision] = str(path)


def test_removal_of_any_field_is_another_revision() -> None:
    for name in FULL.keys() - {"image"}:
        assert revision_of({key: value for key, value in FULL.items() if key != name}) != revision_of(FULL), name


def test_order_of_environment_variables_matters_because_one_may_refer_to_another() -> None:
    turned = {**FULL, "env": FULL["env"][::-1]}
    assert revision_of(turned) != revision_of(FULL)


def test_golden_spec_has_every_serving_field() -> None:
    assert FULL.keys() == SERVING_FIELDS


def test_policy_fields_never_reach_the_hash() -> None:
    policy = {"replicas": 7, "paused": True, "traffic": {"router": "HTTPRoute"}, "rollback": {"mode": "Hold"}}
    assert serving_fields({**FULL, **policy}) == FULL


def test_canonical_form_is_ascii_json_without_spaces() -> None:
    canonical = canonical_serving({"image": "a:1", "podAnnotations": {"team": "Zürich"}})
    assert canonical == '{"image":"a:1","podAnnotations":{"team":"Z\\u00fcrich"}}'


def test_a_resource_that_is_no_quantity_is_refused() -> None:
    with pytest.raises(ValueError, match="'lots' is not a quantity"):
        revision_of({"image": "a:1", "resources": {"limits": {"memory": "lots"}}})


def _shuffled(value: Any, order: random.Random) -> Any:
    if isinstance(value, dict):
        keys = list(value)
        order.shuffle(keys)
        return {key: _shuffled(value[key], order) for key in keys}
    return [_shuffled(item, order) for item in value] if isinstance(value, list) else value


def _leaves(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], Any]]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else None
    if items is None:
        yield path, value
        return
    for key, item in items:
        yield from _leaves(item, (*path, key))


def _other(value: Any) -> Any:
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + 1
    return "3Gi" if value.endswith(("Gi", "Mi")) else "7" if value.rstrip("m").isdigit() else value + "x"
