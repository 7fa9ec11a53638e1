"""The outer loop: what is differentiated where, what is put back, and what survives a kill."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch.func import functional_call

from kit.lm.load import load_model
from kit.methods.tar import batches, outer_loop
from kit.methods.tar.adversaries import AdversaryType
from kit.methods.tar.batches import PairExample
from kit.methods.tar.objectives import tamper_resistance_loss
from kit.methods.tar.outer_loop import Batching, OuterLoop, outer_spec, saved_weights, train_tar
from kit.methods.tar.presets import preset
from kit.methods.tar.streams import tar_streams
from kit.train.batching import Example, collate
from kit.train.checkpoints import CheckpointFolder
from kit.train.engine import AVERAGED, TRAINING
from kit.train.errors import TrainingDiverged
from kit.train.single_process import SingleProcess
from tests.methods.tar.conftest import VOCABULARY, build_model

FORGET = AdversaryType("forget", "f")
TURN = AdversaryType("turn", "f", first="r")


def settings(**changes):
    small = {
        "adversaries": (FORGET,),
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
        "entropy_padding": "masked",
        "representation_padding": "masked",
        "width": None,
    }
    return preset("corrected", "bio", **(small | changes))


def examples(seed, count=10):
    generator = torch.Generator().manual_seed(seed)
    return [
        Example(
            f"{seed}-{i}",
            tuple(torch.randint(1, VOCABULARY, (4 + i % 5,), generator=generator).tolist()),
            1,
        )
        for i in range(count)
    ]


def build_loop(chosen, *, rows=8, engine=None, **streams):
    model = build_model(0).float()
    data = {"adversary": {"f": examples(1), "r": examples(2)}, "held_out": examples(3)}
    data |= {"retain": examples(4), "seed": 5}
    made = tar_streams(chosen, **(data | streams))
    reference = build_model(0).float().requires_grad_(False)
    return OuterLoop(
        engine=engine or SingleProcess(model, outer_spec(chosen)),
        reference=reference,
        settings=chosen,
        streams=made,
        batching=Batching(rows=rows, pad_id=0),
        seed=7,
    )


def weights(engine):
    return {name: p.detach().clone() for name, p in engine.model.named_parameters()}


class Spy(SingleProcess):
    """Keeps the attacked weights behind every inner step."""

    def __init__(self, *args):
        super().__init__(*args)
        self.points = []

    def step(self, rate=None):
        super().step(rate)
        if self._inner:
            self.points.append(weights(self))


def batch_loss(model, parameters, batch):
    """Mean cross-entropy over labels, by transformers' scores."""
    scores = functional_call(
        model,
        parameters,
        kwargs={"input_ids": batch.ids, "attention_mask": batch.attention_mask},
    ).logits
    targets = batch.labels[:, 1:]
    return torch.nn.functional.cross_entropy(scores[:, :-1].flatten(0, 1), targets.flatten())


def negative_entropy(model, parameters, batch):
    scores = functional_call(
        model,
        parameters,
        kwargs={"input_ids": batch.ids, "attention_mask": batch.attention_mask},
    ).logits[batch.attention_mask]
    log_p = torch.log_softmax(scores, -1)
    return (log_p.exp() * log_p).sum(-1).mean()


def gradient_of(loss, parameters):
    values = torch.autograd.grad(loss, list(parameters.values()))
    return dict(zip(parameters, values, strict=True))


class TwoParameters(torch.nn.Module):
    """theta in R^2; every loss is a parabola around a point that stands in the data."""

    def __init__(self):
        super().__init__()
        self.theta = torch.nn.Parameter(torch.tensor([1.0, -2.0]))


def test_gradient_of_a_two_parameter_model_equals_the_hand_derivation(monkeypatch):
    def parabola(model, counted, *_):
        centre = counted.batch.ids[0, :2].float()
        return 0.5 * (model.theta - centre).square().sum()

    monkeypatch.setattr(outer_loop, "language_model_loss", parabola)
    monkeypatch.setattr(outer_loop, "tamper_resistance_loss", parabola)
    monkeypatch.setattr(outer_loop, "retain_loss", lambda m, _r, c, _s: parabola(m, c))
    chosen = settings(
        inner_optimizers=("sgd",),
        adversary_learning_rates=(0.1,),
        inner_weight_decay=0.0,
        weighting="uniform",
        tamper_scale=8.0,
        retain_scale=3.0,
        forget_batch=1,
        held_out_batch=1,
        retain_batch=1,
    )
    engine = SingleProcess(TwoParameters(), outer_spec(chosen))
    one = {name: [Example(name, ids, 1)] for name, ids in (("f", (5, 3)), ("h", (2, 7)))}
    loop = build_loop(
        chosen,
        engine=engine,
        adversary={"f": one["f"]},
        held_out=one["h"],
        retain=[Example("r", (4, 4), 1)],
    )
    record = loop.step(0)

    # By hand: SGD with Nesterov momentum 0.9 towards (5, 3); after steps 2 and 4 the gradient of
    # the tamper-resistance parabola around (2, 7), times 8 / 4 each; then 3 x retain at theta.
    expected = []
    losses = {1: 0.0, 3: 0.0}
    for start, attacked, judged, kept in ((1.0, 5.0, 2.0, 4.0), (-2.0, 3.0, 7.0, 4.0)):
        theta, velocity, total = start, 0.0, 3 * (start - kept)
        for step in range(4):
            gradient = theta - attacked
            velocity = gradient if step == 0 else 0.9 * velocity + gradient
            theta -= 0.1 * (gradient + 0.9 * velocity)
            if step in losses:
                total += 2 * (theta - judged)
                losses[step] += 0.5 * (theta - judged) ** 2
        expected.append(total)
    gradient = engine.gradients()["theta"]
    torch.testing.assert_close(gradient, torch.tensor(expected), rtol=1e-6, atol=1e-6)
    assert torch.equal(engine.model.theta.detach(), torch.tensor([1.0, -2.0]))
    assert dict(record.attacks[0]["tamper"]) == pytest.approx(losses, rel=1e-6)
    assert record.weighted_tamper_loss == pytest.approx(2 * sum(losses.values()), rel=1e-6)
    assert record.gradient == pytest.approx(math.hypot(*expected), rel=1e-6)
    assert record.retain_gradient == pytest.approx(math.hypot(-9, -18), rel=1e-6)


@pytest.fixture
def observed():
    """An outer step of a tiny Llama, with the attacked points and the batches that were drawn."""
    chosen = settings()
    engine = Spy(build_model(0).float(), outer_spec(chosen))
    loop = build_loop(chosen, engine=engine)
    before = weights(engine)
    record = loop.step(0)
    again = build_loop(chosen).streams
    held_out = collate(again["held-out"].take(), 0)
    inner = [collate(again["adversary/f"].take(), 0) for _ in range(4)]
    retain = collate(again["retain"].take(), 0)
    return loop, record, before, held_out, inner, retain


def test_restored_weights_are_bit_exact(observed):
    loop, _, before, held_out, *_ = observed
    model = loop.engine.model
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())
    untouched = build_model(0).float()
    assert torch.equal(
        model(input_ids=held_out.ids).logits, untouched(input_ids=held_out.ids).logits
    )
    assert not torch.equal(loop.engine.points[-1]["lm_head.weight"], before["lm_head.weight"])


def test_the_inner_trajectory_is_a_plain_adamw_run(observed):
    loop, record, before, _, inner, _ = observed
    model = build_model(0).float()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)  # decay 0.01, fresh moments
    for batch, point, loss in zip(
        inner, loop.engine.points, record.attacks[0]["losses"], strict=True
    ):
        value = batch_loss(model, dict(model.named_parameters()), batch)
        assert loss == pytest.approx(value.item(), rel=1e-5)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        for name, parameter in model.named_parameters():
            # Adam divides by the root of tiny second moments: 1 % of a step of 0.01.
            torch.testing.assert_close(parameter.detach(), point[name], rtol=0, atol=1e-4)
    assert (model.lm_head.weight - before["lm_head.weight"]).abs().max() > 0.02


def test_the_gradient_is_autograd_through_a_detached_displacement(observed):
    """theta + (attacked - theta).detach(), differentiated with respect to theta."""
    loop, record, before, held_out, _, retain = observed
    model = loop.engine.model
    theta = {name: value.clone().requires_grad_() for name, value in before.items()}
    total = torch.zeros(())
    for step, weight in loop.settings.weights().items():
        attacked = {
            name: value + (loop.engine.points[step][name] - value).detach()
            for name, value in theta.items()
        }
        loss = negative_entropy(model, attacked, held_out)
        assert dict(record.attacks[0]["tamper"])[step] == pytest.approx(loss.item(), rel=1e-5)
        total = total + weight * loss
    # At the first outer step the model is its own reference: only the language-model half pulls.
    total = total + batch_loss(model, theta, retain)
    expected = gradient_of(total, theta)
    ours = loop.engine.gradients()
    assert set(ours) == set(expected)
    for name, gradient in expected.items():
        scale = gradient.abs().max().item()
        torch.testing.assert_close(ours[name], gradient, rtol=1e-4, atol=1e-5 * scale)


def gradients_of(chosen, **kwargs):
    loop = build_loop(chosen, **kwargs)
    loop.step(0)
    return loop.engine.gradients()


def assert_close(ours, theirs, rtol=1e-3):
    for name, gradient in theirs.items():
        scale = gradient.abs().max().item()
        torch.testing.assert_close(ours[name], gradient, rtol=rtol, atol=rtol * scale)


def test_micro_batches_change_nothing():
    assert_close(gradients_of(settings(), rows=1), gradients_of(settings(), rows=8))
    changes = {"entropy_padding": "included", "representation_padding": "included", "width": 12}
    assert_close(
        gradients_of(settings(**changes), rows=1), gradients_of(settings(**changes), rows=8)
    )


def test_padding_changes_only_the_variants_that_include_it():
    assert_close(gradients_of(settings(width=30)), gradients_of(settings()))
    included = {"entropy_padding": "included"}
    with pytest.raises(AssertionError):
        assert_close(
            gradients_of(settings(width=30, **included)), gradients_of(settings(**included))
        )


def test_the_weighting_scheme_reaches_the_gradient():
    last = settings(every=4, weighting="exponential", tamper_scale=1.0)  # only step 3, weight 1
    uniform = settings(every=4, weighting="uniform", tamper_scale=4.0)
    assert_close(gradients_of(last), gradients_of(uniform))
    doubled = gradients_of(replace(uniform, tamper_scale=8.0))
    with pytest.raises(AssertionError):
        assert_close(doubled, gradients_of(uniform))


def test_the_turning_adversary_draws_its_data_in_the_drawn_shares():
    chosen = settings(adversaries=(TURN,), inner_steps=20, every=20)
    loop = build_loop(chosen)
    record = loop.step(0)
    switch = record.attacks[0]["switch"]
    assert 0 < switch < 20
    positions = loop.streams.positions()
    assert positions["adversary/r"]["drawn"] == switch * chosen.inner_retain_batch
    assert positions["adversary/f"]["drawn"] == (20 - switch) * chosen.forget_batch
    assert positions["held-out"]["drawn"] == chosen.held_out_batch
    assert positions["retain"]["drawn"] == chosen.retain_batch


def test_several_adversaries_share_the_scale():
    chosen = settings(adversaries_a_step=2)
    record = build_loop(chosen).step(0)
    assert len(record.attacks) == 2
    weights_of = chosen.weights()
    assert record.weighted_tamper_loss == pytest.approx(
        sum(weights_of[s] * v for a in record.attacks for s, v in a["tamper"])
    )
    assert sum(weights_of.values()) == pytest.approx(sum(settings().weights().values()) / 2)


def test_a_loss_below_the_bound_drops_its_gradient():
    bounded = build_loop(settings(lowest_tamper_loss=0.0))
    record = bounded.step(0)
    assert record.weighted_tamper_loss < 0
    assert record.gradient == record.retain_gradient
    free = build_loop(settings()).step(0)
    assert free.gradient != free.retain_gradient
    bounded.engine.step()
    bounded.step(1)  # nothing is left in the accumulator


def test_training_makes_the_attacked_model_more_uncertain():
    """The mechanism as a whole: 12 outer steps raise the entropy behind the simulated attack."""
    run = train_tar(build_loop(settings(outer_steps=12, outer_learning_rate=0.03)))
    entropy = [-record.attacks[0]["tamper"][-1][1] for record in run.steps]
    assert sum(entropy[-3:]) / 3 > sum(entropy[:3]) / 3 + 0.1


def test_saved_weights_are_the_ones_asked_for(tmp_path):
    chosen = settings()
    loop = build_loop(chosen)
    train_tar(loop)
    y = weights(loop.engine)
    for name, kept in (("y", TRAINING), ("x", AVERAGED)):
        assert saved_weights(replace(chosen, saved_weights=name)) == kept
        loop.engine.save_model(tmp_path / name, kept)
    saved = {n: dict(load_model(tmp_path / n).named_parameters()) for n in ("y", "x")}
    assert all(torch.equal(saved["y"][name], value) for name, value in y.items())
    assert not torch.equal(saved["x"]["lm_head.weight"], y["lm_head.weight"])
    z = {
        name: loop.engine.optimizer.parts["schedule-free-adamw"].state[p]["z"]
        for name, p in loop.engine.model.named_parameters()
    }
    for name, value in y.items():  # y = 0.1 z + 0.9 x
        mixed = 0.1 * z[name] + 0.9 * saved["x"][name]
        torch.testing.assert_close(mixed, value, rtol=1e-4, atol=1e-5)


def test_a_resumed_run_equals_an_uninterrupted_run(tmp_path):
    chosen = settings(outer_steps=4, adversaries=(FORGET, TURN))
    measured = []

    def measure(model, step):
        measured.append(step)
        return {"norm": model.lm_head.weight.norm().item(), "noise": torch.rand(()).item()}

    whole = build_loop(chosen)
    run = train_tar(whole, measure=measure, measure_at=(0, 2, 4))
    assert measured == [0, 2, 4]

    class Killed(Exception):
        pass

    def kill(record):
        if record.number == 2:
            raise Killed

    folder = CheckpointFolder(tmp_path)
    with pytest.raises(Killed):
        train_tar(
            build_loop(chosen),
            measure=measure,
            measure_at=(0, 2, 4),
            folder=folder,
            on_step=kill,
        )
    resumed = build_loop(chosen)
    rest = train_tar(resumed, measure=measure, measure_at=(0, 2, 4), folder=folder)
    assert [r.number for r in rest.steps] == [0, 1, 2, 3]
    assert rest.steps == run.steps
    assert [(s, v["norm"]) for s, v in rest.measured] == [(s, v["norm"]) for s, v in run.measured]
    for name, value in weights(whole.engine).items():
        assert torch.equal(weights(resumed.engine)[name], value)


def redrawn(loop):
    """The loop, each of whose outer steps has forget and held-out examples of its own."""
    loop.redraw = lambda number: {
        "adversary/f": examples(100 + number, 7 + number),
        "held-out": examples(200 + number, 5 + number),
    }
    return loop


def test_redrawn_data_are_those_of_the_outer_step(monkeypatch):
    chosen = settings(forget_batch=7, inner_steps=1, every=1)
    loop = redrawn(build_loop(chosen))
    taken = []
    monkeypatch.setattr(
        outer_loop,
        "counted_batches",
        lambda batch, *args, **kwargs: (
            taken.append({one.id.split("-")[0] for one in batch})
            or batches.counted_batches(batch, *args, **kwargs)
        ),
    )
    train_tar(loop)
    # Held-out, adversary and retain batch of each outer step.
    assert taken == [
        {f"{200 + n}"} if k == 0 else {f"{100 + n}"} if k == 1 else {"4"}
        for n in range(3)
        for k in range(3)
    ]


def test_a_resumed_run_with_redrawn_data_equals_an_uninterrupted_run(tmp_path):
    chosen = settings(outer_steps=4, adversaries=(FORGET, TURN))
    whole = redrawn(build_loop(chosen))
    run = train_tar(whole)
    folder = CheckpointFolder(tmp_path)
    stopped = redrawn(build_loop(replace(chosen, outer_steps=2)))
    train_tar(stopped, folder=folder)
    resumed = redrawn(build_loop(chosen))
    assert train_tar(resumed, folder=folder).steps == run.steps
    for name, value in weights(whole.engine).items():
        assert torch.equal(weights(resumed.engine)[name], value)


def test_preference_objective_judges_pairs():
    chosen = settings(objective="dpo", held_out_batch=2)
    pairs = [
        PairExample(c, r, reference_chosen=-8.0, reference_rejected=-9.0)
        for c, r in zip(examples(8, 4), examples(9, 4), strict=True)
    ]
    record = build_loop(chosen, held_out=pairs).step(0)
    whole = build_loop(chosen, held_out=pairs, rows=1).step(0)
    assert record.weighted_tamper_loss == pytest.approx(whole.weighted_tamper_loss, rel=1e-5)
    assert all(value > 0 for _, value in record.attacks[0]["tamper"])
    judged = build_loop(chosen, held_out=pairs).held_out()[0]
    with pytest.raises(ValueError, match="objective 'entropy' cannot be measured"):
        tamper_resistance_loss(build_model(0), judged, settings())


def test_a_value_that_is_not_finite_stops_before_the_update():
    loop = build_loop(settings())
    with torch.no_grad():
        loop.engine.model.lm_head.weight[3, 0] = float("nan")
    before = weights(loop.engine)
    with pytest.raises(TrainingDiverged, match="step 0 has a value that is not finite"):
        train_tar(loop)
    after = weights(loop.engine)
    assert all(torch.equal(after[n], before[n]) or n == "lm_head.weight" for n in before)


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="0 items do not fill"):
        build_loop(settings(), held_out=[])
    with pytest.raises(ValueError, match="0 items do not fill"):
        build_loop(settings(), adversary={"f": []})
    with pytest.raises(ValueError, match="'turn' trains on 'r'"):
        build_loop(settings(adversaries=(TURN,)), adversary={"f": examples(1)})
    loop = build_loop(settings())
    loop.reference = build_model(1, layers=2).float()
    with pytest.raises(ValueError, match="num_hidden_layers 2 against 3"):
        train_tar(loop)
    loop.reference = loop.engine.model
    with pytest.raises(ValueError, match="is the model in training"):
        train_tar(loop)
    with pytest.raises(ValueError, match="does not fit 3 outer steps"):
        train_tar(build_loop(settings()), measure_at=(4,))
