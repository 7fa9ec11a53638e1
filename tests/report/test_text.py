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
    p_equals,
    probability,
    seconds_word,
    unit_word,
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


@pytest.mark.parametrize(
    ("sign", "shown"),
    [
        ("\x00", "\u2400"),
        ("\x1f", "\u241f"),
        ("\x7f", "\u27e8U+007F\u27e9"),
        ("\x80", "\u27e8U+0080\u27e9"),
    ],
)
def test_a_control_has_its_picture_or_its_number(sign: str, shown: str) -> None:
    assert visible(f"a{sign}b") == f"a{shown}b"


@pytest.mark.parametrize(
    ("text", "limit", "cut"),
    [("abc", 3, "abc"), ("abcd", 3, "abc \u2026 [1 more characters]"), ("", 0, "")],
)
def test_what_is_cut_says_by_how_much(text: str, limit: int, cut: str) -> None:
    assert shorten(text, limit) == cut


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


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(9.94, "9.9 s"), (9.95, "10 s"), (9.96, "10 s"), (99.4, "99 s"),
     (99.6, "1.7 min"), (99.4 * 60, "99.4 min"),
     (99.6 * 60, "1.7 h"), (0, "0.0 s"), (None, "\u2014")],
)  # fmt: skip
def test_a_duration_never_has_more_than_three_digits(seconds: float | None, said: str) -> None:
    assert seconds_word(seconds) == said


@pytest.mark.parametrize(
    ("size", "said"),
    [(0, "0 B"), (999, "999 B"), (999.5, "1.0 kB"), (999_400, "999 kB"), (999.6, "1.0 kB"),
     (99_400, "99.4 kB"), (99_600, "100 kB"),
     (999_600, "1.0 MB"), (5e9, "5.0 GB"), (999.6e9, "1.0 TB"), (2e15, "2000.0 TB")],
)  # fmt: skip
def test_a_size_has_three_digits_and_its_unit(size: float, said: str) -> None:
    assert bytes_word(size) == said


@pytest.mark.parametrize(
    ("value", "decimals", "said"),
    [(9_999_999, 0, "9999999"), (1e7, 0, "1.00e+07"), (-1e7, 0, "\u22121.00e+07"),
     (0.0004, 3, "4.00e\u221204"), (0.0006, 3, "0.001"), (0.0005, 3, "0.001"), (0.004, 2, "0.00"),
     (0.0, 4, "0.0000"), (-0.0004, 3, "\u22124.00e\u221204")],
)  # fmt: skip
def test_what_would_be_printed_as_nothing_or_without_end_has_an_exponent(
    value: float, decimals: int, said: str
) -> None:
    assert number(value, decimals) == said


def test_signs_and_p_values() -> None:
    assert number(2e8, 1, sign=True) == "+2.00e+08"
    assert number(-0.00001, 3, sign=True) == "\u22121.00e\u221205"
    assert [number(v, 0, sign=True) for v in (1, 9, -1, -9)] == ["+1", "+9", "\u22121", "\u22129"]
    assert [decimals_of(None, unit) for unit in ("percent", "count", "norm", "other")] == [
        1,
        0,
        3,
        3,
    ]
    assert [seconds_word(s) for s in (1800, 5940, 7200)] == ["30.0 min", "99.0 min", "2.0 h"]
    assert [probability(p) for p in (0.001, 0.00099, 0.04567)] == ["0.001", "< 0.001", "0.046"]
    assert [p_equals(p) for p in (0.0002, 0.5)] == ["p < 0.001", "p = 0.500"]
    assert [unit_word(unit) for unit in ("number", "percent")] == ["", "percent"]


@pytest.mark.parametrize(
    ("unit", "decimals"),
    [("percent", 1), ("fraction", 3), ("count", 0), ("loss", 4), ("norm", 3), ("ratio", 3),
     ("of another paper", 3)],
)  # fmt: skip
def test_a_tenth_of_a_percent_is_a_thousandth_of_a_fraction(unit: str, decimals: int) -> None:
    """Each unit has the places that papers print it with."""
    assert decimals_of(None, unit) == decimals_of("1,5", unit) == decimals
    assert decimals_of("-1.25", unit) == 2
