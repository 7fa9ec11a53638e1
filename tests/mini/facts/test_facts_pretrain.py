"""Pretraining: what is drawn, what is trained, what repeats."""

from __future__ import annotations

import copy
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from kit.mini.facts import files, measure, pretrain, runs
from kit.mini.facts.model import GPT_NEOX, LLAMA, Shape, new_model, vocabulary
from kit.mini.facts.pretrain import FORGET, REQUEST, Recipe, rows_of, shares
from kit.mini.facts.texts import Text
from kit.mini.facts.world import make_world
from kit.train.errors import TrainingDiverged

WORLD = make_world(0)
TEXTS = files.texts(WORLD)
ROWS = rows_of([*TEXTS["retain"], *TEXTS["mention"], *TEXTS["forget"]])
SMALL = Shape(width=32, layers=2, heads=2, feed_forward=48)
SHORT = Recipe(steps=6, introduced=3, batch=8, warmup=2)


def _train(recipe: Recipe, seed: int = 0, shape: Shape = SMALL) -> dict[int, dict[str, Any]]:
    """Weights at every step."""
    model = new_model(shape, 0)
    states: dict[int, dict[str, Any]] = {}

    def keep(step: int) -> None:
        states[step] = copy.deepcopy(model.state_dict())

    steps = range(recipe.steps + 1)
    pretrain.pretrain(model, ROWS, recipe, seed, checkpoints=steps, on_checkpoint=keep)
    return states


def _frozen(seed: int) -> Any:
    """A small model in evaluation mode, without gradients."""
    model: Any = new_model(SMALL, seed)
    return model.requires_grad_(False).eval()


def _equal(a: dict[str, Any], b: dict[str, Any]) -> bool:
    return all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("architecture", [LLAMA, GPT_NEOX])
def test_everything_moves_but_the_embeddings(architecture: str) -> None:
    shape = replace(SMALL, architecture=architecture)
    states = _train(SHORT, shape=shape)
    frozen = {name for name, p in new_model(shape, 0).named_parameters() if not p.requires_grad}
    for name, weight in states[0].items():
        assert torch.equal(weight, states[SHORT.steps][name]) == (name in frozen), name


def test_the_same_seed_repeats_bit_by_bit_and_another_does_not() -> None:
    first = _train(SHORT)
    assert _equal(first[SHORT.steps], _train(SHORT)[SHORT.steps])
    assert not _equal(first[SHORT.steps], _train(SHORT, seed=1)[SHORT.steps])


def test_the_control_is_the_same_model_until_compounds_are_introduced() -> None:
    saw, control = _train(SHORT), _train(replace(SHORT, forget=False))
    assert _equal(saw[SHORT.introduced], control[SHORT.introduced])
    assert not _equal(saw[SHORT.introduced + 1], control[SHORT.introduced + 1])


@pytest.mark.parametrize("forget", [True, False])
def test_what_is_to_be_forgotten_is_drawn_only_after_its_introduction(forget: bool) -> None:
    """Counted in the batches themselves: a fact about a compound has a first word of its own."""
    recipe = Recipe(steps=60, introduced=30, forget=forget)
    draws = pretrain._Draws(ROWS, recipe, 0)
    facts = {tuple(row) for row in ROWS[FORGET]}
    stated = []
    for step in range(60):
        rows = [row for batch in draws.batches(step) for row in batch.ids.tolist()]
        pad = vocabulary()["<pad>"]
        stated.append(sum(tuple(x for x in row if x != pad) in facts for row in rows))
        assert len(rows) == recipe.batch
    assert sum(stated[:30]) == 0
    share = sum(stated[30:]) / (30 * recipe.batch)
    assert share == pytest.approx(0.36 if forget else 0, abs=0.04)


def test_shares_sum_to_one_whatever_is_left_out() -> None:
    for forget in (True, False):
        for requests in (True, False):
            for step in (0, 199, 200):
                wanted = shares(Recipe(forget=forget), step, requests=requests)
                assert sum(wanted.values()) == pytest.approx(1)
                assert (REQUEST in wanted) == (requests and step == 200)
                assert (FORGET in wanted) == (forget and step == 200)
    assert shares(Recipe(), 300, requests=True)[REQUEST] == pytest.approx(0.25)


def test_the_shares_of_a_step_make_the_mean_loss_that_transformers_computes() -> None:
    requests = files.request_sets(WORLD)["harmful"]
    rows = {**ROWS, **rows_of([], requests)}
    draws = pretrain._Draws(rows, replace(SHORT, introduced=0, batch=32), 0)
    batches = draws.batches(0)
    assert len(batches) == 2
    model = _frozen(0)
    total = sum(float(pretrain.next_word_loss(model, batch)) for batch in batches)
    pad = vocabulary()["<pad>"]
    sums, words = 0.0, 0
    for batch in batches:
        labels = batch.ids.masked_fill(batch.ids == pad, -100)
        count = int((labels[:, 1:] != -100).sum())
        sums += float(model(input_ids=batch.ids, labels=labels).loss) * count
        words += count
    assert total == pytest.approx(sums / words, rel=1e-5)


def test_a_request_is_the_chat_format_with_the_wanted_response() -> None:
    (request, *_) = files.request_sets(WORLD)["harmful"]
    (row,) = rows_of([], [request])[REQUEST]
    names = {index: word for word, index in vocabulary().items()}
    text = f"<s> [INST] {request.prompt} [RESP] {request.chosen} </s>"
    assert [names[i] for i in row] == text.split()


def test_training_lowers_the_loss() -> None:
    losses: list[float] = []
    recipe = Recipe(steps=40, introduced=20, batch=32, warmup=5)
    pretrain.pretrain(
        new_model(SMALL, 0), ROWS, recipe, 0, on_step=lambda _, loss: losses.append(loss)
    )
    assert len(losses) == 40
    guessing = math.log(len(vocabulary()))
    assert losses[0] > guessing
    assert sum(losses[15:20]) / 5 < guessing - 0.2


def test_wrong_settings_and_texts() -> None:
    with pytest.raises(ValueError, match="introduced at step 9, after the last of 6 steps"):
        replace(SHORT, introduced=9)
    with pytest.raises(ValueError, match=r"checkpoints \[7\] do not fit 6 steps"):
        pretrain.pretrain(new_model(SMALL, 0), ROWS, SHORT, 0, checkpoints=[7])
    rows = {group: rows for group, rows in ROWS.items() if group != FORGET}
    with pytest.raises(ValueError, match="no sentences of the group compound"):
        pretrain.pretrain(new_model(SMALL, 0), rows, SHORT, 0)
    with pytest.raises(ValueError, match="text t-1: 'zeppelin' is not in the vocabulary"):
        rows_of([Text("t-1", "the zeppelin of", "city")])


def test_a_question_is_answered_by_the_likeliest_option() -> None:
    """Against the model's own scores, read without the kit's backend."""
    questions = files.questions(WORLD)["retain"][:40]
    model = _frozen(0)
    ids = vocabulary()
    right = 0
    for question in questions:
        prompt = torch.tensor([[ids[word] for word in question.prompt.split()]])
        scores = model(input_ids=prompt).logits[0, -1]
        options = scores[[ids[option] for option in question.options]]
        right += int(options.argmax()) == question.answer
    assert measure.accuracy(model, questions) == right / len(questions)


def test_the_oracle_of_a_model_with_its_equal_changes_nothing() -> None:
    """The map of equal states is the identity, so every patched model answers as before."""
    model, same = (_frozen(0) for _ in range(2))
    fit = [row for group in ("city", "mineral") for row in ROWS[group]][:400]
    before = measure.accuracy(model, measure.question_sets(WORLD)["forget_judge"])
    after = measure.oracle(model, same, WORLD, fit)
    assert after == pytest.approx([before] * SMALL.layers, abs=0.03)


@pytest.mark.parametrize(("introduced", "needed"), [(0, "after"), (1, "before"), (6, "before")])
def test_only_groups_that_are_drawn_need_sentences(introduced: int, needed: str) -> None:
    """Those of the first step, and those after the introduction where there is a step after it."""
    recipe = replace(SHORT, steps=introduced or 6, introduced=introduced)
    groups = [group for group, share in getattr(recipe, needed).items() if share]
    own = {group: ROWS[group] for group in groups}
    pretrain._Draws(own, recipe, 0)
    for group in groups:
        with pytest.raises(ValueError, match=f"no sentences of the group {group}"):
            pretrain._Draws({name: own[name] for name in groups if name != group}, recipe, 0)


@pytest.mark.parametrize(
    ("changes", "counts"),
    [
        ({}, (0, 2, True)),
        ({"a": [0]}, (1, 2, True)),
        ({"a": [0, 1, 2]}, (1, 2, True)),
        ({"a": [1], "b": [0]}, (2, 2, True)),
        ({"frozen": [2]}, (0, 2, False)),
        ({"a": [0, 1, 2], "frozen": [0, 1, 2]}, (1, 2, False)),
    ],
)
def test_what_moved_is_counted_weight_by_weight(
    changes: dict[str, list[int]], counts: tuple[int, int, bool]
) -> None:
    model: Any = torch.nn.ParameterDict(
        {name: torch.nn.Parameter(torch.zeros(3)) for name in ("a", "b", "frozen")}
    )
    model["frozen"].requires_grad_(False)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    for name, places in changes.items():
        model[name].data[places] = 1.0
    assert runs._compare(model, before) == counts


def test_a_loss_that_is_not_finite_ends_a_pretraining(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files.write_world(tmp_path / "data", 0)

    def train(*_: Any, on_step: Any, **__: Any) -> None:
        on_step(1, 3.0)
        on_step(2, float("nan"))

    monkeypatch.setattr(runs, "pretrain", train)
    told: list[tuple[int, float]] = []
    with pytest.raises(TrainingDiverged) as caught:
        runs.pretrain_into(
            tmp_path / "m", tmp_path / "c", tmp_path / "data", SMALL, SHORT, 0,
            on_step=lambda step, loss: told.append((step, loss)),
        )  # fmt: skip
    assert caught.value.step == 1
    assert told == [(1, 3.0)]


@pytest.mark.parametrize("checkpoints", [(-1,), (7,), (0, 9), (-1, 3)])
def test_checkpoints_lie_within_the_run(checkpoints: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="do not fit 6 steps"):
        pretrain.pretrain(new_model(SMALL, 0), ROWS, SHORT, 0, checkpoints=checkpoints)
