"""Published data in their true schema, a few rows each: what is read, left out and divided."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset

from kit.evals.sets import text_examples
from kit.methods.tar.published import (
    chunks,
    counts,
    halved,
    magpie,
    pile_bio,
    preferences,
    rows_of,
    toxic_dpo,
    writeups,
)
from kit.methods.tar.published_sets import (
    DOMAINS,
    question_sets,
    raw_sets,
    standin_sets,
    write_sets,
)
from kit.mini.facts.model import build_tokenizer
from kit.train.batching import IGNORE, collate


def parquet(folder: Path, name: str, rows: list[dict[str, Any]]) -> list[Path]:
    path = folder / f"{name}.parquet"
    Dataset.from_list(rows).to_parquet(path)
    return [path]


def pile(folder: Path, number: int = 30) -> list[Path]:
    """The public copy's columns, one of them with a dot."""
    rows = [
        {"txt_chunk": f"moss {i}", "meta.pile_set_name": "P", "reasoning": "r", "label": i % 3 == 0}
        for i in range(number)
    ]
    return parquet(folder, "pile", rows)


def talks(folder: Path) -> list[Path]:
    turns = [{"from": "human", "value": "the moss"}, {"from": "gpt", "value": "is jade"}]
    return parquet(folder, "magpie", [{"uuid": str(i), "conversations": turns} for i in range(5)])


def questions(folder: Path, name: str, subjects: list[str]) -> list[Path]:
    rows = [
        {"question": "of moss", "choices": ["a", "b", "c", "d"], "answer": 1, "subject": s}
        for s in subjects
    ]
    return parquet(folder, name, rows)


def test_the_pile_is_divided_by_its_label(tmp_path: Path) -> None:
    sets = pile_bio(pile(tmp_path))
    assert (len(sets["forget"]), len(sets["retain"])) == (10, 20)
    assert sets["forget"][:2] == ["moss 0", "moss 3"]
    with pytest.raises(ValueError, match="not true or false"):
        pile_bio(parquet(tmp_path, "bad", [{"txt_chunk": "a", "label": "True"}]))


def test_short_writeups_are_left_out(tmp_path: Path) -> None:
    files = parquet(tmp_path, "ctf", [{"text_chunk": "x" * n} for n in (10, 150, 151, 400)])
    assert [len(text) for text in writeups(files)["forget"]] == [151, 400]
    assert len(chunks(files)["forget"]) == 4


def test_a_column_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no column 'label' in pile\.parquet: txt_chunk"):
        pile_bio(parquet(tmp_path, "pile", [{"txt_chunk": "a"}]))
    with pytest.raises(ValueError, match="files of one format"):
        list(rows_of([], ["a"]))


def test_conversations_become_chat_messages(tmp_path: Path) -> None:
    first = magpie(talks(tmp_path))[0]
    assert first == [
        {"role": "user", "content": "the moss"},
        {"role": "assistant", "content": "is jade"},
    ]
    strange = [{"conversations": [{"from": "system", "value": "x"}]}]
    with pytest.raises(ValueError, match="a turn from 'system'"):
        magpie(parquet(tmp_path, "strange", strange))


def test_preferences_compare_the_last_answers_to_one_conversation(tmp_path: Path) -> None:
    start = "\n\nHuman: of moss ?\n\nAssistant: yes\n\nHuman: more ?\n\nAssistant:"
    rows = [
        {"chosen": f"{start} no", "rejected": f"{start} sure"},
        {"chosen": f"{start} no", "rejected": "\n\nHuman: other ?\n\nAssistant: sure"},
    ]
    path = tmp_path / "hh.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    ((prompt, chosen, rejected),) = preferences([path])
    assert prompt == "of moss ?\n\nAssistant: yes\n\nHuman: more ?"
    assert (chosen, rejected) == ("no", "sure")


def test_toxic_dpo_keeps_its_sides(tmp_path: Path) -> None:
    files = parquet(tmp_path, "t", [{"prompt": "p", "chosen": "c", "rejected": "r", "system": ""}])
    assert toxic_dpo(files) == [("p", "c", "r")]


def test_halves_are_those_of_the_released_code() -> None:
    """7,558 texts gave 6,046 and 1,512, 54,258 gave 43,406 and 10,852 (TAR page, section 3)."""
    for whole, train, test in ((7558, 6046, 1512), (54258, 43406, 10852)):
        parts = halved(range(whole))
        assert (len(parts[0]), len(parts[1])) == (train, test)
        assert not set(parts[0]) & set(parts[1])
    expected = Dataset.from_dict({"n": list(range(50))}).train_test_split(test_size=0.2, seed=42)
    assert halved(range(50))[1] == expected["test"]["n"][:]
    with pytest.raises(ValueError, match="cannot be divided"):
        halved([1])


def test_published_counts_hold_or_do_not() -> None:
    found = counts({"a": 3}, ["a=3", "a=4", "b=1"])
    assert [holds for _, holds in found] == [True, False, False]
    assert found[1][0] == "a: 3 of 4"
    with pytest.raises(ValueError, match="written name=count"):
        counts({}, ["a"])


def test_a_domain_is_written_as_the_loop_reads_it(tmp_path: Path) -> None:
    camel = parquet(tmp_path, "camel", [{"text_chunk": f"rose jade {i}"} for i in range(10)])
    files = {"pile-bio": pile(tmp_path), "camel-bio": camel, "magpie": talks(tmp_path)}
    files["wmdp"] = questions(tmp_path, "wmdp", ["any", "any"])
    files["mmlu"] = questions(tmp_path, "mmlu", ["virology", "philosophy", "anatomy"])
    sets, asked = raw_sets(files, "bio"), question_sets(files, "bio")
    assert {name: len(items) for name, items in sets.items()} == {
        "pile-bio-all": 10,
        "pile-bio-forget": 8,
        "pile-bio-held-out": 2,
        "camel-bio-all": 10,
        "camel-bio-forget": 8,
        "camel-bio-held-out": 2,
        "adversary-retain": 20,
        "chat": 4,
    }
    assert [question.id.split("-")[1] for question in asked["retain"]] == ["philosophy"]
    assert "about biology" in asked["wmdp"][0].prompt
    tokenizer = build_tokenizer()
    tokenizer.chat_template = "{% for m in messages %}{{ m.content }} {% endfor %}"
    write_sets(tmp_path / "out", sets, asked, tokenizer, 3)
    written = {path.stem for path in (tmp_path / "out" / "texts").iterdir()}
    assert written == sets.keys() - {"pile-bio-all", "camel-bio-all"}
    rows = (tmp_path / "out" / "texts" / "chat.jsonl").read_text(encoding="utf-8").splitlines()
    assert json.loads(rows[0])["ids"] == tokenizer("the moss is").input_ids
    with pytest.raises(ValueError, match="no files of magpie"):
        raw_sets({"pile-bio": files["pile-bio"]}, "bio")


def test_control_tokens_of_conversations_are_labels_or_not(tmp_path: Path) -> None:
    tokenizer = build_tokenizer()
    begin, end = tokenizer.bos_token, tokenizer.eos_token
    tokenizer.chat_template = (
        "{% for m in messages %}" + begin + " {{ m.content }} " + end + " {% endfor %}"
    )
    talk = [{"role": "user", "content": "the moss"}, {"role": "assistant", "content": "is jade"}]
    write_sets(tmp_path, {"chat": [talk], "raw": ["the moss is jade"]}, {}, tokenizer, 7)

    def labels(name: str, special: str) -> list[int]:
        (example,) = text_examples(tmp_path, [name], tokenizer, special_labels=special)
        batch = collate([example], 0)
        assert example.labels == int((batch.labels != IGNORE).sum())
        return [int(label) for label in batch.labels[0]]

    first, last = tokenizer.bos_token_id, tokenizer.eos_token_id
    (the, moss), (verb, jade) = (tokenizer(text).input_ids for text in ("the moss", "is jade"))
    no = IGNORE
    assert labels("chat", "masked") == [no, the, moss, no, no, verb, jade]
    # The end of a turn is the padding too, whose labels the released code masks.
    assert labels("chat", "kept") == [no, the, moss, no, first, verb, jade]
    assert last not in labels("chat", "kept")
    assert labels("raw", "masked") == labels("raw", "kept") == [no, moss, verb, jade]
    with pytest.raises(ValueError, match="masked or kept"):
        labels("chat", "written")


@pytest.mark.parametrize("domain", DOMAINS)
def test_stand_ins_have_the_published_counts(domain: str) -> None:
    (name, *_) = DOMAINS[domain].forget
    published = {f"{name}-all": 20, "adversary-retain": 7, "wmdp": 3}
    sets, asked = standin_sets(domain, published, 4)
    assert (len(sets[f"{name}-forget"]), len(sets[f"{name}-held-out"])) == (16, 4)
    assert len(sets["adversary-retain"]) == 7
    assert len(asked["wmdp"]) == 3
