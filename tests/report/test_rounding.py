"""Numbers have the digits that their uncertainty supports."""

from __future__ import annotations

import pytest

from kit.report.cells import row, spread
from kit.verify.verdict import Interval
from tests.report.builders import cell


@pytest.mark.parametrize(
    ("mean", "sd", "unit", "shown"),
    [
        ("93.173076923077", "5.1582", "percent", "93.2 \u00b1 5.2"),
        ("0.954733", "0.0312", "ratio", "0.955 \u00b1 0.031"),
        ("320", "0", "count", "320"),
        ("-0.01122", "0.0471", "ratio", "\u22120.011 \u00b1 0.047"),
    ],
)
def test_a_reference_has_two_digits_of_its_spread(
    mean: str, sd: str, unit: str, shown: str
) -> None:
    assert spread(mean, sd, unit) == shown


def test_a_measured_loss_is_rounded_by_its_interval() -> None:
    made = cell(
        "t/loss", unit="loss", published=None, value=1.234567,
        value_interval=Interval(low=1.13, high=1.34, level=0.95),
    )  # fmt: skip
    assert row(made, "c1").value == "1.23"
