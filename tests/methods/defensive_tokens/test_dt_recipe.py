"""The whole course on a tiny model: plan, label, train; twice, and resumed."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from kit.lm.generate import TransformersBackend
from kit.methods.defensive_tokens import attacks
from kit.methods.defensive_tokens.recipe import Recipe, fit, plan_run
from kit.methods.defensive_tokens.self_label import make_labels
from kit.mini.chat import MINI
from tests.lm.tiny_world import TEXTS, mini_tokenizer, samples, tiny_llama
from tests.methods.defensive_tokens import recipes

TOKENIZER = mini_tokenizer()
POOL = samples(60, every_empty=4)
RECIPES = {"as-reported": recipes.REPORTED, "corrected": recipes.CORRECTED}


def short(recipe: Recipe, steps=6) -> Recipe:
    return recipes.short(recipe, steps)


def plan_of(recipe):
    return plan_run(POOL, TEXTS, attacks.MINI, recipe)


def labels_of(plan, recipe, model):
    return make_labels(
        TransformersBackend(model, 0),
        TOKENIZER,
        MINI,
        list(plan.samples.values()),
        layout=recipe.encoding.layout,
        max_new_tokens=4,
        empty_data=recipe.empty_data,
    )


def run(recipe, state=None, **callbacks):
    model = tiny_llama(len(TOKENIZER))
    plan = plan_of(recipe)
    labels = labels_of(plan, recipe, model)
    state = state or recipes.initial_state(32)
    return fit(model, TOKENIZER, MINI, plan, labels, recipe, state, **callbacks)


@pytest.mark.parametrize("name", RECIPES)
def test_the_whole_course_lowers_the_loss(name):
    result = run(short(RECIPES[name], 25))
    assert sum(result.losses[-5:]) < 0.9 * sum(result.losses[:5])


@pytest.mark.parametrize("name", RECIPES)
def test_one_seed_one_result(name):
    first, second = run(short(RECIPES[name])), run(short(RECIPES[name]))
    assert torch.equal(first.state.prefix, second.state.prefix)
    assert first.losses == second.losses
    other = run(short(replace(RECIPES[name], seed=1)))
    assert not torch.equal(first.state.prefix, other.state.prefix)


def test_going_on_from_a_checkpoint_repeats_the_bits():
    recipe = short(RECIPES["corrected"])
    recipe = replace(recipe, training=replace(recipe.training, checkpoint_steps=(3,)))
    kept = []
    whole = run(recipe, on_checkpoint=kept.append)
    rest = run(recipe, state=kept[0])
    assert torch.equal(rest.state.prefix, whole.state.prefix)
    assert rest.losses == whole.losses[3:]


def test_a_plan_needs_labels_for_exactly_what_it_consumes():
    recipe = short(RECIPES["corrected"], 2)
    plan = plan_of(recipe)
    consumed = {plan.items[i].sample_id for i in plan.schedule.order}
    assert set(plan.samples) == consumed
    assert len(plan.samples) == 32 < len(POOL)


def test_repeated_sample_ids_are_refused():
    with pytest.raises(ValueError, match="not unique"):
        plan_run([*POOL, POOL[0]], TEXTS, attacks.MINI, short(RECIPES["corrected"]))
