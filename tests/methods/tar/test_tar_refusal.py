"""TAR on pairs: what the outer loop reads, what it differentiates, and what it measures."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.func import functional_call

from kit.methods.tar import refusal, stages
from kit.methods.tar.outer_loop import Batching, OuterLoop, outer_spec
from kit.methods.tar.pairs import StoredPair, all_margins, with_reference
from kit.methods.tar.presets import preset
from kit.methods.tar.refusal import RefusalData, train_refusal
from kit.methods.tar.streams import tar_streams
from kit.train.batching import Example
from kit.train.checkpoints import CheckpointFolder
from kit.train.single_process import SingleProcess
from tests.lm.tiny_world import mini_tokenizer
from tests.methods.tar.conftest import VOCABULARY, build_model


def settings(**changes):
    small = {
        "adversary_learning_rates": (0.01,),
        "outer_steps": 3,
        "outer_warmup": 2,
        "outer_learning_rate": 0.01,
        "inner_steps": 4,
        "every": 2,
        "forget_batch": 3,
        "inner_retain_batch": 2,
        "held_out_batch": 4,
        "retain_batch": 2,
        "tamper_scale": 1.0,
        "weighting": "uniform",
        "beta": 0.3,
    }
    return preset("corrected", "refusal", **(small | changes))


def tokens(generator, length):
    return torch.randint(1, VOCABULARY, (length,), generator=generator).tolist()


def stored(count=12, seed=3):
    generator = torch.Generator().manual_seed(seed)
    return [
        StoredPair(
            f"thing-{i // 3:02d}-{i % 3}-0",
            tokens(generator, 3 + i % 2),
            tokens(generator, 2 + i % 3),
            tokens(generator, 3),
        )
        for i in range(count)
    ]


def retained(count=6):
    generator = torch.Generator().manual_seed(9)
    return [Example(f"r{i}", tuple(tokens(generator, 6)), 2) for i in range(count)]


def reference():
    return build_model(0).float().requires_grad_(False)


@pytest.fixture
def pairs():
    return with_reference(stored(), reference(), rows=5, pad_id=0)


def summed(model, parameters, example):
    """Summed log-probability of an answer, one token at a time, without padding."""
    ids = torch.tensor([example.ids])
    scores = functional_call(model, parameters, kwargs={"input_ids": ids}).logits[0].log_softmax(-1)
    span = range(example.prompt_length, len(example.ids))
    return torch.stack([scores[t - 1, example.ids[t]] for t in span]).sum()


def test_reference_values_are_those_of_each_answer_alone(pairs):
    model = reference()
    named = dict(model.named_parameters())
    for one, made in zip(stored(), pairs, strict=True):
        assert made.chosen.ids == (*one.prompt, *one.chosen)
        assert made.rejected.prompt_length == len(one.prompt)
        for side, value in (
            (made.chosen, made.reference_chosen),
            (made.rejected, made.reference_rejected),
        ):
            assert value == pytest.approx(float(summed(model, named, side)), rel=1e-5)
    assert max(map(abs, all_margins(model, pairs, rows=4, pad_id=0))) < 1e-4
    other = all_margins(build_model(1).float(), pairs, rows=4, pad_id=0)
    assert max(map(abs, other)) > 0.1


class Spy(SingleProcess):
    """Keeps the attacked weights behind every inner step."""

    def __init__(self, *args):
        super().__init__(*args)
        self.points = []

    def step(self, rate=None):
        super().step(rate)
        if self._inner:
            self.points.append({n: p.detach().clone() for n, p in self.model.named_parameters()})


def test_the_gradient_is_dpo_at_the_attacked_points_and_the_attack_is_on_rejected_answers(pairs):
    chosen = settings(retain_scale=0.0)
    engine = Spy(build_model(0).float(), outer_spec(chosen))
    before = {n: p.detach().clone() for n, p in engine.model.named_parameters()}

    def streams():
        return tar_streams(
            chosen,
            adversary={"rejected-completions": [p.rejected for p in pairs[:6]]},
            held_out=pairs[6:],
            retain=retained(),
            seed=5,
        )

    loop = OuterLoop(engine, reference(), chosen, streams(), Batching(8, 0), 7)
    record = loop.step(0).attacks[0]
    again = streams()
    held_out = again["held-out"].take()

    # The attack: plain AdamW on the rejected answers, with labels on the answers only.
    model = build_model(0).float()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    for point in engine.points:
        batch = again["adversary/rejected-completions"].take()
        named = dict(model.named_parameters())
        count = sum(e.labels for e in batch)
        optimizer.zero_grad()
        (-sum(summed(model, named, e) for e in batch) / count).backward()
        optimizer.step()
        for name, parameter in model.named_parameters():
            torch.testing.assert_close(parameter.detach(), point[name], rtol=0, atol=1e-4)

    # The tamper-resistance gradient, by autograd through a detached displacement.
    theta = {name: value.clone().requires_grad_() for name, value in before.items()}
    total = torch.zeros(())
    for step, weight in chosen.weights().items():
        moved = {n: v + (engine.points[step][n] - v).detach() for n, v in theta.items()}
        margins = torch.stack(
            [
                (summed(model, moved, p.chosen) - p.reference_chosen)
                - (summed(model, moved, p.rejected) - p.reference_rejected)
                for p in held_out
            ]
        )
        loss = -torch.nn.functional.logsigmoid(0.3 * margins).mean()
        assert dict(record["tamper"])[step] == pytest.approx(loss.item(), rel=1e-4)
        total = total + weight * loss
    assert record["won"] == pytest.approx((margins > 0).float().mean().item())
    expected = torch.autograd.grad(total, list(theta.values()))
    ours = engine.gradients()
    for name, gradient in zip(theta, expected, strict=True):
        scale = gradient.abs().max().item()
        torch.testing.assert_close(ours[name], gradient, rtol=1e-3, atol=1e-4 * scale)
    assert all(torch.equal(p, before[n]) for n, p in engine.model.named_parameters())


def train(data, chosen, **kwargs):
    model = build_model(0).float()
    done = train_refusal(model, reference(), data, chosen, seed=5, pad_id=0, **kwargs)
    return model, done[1]


def test_the_win_rate_costs_no_gradient(pairs, monkeypatch):
    """The same weights whether or not the share of pairs won is taken."""
    data = RefusalData(pairs, retained(), judged=pairs[:3], by="subject", share=0.5)
    with_rate, _ = train(data, settings(), measure_every=1)
    from kit.methods.tar import outer_loop

    monkeypatch.setattr(
        outer_loop, "_won", lambda model, part: 0.0 * next(model.parameters()).sum()
    )
    without, _ = train(data, settings())
    for a, b in zip(with_rate.parameters(), without.parameters(), strict=True):
        assert torch.equal(a, b)


def test_adversary_and_held_out_pairs_share_no_subject_and_are_redrawn(pairs):
    data = RefusalData(pairs, retained(), share=0.5, by="subject", redraw=True)
    divisions = [data.parts(settings(), f"5/{n}") for n in range(4)]
    for made in divisions:
        sides = [{p.rejected.id[:8] for p in side} for side in (made.adversary, made.held_out)]
        assert not sides[0] & sides[1]
        assert len(made.adversary) + len(made.held_out) == len(pairs)
    assert len({tuple(p.rejected.id for p in made.held_out) for made in divisions}) > 1


def test_the_released_code_judges_on_the_adversary_s_pairs(pairs):
    chosen = replace(settings(), held_out_split="adversary")
    made = RefusalData(pairs[:4], retained(), held_out=pairs[4:]).parts(chosen, 0)
    assert made.adversary == made.held_out == pairs[:4]
    own = RefusalData(pairs[:4], retained(), held_out=pairs[4:]).parts(settings(), 0)
    assert (own.adversary, own.held_out) == (pairs[:4], pairs[4:])


def test_training_wins_pairs_behind_the_attack(pairs):
    """The mechanism as a whole: more held-out pairs are won by the attacked model."""
    data = RefusalData(pairs, retained(), judged=pairs, share=0.5, by="subject")
    chosen = settings(outer_steps=25, tamper_scale=30.0, outer_learning_rate=0.03)
    _, run = train(data, chosen, measure_every=5)
    won = [step.attacks[0]["won"] for step in run.steps]
    assert sum(won[-5:]) > sum(won[:5])
    assert [step for step, _ in run.measured] == [0, 5, 10, 15, 20, 25]
    means = [sum(values["margins"]) for _, values in run.measured]
    assert abs(means[0]) < 1e-3
    assert means[-1] > 0


def test_a_resumed_run_equals_an_uninterrupted_run(pairs, tmp_path):
    data = RefusalData(pairs, retained(), judged=pairs[:4], share=0.5, by="subject", redraw=True)
    whole, run = train(data, settings(), measure_every=2)

    class Killed(Exception):
        pass

    def kill(record):
        if record.number == 1:
            raise Killed

    folder = CheckpointFolder(tmp_path)
    with pytest.raises(Killed):
        train(data, settings(), measure_every=2, folder=folder, on_step=kill)
    resumed, rest = train(data, settings(), measure_every=2, folder=folder)
    assert rest.steps == run.steps
    for a, b in zip(whole.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(a, b)


def test_bad_input_is_refused(pairs):
    data = RefusalData(pairs, retained())
    with pytest.raises(ValueError, match="trained with 'dpo'"):
        train(data, settings(objective="entropy"))
    with pytest.raises(ValueError, match="cannot be divided anew"):
        train(replace(data, held_out=pairs, redraw=True), settings())
    with pytest.raises(ValueError, match="a win rate needs pairs"):
        train(data, settings(), measure_every=1)
    cut = [replace(pairs[0], chosen=Example("e", (1, 2), 2))]
    with pytest.raises(ValueError, match="without any label"):
        all_margins(build_model(0).float(), cut, rows=1, pad_id=0)


@pytest.mark.parametrize(("every", "points"), [(0, []), (1, [0, 1, 2, 3]), (2, [0, 2, 3])])
def test_win_rates_have_a_beginning_and_an_end_and_a_long_run_is_saved(
    pairs, monkeypatch, every, points
):
    """As often as the other outer loop is (test_tar_stages.py)."""
    given = {}

    def begun(loop, **how):
        given[loop.settings.objective] = how

    for module in (refusal, stages):
        monkeypatch.setattr(module, "train_tar", begun)
    monkeypatch.setattr(stages, "text_examples", lambda *_, **__: retained())
    data = RefusalData(pairs, retained(), judged=pairs[:2])
    model = build_model(1).float()
    train_refusal(model, reference(), data, settings(), seed=0, pad_id=0, measure_every=every)
    assert given["dpo"]["measure_at"] == points
    stages.train_outer_loop(
        model, reference(), mini_tokenizer(), Path(), preset("corrected", "bio"),
        forget=["f"], retain=["r"], adversary_share=0.5, divide_by="text", seed=0,
    )  # fmt: skip
    (other,) = (how for objective, how in given.items() if objective != "dpo")
    assert given["dpo"]["save_every"] == other["save_every"]
