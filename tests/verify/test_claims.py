"""Claims: every kind, every pairing, every outcome."""

from __future__ import annotations

import pytest

from kit.errors import InvalidInput
from kit.manifest.expectation_types import ExpectedCell
from kit.results.types import Cell, SeedValue
from tests.verify.builders import (
    claim,
    expected_cell,
    labels,
    memory,
    one_claim,
    reference,
    run,
    seeded,
    seeded_shares,
    share,
    tolerance,
)


def outcome(kind: str, measured: list[Cell], /, **fields: object) -> str:
    return one_claim(claim(kind, **fields), measured).outcome


A, B, C = "t/a", "t/b", "t/c"


def number(id: str, value: float, unit: str = "loss") -> Cell:
    return Cell(id=id, unit=unit, value=value)


# -- order


def test_order_of_proportions() -> None:
    low, middle, high = share(A, 4, 208), share(B, 60, 208), share(C, 150, 208)
    assert outcome("order", [low, middle, high], cells=[A, B, C]) == "holds"
    assert outcome("order", [low, middle, high], cells=[C, B, A]) == "fails"
    near = share(B, 6, 208)
    assert outcome("order", [low, near, high], cells=[A, B, C]) == "undetermined"


def test_tied_is_undetermined() -> None:
    assert outcome("order", [share(A, 10, 208), share(B, 10, 208)], cells=[A, B]) == "undetermined"
    assert outcome("order", [number(A, 1.5), number(B, 1.5)], cells=[A, B]) == "undetermined"


def test_an_order_of_a_single_cell_is_refused() -> None:
    with pytest.raises(InvalidInput, match="claim c1: order needs at least two cells"):
        one_claim(claim("order", cells=[A]), [share(A, 10, 208)])


@pytest.mark.parametrize("primary", [False, True])
def test_a_claim_fails_whether_it_is_primary_or_not(primary: bool) -> None:
    cells = [share(A, 200, 208), share(B, 10, 208)]
    report = one_claim(claim("order", cells=[A, B], primary=primary), cells)
    assert report.outcome == "fails"


def test_order_with_margin() -> None:
    cells = [share(A, 4, 208), share(B, 60, 208)]
    assert outcome("order", cells, cells=[A, B], margin="15", reason="r") == "holds"
    assert outcome("order", cells, cells=[A, B], margin="26", reason="r") == "undetermined"
    assert outcome("order", cells, cells=[A, B], margin="45", reason="r") == "fails"


def test_order_on_paired_labels_sees_what_proportions_cannot() -> None:
    here = labels("here", "1" * 30 + "0" * 178)
    there = labels("there", "1" * 38 + "0" * 170)
    cells = [share(A, 30, 208, labels="here"), share(B, 38, 208, labels="there")]
    paired = one_claim(claim("order", cells=[A, B]), cells, labels=memory(here, there))
    assert paired.outcome == "holds"
    assert "paired labels" in paired.method
    apart = [share(A, 30, 208), share(B, 38, 208)]
    assert outcome("order", apart, cells=[A, B]) == "undetermined"


def test_labels_of_other_items_are_not_paired() -> None:
    here = labels("here", "1" * 30 + "0" * 178)
    there = labels("there", "1" * 38 + "0" * 170, [f"x{i}" for i in range(208)])
    cells = [share(A, 30, 208, labels="here"), share(B, 38, 208, labels="there")]
    report = one_claim(claim("order", cells=[A, B]), cells, labels=memory(here, there))
    assert report.method == "score interval of two proportions"


def test_order_on_paired_seeds_sees_what_groups_cannot() -> None:
    a, b = [10.0, 20.0, 30.0], [11.0, 21.2, 30.9]
    paired = one_claim(claim("order", cells=[A, B]), [seeded(A, a), seeded(B, b)])
    assert (paired.outcome, paired.method) == ("holds", "3 paired seeds, one-sided t")
    other = one_claim(claim("order", cells=[A, B]), [seeded(A, a), seeded(B, b, first=7)])
    assert other.outcome == "undetermined"
    assert "Welch" in other.method


def test_all_equal_differences_of_proportions_use_item_sampling() -> None:
    cells = [seeded_shares(A, [0, 0, 0], 208), seeded_shares(B, [208, 208, 208], 208)]
    report = one_claim(claim("order", cells=[A, B]), cells)
    assert report.outcome == "holds"
    assert "item sampling" in report.method


def test_all_equal_differences_of_numbers_use_the_sign_test() -> None:
    def equal(m: int) -> str:
        a = [float(i) for i in range(m)]
        return outcome("order", [seeded(A, a, "loss"), seeded(B, [v + 1 for v in a], "loss")],
                       cells=[A, B])  # fmt: skip

    assert equal(3) == "undetermined"
    assert equal(5) == "holds"


def test_a_number_that_never_varies_is_compared_as_it_stands() -> None:
    same = [seeded(A, [320.0] * 3, "count"), seeded(B, [640.0] * 3, "count")]
    report = one_claim(claim("threshold", cells=[A], value="320", side="at_most"), same[:1])
    assert (report.outcome, report.p) == ("holds", None)
    assert report.method == "all seeds give the same number, compared as it stands"
    assert outcome("order", same, cells=[A, B]) == "holds"
    assert outcome("order", [same[0], seeded(B, [640.0] * 3, "count", 7)], cells=[A, B]) == "holds"


# -- threshold


def test_threshold_of_a_proportion_is_exact() -> None:
    zero = [share(A, 0, 208)]
    assert outcome("threshold", zero, cells=[A], value="5", side="at_most") == "holds"
    assert outcome("threshold", zero, cells=[A], value="1", side="at_most") == "undetermined"
    assert outcome("threshold", zero, cells=[A], value="0", side="at_most") == "undetermined"
    some = [share(A, 30, 208)]
    assert outcome("threshold", some, cells=[A], value="5", side="at_most") == "fails"
    assert outcome("threshold", some, cells=[A], value="5", side="at_least") == "holds"


def test_threshold_over_seeds() -> None:
    cells = [seeded(A, [1.0, 1.4, 0.8])]
    assert outcome("threshold", cells, cells=[A], value="5", side="at_most") == "holds"
    assert outcome("threshold", cells, cells=[A], value="1.2", side="at_most") == "undetermined"
    saturated = [seeded_shares(A, [0, 0, 0], 208)]
    assert outcome("threshold", saturated, cells=[A], value="5", side="at_most") == "holds"


def test_threshold_of_a_plain_number_includes_the_value() -> None:
    assert outcome("threshold", [number(A, 0.2)], cells=[A], value="0.2", side="at_most") == "holds"
    above = [number(A, 0.20000000000000004)]
    assert outcome("threshold", above, cells=[A], value="0.2", side="at_most") == "fails"


def test_threshold_needs_every_cell() -> None:
    cells = [share(A, 0, 208), share(B, 80, 208)]
    assert outcome("threshold", cells, cells=[A, B], value="5", side="at_most") == "fails"


# -- direction


def test_direction_in_enough_pairs() -> None:
    before = [share(f"t/b{i}", 100, 208) for i in range(6)]
    after = [share(f"t/a{i}", k, 208) for i, k in enumerate([5, 6, 7, 8, 9, 101])]
    pairs = [[f"t/b{i}", f"t/a{i}"] for i in range(6)]
    everywhere = outcome("direction", before + after, pairs=pairs, side="at_most")
    mostly = outcome("direction", before + after, pairs=pairs, side="at_most", at_least_pairs=5)
    assert (everywhere, mostly) == ("undetermined", "holds")
    assert outcome("direction", before + after, pairs=pairs, side="at_least") == "fails"


# -- ratio


def test_ratio() -> None:
    cost = [number(A, 20.0, "minutes"), number(B, 100.0, "minutes")]
    assert outcome("ratio", cost, cells=[A, B], value="0.2", side="at_most") == "holds"
    assert outcome("ratio", cost, cells=[A, B], value="0.19", side="at_most") == "fails"
    assert outcome("ratio", cost, cells=[A, B], value="0.1", side="at_least") == "holds"


def test_ratio_of_proportions_and_units() -> None:
    cells = [share(A, 10, 208), share(B, 100, 208, "fraction")]
    assert outcome("ratio", cells, cells=[A, B], value="0.5", side="at_most") == "holds"
    assert outcome("ratio", cells, cells=[A, B], value="0.11", side="at_most") == "undetermined"


def test_ratio_over_a_negative_number_is_undetermined() -> None:
    """-0.5 / -0.1 is 5; multiplying by the denominator would turn the question round."""
    cells = [Cell(id=A, unit="number", value=-0.5), Cell(id=B, unit="number", value=-0.1)]
    for side in ("at_most", "at_least"):
        assert outcome("ratio", cells, cells=[A, B], value="1", side=side) == "undetermined"


def test_ratio_over_zero_is_undetermined() -> None:
    cells = [number(A, 1.0), number(B, 0.0)]
    assert outcome("ratio", cells, cells=[A, B], value="2", side="at_most") == "undetermined"


# -- within


def test_within_two_sided_and_one_sided() -> None:
    a, b = share(A, 7000, 14042), share(B, 7050, 14042)
    both = {"cells": [A, B], "margin": "2", "reason": "r"}
    assert outcome("within", [a, b], **both) == "holds"
    assert outcome("within", [share(A, 6000, 14042), b], **both) == "fails"
    assert outcome("within", [share(A, 6000, 14042), b], **both, side="at_most") == "holds"
    assert outcome("within", [share(A, 6000, 14042), b], **both, side="at_least") == "fails"
    assert outcome("within", [share(A, 50, 208), share(B, 52, 208)], **both) == "undetermined"


# -- what claims rest on


def test_quoted_cells_are_evaluated_on_the_runs_own_numbers_and_marked() -> None:
    cells = [
        ExpectedCell(id=A, unit="percent", value="50", status="quoted", place="doc"),
        expected_cell(B, "4.8", n=208),
    ]
    made = claim("order", cells=[B, A])
    verdict = run(cells, [share(A, 150, 208), share(B, 10, 208)], [made])
    assert verdict.claims[0].outcome == "holds"
    assert verdict.claims[0].rests_on_unmeasured
    absent = run(cells, [share(B, 10, 208)], [made])
    assert absent.claims[0].outcome == "not-evaluated"
    assert "quotes it" in absent.claims[0].detail


def test_not_run_and_missing_are_not_evaluated() -> None:
    cells = [expected_cell(A, n=208), expected_cell(B, n=208)]
    made = claim("order", cells=[A, B])
    skipped = Cell(id=B, unit="percent", not_run="no GPU")
    verdict = run(cells, [share(A, 10, 208), skipped], [made])
    assert verdict.claims[0].outcome == "not-evaluated"
    assert "no GPU" in verdict.claims[0].detail
    assert (verdict.verdict, verdict.exit_code) == ("INCOMPLETE", 3)


def test_primary_claims_are_holm_adjusted_together() -> None:
    cells = [share(A, 20, 208), share(B, 33, 208)]
    alone = one_claim(claim("order", cells=[A, B]), cells)
    assert alone.outcome == "holds"
    assert alone.p == alone.p_holm
    claims = [claim("order", id=f"c{i}", cells=[A, B]) for i in range(5)]
    expected = [expected_cell(c.id, None, tolerance=None, status="quoted") for c in cells]
    together = run(expected, cells, claims)
    assert together.claims[0].p == alone.p
    assert together.claims[0].p_holm == pytest.approx(5 * alone.p) if alone.p else False
    assert {c.outcome for c in together.claims} == {"undetermined"}


def test_one_seed_is_no_easier_than_two() -> None:
    """Items of a single run are not the noise of a quantity that is measured over seeds."""
    rule = tolerance("seeds", margin="5")
    expected = [
        expected_cell(id, None, status="reference", reference=reference(["1", "2"]), tolerance=rule)
        for id in (A, B)
    ]
    low = claim("threshold", cells=[A], value="10", side="at_most")
    order = claim("order", id="c2", cells=[A, B])

    def outcomes(m: int) -> list[str]:
        few, many = seeded_shares(A, [2, 4, 3][:m], 208), seeded_shares(B, [150, 180, 160][:m], 208)
        return [found.outcome for found in run(expected, [few, many], [low, order]).claims]

    assert outcomes(3) == ["holds", "holds"]
    assert outcomes(1) == ["undetermined", "undetermined"]
    once = run(expected, [share(A, 2, 208), share(B, 150, 208)], [low, order])
    assert once.exit_code == 3
    assert "one run of t/a, which is measured over seeds" in once.claims[0].detail


def test_a_claim_that_stands_twice_is_refused() -> None:
    """The second would hide the outcome of the first."""
    claims = [
        claim("threshold", cells=[A], value="10", side="at_most"),
        claim("threshold", cells=[B], value="10", side="at_most"),
    ]
    expected = [expected_cell(A, n=208), expected_cell(B, n=208)]
    with pytest.raises(InvalidInput, match="claim 'c1' stands twice"):
        run(expected, [share(A, 150, 208), share(B, 1, 208)], claims)


def test_claims_that_do_not_lead_are_not_adjusted() -> None:
    cells = [share(A, 20, 208), share(B, 33, 208)]
    report = one_claim(claim("order", cells=[A, B], primary=False), cells)
    assert (report.outcome, report.p_holm) == ("holds", None)


@pytest.mark.parametrize(
    ("kind", "fields", "says"),
    [
        ("order", {"cells": [A]}, "at least two"),
        ("threshold", {"cells": [A], "side": "at_most"}, "needs 'value'"),
        ("threshold", {"cells": [A], "value": "1"}, "needs 'side'"),
        ("ratio", {"cells": [A], "value": "1", "side": "at_most"}, "exactly two"),
        ("direction", {"pairs": [[A]], "side": "at_most"}, "a pair is"),
        ("within", {"cells": [A, B], "margin": "1"}, "do not compare"),
    ],
)
def test_incomplete_claims_are_refused(kind: str, fields: dict[str, object], says: str) -> None:
    with pytest.raises(InvalidInput, match=says) as caught:
        one_claim(claim(kind, **fields), [share(A, 1, 9), number(B, 1.0)])
    assert "claim c1" in str(caught.value)


def test_one_common_seed_is_no_pairing() -> None:
    a = Cell(id=A, unit="percent", value=5.0, seeds=[SeedValue(seed="1", value=4.0),
                                                     SeedValue(seed="2", value=6.0)])  # fmt: skip
    b = Cell(id=B, unit="percent", value=50.0, seeds=[SeedValue(seed="2", value=49.0),
                                                      SeedValue(seed="3", value=51.0)])  # fmt: skip
    report = one_claim(claim("order", cells=[A, B]), [a, b])
    assert "Welch" in report.method


@pytest.mark.parametrize(
    ("kind", "fields", "says"),
    [
        ("threshold", {"cells": [A], "value": "40", "side": "at_least"}, "; at least 40 % asked; "),
        ("ratio", {"cells": [A, B], "value": "0.9", "side": "at_most"}, "; at most 0.9 asked; "),
        ("within", {"cells": [A, B], "margin": "5"}, "; at most 5 points apart asked; "),
        (
            "within",
            {"cells": [A, B], "margin": "5", "side": "at_most"},
            "; at most 5 points above asked",
        ),
        ("order", {"cells": [A, B], "margin": "2"}, "; at least 2 points apart asked; "),
        (
            "direction",
            {"pairs": [[A, B], [B, A]], "side": "at_most", "at_least_pairs": 1},
            "; in 1 of 2 pairs asked; ",
        ),
    ],
)
def test_a_claim_says_what_it_asks(kind: str, fields: dict[str, object], says: str) -> None:
    report = one_claim(claim(kind, reason="r", **fields), [share(A, 90, 208), share(B, 96, 208)])
    assert says in report.detail


def test_an_open_claim_says_what_p_would_do() -> None:
    near = [share(A, 90, 208), share(B, 96, 208)]
    report = one_claim(claim("order", cells=[A, B]), near)
    assert report.outcome == "undetermined"
    assert report.detail.endswith(", 0.05 needed)")


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        ("threshold", {"value": "50", "side": "at_most"}),
        ("direction", {"side": "at_most"}),
        ("order", {}),
        ("ratio", {"value": "2", "side": "at_most"}),
        ("within", {"margin": "5"}),
    ],
)
def test_a_claim_that_names_no_cells_is_refused(kind: str, fields: dict[str, str]) -> None:
    """And does not hold for want of a counterexample."""
    with pytest.raises(InvalidInput, match=r"claim c1: .*(cells|pairs)"):
        one_claim(claim(kind, **fields), [share("t/a", 10, 208)])
