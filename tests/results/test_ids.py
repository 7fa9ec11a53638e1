"""The grammar of cell ids."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit.manifest.load import load_expectation
from kit.results.ids import CellId, Statistic, parse, row_of, statistic_of

EXPECTATIONS = sorted(Path(__file__).parents[2].glob("expected_results/*/*.yaml"))
PARTS = st.text(st.characters(exclude_characters="/@#", exclude_categories=["Z", "C"]), min_size=1)


@pytest.mark.parametrize("path", EXPECTATIONS, ids=lambda path: path.name)
def test_every_committed_id_is_of_the_grammar(path: Path) -> None:
    cells = load_expectation(path).cells
    assert cells
    for cell in cells:
        assert str(parse(cell.id)) == cell.id


@given(st.lists(PARTS, min_size=3, max_size=6), st.booleans())
def test_an_id_is_read_back_as_it_was_written(parts: list[str], about: bool) -> None:
    group, metric, row, *settings = parts
    if group == "stats":
        return
    id = CellId(group, metric, row, tuple(settings), about)
    assert parse(str(id)) == id


def test_settings_follow_the_row() -> None:
    assert str(CellId("near", "asr", "lora", ("1e-5", "rank-8"))) == "near/asr/lora@1e-5@rank-8"
    about = CellId("near", Statistic.EMPTY, "lora", ("1e-5",), about_generations=True)
    assert str(about) == "stats/near/lora@1e-5/empty-rate"


@pytest.mark.parametrize("text", ["a/b", "a/b/c/d", "", "stats/a/b", "a//c", "a/b/c@", "a/b/c d"])
def test_what_is_no_id_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="cell id"):
        parse(text)


@pytest.mark.parametrize("part", ["", "a/b", "a@b", "a#b", "a b", "a\n"])
@pytest.mark.parametrize("field", ["group", "metric", "row", "settings"])
def test_a_part_that_would_read_as_another_id_is_refused(field: str, part: str) -> None:
    parts = {"group": "g", "metric": "m", "row": "r", "settings": ("s",)}
    with pytest.raises(ValueError, match="of a cell id is"):
        CellId(**(parts | {field: (part,) if field == "settings" else part}))


def test_no_group_is_called_like_the_statistics() -> None:
    with pytest.raises(ValueError, match="no group can be called 'stats'"):
        CellId("stats", "asr", "lora")


@pytest.mark.parametrize("statistic", Statistic)
def test_a_statistic_is_recognised_with_and_without_its_prefix(statistic: Statistic) -> None:
    id = CellId("near", statistic, "lora", ("0.1",), about_generations=True)
    assert statistic_of(str(id)) == ("near/lora@0.1", statistic)
    assert statistic_of(f"near/lora/{statistic}") == ("near/lora", statistic)


def test_other_ids_are_no_statistics() -> None:
    assert statistic_of("near/empty-rate/lora") is None
    assert statistic_of("accuracy") is None


def test_the_row_of_any_id() -> None:
    assert row_of("near/asr/lora@0.1") == "lora@0.1"
    assert row_of("accuracy") == "accuracy"
