"""Self-labels: made by the undefended model, keyed by stable id, and the bug of keying by row."""

from __future__ import annotations

import random
from dataclasses import dataclass, field, replace

import pytest

from kit.lm.backend import Generation
from kit.lm.generate import TransformersBackend
from kit.methods.defensive_tokens.layouts import BEFORE_BOS
from kit.methods.defensive_tokens.self_label import (
    EMPTY_TURN,
    NO_TURN,
    SelfLabel,
    data_turn,
    label_of,
    load_labels,
    make_labels,
    save_labels,
)
from kit.mini.chat import MINI
from tests.lm.tiny_world import mini_tokenizer, samples, tiny_llama

TOKENIZER = mini_tokenizer()
POOL = samples(12, every_empty=4)


@dataclass
class Recorder:
    """A backend that answers with fixed ids and remembers what it was asked."""

    answer: tuple[int, ...] = (TOKENIZER.get_vocab()["cat"],)
    reason: str = "stop"
    prompts: list = field(default_factory=list)
    settings: dict = field(default_factory=dict)
    vocabulary_size: int = len(TOKENIZER)

    def generate(self, prompts, **settings):
        self.prompts, self.settings = [list(p) for p in prompts], settings
        return [Generation(self.answer, self.reason) for _ in prompts]


def labels_of(backend, pool=POOL, **settings):
    settings = {"layout": BEFORE_BOS, "max_new_tokens": 4, **settings}
    return make_labels(backend, TOKENIZER, MINI, pool, **settings)


def test_every_distinct_sample_is_labelled_once_without_a_prefix():
    backend = Recorder()
    labels = labels_of(backend, [*POOL, *POOL[:3]])
    assert list(labels) == [sample.id for sample in POOL]
    assert len(backend.prompts) == len(POOL)
    assert backend.settings["prefix"] is None
    assert backend.settings["max_new_tokens"] == 4
    assert backend.settings["stop_ids"] == [TOKENIZER.get_vocab()["</s>"]]
    assert max(i for prompt in backend.prompts for i in prompt) < len(TOKENIZER)


def test_labels_carry_text_ids_instruction_and_reason():
    label = labels_of(Recorder(reason="length"))["s-1"]
    expected = SelfLabel("s-1", POOL[1].instruction, "cat", Recorder().answer, "length")
    assert label == expected


def test_prompts_are_the_clean_samples():
    backend = Recorder()
    labels_of(backend)
    expected = MINI.prompt_ids(TOKENIZER, POOL[1].instruction, POOL[1].input)
    assert backend.prompts[1] == expected


@pytest.mark.parametrize(("mode", "turns"), [(EMPTY_TURN, 12), (NO_TURN, 9)])
def test_the_data_turn_of_samples_without_input(mode, turns):
    backend = Recorder()
    labels_of(backend, empty_data=mode)
    marker = TOKENIZER.get_vocab()["[DATA]"]
    assert sum(marker in prompt for prompt in backend.prompts) == turns


def test_the_doubled_begin_token_of_the_labelling_harness():
    backend = Recorder()
    labels_of(backend, layout="bos-before-and-after")
    begin = TOKENIZER.get_vocab()["<s>"]
    assert all(prompt[:2] == [begin, begin] for prompt in backend.prompts)


def test_unknown_data_turn_mode_lists_the_known_ones():
    with pytest.raises(ValueError, match="empty-turn, no-turn"):
        data_turn("", "skip")


def test_labels_of_a_real_model_repeat():
    model = tiny_llama(len(TOKENIZER))
    first = labels_of(TransformersBackend(model, 0))
    assert first == labels_of(TransformersBackend(model, 0, max_batch=2))


def test_label_of_finds_by_id_and_checks_the_instruction():
    labels = labels_of(Recorder())
    assert label_of(labels, "s-3", POOL[3].instruction).sample_id == "s-3"
    with pytest.raises(ValueError, match="s-99 has no self-label"):
        label_of(labels, "s-99", "x")
    with pytest.raises(ValueError, match="made for another instruction"):
        label_of(labels, "s-3", "something else")
    with pytest.raises(ValueError, match="made for another instruction"):
        label_of({"s-3": labels["s-4"]}, "s-3", POOL[4].instruction)


def distinct_pool(n=40):
    return [
        replace(sample, instruction=f"task {i}", output=f"answer {i}")
        for i, sample in enumerate(samples(n))
    ]


def shuffled(pool, seed=42):
    mixed = list(pool)
    random.Random(seed).shuffle(mixed)
    return mixed


def label(sample):
    return SelfLabel(sample.id, sample.instruction, f"label of {sample.instruction}", (1,), "stop")


def test_the_old_mapping_by_row_position_gives_nearly_every_sample_a_foreign_label():
    """The documented bug (tiny-adapt note, Issue 1): labels by raw row, looked up by position."""
    pool = distinct_pool()
    by_row = {row: label(sample) for row, sample in enumerate(pool)}
    wrong = sum(
        by_row[position].instruction != sample.instruction
        for position, sample in enumerate(shuffled(pool))
    )
    assert wrong > 0.9 * len(pool)


def test_the_mapping_by_id_is_right_after_any_shuffle():
    pool = distinct_pool()
    labels = {sample.id: label(sample) for sample in pool}
    for seed in range(5):
        for sample in shuffled(pool, seed):
            found = label_of(labels, sample.id, sample.instruction)
            assert found.text == f"label of {sample.instruction}"


def test_the_old_mapping_cannot_pass_the_check():
    """The same wrong labels, handed over under the right ids, are refused."""
    pool = distinct_pool()
    mixed = shuffled(pool)
    old = {sample.id: label(pool[position]) for position, sample in enumerate(mixed)}
    refused = 0
    for sample in mixed:
        try:
            label_of(old, sample.id, sample.instruction)
        except ValueError:
            refused += 1
    misplaced = sum(pool[i].id != sample.id for i, sample in enumerate(mixed))
    assert refused == misplaced > 0.9 * len(pool)


def test_labels_round_trip_through_a_file(tmp_path):
    labels = labels_of(Recorder())
    labels["s-1"] = replace(labels["s-1"], text="caf\u00e9\u2028 line\nbreak", ids=())
    path = tmp_path / "labels.jsonl"
    save_labels(path, labels)
    assert "caf\u00e9" in path.read_text(encoding="utf-8")  # readable as it is
    assert load_labels(path) == labels
    assert list(load_labels(path)) == list(labels)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "labels.jsonl:2: not a self-label"),
        ('{"sample_id": "x"}', "labels.jsonl:2: not a self-label"),
        ("[]", "labels.jsonl:2: not a self-label"),
    ],
)
def test_a_broken_line_is_named(tmp_path, line, message):
    path = tmp_path / "labels.jsonl"
    save_labels(path, {"s-1": labels_of(Recorder())["s-1"]})
    path.write_text(path.read_text() + line + "\n")
    with pytest.raises(ValueError, match=message):
        load_labels(path)


def test_a_repeated_sample_is_named(tmp_path):
    path = tmp_path / "labels.jsonl"
    save_labels(path, {"s-1": labels_of(Recorder())["s-1"]})
    path.write_text(path.read_text() * 2)
    with pytest.raises(ValueError, match="second label for s-1"):
        load_labels(path)
