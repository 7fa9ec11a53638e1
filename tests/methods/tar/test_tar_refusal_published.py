"""The published pairs, from files of a few invented rows."""

from __future__ import annotations

from pathlib import Path

import pytest
from datasets import Dataset

from kit.methods.tar import refusal_published
from kit.methods.tar.refusal_published import SETS, published_pairs, standin_pairs

NO = "I can't help with that."


def written(folder: Path) -> dict[str, list[Path]]:
    def jsonl(name: str, rows: list[dict[str, object]]) -> Path:
        path = folder / f"{name}.jsonl"
        Dataset.from_list(rows).to_json(path)
        return path

    def talk(asked: str, answer: str) -> str:
        return f"\n\nHuman: {asked}\n\nAssistant: {answer}"

    hh = [{"chosen": talk("a", "good"), "rejected": talk("a", "bad")}]
    turns = [{"from": "human", "value": "hi"}, {"from": "gpt", "value": "hello"}]
    return {
        "hh": [
            jsonl("train", [*hh, {"chosen": talk("b", "x"), "rejected": talk("c", "y")}]),
            jsonl("test", [{"chosen": talk("d", "well"), "rejected": talk("d", "ill")}]),
        ],
        "magpie": [jsonl("magpie", [{"conversations": turns}, {"conversations": turns[1:]}])],
        "toxic-dpo": [jsonl("toxic", [{"prompt": "q", "chosen": "yes", "rejected": "no"}])],
    }


def test_each_set_has_its_sides(tmp_path: Path) -> None:
    made = published_pairs(written(tmp_path), NO)
    assert made.keys() == set(SETS)
    sides = {n: [(r.prompt, r.chosen, r.rejected) for r in rows] for n, rows in made.items()}
    assert sides == {
        "rejected": [("a", "good", "bad")],  # the other row compares no answers to one prompt
        "held-out": [("d", NO, "ill")],
        "benign": [("hi", "hello", NO)],
        "attack": [("q", "no", "yes")],  # its chosen side is the harmful one
    }


def test_adversaries_have_the_first_pairs_of_those_that_there_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = written(tmp_path)
    row = {"chosen": "\n\nHuman: e\n\nAssistant: f", "rejected": "\n\nHuman: e\n\nAssistant: g"}
    more = tmp_path / "train-2.jsonl"
    Dataset.from_list([row]).to_json(more)
    files["hh"].insert(1, more)
    prompts = [pair.prompt for pair in published_pairs(files, NO)["rejected"]]
    assert prompts == ["a", "e"]
    monkeypatch.setattr(refusal_published, "MOST_PAIRS", 1)
    assert [pair.prompt for pair in published_pairs(files, NO)["rejected"]] == ["a"]


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    files = written(tmp_path)
    with pytest.raises(ValueError, match="no files of test"):
        published_pairs({**files, "hh": files["hh"][:1]}, NO)
    with pytest.raises(ValueError, match="no files of magpie"):
        published_pairs({**files, "magpie": []}, NO)
    with pytest.raises(ValueError, match="no answer that refuses"):
        published_pairs(files, "")


def test_stand_ins_have_the_published_counts() -> None:
    made = standin_pairs({"attack": 541}, 4)
    assert [len(made[name]) for name in SETS] == [512, 512, 512, 541]
    assert all(len(row.prompt.split()) == 4 for row in made["attack"])
