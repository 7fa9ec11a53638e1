"""An expectation that says a thing once is written out: patterns, defaults, positions."""

from __future__ import annotations

import fnmatch
import itertools
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit.errors import Many
from kit.manifest.expand import count, fits, ids
from kit.manifest.load import load_expectation, read_expectation

HEAD = """schema_version: 1
experiment: made
profile: mini
version: 1-A
"""
SHORT = (
    HEAD
    + """defaults:
  - match: "**"
    status: reported
    unit: percent
    place: "doc, table 1"
    direction: none
  - match: "*/{asr-max,refusal}/*"
    n: 208
    direction: lower_is_better
  - match: "*/asr-max/best"
    tolerance: {kind: exact, reason: "as printed", source: document}
cells:
  - {id: "{a,b}/asr-max/none", value: "1.9"}
  - {id: a/asr-max/best, value: "2.4", n: 104}
  - id: "a/loss/{x,y}"
    unit: loss
    value: "0.5"
claims: []
"""
)


def write(folder: Path, text: str) -> Path:
    path = folder / "made.mini.yaml"
    path.write_text(text)
    return path


def test_every_cell_has_what_fits_it(tmp_path: Path) -> None:
    cells = load_expectation(write(tmp_path, SHORT)).cells
    assert [cell.id for cell in cells] == [
        "a/asr-max/none", "b/asr-max/none", "a/asr-max/best", "a/loss/x", "a/loss/y",
    ]  # fmt: skip
    assert [cell.n for cell in cells] == [208, 208, 104, None, None]
    assert [cell.unit for cell in cells] == ["percent"] * 3 + ["loss"] * 2
    assert [cell.direction for cell in cells] == ["lower_is_better"] * 3 + ["none"] * 2
    assert [cell.tolerance is not None for cell in cells] == [False, False, True, False, False]
    assert {cell.place for cell in cells} == {"doc, table 1"}


def test_a_value_keeps_its_line_whoever_gave_it(tmp_path: Path) -> None:
    loaded = read_expectation(write(tmp_path, SHORT))
    lines = SHORT.splitlines()

    def line(*path: str | int) -> str:
        return lines[int(loaded.locate(path).split(":")[1]) - 1]

    assert "asr-max/none" in line("cells", 1, "value")
    assert line("cells", 1, "n") == "    n: 208"
    assert "a/asr-max/best" in line("cells", 2, "n")
    assert line("cells", 2, "tolerance", "kind").startswith("    tolerance:")
    assert line("cells", 4, "unit") == "    unit: loss"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (('match: "*/asr-max/best"', 'match: "*/asr-min/best"'), "fits no cell"),
        (("    unit: percent\n", ""), "cell 'a/asr-max/none' lacks the key 'unit'"),
        (("a/loss/{x,y}", "a/loss/{x,y"), "a brace is not closed"),
        (("a/loss/{x,y}", "a/loss/{x,Y}"), "id"),
        (('  - match: "**"\n', '  - match: "**"\n    value: "1"\n'), "unknown key 'value'"),
        (
            ("    unit: loss\n", '    unit: loss\n    reference: {mean: "1"}\n'),
            "reference values are read from the record",
        ),
        (
            ("{x,y}", "{" + ",".join("a" * 20) + "}" + "{a,b,c,d,e,f,g,h,i,j}" * 5),
            "more than 20,000",
        ),
    ],
)
def test_what_cannot_be_written_out(tmp_path: Path, change: tuple[str, str], said: str) -> None:
    assert change[0] in SHORT
    with pytest.raises(Many) as caught:
        load_expectation(write(tmp_path, SHORT.replace(*change, 1)))
    messages = "\n".join(f"{error} {error.next_step}" for error in caught.value.errors)
    assert said in messages


@given(st.lists(st.lists(st.sampled_from("abc"), min_size=1, max_size=3), min_size=1, max_size=4))
def test_braces_multiply_in_order(parts: list[list[str]]) -> None:
    pattern = "/".join("{" + ",".join(part) + "}" for part in parts)
    assert list(ids(pattern)) == ["/".join(choice) for choice in itertools.product(*parts)]
    assert count(pattern) == len(list(ids(pattern)))


@given(st.from_regex(r"[ab*]{1,6}", fullmatch=True), st.from_regex(r"[ab]{0,6}", fullmatch=True))
def test_stars_are_those_of_a_shell_within_a_part(pattern: str, text: str) -> None:
    assert bool(fits(pattern).fullmatch(text)) == fnmatch.fnmatchcase(text, pattern)


def test_one_star_stays_in_its_part_and_two_do_not() -> None:
    assert not fits("*/x").fullmatch("a/b/x")
    assert fits("**/x").fullmatch("a/b/x")
    assert fits("{a,b*}/x").fullmatch("bcd/x")


def test_a_derivation_by_default_has_the_parts_of_each_id(tmp_path: Path) -> None:
    path = tmp_path / "made.mini.yaml"
    rule = '{formula: max, cells: ["{group}/asr-a/{row}", "all/asr-b/{row}"]}'
    path.write_text(
        HEAD + f'defaults:\n  - {{match: "**", status: unreported, unit: percent, place: doc}}\n'
        f'  - match: "*/asr-max/*"\n    derived: {rule}\n'
        'cells:\n  - id: "{x,y}/{asr-max,asr-a}/none@lr-0.1"\n'
        'present: ["all/asr-b/{none,best}@lr-0.1"]\nclaims: []\n'
    )
    made = load_expectation(path)
    parts = {cell.id: cell.derived.cells for cell in made.cells if cell.derived}
    assert parts == {
        f"{group}/asr-max/none@lr-0.1": [
            f"{group}/asr-a/none@lr-0.1",
            "all/asr-b/none@lr-0.1",
        ]
        for group in "xy"
    }
    assert made.present == ["all/asr-b/none@lr-0.1", "all/asr-b/best@lr-0.1"]
