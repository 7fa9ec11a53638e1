"""Keys: the same description gives the same bytes, another gives others."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit.engine.canonical import canonical_json, digest, step_key

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


def test_every_part_enters_the_key() -> None:
    base = ("a/b", 1, {"x": 1}, {"data": ["k"]}, {"device": "cpu"})
    keys = {step_key(*base)}
    for place, value in enumerate(["a/c", 2, {"x": 2}, {"data": ["l"]}, {"device": "cuda"}]):
        changed = [*base]
        changed[place] = value
        keys.add(step_key(*changed))  # type: ignore[arg-type]
    assert len(keys) == 6


def test_the_key_never_changes_by_accident() -> None:
    """A changed formula would make every store worthless. The value is what sha256sum says of
    {"environment":{"device":"cpu"},"inputs":{"data":["k"]},"kind":"a/b","params":{"lr":0.1},"version":1}.
    """
    assert step_key("a/b", 1, {"lr": 0.1}, {"data": ["k"]}, {"device": "cpu"}) == (
        "fb5e813490adfb62856849a3e7e8be6f3e6921f556383a2cec7e91e28b1da8e8"
    )
