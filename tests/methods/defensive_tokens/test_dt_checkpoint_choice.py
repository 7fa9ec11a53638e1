"""A checkpoint chosen on items that no step consumed: which items, which checkpoint, which rows."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from kit.methods.defensive_tokens import attacks
from kit.methods.defensive_tokens.checkpoint_choice import chosen_step, with_chosen
from kit.methods.defensive_tokens.plan_files import load_plan, save_plan
from kit.methods.defensive_tokens.recipe import fit, heldout_losses, plan_mixture
from kit.methods.defensive_tokens.self_label import SelfLabel
from kit.mini.chat import MINI
from tests.lm.tiny_world import TEXTS, mini_tokenizer, samples, tiny_llama
from tests.methods.defensive_tokens import recipes
from tests.methods.defensive_tokens.struq_public import WORDS

POOL = samples(60, every_empty=4)


def plan_of(heldout, steps=5, batch=4, mixture="proper"):
    return plan_mixture(
        POOL,
        replace(TEXTS, delimiter_words={name: tuple(words) for name, words in WORDS.items()}),
        attacks.PAPER,
        mixture=mixture,
        steps=steps,
        batch=batch,
        seed=3,
        heldout=heldout,
    )


@pytest.mark.parametrize("mixture", ["proper", "struq", "as-reported"])
@pytest.mark.parametrize("heldout", [1, 4, 7])
def test_held_out_items_are_of_samples_that_no_step_consumes(mixture, heldout):
    plan, plain = plan_of(heldout, mixture=mixture), plan_of(0, mixture=mixture)
    assert plan.schedule == plain.schedule
    assert plan.items == plain.items
    assert len(set(plan.heldout)) == heldout
    consumed = {plan.items[i].sample_id for i in plan.schedule.order}
    kept = {plan.items[i].sample_id for i in plan.heldout}
    assert not consumed & kept
    assert set(plan.samples) == consumed | kept


def test_more_than_is_left_cannot_be_held_out():
    left = len(plan_of(0).items) - 20
    assert len(plan_of(left).heldout) == left
    with pytest.raises(ValueError, match="cannot be held out"):
        plan_of(left + 1)
    with pytest.raises(ValueError, match="cannot be held out"):
        plan_of(1, steps=40)  # more than one epoch


def test_held_out_items_stand_behind_the_consumed_ones_in_the_files(tmp_path):
    plan = plan_of(7)
    save_plan(tmp_path, plan)
    loaded = load_plan(tmp_path)
    assert [loaded.items[i] for i in loaded.heldout] == [plan.items[i] for i in plan.heldout]
    assert loaded.heldout == tuple(range(20, 27))
    assert loaded.samples == plan.samples
    save_plan(tmp_path, plan_of(0))
    assert "heldout" not in (tmp_path / "schedule.json").read_text()


def test_the_loss_of_each_checkpoint_is_that_of_the_held_out_items():
    """Labels that only held-out items have are learnt by no step, and their loss is another."""
    recipe = recipes.short(recipes.CORRECTED, 2)
    tokenizer = mini_tokenizer()
    model, plan = tiny_llama(len(tokenizer)), plan_of(6, batch=recipe.training.batch, steps=2)

    def label(sample, word):
        ids = tuple(tokenizer.encode(word, add_special_tokens=False))
        return SelfLabel(sample.id, sample.instruction, word, ids, "stop")

    words = sorted({word for sample in POOL for word in sample.output.split()})
    labels = {id: label(sample, words[0]) for id, sample in plan.samples.items()}
    state = recipes.initial_state(32)
    run = fit(model, tokenizer, MINI, plan, labels, recipe, state)
    prefixes = {0: state.prefix, 2: run.state.prefix}
    found = heldout_losses(model, tokenizer, MINI, plan, labels, recipe, prefixes)
    assert list(found) == [0, 2]
    assert found[0] != found[2]
    again = heldout_losses(model, tokenizer, MINI, plan, labels, recipe, {2: prefixes[2]})
    assert again[2] == found[2]
    kept = {plan.items[i].sample_id for i in plan.heldout}
    other = {
        id: label(s, words[-1]) if id in kept else labels[id] for id, s in plan.samples.items()
    }
    changed = heldout_losses(model, tokenizer, MINI, plan, other, recipe, prefixes)
    assert changed != found
    consumed = {
        id: labels[id] if id in kept else label(s, words[-1]) for id, s in plan.samples.items()
    }
    assert heldout_losses(model, tokenizer, MINI, plan, consumed, recipe, prefixes) == found
    assert torch.equal(prefixes[2], run.state.prefix)


def test_the_lowest_loss_wins_and_the_earlier_of_two():
    assert chosen_step({"25": 0.5, "100": 0.2, "200": 0.3}) == 100
    assert chosen_step({"200": 0.2, "100": 0.2}) == 100
    assert chosen_step({"0": 0.0, "25": 0.5}) == 25, "step 0 is no training"
    with pytest.raises(ValueError, match="only step 0"):
        chosen_step({"0": 0.1})


def test_the_chosen_row_is_a_second_name_of_an_evaluated_one():
    scores = {"undefended": {"a": 1}, "adapt-25": {"a": 2}, "adapt-100": {"a": 3}}
    rows = with_chosen(scores, {"adapt": 25, "scratch": 100})
    assert rows == {**scores, "adapt-chosen": {"a": 2}}
    assert with_chosen(scores, {}) == scores
