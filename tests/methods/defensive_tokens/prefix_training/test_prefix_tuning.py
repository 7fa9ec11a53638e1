"""Prefix training: what moves, what does not, and that batching changes nothing."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch.nn.functional import cross_entropy

from kit.lm.prefix import embed
from kit.methods.defensive_tokens.prefix_training import tuning
from kit.methods.defensive_tokens.prefix_training.config import PrefixTraining
from kit.methods.defensive_tokens.prefix_training.loss import accumulate, batch_loss
from kit.methods.defensive_tokens.prefix_training.state import start
from kit.methods.defensive_tokens.prefix_training.tuning import train_prefix
from kit.train.batching import IGNORE, collate
from kit.train.errors import TrainingDiverged
from kit.train.losses import TOKEN_MEAN
from tests.lm.tiny_world import tiny_llama
from tests.methods.defensive_tokens.prefix_training.prefix_cases import (
    WIDTH,
    N,
    V,
    examples,
    fingerprint,
    initial,
    steps_of,
)

CONFIG = PrefixTraining(steps=6, micro_batch=2, accumulation=2, learning_rate=0.05)


def gradient(model, pool, config=CONFIG, prefix=None):
    parameter = torch.nn.Parameter((initial() if prefix is None else prefix).clone())
    loss = accumulate(model, parameter, pool, config, pad_id=0)
    assert parameter.grad is not None
    return loss, parameter.grad


def train(model, pool, config=CONFIG, state=None, **callbacks):
    step_examples = steps_of(pool, config.batch)
    return train_prefix(
        model, state or start(initial()), step_examples, config, pad_id=0, **callbacks
    )


def test_the_gradient_reaches_the_prefix_and_nothing_else():
    model = tiny_llama(V)
    before = fingerprint(model)
    _, grad = gradient(model, examples(4))
    assert grad.shape == (N, WIDTH)
    assert bool((grad.norm(dim=1) > 0).all()), "every slot takes part"
    assert all(parameter.grad is None for parameter in model.parameters())
    assert fingerprint(model) == before


def test_training_moves_the_prefix_and_no_weight():
    model = tiny_llama(V)
    before = fingerprint(model)
    run = train(model, examples(24))
    assert fingerprint(model) == before
    assert not torch.equal(run.state.prefix, initial())
    assert len(run.losses) == len(run.norms) == 6


def test_the_loss_falls():
    run = train(tiny_llama(V), examples(4), replace(CONFIG, steps=30, learning_rate=0.1))
    assert run.losses[-1] < 0.8 * run.losses[0]


def test_the_first_adam_step_moves_every_coordinate_by_the_learning_rate():
    """Reference page, section 4: with AdamW at 0.1 the first step moves each coordinate by 0.1."""
    run = train(tiny_llama(V), examples(4), replace(CONFIG, steps=1, learning_rate=0.1))
    moved = (run.state.prefix - initial()).abs()
    torch.testing.assert_close(moved, torch.full_like(moved, 0.1), rtol=1e-3, atol=0)


def test_loss_and_gradient_of_one_sample_equal_transformers_own_loss():
    model, (example,) = tiny_llama(V), examples(1)
    config = replace(CONFIG, micro_batch=1, accumulation=1)
    loss, grad = gradient(model, [example], config)
    prefix = torch.nn.Parameter(initial())
    batch = collate([example], 0)
    theirs = model(inputs_embeds=embed(model, batch.ids, prefix), labels=batch.labels).loss
    theirs.backward()
    assert loss == pytest.approx(theirs.item(), rel=1e-6)
    torch.testing.assert_close(grad, prefix.grad, rtol=1e-4, atol=1e-7)


def test_a_padded_batch_equals_single_samples():
    """Right padding without an attention mask: no label sees a padded position."""
    model, pool = tiny_llama(V), examples(8, 5, shortest=1, longest=12)
    assert len({len(e.ids) for e in pool}) > 1
    together = gradient(model, pool, replace(CONFIG, micro_batch=8, accumulation=1, forward_rows=8))
    alone = gradient(model, pool, replace(CONFIG, micro_batch=8, accumulation=1, forward_rows=1))
    assert together[0] == pytest.approx(alone[0], rel=1e-6)
    torch.testing.assert_close(together[1], alone[1], rtol=1e-4, atol=1e-7)


def test_an_explicit_mask_changes_nothing():
    model, pool = tiny_llama(V), examples(4, 6)
    batch, prefix = collate(pool, 0), torch.nn.Parameter(initial())
    ours = batch_loss(model, prefix, batch, torch.full((4,), 1.0))
    hidden = model.model(
        inputs_embeds=embed(model, batch.ids, prefix),
        attention_mask=batch.attention_mask,
        position_ids=batch.position_ids,
    ).last_hidden_state
    logits = model.lm_head(hidden[:, :-1]).flatten(0, 1)
    masked = cross_entropy(
        logits, batch.labels[:, 1:].flatten(), ignore_index=IGNORE, reduction="sum"
    )
    torch.testing.assert_close(ours, masked)


@pytest.mark.parametrize("forward_rows", [1, 2, 3, 8])
def test_rows_per_forward_pass_do_not_change_the_loss(forward_rows):
    model, pool = tiny_llama(V), examples(8, 7)
    config = replace(CONFIG, micro_batch=2, accumulation=4)
    whole = gradient(model, pool, replace(config, forward_rows=8))
    split = gradient(model, pool, replace(config, forward_rows=forward_rows))
    assert split[0] == pytest.approx(whole[0], rel=1e-6)
    torch.testing.assert_close(split[1], whole[1], rtol=1e-4, atol=1e-7)


def test_accumulation_equals_separate_backward_passes_over_micro_batches():
    """The published loop: loss of each micro-batch is its token mean, divided by the number."""
    model, pool = tiny_llama(V), examples(8, 8)
    ours = gradient(model, pool, replace(CONFIG, micro_batch=2, accumulation=4))
    prefix, total = torch.nn.Parameter(initial()), 0.0
    for first in range(0, 8, 2):
        batch = collate(pool[first : first + 2], 0)
        loss = model(inputs_embeds=embed(model, batch.ids, prefix), labels=batch.labels).loss / 4
        loss.backward()
        total += loss.item()
    assert ours[0] == pytest.approx(total, rel=1e-6)
    torch.testing.assert_close(ours[1], prefix.grad, rtol=1e-4, atol=1e-7)


def test_regrouping_holds_when_every_example_has_as_many_labels():
    model, pool = tiny_llama(V), examples(8, 9, shortest=4, longest=4)
    two_by_four = gradient(model, pool, replace(CONFIG, micro_batch=2, accumulation=4))
    eight_by_one = gradient(model, pool, replace(CONFIG, micro_batch=8, accumulation=1))
    assert two_by_four[0] == pytest.approx(eight_by_one[0], rel=1e-6)
    torch.testing.assert_close(two_by_four[1], eight_by_one[1], rtol=1e-4, atol=1e-7)


def test_regrouping_does_not_hold_when_label_counts_differ():
    """Under the published normalisation 4 x 4 and 16 x 1 are different objectives."""
    model, pool = tiny_llama(V), examples(8, 10, shortest=1, longest=14)
    two_by_four = gradient(model, pool, replace(CONFIG, micro_batch=2, accumulation=4))
    eight_by_one = gradient(model, pool, replace(CONFIG, micro_batch=8, accumulation=1))
    difference = (two_by_four[1] - eight_by_one[1]).norm() / eight_by_one[1].norm()
    assert float(difference) > 0.01


def test_regrouping_always_holds_under_the_token_mean():
    model, pool = tiny_llama(V), examples(8, 10, shortest=1, longest=14)
    config = replace(CONFIG, normalisation=TOKEN_MEAN)
    two_by_four = gradient(model, pool, replace(config, micro_batch=2, accumulation=4))
    eight_by_one = gradient(model, pool, replace(config, micro_batch=8, accumulation=1))
    assert two_by_four[0] == pytest.approx(eight_by_one[0], rel=1e-6)
    torch.testing.assert_close(two_by_four[1], eight_by_one[1], rtol=1e-4, atol=1e-7)


def test_the_gradient_is_the_finite_difference():
    model, pool = tiny_llama(V).double(), examples(4)
    model.requires_grad_(False)
    _, grad = gradient(model, pool)
    direction = torch.randn(N, WIDTH, generator=torch.Generator().manual_seed(1))
    step = 1e-2
    ahead, _ = gradient(model, pool, prefix=initial() + step * direction)
    behind, _ = gradient(model, pool, prefix=initial() - step * direction)
    assert (ahead - behind) / (2 * step) == pytest.approx(float((grad * direction).sum()), rel=2e-3)


def test_a_bf16_model_trains_an_fp32_prefix():
    model = tiny_llama(V).to(torch.bfloat16)
    run = train(model, examples(24))
    assert run.state.prefix.dtype is torch.float32
    assert run.state.exp_avg_sq.dtype is torch.float32
    rounded = run.state.prefix.to(torch.bfloat16).to(torch.float32)
    assert not torch.equal(rounded, run.state.prefix), "more than bf16 is kept"


def test_callbacks_see_every_step_and_every_checkpoint():
    steps, kept = [], []
    config = replace(CONFIG, checkpoint_steps=(0, 2, 6))
    run = train(
        tiny_llama(V),
        examples(24),
        config,
        on_step=lambda step, loss: steps.append((step, loss)),
        on_checkpoint=kept.append,
    )
    assert [step for step, _ in steps] == [1, 2, 3, 4, 5, 6]
    assert [loss for _, loss in steps] == run.losses
    assert [state.step for state in kept] == list(run.checkpoints) == [0, 2, 6]
    assert torch.equal(run.checkpoints[0], initial())
    assert torch.equal(run.checkpoints[6], run.state.prefix)
    assert run.norms[-1] == pytest.approx(run.state.prefix.norm(dim=1).tolist())


def test_the_callers_initial_vectors_are_not_written_to():
    first = initial()
    train(tiny_llama(V), examples(24), state=start(first))
    assert torch.equal(first, initial())


def test_a_model_that_is_not_frozen_is_refused():
    model = tiny_llama(V)
    model.lm_head.weight.requires_grad_(True)
    with pytest.raises(ValueError, match="freeze the model"):
        train(model, examples(24))


def test_a_step_with_too_few_examples_is_refused():
    with pytest.raises(ValueError, match="step 1 has 2 examples, not 4"):
        train(tiny_llama(V), examples(6))


def test_weight_decay_pulls_the_vectors_in():
    plain = train(tiny_llama(V), examples(24))
    decayed = train(tiny_llama(V), examples(24), replace(CONFIG, weight_decay=1.0))
    assert float(decayed.state.prefix.norm()) < float(plain.state.prefix.norm())


def test_a_decaying_rate_ends_with_smaller_steps():
    config = replace(CONFIG, steps=8, schedule="cosine", checkpoint_steps=tuple(range(9)))
    run = train(tiny_llama(V), examples(4), config)
    moves = [float((run.checkpoints[i + 1] - run.checkpoints[i]).norm()) for i in range(8)]
    assert moves[-1] < 0.2 * moves[0]
    assert all(math.isfinite(loss) for loss in run.losses)


@pytest.mark.parametrize("looks", [True, False])
def test_a_prefix_that_the_last_update_made_infinite_is_not_returned(looks, monkeypatch):
    """No loss comes after the last update to show it, also where looking costs a wait."""
    monkeypatch.setattr(tuning, "_looking_is_free", lambda prefix: looks)
    config = replace(CONFIG, steps=1, learning_rate=1e37, checkpoint_steps=())
    with pytest.raises(TrainingDiverged, match="infinite or NaN"):
        train(tiny_llama(V), examples(4), config)
