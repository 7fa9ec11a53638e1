"""The engine that TAR and fine-tuning stand on: what moves, what comes back, bit for bit."""

from __future__ import annotations

import copy

import pytest
import schedulefree
import torch

from kit.train.engine import TRAINING, Precision
from kit.train.optimizers import SGD, AdamW, ScheduleFreeAdamW
from kit.train.single_process import SingleProcess
from tests.train.tiny import llama, mean_loss, same, share_of, tokens

OUTER = AdamW(0.01, weight_decay=0.01)
INNER = AdamW(0.003, weight_decay=0.01)


def steps(engine, wanted, loss=mean_loss):
    for step in wanted:
        engine.accumulate(loss, [tokens(step)])
        engine.step()


def test_a_trajectory_equals_a_plain_torch_run_bit_for_bit():
    ours, theirs = llama(), llama()
    engine = SingleProcess(ours, OUTER)
    optimizer = torch.optim.AdamW(theirs.parameters(), lr=0.01, weight_decay=0.01)
    theirs.train()
    for step in range(5):
        loss = engine.accumulate(mean_loss, [tokens(step)])
        engine.step()
        optimizer.zero_grad()
        expected = mean_loss(theirs, tokens(step))
        expected.backward()
        optimizer.step()
        assert torch.equal(loss, expected.detach())
    assert same(ours, theirs)
    assert not same(ours, llama())


def test_an_inner_trajectory_is_a_plain_run_and_leaves_the_outer_optimizer_alone():
    ours, inner_only, outer_only = llama(), llama(), llama()
    engine = SingleProcess(ours, OUTER)
    steps(engine, range(2))
    inner_only.load_state_dict(ours.state_dict())
    kept = engine.snapshot()
    state = {n: t.clone() for n, t in engine.optimizer.tensors().items()}
    for _ in range(2):  # The second time too, the moments are fresh.
        with engine.inner(INNER):
            steps(engine, range(10, 14))
            attacked = copy.deepcopy(ours)
        engine.restore(kept)
    optimizer = torch.optim.AdamW(inner_only.parameters(), lr=0.003, weight_decay=0.01)
    for step in range(10, 14):
        optimizer.zero_grad()
        mean_loss(inner_only, tokens(step)).backward()
        optimizer.step()
    assert same(attacked, inner_only)
    assert all(torch.equal(t, state[n]) for n, t in engine.optimizer.tensors().items())
    steps(engine, range(2, 4))
    reference = SingleProcess(outer_only, OUTER)
    steps(reference, range(4))
    assert same(ours, outer_only)


def test_inner_optimizers_do_not_nest_and_leave_no_gradient():
    engine = SingleProcess(llama(), OUTER)
    with engine.inner(INNER):
        engine.accumulate(mean_loss, [tokens(0)])
        with pytest.raises(ValueError, match="at work already"), engine.inner(INNER):
            pass
    assert not engine.gradients()
    with pytest.raises(RuntimeError, match="boom"), engine.inner(INNER):
        raise RuntimeError("boom")
    assert engine.optimizer.spec == OUTER


@pytest.mark.parametrize("compute", ["float32", "bfloat16"])
def test_restored_weights_give_equal_outputs(compute):
    model = llama()
    engine = SingleProcess(model, OUTER, Precision(compute))
    steps(engine, range(2))
    before = copy.deepcopy(model)
    with engine.evaluating() as measured:
        expected = measured(input_ids=tokens(7)).logits
    assert expected.dtype == engine.precision.compute_dtype
    kept = engine.snapshot()
    with engine.inner(INNER):
        steps(engine, range(5, 8))
        with engine.evaluating() as measured:
            assert not torch.equal(measured(input_ids=tokens(7)).logits, expected)
    engine.restore(kept)
    assert same(model, before)
    with engine.evaluating() as measured:
        assert torch.equal(measured(input_ids=tokens(7)).logits, expected)


class Pair(torch.nn.Module):
    """Two weights, losses that are derived by hand."""

    def __init__(self):
        super().__init__()
        self.w = torch.nn.Parameter(torch.tensor([2.0, -1.0]))


def test_a_gradient_taken_at_the_attacked_point_is_added_at_the_restored_one():
    """Loss a.w^2 / 2 in two SGD steps at rate .1; then c.w^3 / 3 there, d.w at the start."""
    model = Pair()
    engine = SingleProcess(model, SGD(0.5, 0.0, momentum=0.0))
    a, c, d = torch.tensor([1.0, 2.0]), torch.tensor([0.5, 3.0]), torch.tensor([1.0, -1.0])

    def attack(m, _):
        return (a * m.w**2).sum() / 2

    def resist(m, _):
        return (c * m.w**3).sum() / 3

    start = model.w.detach().clone()
    kept = engine.snapshot()
    with engine.inner(SGD(0.1, 0.0, momentum=0.0)):
        for scale in (2.0, 3.0):
            engine.accumulate(attack, [None])
            engine.step()
            engine.accumulate(resist, [None])
            engine.collect("tr", scale)
            assert not engine.gradients()
    engine.restore(kept)
    engine.accumulate(lambda m, _: (d * m.w).sum(), [None])
    engine.add_collected("tr")
    engine.step()
    once = start * (1 - 0.1 * a)
    twice = once * (1 - 0.1 * a)
    gradient = 2 * c * once**2 + 3 * c * twice**2 + d
    torch.testing.assert_close(model.w.detach(), start - 0.5 * gradient)
    with pytest.raises(ValueError, match="no gradient was collected as 'tr'"):
        engine.add_collected("tr")


def test_collecting_is_adding_to_the_same_backward_pass():
    whole, parts = llama(), llama()
    engine = SingleProcess(parts, OUTER)
    engine.accumulate(mean_loss, [tokens(0)])
    engine.collect("first", 4.0)
    engine.add_collected("first")
    engine.accumulate(mean_loss, [tokens(1)])
    (4.0 * mean_loss(whole, tokens(0)) + mean_loss(whole, tokens(1))).backward()
    for (name, p), gradient in zip(
        whole.named_parameters(), engine.gradients().values(), strict=True
    ):
        torch.testing.assert_close(gradient, p.grad, rtol=1e-5, atol=1e-7, msg=name)


@pytest.mark.parametrize("rows", [1, 2, 4])
def test_micro_batches_do_not_change_the_gradient(rows):
    whole = llama()
    mean_loss(whole, tokens(0)).backward()
    engine = SingleProcess(llama(), OUTER)
    loss = engine.accumulate(share_of(4), tokens(0).split(rows), scale=2.0)
    torch.testing.assert_close(loss, mean_loss(whole, tokens(0)).detach())
    for (name, p), gradient in zip(
        whole.named_parameters(), engine.gradients().values(), strict=True
    ):
        torch.testing.assert_close(gradient, 2 * p.grad, rtol=1e-5, atol=1e-7, msg=name)


def test_schedule_free_weights_equal_the_package_and_come_back():
    ours, theirs = llama(), llama()
    engine = SingleProcess(ours, ScheduleFreeAdamW(0.02, 0.0, warmup_steps=2))
    package = schedulefree.AdamWScheduleFree(theirs.parameters(), lr=0.02, warmup_steps=2)
    package.train()
    for step in range(6):
        steps(engine, [step])
        with engine.evaluating():  # Measuring at every step changes nothing.
            pass
        package.zero_grad()
        mean_loss(theirs, tokens(step)).backward()
        package.step()
    assert same(ours, theirs)
    with engine.evaluating(TRAINING) as y:
        assert same(y, theirs)
    package.eval()
    with engine.evaluating() as x:
        assert same(x, theirs)
    assert not same(ours, theirs)


def test_the_saved_weights_are_chosen(tmp_path):
    model = llama()
    engine = SingleProcess(model, ScheduleFreeAdamW(0.02, 0.0))
    steps(engine, range(4))
    engine.save_model(tmp_path / "y", "training")
    engine.save_model(tmp_path / "x")
    y, x = (type(model).from_pretrained(tmp_path / name) for name in "yx")
    assert same(y, model)
    assert not same(x, model)
    with pytest.raises(ValueError, match="unknown weights 'z'"):
        engine.save_model(tmp_path / "z", "z")


def test_masters_stay_fp32_under_bf16_and_keep_what_bf16_masters_lose():
    tiny = SGD(1e-4, 0.0, momentum=0.0)
    fp32, bf16 = llama().to(torch.bfloat16), llama().to(torch.bfloat16)
    kept = SingleProcess(fp32, tiny, Precision("bfloat16"))
    lost = SingleProcess(bf16, tiny, Precision("bfloat16", "bfloat16"))
    before = copy.deepcopy(fp32)
    assert {p.dtype for p in fp32.parameters()} == {torch.float32}
    assert {p.dtype for p in bf16.parameters()} == {torch.bfloat16}
    steps(kept, [0])
    steps(lost, [0])

    def moved(model):
        pairs = zip(model.parameters(), before.parameters(), strict=True)
        return sum(int((a.float() != b).sum()) for a, b in pairs)

    assert moved(fp32) > 10 * moved(bf16)


def test_frozen_weights_keep_their_type_and_their_bits():
    model = llama().to(torch.bfloat16)
    model.requires_grad_(False)
    model.model.layers[1].mlp.requires_grad_(True)
    before = copy.deepcopy(model)
    engine = SingleProcess(model, OUTER, Precision("bfloat16"))
    steps(engine, range(2))
    for (name, now), was in zip(model.named_parameters(), before.parameters(), strict=True):
        if ".1.mlp" in name:
            assert now.dtype == torch.float32
            assert not torch.equal(now, was.float())
        else:
            assert torch.equal(now, was), name


def test_measuring_leaves_generators_and_modes_as_they_were():
    engine = SingleProcess(llama(attention_dropout=0.5), OUTER)
    engine.model.train()
    state = torch.get_rng_state()
    with engine.evaluating() as model:
        assert not model.training
        assert not torch.is_grad_enabled()
        torch.rand(3)
    assert torch.equal(torch.get_rng_state(), state)
    assert engine.model.training


def test_clipping_scales_the_whole_gradient_and_says_what_it_was():
    engine = SingleProcess(llama(), OUTER)
    engine.accumulate(mean_loss, [tokens(0)], scale=50.0)
    before = engine.gradient_norm()
    assert engine.clip(1.0) == pytest.approx(before)
    assert before > 1.0
    assert engine.gradient_norm() == pytest.approx(1.0, rel=1e-5)


def test_wrong_use_is_named():
    engine = SingleProcess(llama(), OUTER)
    with pytest.raises(ValueError, match="no micro-batch"):
        engine.accumulate(mean_loss, [])
    with pytest.raises(ValueError, match="is no scalar"):
        engine.accumulate(lambda m, ids: m(input_ids=ids).logits, [tokens(0)])
    with pytest.raises(ValueError, match="masters in 'float16'"):
        Precision("bfloat16", "float16")
    with pytest.raises(ValueError, match="nothing to train"):
        SingleProcess(llama().requires_grad_(False), OUTER)
