"""The exact distribution of net flips, against enumeration."""

from __future__ import annotations

from math import comb

import pytest

from kit.verify.pairs import critical_difference, equivalence_difference, net_at_most, two_sided


def _enumerated(d: int, n: int, up: float, down: float) -> float:
    return sum(
        comb(n, u) * comb(n - u, v) * up**u * down**v * (1 - up - down) ** (n - u - v)
        for u in range(n + 1)
        for v in range(n - u + 1)
        if u - v <= d
    )


@pytest.mark.parametrize(("up", "down"), [(0.01, 0.01), (0.3, 0.1), (0.5, 0.5), (0.2, 0.0)])
@pytest.mark.parametrize("d", [-3, -1, 0, 2, 7])
def test_tail_is_the_enumeration(up: float, down: float, d: int) -> None:
    assert net_at_most(d, 12, up, down) == pytest.approx(_enumerated(d, 12, up, down), abs=1e-12)


def test_without_flips_nothing_moves() -> None:
    assert net_at_most(0, 50, 0.0, 0.0) == 1.0
    assert net_at_most(-1, 50, 0.0, 0.0) == 0.0
    assert critical_difference(50, 0.0) == 1


@pytest.mark.parametrize("n", [50, 208, 14042])
@pytest.mark.parametrize("f", [0.0, 0.001, 0.02, 0.3])
def test_critical_difference_is_the_smallest(n: int, f: float) -> None:
    d = critical_difference(n, f)
    assert two_sided(n, f, d) <= 0.05 < two_sided(n, f, d - 1)


@pytest.mark.parametrize("n", [50, 208, 868])
def test_equivalence_grows_with_the_margin(n: int) -> None:
    allowed = [equivalence_difference(n, 0.02, m / 100) for m in range(0, 30, 2)]
    numbers = [-1 if a is None else a for a in allowed]
    assert numbers == sorted(numbers)
    assert allowed[0] is None


def test_symmetric() -> None:
    below = net_at_most(-4, 208, 0.01, 0.01)
    above = 1 - net_at_most(3, 208, 0.01, 0.01)
    assert below == pytest.approx(above, abs=1e-12)
