"""Attacks that do not fit a style, items without room for a label, defences that are none."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch

from kit.lm.generate import TransformersBackend
from kit.manifest.load import read_pins
from kit.methods.defensive_tokens import attacks, recipe, standin, struq
from kit.methods.defensive_tokens.attacks import MINI, PAPER, attack_samples
from kit.methods.defensive_tokens.evaluate import evaluate_prefixes
from kit.methods.defensive_tokens.prompt_defences import NO_DEFENCE
from kit.methods.defensive_tokens.recipe import fit, plan_mixture
from kit.methods.defensive_tokens.self_label import make_labels
from kit.methods.defensive_tokens.struq_text import TEST_ATTACKS
from kit.mini.chat import MINI as FORMAT
from kit.steps.defensive_tokens import params
from tests.lm.tiny_world import TEXTS, mini_tokenizer, samples, tiny_llama
from tests.methods.defensive_tokens import recipes
from tests.methods.defensive_tokens.struq_public import WORDS

LISTS = replace(TEXTS, delimiter_words={name: tuple(of) for name, of in WORDS.items()})


@pytest.mark.parametrize("name", sorted(TEST_ATTACKS))
def test_an_attack_in_sentences_needs_a_style_that_has_them(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} is written in sentences; the style 'mini'"):
        attack_samples(name, samples(2), LISTS, MINI)
    made = attack_samples(name, samples(2), LISTS, PAPER)
    assert len(made) == 2


@pytest.mark.parametrize("length", [2048, 12])
def test_items_whose_prompt_leaves_no_room_are_named_before_the_training(
    monkeypatch: pytest.MonkeyPatch, length: int
) -> None:
    words = mini_tokenizer()
    model = tiny_llama(len(words))
    short = recipes.short(recipes.CORRECTED, 3)
    plan = plan_mixture(
        samples(60, every_empty=4), TEXTS, attacks.MINI, mixture="proper", steps=3, batch=16, seed=1
    )
    labels = make_labels(
        TransformersBackend(model, 0),
        words,
        FORMAT,
        list(plan.samples.values()),
        layout="before-bos",
        max_new_tokens=2,
        empty_data=short.empty_data,
    )
    seen: list[Any] = []

    def stopped(model: Any, state: Any, step: Any, *rest: Any, **named: Any) -> None:
        seen.append([example for number in range(3) for example in step(number)])

    monkeypatch.setattr(recipe, "train_prefix", stopped)
    masked: list[str] = []
    how = replace(short, encoding=replace(short.encoding, max_length=length))
    given = (model, words, FORMAT, plan, labels, how, recipes.initial_state(32))
    fit(*given, on_masked=masked.extend)
    fit(*given)
    assert [len(examples) for examples in seen] == [48, 48]
    without = [example.id for example in seen[0] if not example.labels]
    assert sorted(masked) == sorted(without)
    assert bool(masked) is (length == 12)
    assert len(masked) < 48


@pytest.mark.parametrize(
    ("written", "wrong"),
    [("undefended", False), ("native", False), ("own={data} now", False), ("nonsense", True)],
)
def test_a_defence_is_known_or_written(written: str, wrong: bool) -> None:
    given = {
        "layout": "before-bos",
        "attacks": ["naive"],
        "max_new_tokens": 1,
        "seed": 0,
        "accuracy": False,
        "refusal_rule": "as-reported",
        "defences": ["undefended", written],
    }
    if wrong:
        with pytest.raises(msgspec.ValidationError, match="the kit has undefended, reminder"):
            msgspec.convert(given, params.Evaluate)
    else:
        assert msgspec.convert(given, params.Evaluate).defences == ["undefended", written]


@pytest.mark.parametrize(
    ("count", "batch", "steps", "fits"),
    [(0, 4, 2, True), (1, 4, 2, True), (5, 4, 2, True), (52, 4, 2, True), (53, 4, 2, False)],
)
def test_as_many_items_are_held_out_as_are_left(
    count: int, batch: int, steps: int, fits: bool
) -> None:
    def plan() -> recipe.Plan:
        return plan_mixture(
            samples(60),
            TEXTS,
            attacks.MINI,
            mixture="proper",
            steps=steps,
            batch=batch,
            seed=1,
            heldout=count,
        )

    if not fits:
        with pytest.raises(ValueError, match=f"{count} items cannot be held out"):
            plan()
        return
    made = plan()
    assert len(made.heldout) == count == len(set(made.heldout))
    assert not set(made.heldout) & set(made.schedule.order)
    assert len(made.schedule.order) == steps * batch


@pytest.mark.parametrize("seed", [0, 1])
def test_the_proper_mixture_of_a_plan_has_the_documented_shares_to_the_item(seed: int) -> None:
    pool = samples(60, every_empty=4)
    made = struq.build("proper", pool, TEXTS, attacks.MINI, seed=seed)
    assert made == struq.proper(pool, TEXTS, attacks.MINI, seed=seed, exact=True)
    attacked = [item for item in made if item.kind not in ("clean", "no-input")]
    with_data = sum(bool(sample.input) for sample in pool)
    assert len(attacked) == 2 * (with_data // 4)
    with pytest.raises(ValueError, match="unknown mixture 'other'; known: as-reported"):
        struq.build("other", pool, TEXTS, attacks.MINI, seed=seed)


@pytest.mark.parametrize(
    ("field", "value", "wrong"),
    [
        ("batch_tokens", 0, True),
        ("batch_tokens", 1, False),
        ("gpu_share", 0.0, True),
        ("gpu_share", 0.01, False),
        ("gpu_share", 1.0, False),
        ("gpu_share", 1.01, True),
    ],
)
def test_memory_is_a_share_of_a_card_and_a_batch_holds_something(
    field: str, value: float, wrong: bool
) -> None:
    given = {"max_new_tokens": 1, "empty_data": "no-turn", field: value}
    if wrong:
        with pytest.raises(msgspec.ValidationError, match=field):
            msgspec.convert(given, params.SelfLabel)
    else:
        assert getattr(msgspec.convert(given, params.SelfLabel), field) == value


class Side:
    """A backend that serves token sets side by side, and is asked for how many."""

    def __init__(self) -> None:
        self.inner: Any = TransformersBackend(tiny_llama(len(mini_tokenizer())), 0)
        self.vocabulary_size = self.inner.vocabulary_size
        self.vectors: list[int] = []
        self.batches: list[int] = []

    def sets_at_once(self, vectors: int) -> int:
        self.vectors.append(vectors)
        return 2

    def generate(self, *given: Any, **named: Any) -> Any:
        return self.inner.generate(*given, **named)

    def loglikelihoods(self, *given: Any, **named: Any) -> Any:
        raise AssertionError

    def generate_sets(self, sets: Any, **how: Any) -> Any:
        self.batches.append(len(sets))
        return [self.inner.generate(prompts, prefix=prefix, **how) for prompts, prefix in sets]


@pytest.mark.parametrize(
    ("slots", "vectors", "batches"),
    [((0,), 1, [1]), ((1, 0), 1, [2]), ((0, 3, 2), 3, [2, 1]), ((3, 3, 3, 3), 3, [2, 2])],
)
def test_as_many_token_sets_are_served_at_once_as_the_longest_leaves_room_for(
    slots: tuple[int, ...], vectors: int, batches: list[int]
) -> None:
    side = Side()
    sets = [(torch.full((n, 32), float(i)) if n else None, NO_DEFENCE) for i, n in enumerate(slots)]
    made = list(
        evaluate_prefixes(
            side,
            mini_tokenizer(),
            FORMAT,
            "before-bos",
            sets,
            samples(4),
            TEXTS,
            attacks.MINI,
            attacks=["naive"],
            max_new_tokens=1,
            seed=0,
            references_are_right=False,
        )
    )
    assert len(made) == len(slots)
    assert (side.vectors, side.batches) == ([vectors], batches)


def test_the_made_up_pool_is_as_large_as_the_pinned_one() -> None:
    pins = read_pins(Path(__file__).parents[3] / "manifests" / "pins.yaml").value.pins
    (said,) = [pin.attributes["records"] for pin in pins if pin.id == "alpaca-cleaned"]
    assert said == standin.POOL_SIZE


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("order", ["frozen-stream", "data-loader"])
def test_behind_the_last_item_of_an_epoch_nothing_can_be_held_out(order: str, seed: int) -> None:
    """What would come next is an item that was consumed, or one that is held out already."""

    def plan(count: int) -> recipe.Plan:
        return plan_mixture(
            samples(24, every_empty=3),
            TEXTS,
            attacks.MINI,
            mixture="as-reported",
            steps=2,
            batch=4,
            seed=seed,
            heldout=count,
            order=order,
        )

    whole = plan(16)
    assert sorted([*whole.schedule.order, *whole.heldout]) == list(range(24))
    for more in (17, 18, 20):
        with pytest.raises(ValueError, match="cannot be held out"):
            plan(more)
