"""Where two runs part: the first cause in records, its surroundings, steps side by side."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from kit.results.plan import StepInstance
from kit.verify.diverge import (
    Divergence,
    RecordDifference,
    Side,
    Unreadable,
    compare_files,
    describe,
    diverge,
    first_difference,
    inserted,
    read_records,
)


def lines(path: Path, *records: Any) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def apart(tmp_path: Path, first: list[Any], second: list[Any]) -> RecordDifference | None:
    return first_difference(
        lines(tmp_path / "a.jsonl", *first), lines(tmp_path / "b.jsonl", *second)
    )


def seen(tmp_path: Path, first: list[Any], second: list[Any]) -> RecordDifference:
    difference = apart(tmp_path, first, second)
    assert difference is not None
    return difference


# -- records


def test_a_cause_in_a_late_record_goes_before_a_consequence_in_an_early_one(tmp_path: Path) -> None:
    ours = [{"id": "x", "prompt": "p", "label": 0}, {"id": "y", "prompt": "p", "label": 0}]
    theirs = [{"id": "x", "prompt": "p", "label": 1}, {"id": "y", "prompt": "q", "label": 0}]
    made = seen(tmp_path, ours, theirs)
    assert (made.kind, made.field, made.record) == ("prompt", "prompt", "record 2 (y) of 2")


@pytest.mark.parametrize(
    ("field", "value", "kind"),
    [
        ("item", "a", "item"),
        ("Prompt", "a", "prompt"),
        ("token_ids", [1], "token ids"),
        ("tokens", [1], "token ids"),
        ("tokens", 3, "count"),
        ("tokens", 3.5, "count"),
        ("tokens", True, "token ids"),
        ("response", "a", "generation"),
        ("choice", "A", "choice"),
        ("injected_anywhere", True, "label"),
        ("k", 3, "count"),
        ("colour", "red", "other field"),
    ],
)
def test_kinds_of_fields(tmp_path: Path, field: str, value: Any, kind: str) -> None:
    other = [2] if isinstance(value, list) else "b" if isinstance(value, str) else 0
    assert seen(tmp_path, [{field: value}], [{field: other}]).kind == kind


@pytest.mark.parametrize("field", ["text", "ids", "token_ids"])
def test_a_models_answers_may_be_called_like_its_prompts(tmp_path: Path, field: str) -> None:
    answer = {field: [1], "finish_reason": "stop"}
    assert seen(tmp_path, [answer], [{**answer, field: [2]}]).kind == "generation"
    assert seen(tmp_path, [{field: [1]}], [{field: [2]}]).kind != "generation"


def test_what_is_a_number_is_seen_in_the_first_record(tmp_path: Path) -> None:
    made = seen(tmp_path, [{"tokens": 3}, {"tokens": 4}], [{"tokens": 3}, {"tokens": 5}])
    assert (made.kind, made.record) == ("count", "record 2 of 2")
    single = seen(tmp_path, [{"tokens": 3}], [{"tokens": 4}])
    assert single.record == "record 1 of 1"
    mixed = seen(tmp_path, [{"tokens": [1]}, {"tokens": 4}], [{"tokens": [1]}, {"tokens": 5}])
    assert mixed.kind == "token ids"


def test_one_file_goes_on_after_the_other(tmp_path: Path) -> None:
    made = seen(tmp_path, [{"id": 1}], [{"id": 1}, {"id": 2}, {"id": 3}])
    assert made.record == "after record 1"
    assert (made.kind, made.first, made.second) == ("number of records", "1 record", "3 records")
    assert apart(tmp_path, [{"id": 1}], [{"id": 1}]) is None
    assert apart(tmp_path, [], []) is None


def test_a_document_is_a_record_or_its_list_of_records(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text('{"a": 1}')
    assert read_records(path) == [{"a": 1}]
    path.write_text('[{"a": 1}, 2]')
    assert read_records(path) == [{"a": 1}, {"value": 2}]
    path.write_text("{")
    with pytest.raises(Unreadable, match=r"a\.json"):
        read_records(path)
    spaced = tmp_path / "b.jsonl"
    spaced.write_text('{"a": 1}\n\n  \n{"a": 2}\n')
    assert read_records(spaced) == [{"a": 1}, {"a": 2}]


@pytest.mark.parametrize(
    ("record", "name"),
    [
        ({"id": "x", "item": "y"}, "record 1 (x) of 1"),
        ({"item": 7}, "record 1 (7) of 1"),
        ({"set": "tuned", "condition": "naive", "sample_id": 3}, "record 1 (tuned, naive, 3) of 1"),
        ({"id": None, "set": "tuned"}, "record 1 (tuned) of 1"),
        ({}, "record 1 of 1"),
    ],
)
def test_names_of_records(tmp_path: Path, record: dict[str, Any], name: str) -> None:
    assert seen(tmp_path, [{**record, "z": 1}], [{**record, "z": 2}]).record == name


# -- the leaf


def leaf(first: Any, second: Any, record: dict[str, Any] | None = None) -> RecordDifference:
    return describe("record 1", "label", "labels", first, second, record or {})


def test_the_walk_goes_down_to_the_leaf() -> None:
    made = leaf({"a": 1, "b": {"c": [1, {"d": 2}]}}, {"a": 1, "b": {"c": [1, {"d": 3}]}})
    assert (made.field, made.first, made.second) == ("labels.b.c[1].d", "2", "3")
    absent = leaf({"a": 1}, {"a": 1, "b": 2})
    assert (absent.field, absent.first, absent.second) == ("labels.b", "absent", "2")
    mixed = leaf({"a": 1}, [1])
    assert (mixed.field, mixed.first, mixed.second) == ("labels", "{'a': 1}", "[1]")
    turned = leaf("text", 3)
    assert (turned.first, turned.second, turned.hint) == ("text", "3", "")


@pytest.mark.parametrize("at", [0, 2, 3, 4, 7, 12, 15, 16, 19])
def test_a_list_is_shown_three_to_each_side(at: int) -> None:
    ours = list(range(20))
    theirs = [*ours]
    theirs[at] = 99
    made = leaf(ours, theirs, {"items": [f"i{i}" for i in range(20)]})
    first, last = max(0, at - 3), min(20, at + 4)
    before, after = "..., " if first else "", ", ..." if last < 20 else ""
    shown = ", ".join(map(str, ours[first:last]))
    assert made.first == f"[{before}{shown}{after}]"
    assert made.field == f"labels[{at}] (item i{at})"
    assert made.hint == ""


def test_the_item_is_named_where_labels_have_items() -> None:
    assert leaf([0, 1], [0, 0], {"items": ["a", "b"]}).field == "labels[1] (item b)"
    assert leaf([0, 1], [0, 0], {"items": ["a"]}).field == "labels[1]"
    assert leaf([0, 1], [0, 0], {"items": "ab"}).field == "labels[1]"
    items = describe("record 1", "item", "items", ["a"], ["b"], {"items": ["a"]})
    assert items.field == "items[0]"


def test_a_list_that_ends_earlier_is_told_from_one_with_another_element() -> None:
    made = leaf([1, 2], [1, 2, 3, 4])
    assert made.field == "labels[2]"
    assert (made.first, made.second) == ("[1, 2]", "[1, 2, 3, 4]")


@pytest.mark.parametrize(
    ("first", "second", "hint"),
    [
        ([1, 2, 3], [1, 3], "the first has 2 at position 2"),
        ([1, 3], [1, 2, 3], "the second has 2 at position 2"),
        ([5, 5, 1], [5, 1], "the first has 5 twice in a row at position 2"),
        ([1, 5, 5], [1, 5], "the first has 5 twice in a row at position 3"),
        ([9, 1], [1], "the first has 9 at position 1"),
        ([1, 2, 3], [1, 4], ""),
        ([1, 2, 3, 4], [1, 4], ""),
        ([1, 2], [1, 2], ""),
    ],
)
def test_an_element_more(first: list[int], second: list[int], hint: str) -> None:
    assert inserted(first, second) == hint


@pytest.mark.parametrize("at", [0, 10, 24, 25, 60, 75, 76, 99])
def test_a_text_is_cut_out_around_its_first_difference(at: int) -> None:
    ours = "".join(chr(97 + i % 26) for i in range(100))
    theirs = ours[:at] + "#" + ours[at + 1 :]
    made = leaf(ours, theirs)
    first, last = max(0, at - 24), at + 24
    before, after = "..." if first else "", "..." if last < 100 else ""
    assert made.first == f'{before}"{ours[first:last]}"{after}'
    assert made.second == f'{before}"{theirs[first:last]}"{after}'
    assert made.hint == f"from character {at + 1}"


def test_a_text_that_goes_on_differs_where_the_other_ends() -> None:
    assert leaf("abc", "abcd").hint == "from character 4"
    assert leaf("abcd", "abc").hint == "from character 4"


def test_long_values_are_cut_and_control_characters_shown() -> None:
    made = leaf(10**60, 1)
    assert made.first == "1" + "0" * 47 + "..."
    assert leaf(["x" * 48, 1], ["x" * 48, 2]).first == f"[{'x' * 48}, 1]"
    assert leaf("a\x1b[2J", "b").first == '"a\\x1b[2J"'


# -- steps


def step(id: str, key: str = "k", **fields: Any) -> StepInstance:
    made = {"step": id, "kind": "made/kind", "version": 1, "params": {}, "pins": {}}
    made |= {"environment": {}} | fields
    return StepInstance(id=id, key=key, **made)


def side(*steps: StepInstance, store: Path | None = None, **hashes: dict[str, str]) -> Side:
    return Side({one.id: one for one in steps}, hashes, store)


def test_the_first_step_that_differs_in_the_first_runs_order() -> None:
    a, b = step("a"), step("b")
    same, other = {"x.json": "1"}, {"x.json": "2"}
    assert diverge(side(a, b, a=same, b=same), side(a, b, a=same, b=same)) is None
    made = diverge(side(a, b, a=same, b=same), side(a, b, a=other, b=other))
    assert made is not None
    assert (made.step, made.what, made.file, made.kind) == ("a", "outputs", "x.json", "bytes")
    assert (made.first, made.second) == ("1", "2")


def test_steps_of_one_run_alone() -> None:
    a, b = step("a"), step("b")
    same = {"x.json": "1"}
    first = diverge(side(a, b, a=same, b=same), side(a, a=same))
    second = diverge(side(a, a=same), side(a, b, a=same, b=same))
    assert first is not None
    assert second is not None
    assert (first.step, first.what) == ("b", "only in the first")
    assert (second.step, second.what) == ("b", "only in the second")


def test_outputs_that_nobody_knows_differ_with_their_key() -> None:
    same = {"x.json": "1"}
    assert diverge(side(step("a")), side(step("a"))) is None
    made = diverge(side(step("a", "k1")), side(step("a", "k2", params={"lr": 2})))
    assert made is not None
    assert (made.what, made.causes) == ("not in the store", ["params.lr: None against 2"])
    later = diverge(
        side(step("a", "k1"), step("b"), b=same),
        side(step("a", "k2"), step("b"), b={"x.json": "2"}),
    )
    assert later is not None
    assert (later.step, later.what) == ("b", "outputs"), "what is known goes first"


def test_what_differs_before_the_outputs_is_said() -> None:
    ours = step("a", params={"lr": 1, "steps": 5}, pins={"model": "x"})
    theirs = step("a", params={"lr": 1, "steps": 6}, pins={"model": "y"}, version=2)
    made = diverge(side(ours, a={"x.json": "1"}), side(theirs, a={"x.json": "2"}))
    assert made is not None
    assert made.causes == [
        "version: 1 against 2",
        "params.steps: 5 against 6",
        "pins.model: x against y",
    ]


def test_files_are_told_in_the_order_of_cause_and_consequence() -> None:
    ours = {"results.json": "1", "labels.jsonl": "1", "prompts.jsonl": "1", "other.bin": "1"}
    theirs = dict.fromkeys(ours, "2")
    made = diverge(side(step("a"), a=ours), side(step("a"), a=theirs))
    assert made is not None
    assert made.file == "prompts.jsonl"
    missing = diverge(side(step("a"), a=ours), side(step("a"), a={**theirs, "more.bin": "3"}))
    assert missing is not None
    assert missing.file == "more.bin"
    assert missing.hint == "only the second has it"


def test_only_json_that_is_there_is_looked_into(tmp_path: Path) -> None:
    about = Divergence(step="a", what="outputs", file="x", kind="bytes")
    first, second = lines(tmp_path / "a.jsonl", {"k": 1}), lines(tmp_path / "b.jsonl", {"k": 2})
    made = compare_files(about, first, second)
    assert made is not None
    assert (made.file, made.field, made.step) == ("a.jsonl", "k", "a")
    assert compare_files(about, first, first) is None
    assert compare_files(about, first, tmp_path / "none.jsonl") is None
    assert compare_files(about, tmp_path / "none.jsonl", second) is None
    binary = tmp_path / "a.bin"
    binary.write_bytes(first.read_bytes())
    assert compare_files(about, binary, second) is None
    broken = tmp_path / "c.jsonl"
    broken.write_text("{")
    assert compare_files(about, first, broken) is None
