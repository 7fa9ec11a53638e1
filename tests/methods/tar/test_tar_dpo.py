"""The preference loss against a second evaluation, and against trl where it is installed."""

from __future__ import annotations

import math

import pytest
import torch

from kit.methods.tar.dpo import Pairs, dpo_loss, response_log_probs, won
from kit.methods.tar.forward import forward
from kit.methods.tar.objectives import preference_margins, reference_log_probs
from tests.methods.tar.conftest import assert_same_loss, build_batch, gradients, rows_of


@pytest.fixture
def pairs(reference):
    chosen = build_batch(5, lengths=(8, 5, 6), prompt=3)
    rejected = build_batch(6, lengths=(6, 9, 5), prompt=3)
    return Pairs(
        chosen=chosen,
        rejected=rejected,
        reference_chosen=reference_log_probs(reference, chosen),
        reference_rejected=reference_log_probs(reference, rejected),
    )


def summed_by_hand(model, batch):
    return torch.stack(
        [
            sum(
                torch.log_softmax(scores[t - 1], -1)[label]
                for t, label in enumerate(labels)
                if label != -100
            )
            for _, labels, _, scores in rows_of(model, batch)
        ]
    )


def test_response_log_probs_sum_over_the_response_only(model, pairs):
    out = forward(model, pairs.chosen)
    ours = response_log_probs(out.states, out.head, pairs.chosen.labels)
    by_hand = summed_by_hand(model, pairs.chosen)
    torch.testing.assert_close(ours, by_hand, rtol=1e-10, atol=1e-12)
    chunked = response_log_probs(out.states, out.head, pairs.chosen.labels, chunk=2)
    assert_same_loss(model, chunked.square().sum(), by_hand.square().sum())


def test_loss_and_gradients_equal_the_formula(model, reference, pairs):
    ours = dpo_loss(preference_margins(model, pairs), beta=0.3)
    with torch.no_grad():
        base = [summed_by_hand(reference, side) for side in (pairs.chosen, pairs.rejected)]
    ratio = [
        summed_by_hand(model, side) - values
        for side, values in zip((pairs.chosen, pairs.rejected), base, strict=True)
    ]
    by_hand = -torch.log(1 / (1 + torch.exp(-0.3 * (ratio[0] - ratio[1])))).mean()
    assert_same_loss(model, ours, by_hand)


def test_reference_values_have_no_gradient_and_are_used(model, reference, pairs):
    assert not pairs.reference_chosen.requires_grad
    loss = dpo_loss(preference_margins(model, pairs))
    loss.backward()
    assert all(p.grad is None for p in reference.parameters())
    same = Pairs(
        pairs.chosen,
        pairs.rejected,
        reference_log_probs(model, pairs.chosen),
        reference_log_probs(model, pairs.rejected),
    )
    assert dpo_loss(preference_margins(model, same)).item() == pytest.approx(math.log(2))


def test_a_step_downhill_raises_the_margin(model, pairs):
    margin = preference_margins(model, pairs)
    before = margin.sum().item()
    grads = gradients(model, dpo_loss(margin))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter -= 0.01 * grads[name]
    assert preference_margins(model, pairs).sum().item() > before


def test_a_pair_is_won_above_the_reference_only():
    assert won(torch.tensor([0.1, -2.0, 0.0, 3.0])).tolist() == [True, False, False, True]


def test_bad_input_is_refused(model, pairs):
    with pytest.raises(ValueError, match="without any label"):
        response_log_probs(
            torch.zeros(2, 3, 4), lambda x: x, torch.tensor([[-100, 1, 2], [-100, -100, -100]])
        )
    with pytest.raises(ValueError, match="beta is 0"):
        dpo_loss(torch.zeros(2), beta=0)
    with pytest.raises(ValueError, match="pairs of 3 chosen and 2"):
        Pairs(
            pairs.chosen,
            build_batch(1, lengths=(4, 5)),
            pairs.reference_chosen,
            pairs.reference_rejected,
        )
