"""The whole course on a tiny model: plan, label, train; twice, and resumed."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from kit.lm.chat import MINI
from kit.lm.generate import TransformersBackend
from kit.methods.defensive_tokens import attacks, full_dt, tiny_adapt
from kit.methods.defensive_tokens.prefix_training.state import start
from kit.methods.defensive_tokens.recipe import Recipe, fit, plan_run
from kit.methods.defensive_tokens.self_label import make_labels
from tests.lm.tiny_world import TEXTS, mini_tokenizer, samples, tiny_llama

TOKENIZER = mini_tokenizer()
POOL = samples(60, every_empty=4)
RECIPES = {"as-reported": tiny_adapt.as_reported(), "corrected": tiny_adapt.corrected()}


def short(recipe: Recipe, steps=6) -> Recipe:
    return tiny_adapt.with_steps(recipe, steps)


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
    state = state or full_dt.initial_state(32, seed=0)
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


def test_the_follow_ups_recipe_as_documented():
    """Tiny-adapt note, Setup; reference page, section 1.3."""
    recipe = tiny_adapt.as_reported()
    training = recipe.training
    assert (training.steps, training.micro_batch, training.accumulation) == (200, 4, 4)
    assert (training.batch, training.learning_rate, training.weight_decay) == (16, 0.1, 0.0)
    assert training.schedule == "constant"
    assert training.checkpoint_steps == (0, 25, 50, 100, 150, 200)
    assert training.normalisation == "micro-mean"
    assert (recipe.mixture, recipe.empty_data, recipe.seed) == ("as-reported", "empty-turn", 42)
    assert recipe.encoding.end_truncated
    assert recipe.encoding.label_tokens == "as-text"
    assert (recipe.encoding.max_length, recipe.max_label_tokens) == (2048, 512)


def test_the_corrected_recipe_differs_only_in_data_and_labels():
    reported, corrected = tiny_adapt.as_reported(), tiny_adapt.corrected()
    assert corrected.training == reported.training
    assert corrected.encoding.layout == reported.encoding.layout
    assert corrected.mixture == "struq"
    assert not corrected.encoding.end_truncated


def test_other_step_counts_keep_checkpoints_below_and_add_the_last():
    recipe = tiny_adapt.with_steps(tiny_adapt.corrected(), 60)
    assert recipe.training.checkpoint_steps == (0, 25, 50, 60)


def test_full_training_is_one_epoch():
    recipe = full_dt.recipe(51_760)
    assert recipe.training.batch == 128
    assert recipe.training.steps == 404
    assert recipe.training.warmup == 13
    assert recipe.training.checkpoint_steps == (0, 404)
    assert recipe.mixture == "struq"
    every = full_dt.recipe(51_760, checkpoint_every=100).training.checkpoint_steps
    assert every == (0, 100, 200, 300, 400, 404)
    with pytest.raises(ValueError, match="do not fill one batch"):
        full_dt.recipe(100)


def test_full_training_starts_from_standard_normal_vectors():
    state = full_dt.initial_state(4096, seed=0)
    assert state.prefix.shape == (5, 4096)
    assert float(state.prefix.std()) == pytest.approx(1.0, abs=0.02)
    assert torch.equal(full_dt.state_from(state.prefix).prefix, start(state.prefix).prefix)


def test_repeated_sample_ids_are_refused():
    with pytest.raises(ValueError, match="not unique"):
        plan_run([*POOL, POOL[0]], TEXTS, attacks.MINI, short(RECIPES["corrected"]))
