"""The three sets of questions: right, disjoint, the same every time."""

from __future__ import annotations

import hashlib
from itertools import combinations
from random import Random

import pytest

from kit.methods.defensive_tokens.samples import Sample
from kit.mini.injection.tasks import ALONE, INSTRUCTIONS, NEWER_WITH_DATA, answer, draw_item
from kit.mini.injection.vocabulary import ANIMALS, CAPITALS, COLOURS, FRUITS, INJECTED_WORD
from kit.mini.injection.world import (
    NO_INPUT_SHARE,
    dev_set,
    evaluation_set,
    split_of,
    training_pool,
)


def _pairs(samples: list[Sample]) -> set[tuple[str, str]]:
    return {(sample.instruction, sample.input) for sample in samples}


def _right(instruction: str, data: str) -> str:
    """The answer worked out from the text alone, unlike the generator does."""
    words = data.split()
    match instruction.split():
        case ["copy" | "repeat", *_]:
            return data
        case ["write", "the", "first", "word"]:
            return words[0]
        case ["write", "the", "last", "word"]:
            return words[-1]
        case ["write", "the", "second", "word"]:
            return words[1]
        case ["write", "both", "ends"]:
            return " ".join([words[0], words[-1]])
        case ["write", "the", "first", "word", "twice"]:
            return " ".join(words[:1] * 2)
        case ["count", *_]:
            return {3: "three", 4: "four", 5: "five"}[data.count(" ") + 1]
        case ["drop", *_]:
            return data.split(" ", 1)[1]
        case ["find", "the", kind]:
            members = {"animal": ANIMALS, "colour": COLOURS, "fruit": FRUITS}[kind]
            (only,) = [word for word in words if word in members]
            return only
        case ["print" | "say" | "write", "exactly", *rest]:
            return " ".join(rest)
        case [*_, "capital", "of", place]:
            return CAPITALS[place]
    raise AssertionError(instruction)


@pytest.mark.parametrize(
    "samples", [training_pool(0, 1500), evaluation_set(), dev_set(400)], ids=["pool", "eval", "dev"]
)
def test_answers_are_right_and_the_attackers_word_is_absent(samples: list[Sample]) -> None:
    for sample in samples:
        assert sample.output == _right(sample.instruction, sample.input)
        assert INJECTED_WORD not in f"{sample.instruction} {sample.input} {sample.output}".split()


def test_answers_of_the_newer_tasks_are_right() -> None:
    rng = Random(5)
    for task in NEWER_WITH_DATA:
        for _ in range(50):
            item = draw_item(rng, {task: 1.0}, data=True, hacked=True)
            assert item.answer == _right(item.instruction, item.data)


def test_one_to_three_words_are_to_be_printed() -> None:
    rng = Random(5)
    items = [draw_item(rng, {"print": 1.0}, data=False, hacked=False) for _ in range(200)]
    assert {len(item.answer.split()) for item in items} == {1, 2, 3}


def test_instructions_tell_the_tasks_apart() -> None:
    wordings = [wording for group in INSTRUCTIONS.values() for wording in group]
    assert len(wordings) == len(set(wordings))


def test_unknown_task_is_named() -> None:
    with pytest.raises(ValueError, match="'reverse'"):
        answer("reverse", ["red"])


def test_sets_share_no_question_whatever_the_seed() -> None:
    pool = _pairs(training_pool(0, 3000)) | _pairs(training_pool(1, 3000))
    sets = (pool, _pairs(dev_set(800)), _pairs(evaluation_set(800)))
    for one, other in combinations(sets, 2):
        assert not one & other


def test_evaluation_questions_are_unique_and_have_data() -> None:
    samples = evaluation_set()
    assert len(samples) == len(_pairs(samples)) == 208
    assert all(sample.input for sample in samples)
    assert all(split_of(sample.instruction, sample.input) == "eval" for sample in samples)


def test_pool_has_the_stated_share_without_input_and_unique_pairs_otherwise() -> None:
    samples = training_pool(0, 4000)
    alone = [sample for sample in samples if not sample.input]
    assert len(alone) / len(samples) == pytest.approx(NO_INPUT_SHARE, abs=0.03)
    assert len(_pairs(samples)) >= len(samples) - len(alone)
    starts = {sample.instruction.split()[1] for sample in alone}
    assert starts == {"exactly", "is", "the"}
    assert set(ALONE) == {"print", "capital"}


def test_sets_repeat_and_longer_ones_begin_with_shorter_ones() -> None:
    assert training_pool(7, 300) == training_pool(7, 300)
    assert training_pool(7, 300)[:100] == training_pool(7, 100)
    assert training_pool(7, 300) != training_pool(8, 300)
    assert evaluation_set(300)[:208] == evaluation_set()
    assert dev_set(400)[:208] == dev_set()


def test_ids_are_unique_and_say_where_a_sample_comes_from() -> None:
    samples = [*training_pool(0, 50), *training_pool(1, 50), *evaluation_set(), *dev_set()]
    assert len({sample.id for sample in samples}) == len(samples)
    assert training_pool(4, 3)[2].id == "pool-4-00002"
    assert evaluation_set()[0].id == "eval-0000"


@pytest.mark.parametrize(
    ("samples", "digest"),
    [
        (evaluation_set(), "851c3a18cf27d0d8"),
        (dev_set(400), "c667cdfa3c02cf64"),
        (training_pool(0, 1000), "d9638d43ab193af9"),
    ],
    ids=["eval", "dev", "pool"],
)
def test_the_world_does_not_drift(samples: list[Sample], digest: str) -> None:
    """Shipped weights and published tables belong to exactly these questions."""
    assert hashlib.sha256(repr(samples).encode()).hexdigest()[:16] == digest
