"""Keys: the same description gives the same bytes, another gives others."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit.engine.keys import canonical_json, digest, instance_key, require_own_keys
from kit.engine.registry import REGISTRY, NoParams, StepKind
from kit.manifest.pin_types import Pin
from kit.results.plan import ModelUse, PinUse, Plan, StepInstance, StepUse
from tests.engine.conftest import plan_of

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8")),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters(codec="utf-8")), inner),
    max_leaves=20,
)  # fmt: skip


def test_form_is_fixed() -> None:
    made = canonical_json({"b": [1, 1.0, 1e-5, True, None], "a": "ä\n"})
    assert made == '{"a":"ä\\n","b":[1,1.0,1e-05,true,null]}'.encode()


@given(JSON)
def test_round_trip(value: object) -> None:
    assert json.loads(canonical_json(value)) == value


@given(st.dictionaries(st.text(st.characters(codec="utf-8")), st.integers()))
def test_order_of_writing_does_not_matter(value: dict[str, int]) -> None:
    assert canonical_json(value) == canonical_json(dict(reversed(value.items())))


def test_an_integer_is_not_a_float() -> None:
    assert digest(1) != digest(1.0)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), ["a", float("-inf")]])
def test_what_json_cannot_say_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        canonical_json(value)


UPSTREAM = {
    id: StepInstance(id=id, step="up", kind="a/up", version=1, params={}, key=key, axes={"n": id})
    for id, key in (("u1", "bb"), ("u2", "aa"))
}
PINS = {
    "plain": Pin(id="plain", kind="hf-dataset", title="P", licence="MIT"),
    "said": Pin(id="said", kind="hf-dataset", title="S", licence="MIT", attributes={"f": "x"}),
}


def key(*, reads_axes: bool = False, **fields: Any) -> str:
    given: dict[str, Any] = {
        "id": "i",
        "step": "s",
        "kind": "a/b",
        "version": 1,
        "params": {"lr": 0.1},
        "environment": {"device": "cpu"},
        "key": "",
    } | fields
    kind = StepKind("a/b", 1, NoParams, lambda _, __: None, {}, (), reads_axes=reads_axes)
    return instance_key(StepInstance(**given), kind, UPSTREAM, PINS)


def of(inputs: str) -> str:
    """What sha256sum says of the whole description, written out."""
    text = (
        f'{{"environment":{{"device":"cpu"}},"inputs":{inputs},"kind":"a/b",'
        '"params":{"lr":0.1},"version":1}'
    )
    return hashlib.sha256(text.encode()).hexdigest()


def both(many: bool) -> dict[str, StepUse]:
    return {"data": StepUse(instances=["u1", "u2"], many=many)}


def test_the_key_never_changes_by_accident() -> None:
    """A changed formula would make every store worthless."""
    assert key() == of("{}")
    assert key(pins={"data": PinUse("plain", "d")}) == of('{"data":"d"}')
    assert key(pins={"data": PinUse("said", "d")}) == of('{"data":["d",{"f":"x"}]}')
    assert key(steps=both(many=False)) == of('{"data":["aa","bb"]}')
    listed = '{"data":[["aa",{"n":"u2"}],["bb",{"n":"u1"}]]'
    assert key(steps=both(many=True)) == of(listed + "}")
    assert key(steps=both(False), axes={"n": 1}, reads_axes=True) == of(
        '{"axes":{"n":1},' + listed[1:] + "}"
    )
    assert key(roles={"n": "setting"}) == of('{"roles":{"n":"setting"}}')
    model = {"steps": {"m": StepUse(["u1"], many=False)}, "models": {"m": ModelUse({"f": 1}, "o")}}
    assert key(**model) == of('{"m":["bb",{"f":1}]}')


@pytest.mark.parametrize(
    "changed",
    [{"kind": "a/c"}, {"version": 2}, {"params": {"lr": 0.2}}, {"environment": {"device": "cuda"}}],
)
def test_every_part_enters_the_key(changed: dict[str, Any]) -> None:
    assert key(**changed) != key()


@pytest.mark.parametrize(
    "changed", [{"id": "j"}, {"step": "t"}, {"axes": {"n": 1}}, {"intermediate": True}]
)
def test_what_decides_no_output_does_not(changed: dict[str, Any]) -> None:
    assert key(**changed) == key()


def test_a_plan_file_has_the_keys_of_its_plan() -> None:
    plan = msgspec.json.decode(plan_of().to_json(), type=Plan)
    require_own_keys(plan, plan.results, REGISTRY)
