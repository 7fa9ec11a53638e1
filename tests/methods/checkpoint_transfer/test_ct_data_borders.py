"""Texts, questions and attack data where there are just enough of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from kit.methods.checkpoint_transfer.affine import AffineMap
from kit.methods.checkpoint_transfer.attack_data import ATTACKER, cut, write_attack_data
from kit.methods.checkpoint_transfer.counting import coefficients, count_steps, share_of_pairs
from kit.methods.checkpoint_transfer.fitting import _check_pair
from kit.methods.checkpoint_transfer.oracle_patch import oracle_patch
from kit.methods.checkpoint_transfer.questions import STEM, read_lettered
from kit.methods.checkpoint_transfer.standin import WORDS, standin_documents, standin_sets
from kit.methods.checkpoint_transfer.texts import choose_texts, read_texts, write_texts
from tests.methods.checkpoint_transfer.tiny import batch, model
from tests.refused import refused


def encode(text: str) -> list[int]:
    return [int(part) for part in text.split()]


def choose(forget: int, retain: int, **changes: Any) -> Any:
    texts = [[f"{kind} {n} 1" for n in range(most)] for kind, most in ((7, forget), (8, retain))]
    values = {"pairs": 3, "fit": 2, "held_out": 1, "seed": 4, "most_tokens": 2, **changes}
    return choose_texts(texts[0], texts[1], encode, **values)


@pytest.mark.parametrize(
    ("forget", "retain", "changes", "wrong"),
    [
        (3, 4, {}, ""),
        (2, 4, {}, "2 forget documents for 3 pairs"),
        (3, 3, {}, "2 retain documents for 3 pairs"),
        (3, 3, {"repeat": True}, ""),
        (1, 3, {"repeat": True}, ""),
        (0, 9, {"repeat": True}, "0 forget documents"),
        (3, 2, {"repeat": True}, "2 retain documents for 3 texts of the fit"),
        (3, 1, {"repeat": True, "fit": 0}, "0 retain documents"),
        (9, 9, {"forget_order": "backwards"}, "unknown order"),
        (9, 9, {"most_tokens": 0}, "a forget text has no tokens"),
    ],
)
def test_as_many_documents_as_are_needed(
    forget: int, retain: int, changes: dict[str, Any], wrong: str
) -> None:
    refused(lambda: choose(forget, retain, **changes), bool(wrong), wrong)


def test_where_each_text_comes_from(tmp_path: Path) -> None:
    texts = choose(5, 9)
    assert texts.forget == [[7, 0], [7, 1], [7, 2]]
    retained = [row[1] for row in texts.retain]
    assert len(set(retained)) == 3
    fit, (apart,) = [row[1] for row in texts.fit], [row[1] for row in texts.held_out]
    assert len({*fit, apart}) == 3
    assert apart not in retained
    assert {row[0] for row in (*texts.retain, *texts.fit, *texts.held_out)} == {8}
    shuffled = [choose(5, 9, forget_order="shuffled", seed=seed).forget for seed in range(6)]
    assert any(rows != texts.forget for rows in shuffled)
    again = choose(2, 9, pairs=6, repeat=True).forget
    assert again[:2] == [[7, 0], [7, 1]]
    assert all(sorted(again[at : at + 2]) == again[:2] for at in (2, 4))
    write_texts(tmp_path, texts)
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["fit.jsonl", "forget.jsonl", "held-out.jsonl", "retain.jsonl"]
    assert (tmp_path / "forget.jsonl").read_text() == "[7, 0]\n[7, 1]\n[7, 2]\n"
    assert read_texts(tmp_path) == texts
    made = texts.pairs(3, pad_id=6)
    assert (list(made.forget), list(made.retain), made.pad_id) == (texts.forget, texts.retain, 6)
    refused(lambda: texts.pairs(4, pad_id=0), True, "4 pairs asked of 3")


@pytest.mark.parametrize(
    ("tokens", "pieces", "lengths"),
    [(10, 2, [4, 4]), (10, 3, [4, 4, 2]), (9, 3, [4, 4]), (2, 3, [2]), (8, 3, [4, 4])],
)
def test_pieces_of_a_document(tokens: int, pieces: int, lengths: list[int]) -> None:
    made = cut(["x"], lambda _: list(range(tokens)), number=1, seed=0, most_tokens=4,
               most_pieces=pieces)  # fmt: skip
    assert [len(ids) for ids in made.values()] == lengths
    assert [id for ids in made.values() for id in ids] == list(range(sum(lengths)))
    assert list(made) == [f"document-000000-{at}" for at in range(len(lengths))]


@pytest.mark.parametrize(
    ("tokens", "number", "wrong"), [(1, 1, "two tokens"), (2, 2, "2 documents"), (2, 1, "")]
)
def test_an_attack_needs_its_documents(tokens: int, number: int, wrong: str) -> None:
    def act() -> object:
        return cut(["x"], lambda _: [1] * tokens, number=number, seed=0, most_tokens=4,
                   most_pieces=1)  # fmt: skip

    refused(act, bool(wrong), wrong)


def test_attack_data_stand_beside_their_questions(tmp_path: Path) -> None:
    (tmp_path / "world" / "questions").mkdir(parents=True)
    (tmp_path / "world" / "questions" / "robust.jsonl").write_text("{}\n")
    out = tmp_path / "out"
    out.mkdir()
    write_attack_data(out, {"a": [1, 2], "b": [3]}, tmp_path / "world")
    lines = (out / "texts" / f"{ATTACKER}.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [
        {"id": "a", "ids": [1, 2]}, {"id": "b", "ids": [3]}
    ]  # fmt: skip
    assert (out / "questions" / "robust.jsonl").read_text() == "{}\n"


def test_stand_in_questions_are_as_long_as_the_true_ones() -> None:
    """About a hundred words with their options; the right letters take turns."""
    sets = standin_sets({"wmdp-robust": 8, "mmlu": 4, "mmlu-stem": 4, "mmlu-2-shot": 3})
    assert [question.answer for question in sets["wmdp-robust"]] == [0, 1, 2, 3] * 2
    for question in sets["wmdp-robust"]:
        body = question.prompt.split("\n\n", 1)[1].splitlines()
        assert [line[:3] for line in body[1:-1]] == ["A. ", "B. ", "C. ", "D. "]
        counts = [len(body[0].split()), *(len(line.split()) - 1 for line in body[1:-1])]
        assert counts == [40, 6, 6, 6, 6]
        assert {word for line in body[:-1] for word in line.split() if word[1:] != "."} <= {*WORDS}
    assert [question.id for question in sets["wmdp-robust"]][:2] == ["robust-00000", "robust-00001"]
    assert sets["mmlu"] == sets["mmlu-stem"]
    assert all(question.id.split("-")[1] in STEM for question in sets["mmlu"])
    assert [question.prompt.count("Answer:") for question in sets["mmlu-2-shot"]] == [3, 3, 3]
    prompts = {question.prompt for questions in sets.values() for question in questions}
    assert len(prompts) == 8 + 4 + 3
    assert standin_documents(2, 5, "a") == standin_documents(3, 5, "a")[:2]
    with pytest.raises(ValueError, match="2 questions of STEM among 1"):
        standin_sets({"wmdp-robust": 1, "mmlu": 1, "mmlu-stem": 2})


@pytest.mark.parametrize("about", ["", "all things"])
def test_the_subject_of_the_opening_line(tmp_path: Path, about: str) -> None:
    rows = [
        {
            "question": "q",
            "choices": list("wxyz"),
            "answer": at,
            **({} if about else {"subject": s}),
        }
        for at, s in enumerate(("world_religions", "anatomy"))
    ]
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    made = read_lettered([path], "set", about=about)
    assert [question.answer for question in made] == [0, 1]
    named = (about, about) if about else ("world religions", "anatomy")
    for question, subject in zip(made, named, strict=True):
        assert f"about {subject}." in question.prompt
    ids = ["set-00000", "set-00001"]
    named_ids = ["set-world_religions-00000", "set-anatomy-00001"]
    assert [question.id for question in made] == (ids if about else named_ids)


@pytest.mark.parametrize(
    ("values", "wrong"),
    [((32, 4, 1), False), ((32, 4, 8), False), ((32, 0, 1), True), ((0, 4, 1), True),
     ((32, 4, 0), True), ((33, 4, 1), True), ((64, 5, 1), True), ((32, 32, 2), True)],
)  # fmt: skip
def test_numbers_that_divide(values: tuple[int, int, int], wrong: bool) -> None:
    refused(lambda: count_steps(*values), wrong, "at least 1|do not (divide|fill)")


@pytest.mark.parametrize(
    ("micro", "last"), [(1, 0), (32, 0), (33, 32), (64, 32), (65, 64), (256, 224)]
)
def test_the_loss_that_is_logged_last(micro: int, last: int) -> None:
    """Every 32nd micro-batch is logged, the first of all too (reference page, section 1.12)."""
    assert count_steps(micro, 1, 1, global_batch=1).last_logged == last


@pytest.mark.parametrize(
    ("schedule", "at", "pair"),
    [("ramp", 0, (0.0, 8.0)), ("ramp", 5, (1.0, 7.0)), ("ramp", 10, (2.0, 6.0)),
     ("ramp", 11, (2.0, 6.0)), ("circuit-breakers", 5, (1.0, 4.0)),
     ("circuit-breakers", 10, (2.0, 0.0)), ("constant", 0, (2.0, 8.0))],
)  # fmt: skip
def test_coefficients_by_hand(schedule: str, at: int, pair: tuple[float, float]) -> None:
    found = coefficients(at, retain=2.0, remove=8.0, ramp=10, schedule=schedule)
    assert (found.retain, found.remove) == pytest.approx(pair)


@pytest.mark.parametrize(
    ("given", "wrong"),
    [({}, ""), ({"retain": 0.0}, ""), ({"remove": 0.0}, ""), ({"ramp": 1}, ""),
     ({"retain": -1.0}, "not negative"), ({"remove": -1.0}, "not negative"),
     ({"micro_batch": -1}, "not negative"), ({"ramp": 0}, "at least 1"),
     ({"schedule": "cosine"}, "unknown coefficient schedule")],
)  # fmt: skip
def test_coefficients_that_there_are_not(given: dict[str, Any], wrong: str) -> None:
    values: dict[str, Any] = {"micro_batch": 0, "retain": 1.0, "remove": 1.0, "ramp": 2, **given}
    refused(lambda: coefficients(values.pop("micro_batch"), **values), bool(wrong), wrong)


@pytest.mark.parametrize(
    ("examples", "share", "batch_size", "pairs"),
    [(64, 1, 32, 64), (64, 0.5, 32, 32), (64, 0.01, 32, 32), (20, 0.99, 32, 20), (48, 0.8, 8, 40),
     (7, 1.0, 4, 7)],
)  # fmt: skip
def test_a_share_in_whole_steps(examples: int, share: float, batch_size: int, pairs: int) -> None:
    assert share_of_pairs(examples, share, batch_size) == pairs


@pytest.mark.parametrize("name", ["hidden_size", "num_hidden_layers", "vocab_size"])
def test_models_that_do_not_pair(name: str) -> None:
    teacher, student = model(0), model(1)
    _check_pair(teacher, student)
    setattr(teacher.config, name, 99)
    with pytest.raises(ValueError, match=f"{name} is 99 in the teacher"):
        _check_pair(teacher, student)


@pytest.mark.parametrize(("block", "wrong"), [(-1, True), (0, False), (3, False), (4, True)])
def test_blocks_that_can_be_patched(block: int, wrong: bool) -> None:
    """What the patched block returns is the mapped state, and afterwards the model is as before."""
    student, teacher = model(0), model(1)
    ids, mask = batch(2)
    before = student(ids, attention_mask=mask).logits
    affine = AffineMap(2 * torch.eye(16), torch.ones(16))

    def patched() -> None:
        with oracle_patch(student, teacher, affine, block):
            inside = student(ids, attention_mask=mask, output_hidden_states=True)
        raw = teacher(ids, attention_mask=mask, output_hidden_states=True).hidden_states
        if block < 3:  # The last entry of transformers stands behind the norm.
            wanted = 2 * raw[block + 1] + 1
            torch.testing.assert_close(inside.hidden_states[block + 1][mask], wanted[mask])
        assert not torch.allclose(inside.logits, before)

    refused(patched, wrong, "blocks 0 to 3")
    assert torch.equal(student(ids, attention_mask=mask).logits, before)
