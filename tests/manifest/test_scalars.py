"""Numbers of YAML at the edge of what is kept."""

from __future__ import annotations

import math

import pytest

from kit.manifest.yaml_nodes import LARGEST_FLOAT, LARGEST_INTEGER, resolve


@pytest.mark.parametrize("sign", ["", "-"])
def test_integers_are_those_of_64_bits(sign: str) -> None:
    largest = 2**63 - 1
    assert largest == LARGEST_INTEGER
    assert resolve(f"{sign}{largest}") == (int(f"{sign}{largest}"), "")
    value, wrong = resolve(f"{sign}{largest + 1}")
    assert wrong
    assert abs(float(value or 0)) <= largest
    for digits in (64, 65, 5000):
        assert resolve(f"{sign}{'9' * digits}")[1]


@pytest.mark.parametrize(
    ("text", "value"),
    [("0o17", 15), ("0x1f", 31), ("0xFF", 255), ("+7", 7), ("-7", -7), ("007", 7), ("1e3", 1000.0),
     (".5", 0.5), ("5.", 5.0), ("1.5E-2", 0.015), ("~", None), ("TRUE", True), ("False", False),
     ("yes", "yes"), ("0b1", "0b1"), ("1_000", "1_000"), ("0o9", "0o9"), ("0.0", 0.0),
     ("0e-999", 0.0), ("-0.000", -0.0)],
)  # fmt: skip
def test_texts_that_are_values(text: str, value: object) -> None:
    found, wrong = resolve(text)
    assert (found, type(found), wrong) == (value, type(value), "")


def test_fractions_are_neither_without_end_nor_lost() -> None:
    edge = f"{LARGEST_FLOAT:g}"
    assert resolve(edge) == (LARGEST_FLOAT, "")
    for text, said in (
        (".inf", "not a finite number"), ("-.INF", "not a finite number"), (".nan", "not a finite"),
        ("1e31", "absurdly large"), ("-1e31", "absurdly large"), ("1e999", "absurdly large"),
        ("1e-400", "too small to be kept"), ("0.001e-400", "too small"),
        ("1." + "0" * 399, "a number of 401 characters is absurd"),
    ):  # fmt: skip
        found, wrong = resolve(text)
        assert said in wrong, text
        assert isinstance(found, float)
        assert math.isfinite(found)
    assert resolve("1." + "0" * 398) == (1.0, "")
