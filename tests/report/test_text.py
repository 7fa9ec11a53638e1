"""Untrusted text and printed numbers."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit.plural import plural
from kit.report.text import (
    bytes_word,
    decimals_of,
    number,
    one_line,
    probability,
    seconds_word,
)
from kit.visible import shorten, visible

UNSEEN = ("\x00", "\x1b", "\x07", "\r", "\x7f", "\x9b", "\u200b", "\u202e", "\u2066", "\ufeff")


@pytest.mark.parametrize("sign", [*UNSEEN, "\u00ad", "\u2028", "\U000e0041", "\ud800", "\uffff"])
def test_signs_that_act_unseen_become_visible(sign: str) -> None:
    shown = visible(f"a{sign}b")
    assert sign not in shown
    assert shown.startswith("a")
    assert shown.endswith("b")
    assert len(shown) > 2
    shown.encode("utf-8")


def test_ordinary_text_stays() -> None:
    text = "Größe 3 ± 0,1 → 日本語 🙂\n\tline two"
    assert visible(text) == text
    assert one_line("a\n b\tc") == "a b c"


@given(st.text(alphabet=st.characters(), max_size=60))
def test_no_control_or_format_sign_survives(text: str) -> None:
    left = [c for c in visible(text) if unicodedata.category(c) in ("Cc", "Cs") and c not in "\n\t"]
    assert left == []
    assert visible(visible(text)) == visible(text)
    visible(text).encode("utf-8")


@pytest.mark.parametrize(
    ("value", "decimals", "printed"),
    [
        (1.94, 1, "1.9"),
        (-0.04, 1, "0.0"),
        (-2.5, 2, "\u22122.50"),
        (0.0, 1, "0.0"),
        (None, 1, "\u2014"),
        (0.00001, 4, "1.00e\u221205"),
        (2.5e9, 0, "2.50e+09"),
        (208, 0, "208"),
    ],
)
def test_numbers(value: float | None, decimals: int, printed: str) -> None:
    assert number(value, decimals) == printed


def test_signed_numbers_have_no_signed_zero() -> None:
    assert number(0.5, 1, sign=True) == "+0.5"
    assert number(-0.001, 1, sign=True) == "0.0"


def test_decimals_follow_the_printed_string() -> None:
    assert decimals_of("1.90", "percent") == 2
    assert decimals_of("34", "percent") == 0
    assert decimals_of(None, "percent") == 1
    assert decimals_of("not a number", "loss") == 4


def test_words() -> None:
    assert probability(0.0002) == "< 0.001"
    assert probability(None) == "\u2014"
    assert seconds_word(8.44) == "8.4 s"
    assert seconds_word(420) == "7.0 min"
    assert seconds_word(9000) == "2.5 h"
    assert bytes_word(1_800_000) == "1.8 MB"
    assert bytes_word(None) == "\u2014"
    assert plural(1, "cell") == "1 cell"
    assert plural(12000, "cell") == "12,000 cells"
    assert shorten("abcdef", 3) == "abc \u2026 [3 more characters]"
