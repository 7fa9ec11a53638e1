"""Printed numbers, GRIM, and recomputing derived numbers."""

from __future__ import annotations

from decimal import ROUND_HALF_EVEN, ROUND_HALF_UP, Decimal
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kit.manifest.derived import FORMULAS, Undecidable, interval
from kit.manifest.printed import Printed, counts, nearest_shares

QUICK = settings(max_examples=300, deadline=None, derandomize=True)


@pytest.mark.parametrize(
    ("text", "value", "half"),
    [
        ("1.9", Fraction(19, 10), Fraction(1, 20)),
        ("1.90", Fraction(19, 10), Fraction(1, 200)),
        ("34", Fraction(34), Fraction(1, 2)),
        ("-0.5", Fraction(-1, 2), Fraction(1, 20)),
        ("1e-5", Fraction(1, 100000), Fraction(1, 200000)),
        ("1.5e2", Fraction(150), Fraction(5)),
    ],
)
def test_printed(text: str, value: Fraction, half: Fraction) -> None:
    printed = Printed.parse(text)
    assert (printed.value, printed.half) == (value, half)


@pytest.mark.parametrize("text", ["x", "", "1e999", "1e-999", "nan", "inf", "1,5"])
def test_what_is_no_printed_number(text: str) -> None:
    with pytest.raises(ValueError, match="number"):
        Printed.parse(text)


@QUICK
@given(st.integers(1, 2000), st.data(), st.integers(0, 3))
def test_every_correctly_rounded_share_is_attainable(
    n: int, data: st.DataObject, decimals: int
) -> None:
    k = data.draw(st.integers(0, n))
    unit = Decimal(1).scaleb(-decimals)
    for share, whole in ((Decimal(100 * k) / n, 100), (Decimal(k) / n, 1)):
        for rounding in (ROUND_HALF_UP, ROUND_HALF_EVEN):
            text = str(share.quantize(unit, rounding=rounding))
            assert k in counts(Printed.parse(text), n, whole)
    binary = f"{100 * k / n:.{decimals}f}"
    assert attainable(Printed.parse(binary), n)


@QUICK
@given(st.integers(1, 400), st.integers(0, 1000))
def test_grim_agrees_with_trying_every_count(n: int, tenths: int) -> None:
    printed = Printed.parse(f"{tenths / 10:.1f}")
    brute = [k for k in range(n + 1) if abs(Fraction(100 * k, n) - printed.value) <= printed.half]
    assert list(counts(printed, n)) == brute


@pytest.mark.parametrize(
    ("n", "decimals", "share"), [(100, 1, 0.10), (200, 1, 0.20), (208, 1, 0.21), (805, 1, 0.80)]
)
def test_share_of_attainable_percentages(n: int, decimals: int, share: float) -> None:
    values = [f"{i / 10**decimals:.{decimals}f}" for i in range(100 * 10**decimals + 1)]
    found = sum(attainable(Printed.parse(text), n) for text in values) / len(values)
    assert found == pytest.approx(share, abs=0.012)


def test_published_rates_of_208_items() -> None:
    for text in ("69.2", "51.4", "0.5", "1.9", "33.7", "20.2", "29.8", "3.8", "2.4", "4.8", "0.0"):
        assert attainable(Printed.parse(text), 208), text
    for text in ("1.8", "0.6", "69.3", "33.8"):
        assert not attainable(Printed.parse(text), 208), text


def test_ties_count_for_both_neighbours() -> None:
    assert attainable(Printed.parse("6.2"), 16)  # 1/16 = 6.25 %
    assert attainable(Printed.parse("6.3"), 16)
    assert not attainable(Printed.parse("6.1"), 16)


def test_neighbours_for_messages() -> None:
    assert nearest_shares(Printed.parse("1.8"), 208) == [
        (3, Fraction(300, 208)),
        (4, Fraction(400, 208)),
    ]
    assert [k for k, _ in nearest_shares(Printed.parse("100.0"), 10)] == [10]
    with pytest.raises(ValueError, match="at least 1"):
        counts(Printed.parse("1"), 0)


def attainable(printed: Printed, n: int, whole: int = 100) -> bool:
    return len(counts(printed, n, whole)) > 0


def agrees(formula: str, inputs: list[Printed], printed: Printed, factor: int = 1) -> bool:
    low, high = interval(formula, inputs)
    return low * factor <= printed.high and printed.low <= high * factor


def numbers(*texts: str) -> list[Printed]:
    return [Printed.parse(text) for text in texts]


@pytest.mark.parametrize(
    ("formula", "inputs", "result", "factor"),
    [
        ("gap_closed", ["69.2", "1.9", "0.5"], "0.979", 1),
        ("gap_closed", ["69.2", "33.7", "0.5"], "0.517", 1),
        ("gap_closed", ["69.2", "33.7", "1.9"], "0.527", 1),
        ("gap_closed", ["69.2", "1.9", "1.9"], "1.000", 1),
        ("gap_closed", ["69.2", "1.9", "0.5"], "97.9", 100),
        ("max", ["20.2", "33.7", "29.8"], "33.7", 1),
        ("difference", ["33.7", "1.9"], "31.8", 1),
        ("difference", ["33.7", "1.9"], "31.9", 1),
        ("ratio", ["240", "55"], "4.4", 1),
        ("ratio", ["960", "55"], "17", 1),
        ("mean", ["1", "2", "4"], "2.3", 1),
    ],
)
def test_derived_numbers_that_agree(
    formula: str, inputs: list[str], result: str, factor: int
) -> None:
    assert agrees(formula, numbers(*inputs), Printed.parse(result), factor)


@pytest.mark.parametrize(
    ("formula", "inputs", "result"),
    [
        ("gap_closed", ["69.2", "33.7", "0.5"], "0.528"),
        ("gap_closed", ["69.2", "1.9", "0.5"], "0.97"),
        ("max", ["20.2", "33.7", "29.8"], "29.8"),
        ("difference", ["33.7", "1.9"], "32.0"),
        ("ratio", ["240", "55"], "17"),
        ("mean", ["1", "2", "9"], "2.3"),
    ],
)
def test_derived_numbers_that_do_not(formula: str, inputs: list[str], result: str) -> None:
    assert not agrees(formula, numbers(*inputs), Printed.parse(result))


def test_what_rounding_cannot_decide() -> None:
    with pytest.raises(Undecidable):
        interval("ratio", numbers("3", "0"))
    with pytest.raises(Undecidable):
        interval("gap_closed", numbers("1.0", "0.5", "1.0"))
    with pytest.raises(ValueError, match="takes 2 cells"):
        interval("ratio", numbers("1"))
    with pytest.raises(ValueError, match="takes some cells"):
        interval("max", [])


SMALL = st.fractions(Fraction(1), Fraction(100), max_denominator=1000)


@QUICK
@given(st.sampled_from(sorted(FORMULAS)), st.lists(SMALL, min_size=3, max_size=3))
def test_the_true_value_lies_within_what_rounded_inputs_allow(
    formula: str, values: list[Fraction]
) -> None:
    function, wanted = FORMULAS[formula]
    used = values[: wanted or 3]
    rounded = [Printed.parse(f"{float(value):.1f}") for value in used]
    if any(not item.low <= value <= item.high for item, value in zip(rounded, used, strict=True)):
        return
    try:
        low, high = interval(formula, rounded)
    except Undecidable:
        return
    assert low <= function(used) <= high
