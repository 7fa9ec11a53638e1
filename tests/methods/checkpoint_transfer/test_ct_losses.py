"""Losses computed by hand, blind to padding, with gradients where they belong."""

from __future__ import annotations

import math

import pytest
import torch

from kit.methods.checkpoint_transfer.affine import AffineMap
from kit.methods.checkpoint_transfer.losses import (
    cross_entropy_retain,
    hidden_retain,
    kl_retain,
    mapped_targets,
    remove_loss,
)

MASK = torch.tensor([[True, True, False], [True, False, False]])


def _states(seed: int, width: int = 4) -> torch.Tensor:
    return torch.randn(2, 3, width, generator=torch.Generator().manual_seed(seed))


def test_remove_loss_by_hand() -> None:
    """Two blocks, three tokens, width 2: means over width, then tokens, then blocks."""
    target = {0: torch.zeros(3, 2), 1: torch.zeros(3, 2)}
    student = {
        0: torch.tensor(
            [[[1.0, 3.0], [2.0, 0.0], [9.0, 9.0]], [[0.0, 0.0], [9.0, 9.0], [9.0, 9.0]]]
        ),
        1: torch.ones(2, 3, 2),
    }
    first = ((1 + 9) / 2 + (4 + 0) / 2 + 0) / 3
    assert float(remove_loss(student, target, MASK)) == pytest.approx((first + 1) / 2)


def test_remove_loss_is_zero_at_the_mapped_teacher() -> None:
    one = AffineMap(torch.randn(4, 4), torch.randn(4))
    teacher = _states(0)
    targets = mapped_targets({2: teacher}, {2: one}, MASK)
    assert float(remove_loss({2: one(teacher)}, targets, MASK)) == pytest.approx(0, abs=1e-12)


def test_remove_loss_does_not_see_padding() -> None:
    student, teacher = _states(1), _states(2)
    short = remove_loss({0: student}, mapped_targets({0: teacher}, None, MASK), MASK)
    noisy, other = student.clone(), teacher.clone()
    noisy[~MASK], other[~MASK] = 1e9, torch.nan
    assert torch.equal(short, remove_loss({0: noisy}, mapped_targets({0: other}, None, MASK), MASK))
    longer = torch.cat([MASK, torch.zeros(2, 5, dtype=torch.bool)], 1)
    wide = [torch.cat([part, torch.full((2, 5, 4), 7.0)], 1) for part in (student, teacher)]
    padded = remove_loss({0: wide[0]}, mapped_targets({0: wide[1]}, None, longer), longer)
    assert torch.equal(short, padded)


def test_remove_loss_is_computed_in_float32() -> None:
    """A difference of 300 squares beyond what float16 can hold."""
    student = torch.full((1, 1, 2), 300.0, dtype=torch.float16)
    mask = torch.ones(1, 1, dtype=torch.bool)
    loss = remove_loss({0: student}, {0: torch.zeros(1, 2, dtype=torch.float16)}, mask)
    assert loss.dtype == torch.float32
    assert float(loss) == 90000.0


def test_remove_loss_reaches_the_student_only() -> None:
    student, teacher = _states(1).requires_grad_(), _states(2).requires_grad_()
    targets = mapped_targets({0: teacher}, None, MASK)
    remove_loss({0: student}, targets, MASK).backward()
    assert teacher.grad is None
    assert student.grad is not None
    expected = 2 * (student - teacher).detach() / (3 * 4)
    expected[~MASK] = 0
    torch.testing.assert_close(student.grad, expected)


def test_the_map_of_another_block_is_applied_only_on_request() -> None:
    maps = {
        0: AffineMap(torch.eye(4), torch.zeros(4)),
        1: AffineMap(2 * torch.eye(4), torch.zeros(4)),
    }
    teacher = _states(3)
    own = mapped_targets({1: teacher}, maps, MASK)[1]
    before = mapped_targets({1: teacher}, maps, MASK, {1: 0})[1]
    torch.testing.assert_close(own, 2 * teacher[MASK])
    torch.testing.assert_close(before, teacher[MASK])
    with pytest.raises(ValueError, match="raw states are no substitute"):
        mapped_targets({2: teacher}, maps, MASK)


def test_remove_loss_refuses_what_does_not_fit() -> None:
    states = _states(1)
    targets = mapped_targets({0: states}, None, MASK)
    with pytest.raises(ValueError, match="states of blocks"):
        remove_loss({1: states}, targets, MASK)
    with pytest.raises(ValueError, match="student states for"):
        remove_loss({0: states}, targets, torch.ones_like(MASK))
    with pytest.raises(ValueError, match="at least one token"):
        remove_loss({0: states}, {0: torch.zeros(0, 4)}, torch.zeros_like(MASK))


def test_kl_by_hand_and_its_direction() -> None:
    reference = torch.tensor([[[math.log(0.75), math.log(0.25)]]])
    logits = torch.zeros(1, 1, 2)
    mask = torch.ones(1, 1, dtype=torch.bool)
    forward = 0.75 * math.log(0.75 / 0.5) + 0.25 * math.log(0.25 / 0.5)
    backward = 0.5 * math.log(0.5 / 0.75) + 0.5 * math.log(0.5 / 0.25)
    assert float(kl_retain(reference[0], logits, mask)) == pytest.approx(forward, rel=1e-6)
    assert float(kl_retain(logits[0], reference, mask)) == pytest.approx(backward, rel=1e-6)
    assert float(kl_retain(reference[0], reference, mask)) == 0.0


def test_kl_equals_torch_distributions_and_ignores_padding() -> None:
    reference, logits = _states(4, 7), _states(5, 7).requires_grad_()
    loss = kl_retain(reference[MASK], logits, MASK)
    p = torch.distributions.Categorical(logits=reference[MASK])
    q = torch.distributions.Categorical(logits=logits[MASK])
    torch.testing.assert_close(loss, torch.distributions.kl_divergence(p, q).mean())
    loss.backward()
    assert logits.grad is not None
    assert bool((logits.grad[~MASK] == 0).all())
    assert bool((logits.grad[MASK] != 0).all())


def test_cross_entropy_equals_transformers_labels() -> None:
    from transformers.loss.loss_utils import ForCausalLMLoss

    logits = _states(6, 9)
    ids = torch.tensor([[3, 4, 8], [1, 8, 8]])
    labels = torch.where(MASK, ids, -100)
    expected = ForCausalLMLoss(logits, labels, vocab_size=9)
    torch.testing.assert_close(cross_entropy_retain(ids, logits, MASK), expected)


def test_hidden_retain_is_the_distance_to_itself() -> None:
    before, after = _states(7), _states(8)
    expected = (before[MASK] - after[MASK]).square().mean()
    torch.testing.assert_close(hidden_retain({3: before}, {3: after}, MASK), expected)
    assert float(hidden_retain({3: before}, {3: before}, MASK)) == 0.0


def test_no_mask_is_a_mask_that_is_true_throughout() -> None:
    """Values and gradients, bit for bit."""
    whole, ids = torch.ones_like(MASK), torch.tensor([[3, 4, 5], [1, 6, 2]])
    reference = _states(4, 7).flatten(0, 1)

    def losses(mask: torch.Tensor | None) -> list[torch.Tensor]:
        logits = _states(5, 7).requires_grad_()
        targets = mapped_targets({0: _states(6, 7)}, None, mask)
        values = [
            kl_retain(reference, logits, mask),
            cross_entropy_retain(ids, logits, mask),
            remove_loss({0: logits}, targets, mask),
            hidden_retain({0: _states(8, 7)}, {0: logits}, mask),
        ]
        gradients = [torch.autograd.grad(value, logits)[0] for value in values]
        return [targets[0], *values, *gradients]

    for without, masked in zip(losses(None), losses(whole), strict=True):
        assert torch.equal(without, masked)
    with pytest.raises(ValueError, match="at least one token"):
        cross_entropy_retain(ids[:, :1], _states(5, 7)[:, :1], None)


def test_a_batch_without_tokens_is_refused() -> None:
    nothing = torch.zeros_like(MASK)
    logits = _states(4, 7)
    with pytest.raises(ValueError, match="at least one token"):
        kl_retain(logits[nothing], logits, nothing)
    with pytest.raises(ValueError, match="at least one token"):
        cross_entropy_retain(torch.zeros(2, 3, dtype=torch.int64), logits, nothing)
    with pytest.raises(ValueError, match="reference"):
        kl_retain(logits[MASK][..., :3], logits, MASK)
