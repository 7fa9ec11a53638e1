"""Seeds that an open cell asks for: with as many it is decided, with half of them it is not."""

from __future__ import annotations

import re
from math import sqrt

import pytest

from kit.verify.finding import inside
from kit.verify.planning import needed_seeds
from kit.verify.seeds import Spread


def trial(count: int, k: int) -> Spread:
    return Spread(sqrt(1 / count + 1 / k), float(max(1, count + k - 2)), "")


def decided(count: int, k: int, gap: float, margin: float) -> bool:
    spread = trial(count, k)
    near = inside(spread.interval(gap, 0.90, 0.0), margin)
    return near or spread.interval(gap, 0.95, 0.0)[0] > 0


@pytest.mark.parametrize(
    ("sizes", "gap", "margin", "both"),
    [
        ((3, 3), 0.0, 0.9, True),  # three seeds there are too few, whatever is added here
        ((3, 200), 0.0, 0.5, False),
        ((3, 3), 1.5, 1.0, False),
        ((3, 5), 0.5, 0.1, True),
        ((10, 3), 0.0, 0.6, True),
    ],
)
def test_as_many_as_are_asked_for_decide(
    sizes: tuple[int, int], gap: float, margin: float, both: bool
) -> None:
    said = needed_seeds(trial, sizes, gap, margin, 0.0)
    found = re.fullmatch(r"about (\d+) seeds( on both sides)?", said)
    assert found is not None
    count = int(found[1])
    assert bool(found[2]) == both
    assert count > sizes[0]
    assert decided(count, max(sizes[1], count) if both else sizes[1], gap, margin)
    fewer = max(2, count // 2)
    assert not decided(fewer, max(sizes[1], fewer) if both else sizes[1], gap, margin)
    if both:
        assert not decided(10_000, sizes[1], gap, margin)


def test_a_difference_as_large_as_the_margin_is_never_decided() -> None:
    assert needed_seeds(lambda *_: Spread(1.0, 4.0, ""), (3, 3), 1.0, 1.0, 0.0).startswith("no num")
