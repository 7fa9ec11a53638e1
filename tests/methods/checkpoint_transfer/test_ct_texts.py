"""Which texts a run takes, and question files in the published form."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from kit.methods.checkpoint_transfer.questions import read_lettered, stem
from kit.methods.checkpoint_transfer.texts import (
    choose_texts,
    read_documents,
    read_texts,
    write_texts,
)

FORGET = [f"f{n}" for n in range(6)]
RETAIN = [f"r{n}" for n in range(10)]


def encode(text: str) -> list[int]:
    return [ord(text[0]), int(text[1:])]


def choose(**changes: Any) -> Any:
    values = {"pairs": 4, "fit": 3, "held_out": 2, "seed": 1, "most_tokens": 9}
    return choose_texts(FORGET, RETAIN, encode, **{**values, **changes})


def test_forget_text_comes_in_its_order_and_shorter_runs_take_the_first() -> None:
    texts = choose()
    assert texts.forget == [encode(text) for text in FORGET[:4]]
    assert texts.pairs(2, pad_id=0).forget == texts.forget[:2]
    assert sorted(choose(forget_order="shuffled", pairs=6).forget) == sorted(map(encode, FORGET))
    with pytest.raises(ValueError, match="5 pairs asked of 4"):
        texts.pairs(5, pad_id=0)


def test_no_fit_and_no_pair_sees_the_held_out_texts() -> None:
    texts = choose(pairs=8, repeat=True)
    apart = {tuple(row) for row in texts.held_out}
    assert len(apart) == 2
    assert not apart & {tuple(row) for row in [*texts.fit, *texts.retain]}


def test_texts_are_repeated_only_where_that_is_said() -> None:
    with pytest.raises(ValueError, match="6 forget documents for 7 pairs"):
        choose(pairs=7)
    rows = choose(pairs=12, held_out=0, fit=0, repeat=True).forget
    assert sorted(rows) == sorted([encode(text) for text in FORGET] * 2)
    assert rows[:6] != rows[6:]


def test_texts_are_cut_written_and_read_again(tmp_path: Path) -> None:
    texts = choose(most_tokens=1)
    assert {len(row) for row in texts.forget} == {1}
    write_texts(tmp_path, texts)
    assert read_texts(tmp_path) == texts


def _file(folder: Path, rows: list[dict[str, Any]]) -> Path:
    path = folder / "data.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_documents_are_the_columns_that_are_named(tmp_path: Path) -> None:
    path = _file(tmp_path, [{"title": "a", "text": "b"}, {"title": "", "text": "c"}])
    assert read_documents([path], ["title", "text"]) == ["a\n\nb", "c"]
    with pytest.raises(ValueError, match="no column 'page'; there: title, text"):
        read_documents([path], ["page"])
    with pytest.raises(ValueError, match="no files"):
        read_documents([], ["text"])


def test_questions_are_shown_under_letters_and_stem_is_chosen_by_subject(tmp_path: Path) -> None:
    row = {"question": "q ", "choices": ["w", "x", "y", "z"], "answer": 2}
    path = _file(tmp_path, [{**row, "subject": s} for s in ("anatomy", "virology")])
    both = read_lettered([path], "mmlu")
    about = "The following are multiple choice questions (with answers) about anatomy.\n\n"
    assert both[0].prompt == about + "q\nA. w\nB. x\nC. y\nD. z\nAnswer:"
    assert both[0].options == ("A", "B", "C", "D")
    assert both[0].answer == 2
    assert stem(both) == both[:1]
    with pytest.raises(ValueError, match="no column 'choices'"):
        read_lettered([_file(tmp_path, [{"question": "q", "answer": 1}])], "x", about="biology")
