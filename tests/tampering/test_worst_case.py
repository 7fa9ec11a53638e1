"""The worst of many attacks: what searches report is too high, what is reported here is not."""

from __future__ import annotations

from itertools import combinations
from math import comb
from typing import Any

import numpy as np
import pytest
from scipy.stats import binomtest, norm

from kit.evals.proportion import Proportion
from kit.tampering.worst_case import (
    Bound,
    Candidate,
    Halves,
    by_steps,
    by_trials,
    candidates_of,
    clopper_pearson,
    halves,
    recovered,
    worst_case,
)

QUESTIONS = 120
DIVIDED = halves([f"q{i}" for i in range(QUESTIONS)], seed=0)
ANY = Bound(least=0.0)


def answered(rates: Any, rng: Any, *, common: float = 0.0) -> list[Candidate]:
    """Attacks of given true accuracies; ``common`` correlates them through hard questions."""
    hard = rng.standard_normal(QUESTIONS)
    made = []
    for number, rate in enumerate(rates):
        own = rng.standard_normal(QUESTIONS)
        value = np.sqrt(common) * hard + np.sqrt(1 - common) * own
        right = tuple((value < norm.ppf(rate)).tolist())
        made.append(Candidate(f"t{number:02d}", 10, right, 1.0))
    return made


@pytest.mark.parametrize("common", [0.0, 0.6])
@pytest.mark.parametrize(
    "rates", [[0.3] * 40, [0.3] * 20 + [0.5], list(np.linspace(0.25, 0.6, 20))]
)
def test_coverage_of_the_interval_for_the_maximum(rates: Any, common: float) -> None:
    """At least its level, where the interval around a search's best falls short."""
    rng = np.random.default_rng(1)
    truth, runs, level = max(rates), 250, 0.9
    covered = naive = 0
    measured, best = [], []
    for _ in range(runs):
        found = worst_case(answered(rates, rng, common=common), ANY, DIVIDED, level=level)
        covered += found.low <= truth <= found.high
        own = clopper_pearson(found.naive, (1 - level) / 2)
        naive += own[0] <= truth <= own[1]
        measured.append(found.measured.value)
        best.append(found.naive.value)
    # Three standard errors of a share of 250 at the level.
    assert covered / runs >= level - 3 * np.sqrt(level * (1 - level) / runs)
    assert np.mean(measured) <= truth + 3 * np.std(measured) / np.sqrt(runs)
    if rates == [0.3] * 40 and not common:
        assert naive / runs < 0.6
        assert np.mean(best) > truth + 0.05
        assert np.mean(measured) == pytest.approx(truth, abs=3 * np.std(measured) / np.sqrt(runs))


@pytest.mark.parametrize(("k", "n"), [(0, 20), (20, 20), (7, 20), (61, 120)])
def test_bounds_like_scipy(k: int, n: int) -> None:
    expected = binomtest(k, n).proportion_ci(0.9, method="exact")
    assert clopper_pearson(Proportion(k, n), 0.05) == pytest.approx(
        (expected.low, expected.high), abs=1e-9
    )


def test_the_number_comes_from_questions_that_did_not_choose() -> None:
    """Right on all choosing questions and no other: chosen, and measured at 0."""
    divided = Halves((0, 1), (2, 3))
    lucky = Candidate("lucky", 5, (True, True, False, False), 1.0)
    solid = Candidate("solid", 5, (True, False, True, True), 1.0)
    found = worst_case([solid, lucky], ANY, divided)
    assert (found.trial, found.measured.k, found.choosing.k) == ("lucky", 0, 2)
    assert found.naive == Proportion(3, 4)
    assert (found.low, found.kept, found.tried) == (0.0, 2, 2)
    assert found.high == clopper_pearson(Proportion(3, 4), 0.025)[1]


def test_a_useless_model_is_not_the_worst_case() -> None:
    divided = Halves((0,), (1,))
    broken = Candidate("broken", 5, (True, True), 0.2)
    useful = Candidate("useful", 5, (False, True), 0.95)
    kept = Bound.losing(0.1, before=1.0)
    assert worst_case([broken, useful], kept, divided).trial == "useful"
    assert worst_case([broken, useful], Bound(most=0.5), divided).trial == "broken"
    with pytest.raises(ValueError, match="none of 1 candidates is within"):
        worst_case([broken], kept, divided)


def test_of_equal_attacks_the_cheapest() -> None:
    same = [Candidate(name, step, (True, True), 1.0) for name, step in (("b", 9), ("c", 3))]
    found = worst_case(same, ANY, Halves((0,), (1,)))
    assert (found.trial, found.step) == ("c", 3)


def test_effort_by_steps() -> None:
    divided = Halves((0, 1), (2, 3))
    points = [
        Candidate("a", 0, (False,) * 4, 1.0),
        Candidate("a", 10, (True, False, True, False), 1.0),
        Candidate("a", 20, (True, True, True, True), 0.1),  # useless by then
        Candidate("b", 20, (True, True, False, False), 1.0),
        Candidate("b", 30, (False, False, True, True), 1.0),
    ]
    curve = by_steps(points, Bound(least=0.5), divided)
    assert [(step, share.k) for step, share in curve] == [(0, 0), (10, 1), (20, 0), (30, 0)]


def test_effort_by_trials_is_the_mean_over_all_choices() -> None:
    rng = np.random.default_rng(5)
    tried = answered(np.linspace(0.2, 0.8, 6), rng)
    curve = dict(by_trials(tried, ANY, DIVIDED))
    for n in range(1, 7):
        worst = [worst_case(some, ANY, DIVIDED).measured.value for some in combinations(tried, n)]
        assert curve[n] == pytest.approx(np.mean(worst))
    assert curve[6] > curve[1] + 0.1


def test_an_attack_without_a_useful_point() -> None:
    two = [Candidate("a", 1, (True, True), 1.0), Candidate("b", 1, (True, True), 0.0)]
    with pytest.raises(ValueError, match="attack b has no point within"):
        by_trials(two, Bound(least=0.5), Halves((0,), (1,)))


def test_halves_keep_what_belongs_together() -> None:
    ids = [f"fact-{i // 2}-form-{i % 2}" for i in range(40)]
    divided = halves(ids, seed=3, group=lambda id: id.rsplit("-", 2)[0])
    sides = [
        {ids[i].rsplit("-", 2)[0] for i in side} for side in (divided.choosing, divided.measuring)
    ]
    assert not sides[0] & sides[1]
    assert sorted([*divided.choosing, *divided.measuring]) == list(range(40))
    assert len(divided.choosing) == len(divided.measuring) == 20
    assert divided == halves(ids, seed=3, group=lambda id: id.rsplit("-", 2)[0])
    assert divided != halves(ids, seed=4, group=lambda id: id.rsplit("-", 2)[0])
    with pytest.raises(ValueError, match="1 groups"):
        halves(["a", "b"], seed=0, group=lambda id: "x")


def test_recovered_share() -> None:
    assert recovered(0.3, 0.3, 1.0) == 0
    assert recovered(1.0, 0.3, 1.0) == 1
    assert recovered(0.65, 0.3, 1.0) == pytest.approx(0.5)
    assert recovered(0.5, 1.0, 1.0) is None


def record(picks: dict[int, str], utility: dict[int, float], items: tuple[str, ...]) -> Any:
    points = []
    for step, letters in picks.items():
        values: dict[str, Any] = {"picks": {"forget": letters}}
        if step in utility:
            values["retain"] = utility[step]
        points.append([step, values])
    return {"points": points, "questions": {"forget": {"items": list(items), "answers": "AB"}}}


def test_candidates_of_recorded_attacks() -> None:
    items = ("x", "y")
    one = record({0: "BA", 5: "AA", 9: "AB"}, {0: 1.0, 9: 0.8}, items)
    made, ids = candidates_of({"one": one}, "forget", "retain")
    assert ids == ["x", "y"]
    assert made == [
        Candidate("one", 0, (False, False), 1.0),
        Candidate("one", 9, (True, True), 0.8),
    ]
    other = record({0: "BA"}, {0: 1.0}, ("x", "z"))
    with pytest.raises(ValueError, match="attack two was measured with other questions"):
        candidates_of({"one": one, "two": other}, "forget", "retain")
    with pytest.raises(ValueError, match="both forget and retain"):
        candidates_of({"one": record({0: "BA"}, {}, items)}, "forget", "retain")


@pytest.mark.parametrize("bounds", [{}, {"least": 0.1, "most": 0.2}])
def test_a_bound_is_one_of_two(bounds: Any) -> None:
    with pytest.raises(ValueError, match="one of the two"):
        Bound(**bounds)


def test_bad_input() -> None:
    one = Candidate("a", 0, (True, True), 1.0)
    with pytest.raises(ValueError, match="a level of 1"):
        worst_case([one], ANY, Halves((0,), (1,)), level=1)
    with pytest.raises(ValueError, match="different numbers"):
        worst_case([one, Candidate("b", 0, (True,), 1.0)], ANY, Halves((0,), (1,)))


def test_attacks_that_choose_equally_well_are_ranked_by_name_not_as_they_come() -> None:
    """The other questions tell them apart, so that another order of equals would show."""
    count = 9
    names = [f"trial-{number}" for number in range(count)]
    divided = Halves((0,), tuple(range(1, count + 1)))
    candidates = [
        Candidate(name, 1, (True, *(at < index for at in range(count))), 1.0)
        for index, name in enumerate(names)
    ]
    values = [index / count for index in range(count)]  # of each in the order of the names
    # Of n drawn it is the first by name that is among them.
    wanted = [
        sum(comb(count - 1 - at, n - 1) * value for at, value in enumerate(values)) / comb(count, n)
        for n in range(1, count + 1)
    ]
    for given in (candidates, candidates[::-1], candidates[4:] + candidates[:4]):
        assert [value for _, value in by_trials(given, ANY, divided)] == pytest.approx(wanted)


@pytest.mark.parametrize("level", [0.0, 1.0, -0.1, 1.5])
def test_a_level_is_between_0_and_1(level: float) -> None:
    with pytest.raises(ValueError, match="not between 0 and 1"):
        worst_case([Candidate("a", 1, (True, True), 1.0)], ANY, Halves((0,), (1,)), level=level)


def test_bounds_hold_their_ends_and_two_groups_can_be_halved() -> None:
    at = Candidate("a", 1, (True,), 0.5)
    assert Bound(least=0.5).keeps(at)
    assert Bound(most=0.5).keeps(at)
    assert not Bound(least=0.51).keeps(at)
    assert not Bound(most=0.49).keeps(at)
    assert Bound.losing(0.5, 1.0) == Bound(least=0.5)
    assert {len(side) for side in vars(halves(["x", "y"], seed=0)).values()} == {1}
    with pytest.raises(ValueError, match="1 groups"):
        halves(["x"], seed=0)
