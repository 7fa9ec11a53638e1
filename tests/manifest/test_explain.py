"""What a value may be, in words."""

from __future__ import annotations

import pytest

from kit.manifest.explain import _union_words

INTEGER, NUMBER, TEXT, NOTHING = ({"type": of} for of in ("integer", "number", "string", "null"))


@pytest.mark.parametrize(
    ("branches", "said"),
    [
        ([INTEGER, NOTHING], "a whole number"),
        ([INTEGER, NUMBER], "a number"),
        ([NUMBER, INTEGER, TEXT], "a number or text"),
        ([INTEGER, TEXT], "a whole number or text"),
        ([{"enum": ["a", 1]}, {"$ref": "#/$defs/Pin"}], "one of a, 1 or a map (pin)"),
        ([TEXT, TEXT], "text"),
    ],
    ids=range(6),
)
def test_a_choice_of_types_names_each_once(branches: list[dict[str, object]], said: str) -> None:
    assert _union_words(branches) == said
