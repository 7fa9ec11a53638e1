"""Canaries come before numbers and outrank them."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from msgspec import structs

from kit.results.labels import Labels
from kit.results.types import Canary, Cell, SeedValue
from tests.verify.builders import claim, expected_cell, labels, memory, run, share, tolerance


def test_a_failed_canary_of_a_step_outranks_a_perfect_number() -> None:
    cells = [expected_cell("t/a", n=208), expected_cell("u/a", n=208)]
    table = [share("t/a", 10, 208), share("u/a", 10, 208)]
    broken = Canary(id="defence-present", step="eval", passed=False, detail="absent", cells=["t/"])
    verdict = run(cells, table, [claim("threshold", cells=["t/a"], value="90", side="at_most")],
                  [broken])  # fmt: skip
    assert [cell.verdict for cell in verdict.cells] == ["invalid", "match"]
    assert "defence-present" in verdict.cells[0].detail
    assert verdict.claims[0].outcome == "not-evaluated"
    assert (verdict.verdict, verdict.exit_code) == ("INCOMPLETE", 3)


def test_a_failed_canary_without_cells_spoils_all() -> None:
    cells = [expected_cell("t/a", n=208), expected_cell("u/a", n=208)]
    broken = Canary(id="x", step="s", passed=False, detail="d")
    verdict = run(cells, [share("t/a", 10, 208), share("u/a", 10, 208)], canaries=[broken])
    assert {cell.verdict for cell in verdict.cells} == {"invalid"}


@pytest.mark.parametrize(("prefix", "verdict"), [("T1/", "invalid"), ("extra/", "match")])
def test_a_failed_canary_whose_name_fits_nothing_is_heard(prefix: str, verdict: str) -> None:
    """A slip in the prefix spoils all; a cell that the expectation does not list is no slip."""
    alarm = Canary(id="attack-present", step="s", passed=False, detail="none", cells=[prefix])
    measured = [share("t/a", 10, 208), share("extra/b", 1, 208)]
    found = run([expected_cell(n=208)], measured, canaries=[alarm])
    assert found.cells[0].verdict == verdict


def test_a_passed_canary_is_reported_and_changes_nothing() -> None:
    passed = Canary(id="x", step="s", passed=True, detail="d")
    verdict = run([expected_cell("t/a", n=208)], [share("t/a", 10, 208)], canaries=[passed])
    assert verdict.cells[0].verdict == "match"
    assert verdict.canaries[0].passed


SEEDS = tolerance("seeds", margin="50")


DIGITS = "0123456789"


def duplicated(
    vectors: dict[str, Sequence[str]], names: Sequence[str] = ()
) -> tuple[list[str], list[bool]]:
    """Verdicts and canary states for cells whose seeds have these label vectors."""
    cells, table, lines = [], [], []
    for id, bits in vectors.items():
        seeds = []
        for index, vector in enumerate(bits):
            name = f"{id}-{index}"
            lines.append(labels(name, vector))
            k, n = vector.count("1"), len(vector)
            seeds.append(
                SeedValue(seed=(names or DIGITS)[index], value=100 * k / n, k=k, n=n, labels=name)
            )
        mean = sum(seed.value for seed in seeds) / len(seeds)
        table.append(Cell(id=id, unit="percent", value=mean, seeds=seeds))
        cells.append(expected_cell(id, "50", tolerance=SEEDS))
    verdict = run(cells, table, labels=memory(*lines))
    return [c.verdict for c in verdict.cells], [c.passed for c in verdict.canaries]


A = "1010110010" * 5
B = "0110101010" * 5
ZERO = "0" * 50


def test_replicates_within_a_replicate_agree_before_they_part_and_nowhere_else() -> None:
    names = ["1/a", "1/b", "2/a", "2/b"]
    c, d, e, f = ("1100" * 12 + "10", "0011" * 12 + "01", "1001" * 12 + "11", "0110" * 12 + "00")
    before, after = [A, A, B, B], [c, d, e, f]
    assert duplicated({"t/a": before, "t/b": after}, names)[1] == [True]
    # A single pair that agrees, or replicates that agree in everything, are copies.
    assert duplicated({"t/a": [A, A, B, f], "t/b": after}, names)[1] == [False]
    assert duplicated({"t/a": before, "t/b": before}, names)[1] == [False]
    assert duplicated({"t/a": [A, A], "t/b": [c, d]}, names)[1] == [False]


def test_identical_labels_from_two_seeds_are_invalid() -> None:
    verdicts, passed = duplicated({"t/a": [A, A]})
    assert (verdicts, passed) == (["invalid"], [False])


@pytest.mark.parametrize("seeds", [3, 4, 6])
def test_total_copies_are_found_however_many(seeds: int) -> None:
    """Every seed is the first one once more, in every cell."""
    verdicts, passed = duplicated({"t/x/a": [A] * seeds, "t/x/b": [B] * seeds})
    assert (set(verdicts), passed) == ({"invalid"}, [False])


def test_copies_among_seeds_that_differ_are_found() -> None:
    first, second, third = A, B, A[::-1]
    verdicts, passed = duplicated({"t/x/a": [first, first, first, second, third]})
    assert (verdicts, passed) == (["invalid"], [False])


def test_what_passed_says_how_many_differ() -> None:
    """A cell that items alone decide is the same under every seed, and said so."""
    cells = [expected_cell(id, "50", tolerance=SEEDS) for id in ("t/x/a", "t/x/b", "t/y/c")]
    table, lines = [], []
    for id, bits in (("t/x/a", [A, B, A[::-1]]), ("t/x/b", [B, A[::-1], A]), ("t/y/c", [B] * 3)):
        lines += [labels(f"{id}-{i}", vector) for i, vector in enumerate(bits)]
        seeds = [SeedValue(seed=str(i), value=50.0, k=25, n=50, labels=f"{id}-{i}")
                 for i in range(3)]  # fmt: skip
        table.append(Cell(id=id, unit="percent", value=50.0, seeds=seeds))
    (canary,) = run(cells, table, labels=memory(*lines)).canaries
    assert (canary.passed, canary.detail) == (True, "6 of 9 pairs of seeds differ")


def test_saturated_vectors_are_no_evidence() -> None:
    assert duplicated({"t/a": [ZERO, ZERO]})[1] == []
    assert duplicated({"t/a": [ZERO, ZERO], "t/b": [A, B]})[1] == [True]


def test_one_copied_cell_among_differing_ones_is_found() -> None:
    verdicts, passed = duplicated({"t/a": [A, B], "t/b": [B, A], "t/c": [A, A]})
    assert passed == [False]
    assert verdicts[2] == "invalid"
    assert "invalid" not in verdicts[:2]


def test_a_coincidence_that_the_flip_rate_explains_is_none() -> None:
    """Seeds that hardly ever differ elsewhere may well agree on a small set."""
    near = "0" + A[1:]
    assert duplicated({"t/a": [A, near], "t/b": [B, B]})[1] == [True]


def test_a_vector_that_a_third_seed_gives_in_another_row_is_decided_by_the_items() -> None:
    """Two seeds refuse exactly what is to be refused; so does a third, behind other tokens."""
    other, third = A[::-1], B[::-1]
    told_apart = {"t/x/a": [other, B, third], "t/x/b": [B, third, other]}
    alarm = {**told_apart, "t/refusal/a": [A, A, B]}
    assert duplicated(alarm)[1] == [False], "nobody else gives this vector"
    assert duplicated({**alarm, "t/refusal/b": [B, other, A]})[1] == [True]
    assert duplicated({**alarm, "t/again/a": [B, other, A]})[1] == [False], "the same row"
    copies = {"t/x/a": [A, A, B], "t/x/b": [B, B, A], "t/y/c": [other, other, third]}
    assert duplicated(copies)[1] == [False], "a copied seed still shows in the third row"


def collapse(choices: str, answers: str) -> tuple[str, str]:
    right = "".join(str(int(c == a)) for c, a in zip(choices, answers, strict=True))
    line = Labels(id="l", labels=[int(b) for b in right], choices=list(choices),
                  answers=list(answers))  # fmt: skip
    n, k = len(right), right.count("1")
    cell = expected_cell("mc/a", f"{100 * k / n:.1f}", n=n)
    verdict = run([cell], [share("mc/a", k, n, labels="l")], labels=memory(line))
    return verdict.cells[0].verdict, verdict.canaries[0].detail


def test_always_the_same_letter_is_a_collapse() -> None:
    verdict, detail = collapse("A" * 40, "ABCD" * 10)
    assert verdict == "invalid"
    assert "always 'A' would give 25.0 %" in detail


def test_several_letters_are_none() -> None:
    assert collapse("ABDC" * 10, "ABCD" * 10)[0] == "match"


def test_a_key_of_one_letter_explains_one_letter() -> None:
    assert collapse("A" * 40, "A" * 39 + "B")[0] == "match"


def statistics(name: str, value: float, unit: str, prefix: str = "stats/") -> list[str]:
    cells = [expected_cell("t/a", n=208), expected_cell("u/a", n=208)]
    table = [share("t/a", 10, 208), share("u/a", 10, 208),
             Cell(id=f"{prefix}t/{name}", unit=unit, value=value)]  # fmt: skip
    return [cell.verdict for cell in run(cells, table).cells]


def test_generation_statistics() -> None:
    assert statistics("empty-rate", 80.0, "percent") == ["invalid", "match"]
    assert statistics("empty-rate", 0.2, "fraction") == ["match", "match"]
    assert statistics("truncated-rate", 0.9, "fraction") == ["invalid", "match"]
    assert statistics("refusal-rate", 100.0, "percent") == ["invalid", "match"]
    assert statistics("mean-tokens", 1.0, "number") == ["invalid", "match"]
    assert statistics("mean-tokens", 40.0, "count") == ["match", "match"]


def test_a_bound_of_the_expectation_replaces_the_limit() -> None:
    strict = tolerance("bound", bound="1", side="at_most")
    cells = [expected_cell("t/a", n=208), expected_cell("t/empty-rate", None, tolerance=strict)]
    table = [share("t/a", 10, 208), Cell(id="t/empty-rate", unit="percent", value=5.0)]
    assert run(cells, table).cells[0].verdict == "invalid"


def test_statistics_of_a_token_set_concern_its_cells_in_every_metric() -> None:
    ids = ("g/asr-max/native", "g/refusal/native", "g/asr-max/adapt-25", "h/asr-max/native")
    stats = Cell(id="stats/g/native/empty-rate", unit="percent", value=75.0, k=156, n=208)
    verdict = run(
        [expected_cell(id, n=208) for id in ids], [*(share(i, 10, 208) for i in ids), stats]
    )
    assert [c.verdict for c in verdict.cells] == ["invalid", "invalid", "match", "match"]
    assert verdict.canaries[0].id == "generation-empty-rate"
    assert "stats/g/native/empty-rate is 0.75, at most 0.5 is sane" in verdict.cells[0].detail
    assert not [note for note in verdict.notes if "not in the expectation" in note]


def test_one_broken_seed_is_not_averaged_away() -> None:
    values = (0, 0, 150)
    seeds = [SeedValue(seed=str(i), value=100 * k / 208, k=k, n=208) for i, k in enumerate(values)]
    mean = sum(seed.value for seed in seeds) / 3
    stats = Cell(id="stats/g/native/truncated-rate", unit="percent", value=mean, seeds=seeds)
    cells = [expected_cell("g/asr-max/native", n=208)]
    verdict = run(cells, [share("g/asr-max/native", 10, 208), stats])
    assert verdict.cells[0].verdict == "invalid"


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize(
    ("name", "unit", "sane", "broken"),
    [("empty-rate", "fraction", 0.0, 0.9), ("mean-tokens", "number", 30.0, 1.0)],
)
def test_the_worst_seed_decides_about_generations(
    name: str, unit: str, sane: float, broken: float, turned: bool
) -> None:
    """Sane seeds do not hide a broken one, on either side of a limit and in any order."""
    values = [broken, sane, sane, sane][:: -1 if turned else 1]
    seeds = [SeedValue(seed=str(i), value=value) for i, value in enumerate(values)]
    mean = sum(values) / len(values)
    table = [share("g/asr/a", 10, 208), Cell(id=f"stats/g/a/{name}", unit=unit, value=mean,
                                             seeds=seeds)]  # fmt: skip
    verdict = run([expected_cell("g/asr/a", n=208)], table)
    assert (verdict.canaries[0].passed, verdict.cells[0].verdict) == (False, "invalid")
    healthy = [structs.replace(seed, value=sane) for seed in seeds]
    table[1] = structs.replace(table[1], seeds=healthy, value=sane)
    assert run([expected_cell("g/asr/a", n=208)], table).canaries[0].passed
