"""An attack is a plain training, watched without being disturbed, and says what became of it."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch.nn.functional import cross_entropy

from kit.lm.load import load_model
from kit.tampering.attack import (
    FORGET,
    RETAIN,
    Attack,
    Phase,
    by_name,
    phases,
    scaled,
    steps_of_epochs,
)
from kit.tampering.run import Attacked, attack_streams, run_attack, run_stages
from kit.tampering.trajectory import Trajectory, every
from kit.train.batches import examples_of_tokens
from kit.train.engine import TRAINING
from kit.train.lora import Lora
from kit.train.optimizers import SGD, AdamW, ScheduleFreeAdamW
from kit.train.schedules import Schedule
from tests.train.tiny import VOCABULARY, llama, same


def texts(name: str, count: int = 12, first: int = 0) -> list[Any]:
    """Sequences of unequal length; their names tell the data sets apart."""
    generator = torch.Generator().manual_seed(first)
    return examples_of_tokens(
        {
            f"{name}-{i}": torch.randint(1, VOCABULARY, (5 + i % 4,), generator=generator).tolist()
            for i in range(count)
        }
    )


DATA = {FORGET: texts("f"), RETAIN: texts("r", first=1)}
ADAM = AdamW(learning_rate=0.01, weight_decay=0.1)


def attack(**changes: Any) -> Attack:
    settings: dict[str, Any] = {"name": "a", "optimizer": ADAM, "steps": 6, "batch": 4}
    return Attack(**settings | changes)


def run(model: Any, chosen: Attack, **more: Any) -> Attacked:
    return run_attack(model, DATA, chosen, pad_id=0, **more)


def test_padded_texts_train_as_in_a_plain_loop() -> None:
    chosen = attack(schedule=Schedule("linear", 2))
    attacked = run(llama(), chosen)
    model = llama().train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01, weight_decay=0.1)
    streams = attack_streams(DATA, chosen)
    losses = []
    for step in range(chosen.steps):
        examples = streams[FORGET].take()
        width = max(len(e.ids) for e in examples)
        ids = torch.tensor([[*e.ids, *[0] * (width - len(e.ids))] for e in examples])
        states = model.model(input_ids=ids).last_hidden_state
        rows, columns = zip(
            *((r, c) for r, e in enumerate(examples) for c in range(len(e.ids) - 1)), strict=True
        )
        scores = model.lm_head(states[list(rows), list(columns)])
        targets = ids[list(rows), [c + 1 for c in columns]]
        loss = (cross_entropy(scores, targets, reduction="none") / len(targets)).sum()
        optimizer.param_groups[0]["lr"] = chosen.schedule.rate(step, peak=0.01, steps=chosen.steps)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert attacked.trajectory.losses == pytest.approx(losses, abs=1e-6)
    for name, weight in model.named_parameters():
        assert torch.allclose(attacked.model.get_parameter(name), weight, atol=2e-6), name


def look(model: Any, step: int) -> Mapping[str, Any]:
    torch.randn(7)  # what measuring draws is not the attack's affair
    return {"norm": float(sum(p.detach().double().norm() for p in model.parameters()))}


@pytest.mark.parametrize("optimizer", [ADAM, ScheduleFreeAdamW(0.02, 0.0), SGD(0.05, 0.0)])
def test_measuring_disturbs_nothing(optimizer: Any) -> None:
    alone = run(llama(), attack(optimizer=optimizer))
    watched = run(llama(), attack(optimizer=optimizer), evaluate=look, at_steps=range(7))
    assert same(alone.model, watched.model)
    assert alone.trajectory.losses == watched.trajectory.losses
    assert [step for step, _ in watched.trajectory.points] == list(range(7))


def test_generators_outside_are_left_alone() -> None:
    model = llama()
    torch.manual_seed(3)
    before = torch.random.get_rng_state()
    run(model, attack(lora=Lora(2, 2.0, dropout=0.5)))
    assert torch.equal(before, torch.random.get_rng_state())


def test_the_seed_is_the_order_of_the_data() -> None:
    first, again, other = (run(llama(), attack(seed=seed)) for seed in (0, 0, 1))
    assert same(first.model, again.model)
    assert first.trajectory.losses == again.trajectory.losses
    assert first.trajectory.losses != other.trajectory.losses
    fixed = [run(llama(), attack(seed=seed, shuffle=False)) for seed in (0, 1)]
    assert fixed[0].trajectory.losses == fixed[1].trajectory.losses


def test_an_adapter_leaves_the_base_and_merges_to_the_same_scores() -> None:
    model, ids = llama(), torch.arange(1, 9)[None]
    base = copy.deepcopy(model.state_dict())
    attacked = run(model, attack(lora=Lora(2, 4.0), steps=4))
    for name, weight in base.items():
        name = name.replace("_proj.weight", "_proj.base_layer.weight")
        assert torch.equal(attacked.model.get_base_model().state_dict()[name], weight), name
    with torch.no_grad():
        adapted = attacked.model(input_ids=ids).logits
        merged = attacked.merged()(input_ids=ids).logits
    assert torch.allclose(adapted, merged, atol=1e-5)
    assert not torch.allclose(merged, llama()(input_ids=ids).logits, atol=1e-3)


def test_a_frozen_model_is_attacked_in_every_weight() -> None:
    model = llama().requires_grad_(False)
    before = copy.deepcopy(model.state_dict())
    run(model, attack())
    assert all(not torch.equal(before[name], weight) for name, weight in model.state_dict().items())


def test_the_switch_comes_after_its_share_with_one_optimizer() -> None:
    chosen = attack(steps=10, phases=phases(RETAIN, FORGET))
    done = run(llama(), chosen).trajectory
    assert done.data == [RETAIN] * 4 + [FORGET] * 6
    assert chosen.data == (RETAIN, FORGET)
    other = attack(steps=10, phases=phases(FORGET, RETAIN))
    assert [other.data_of(step) for step in range(10)] == [FORGET] * 4 + [RETAIN] * 6


def test_repair_then_relearn_begins_each_time_with_a_fresh_optimizer() -> None:
    repair = attack(name="repair", phases=(Phase(RETAIN),), steps=3)
    relearn = attack(name="relearn", steps=4, lora=Lora(2, 4.0))
    model = llama()
    both = run_stages(
        model, DATA, [repair, relearn], pad_id=0, evaluate=look, at_steps=(0, 3, 5, 7)
    )
    assert both.trajectory.data == [RETAIN] * 3 + [FORGET] * 4
    assert [step for step, _ in both.trajectory.points] == [0, 3, 5, 7]
    by_hand = run(run(llama(), repair).merged(), relearn)
    assert same(both.merged(), by_hand.merged())


def test_a_diverged_attack_is_a_result() -> None:
    wild = attack(optimizer=SGD(1e30, 0.0), steps=8)
    done = run(llama(), wild, evaluate=look, at_steps=range(9)).trajectory
    assert done.diverged is not None
    assert done.diverged[0] < 8
    assert done.steps <= done.diverged[0] + 1
    assert done.points[0][0] == 0
    assert all(torch.isfinite(torch.tensor(values["norm"])) for _, values in done.points)


def test_schedule_free_keeps_the_weights_it_says(tmp_path: Any) -> None:
    free = ScheduleFreeAdamW(learning_rate=0.02, weight_decay=0.0)
    kept = {
        weights: run(llama(), attack(optimizer=free, weights=weights)).model
        for weights in ("averaged", TRAINING)
    }
    assert not same(kept["averaged"], kept[TRAINING])


def test_the_attacked_model_can_be_written_and_read(tmp_path: Any) -> None:
    attacked = run(llama(), attack())
    attacked.save(tmp_path / "model", None)
    assert same(load_model(tmp_path / "model"), attacked.model)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"steps": 0}, "0 steps"),
        ({"batch": 0}, "of 0 examples"),
        ({"phases": ()}, "do not sum to 1"),
        ({"phases": (Phase(FORGET, 0.5),)}, "do not sum to 1"),
        ({"length": 1}, "nothing is predicted"),
        ({"weights": "best"}, "unknown weights"),
        ({"optimizer": ScheduleFreeAdamW(0.1, 0.0), "schedule": Schedule("linear")}, "no schedule"),
        ({"schedule": Schedule("linear", 9)}, "warm-up"),
    ],
)
def test_what_cannot_be_run_is_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        attack(**changes)


def test_data_that_nobody_gave() -> None:
    with pytest.raises(ValueError, match="trains on ood; there is forget, retain"):
        run(llama(), attack(phases=phases("ood")))
    with pytest.raises(ValueError, match="one or two data sets, not 3"):
        phases("a", "b", "c")
    with pytest.raises(ValueError, match="no attacks"):
        run_stages(llama(), DATA, [], pad_id=0)
    with pytest.raises(ValueError, match="no attack 'b'; there are a"):
        by_name([attack()], "b")


def test_texts_are_cut_at_the_length() -> None:
    streams = attack_streams(DATA, attack(length=4))
    assert {len(example.ids) for example in streams[FORGET].take()} == {4}


def test_scaling_keeps_the_shares_of_the_schedule() -> None:
    full = attack(steps=1000, schedule=Schedule("cosine", 100), batch=64)
    small = scaled(full, steps=0.1, rate=15, batch=8)
    assert (small.steps, small.batch, small.schedule.warmup) == (100, 8, 10)
    assert small.optimizer.learning_rate == pytest.approx(0.15)
    assert by_name([full], "a") is full
    assert steps_of_epochs(110, 16, 2) == 14


def test_the_maximum_is_asked_over_the_whole_way() -> None:
    way = Trajectory(points=[(0, {"x": 0.2}), (5, {"x": 0.9}), (9, {"x": 0.4})])
    assert way.highest("x") == (5, 0.9)
    assert way.end("x") == 0.4
    assert every(10, 4) == (0, 4, 8, 10)
    with pytest.raises(ValueError, match="no 'y' was measured; there is x"):
        way.curve("y")


@pytest.mark.parametrize(
    ("changes", "refused"),
    [
        ({"steps": 1}, False), ({"steps": 0}, True), ({"batch": 1}, False), ({"batch": 0}, True),
        ({"length": 2}, False), ({"length": 1}, True), ({"length": None}, False),
        ({"phases": ()}, True), ({"phases": (Phase("x", 0.0), Phase("y", 1.0))}, True),
        ({"phases": (Phase("x", 0.5), Phase("y", 0.4))}, True),
        ({"phases": (Phase("x", 0.5), Phase("y", 0.5 + 1e-12))}, False),
        ({"weights": "best"}, True), ({"weights": TRAINING}, False),
        ({"schedule": Schedule(warmup=5)}, False), ({"schedule": Schedule(warmup=6)}, True),
    ],
)  # fmt: skip
def test_where_settings_begin_to_make_no_sense(changes: dict[str, Any], refused: bool) -> None:
    if refused:
        with pytest.raises(ValueError, match=r"attack a|warm-up"):
            attack(**changes)
    else:
        attack(**changes)


def test_each_step_is_of_the_phase_in_whose_share_it_lies() -> None:
    made = attack(steps=10, phases=(Phase("x", 0.4), Phase("y", 0.6)))
    assert "".join(made.data_of(step) for step in range(10)) == "xxxxyyyyyy"
    for step in (-1, 10):
        with pytest.raises(ValueError, match=f"no step {step}; it has 10"):
            made.data_of(step)


def test_the_way_of_two_stages_is_counted_through() -> None:
    first, second = attack(name="one", steps=2), attack(name="two", steps=3)
    ours = Trajectory(
        attacks=[first], points=[(0, {"v": 1.0}), (2, {"v": 2.0})], losses=[1.0, 2.0],
        rates=[0.1, 0.1], norms=[3.0, 3.0], data=["x", "x"],
    )  # fmt: skip
    theirs = Trajectory(
        attacks=[second], points=[(0, {"v": 9.0}), (3, {"v": 4.0})], losses=[5.0],
        rates=[0.2], norms=[4.0], data=["y"], diverged=(1, "why"),
    )  # fmt: skip
    both = ours.followed_by(theirs)
    assert both.points == [(0, {"v": 1.0}), (2, {"v": 2.0}), (5, {"v": 4.0})]
    assert both.diverged == (3, "why")
    assert (both.losses, both.data) == ([1.0, 2.0, 5.0], ["x", "x", "y"])
    assert both.attacks == [first, second]
    assert theirs.followed_by(ours).diverged == (1, "why")
    assert every(10, 4) == (0, 4, 8, 10)
    assert every(8, 4) == (0, 4, 8)
