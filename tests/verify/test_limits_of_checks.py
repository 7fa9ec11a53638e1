"""Built-in checks at their limits: on the limit all is well, beyond it nothing is."""

from __future__ import annotations

import re

import pytest

from kit.results.labels import Labels
from kit.results.types import Cell, SeedValue
from kit.verify.canaries import covered, duplicate_seeds, generation_statistics, letter_collapse
from tests.verify.builders import expectation, expected_cell, labels, memory, table, tolerance


@pytest.mark.parametrize(
    ("name", "unit", "value", "passed"),
    [
        ("empty-rate", "fraction", 0.5, True), ("empty-rate", "fraction", 0.51, False),
        ("empty-rate", "percent", 50.0, True), ("empty-rate", "percent", 51.0, False),
        ("truncated-rate", "fraction", 0.5, True), ("truncated-rate", "fraction", 0.51, False),
        ("refusal-rate", "fraction", 0.99, True), ("refusal-rate", "fraction", 0.995, False),
        ("mean-tokens", "number", 2.0, True), ("mean-tokens", "number", 1.99, False),
    ],
)  # fmt: skip
def test_statistics_of_generations(name: str, unit: str, value: float, passed: bool) -> None:
    cell = Cell(id=f"stats/t/{name}", unit=unit, value=value)
    (report,) = generation_statistics(expectation([]), table([cell]), ["t/a", "u/a"])
    assert report.passed == passed
    assert report.cells == ([] if passed else ["t/a"])
    assert report.id == f"generation-{name}"


@pytest.mark.parametrize(
    ("side", "value", "passed"),
    [("at_most", 3.0, True), ("at_most", 3.1, False),
     ("at_least", 3.0, True), ("at_least", 2.9, False)],
)  # fmt: skip
def test_an_own_bound_replaces_limit_side_and_unit(side: str, value: float, passed: bool) -> None:
    own = expected_cell("t/empty-rate", None, tolerance=tolerance("bound", bound="3", side=side))
    cell = Cell(id="t/empty-rate", unit="percent", value=value)
    (report,) = generation_statistics(expectation([own]), table([cell]), ["t/a"])
    assert report.passed == passed
    word = "at most" if side == "at_most" else "at least"
    assert report.detail == f"t/empty-rate is {value:g}, {word} 3 is sane"


def test_what_was_not_run_or_has_no_value_is_not_looked_at() -> None:
    cells = [Cell(id="stats/t/empty-rate", unit="percent", not_run="no time"),
             Cell(id="stats/t/other", unit="percent", value=99.0)]  # fmt: skip
    assert generation_statistics(expectation([]), table(cells), ["t/a"]) == []


@pytest.mark.parametrize(
    ("same", "letters", "right", "passed"),
    [(36, "A", 20, False), (35, "A", 20, True), (40, "A", 36, True), (40, "A", 35, False),
     (36, "B", 20, False)],
)  # fmt: skip
def test_letters(same: int, letters: str, right: int, passed: bool) -> None:
    """A letter in nine tenths of 40 answers, unless nine tenths of the key are that letter."""
    choices = letters * same + "C" * (40 - same)
    answers = letters * right + "D" * (40 - right)
    bits = [int(c == a) for c, a in zip(choices, answers, strict=True)]
    line = Labels(id="l", labels=bits, choices=[*choices], answers=[*answers])
    cell = Cell(id="mc/a", unit="percent", value=1.0, labels="l")
    (report,) = letter_collapse(table([cell]), memory(line))
    assert (report.passed, report.cells) == (passed, [] if passed else ["mc/a"])
    said = [float(number) for number in re.findall(r"[0-9.]+(?= %)", report.detail)]
    assert said == ([] if passed else [2.5 * same, 2.5 * sum(bits), 2.5 * right])
    assert (f"{letters!r}" in report.detail) != passed


def test_letters_of_every_seed_and_without_a_key() -> None:
    lines = [Labels(id=str(i), labels=[0] * 20, choices=[*word])
             for i, word in enumerate(("AB" * 10, "A" * 20))]  # fmt: skip
    seeds = [SeedValue(seed=str(i), value=0.0, labels=str(i)) for i in range(2)]
    cell = Cell(id="mc/a", unit="percent", value=0.0, seeds=seeds, labels="0")
    (report,) = letter_collapse(table([cell]), memory(*lines))
    assert (report.passed, report.cells) == (False, ["mc/a"])
    assert "accuracy" not in report.detail
    bare = Labels(id="0", labels=[1, 0])
    assert letter_collapse(table([cell]), memory(bare, Labels(id="1", labels=[1]))) == []


def seeds_of(id: str, vectors: list[str], names: str = "abcdef") -> tuple[Cell, list[Labels]]:
    lines = [labels(f"{id}-{name}", bits) for name, bits in zip(names, vectors, strict=False)]
    seeds = [SeedValue(seed=name, value=0.0, labels=line.id)
             for name, line in zip(names, lines, strict=False)]  # fmt: skip
    return Cell(id=id, unit="percent", value=0.0, seeds=seeds), lines


def duplicates(**cells: list[str]) -> list[tuple[bool, list[str], str]]:
    made = [seeds_of(f"t/{name}", vectors) for name, vectors in cells.items()]
    found = duplicate_seeds(
        table([cell for cell, _ in made]), memory(*(line for _, lines in made for line in lines))
    )
    return [(report.passed, report.cells, report.detail) for report in found]


@pytest.mark.parametrize("flipped", [False, True])
@pytest.mark.parametrize(("ones", "speaks"), [(3, True), (2, False)])
def test_three_of_a_label_speak(ones: int, speaks: bool, flipped: bool) -> None:
    bits = "1" * ones + "0" * (50 - ones)
    bits = bits.translate(str.maketrans("01", "10")) if flipped else bits
    found = duplicates(a=[bits, bits])
    assert [passed for passed, _, _ in found] == ([False] if speaks else [])


def test_seeds_with_other_items_are_not_compared() -> None:
    assert duplicates(a=["10" * 10, "10" * 11]) == []


@pytest.mark.parametrize(("flips", "passed"), [(1, True), (7, True), (8, False), (20, False)])
def test_the_flip_rate_elsewhere_explains_a_coincidence(flips: int, passed: bool) -> None:
    """Two comparisons of 60 items: 2 (1 - f)^60 is 0.0012 at 7 flips, 0.0004 at 8."""
    first = "10" * 30
    other = "".join("10"[int(bit)] if i < flips else bit for i, bit in enumerate(first))
    assert (2 * (1 - flips / 60) ** 60 >= 1e-3) == passed
    ((heard, cells, detail),) = duplicates(x=[first, first], y=[first, other])
    assert heard == passed
    assert cells == ([] if passed else ["t/x"])
    assert detail == (
        "1 of 2 pairs of seeds differ" if passed else "seeds a and b have identical labels in t/x"
    )


def test_several_copies_are_counted() -> None:
    bits = ["10" * 30, "01" * 30, "0011" * 15]
    ((heard, cells, detail),) = duplicates(x=[bits[0]] * 2 + bits[1:2], y=bits[1:] + bits[1:2])
    assert (heard, cells) == (False, ["t/x", "t/y"])
    assert detail == "seeds a and b have identical labels in t/x and 1 more"


def test_a_prefix_covers_what_begins_with_it() -> None:
    ids = ["t/a", "t/b", "u/a"]
    assert covered([], ids) == ids
    assert covered(["t/"], ids) == ["t/a", "t/b"]
    assert covered(["t/b", "u/"], ids) == ["t/b", "u/a"]
    assert covered(["x"], ids) == []
