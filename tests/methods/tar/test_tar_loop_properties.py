"""What an outer loop checks, where it measures and saves, and what a step leaves behind."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from kit.methods.tar.dpo import Pairs, dpo_loss, margins, response_log_probs, won
from kit.methods.tar.outer_loop import outer_spec, train_tar
from kit.methods.tar.records import OuterStep, TarRun
from kit.methods.tar.weighting import inner_weights
from kit.train.checkpoints import CheckpointFolder
from kit.train.engine import Progress
from kit.train.errors import TrainingDiverged
from kit.train.single_process import SingleProcess
from tests.methods.tar.conftest import build_batch, build_model
from tests.methods.tar.test_tar_outer_loop import build_loop, settings
from tests.refused import refused


def record(number: int, **values: Any) -> OuterStep:
    attack = {"losses": [1.0, values.get("inner", 1.0)], "tamper": [[1, values.get("tamper", 1.0)]]}
    return OuterStep(
        number=number, attacks=[attack], weighted_tamper_loss=0.0,
        retain_loss=values.get("retain", 1.0), retain_gradient=1.0,
        gradient=values.get("gradient", 1.0),
    )  # fmt: skip


def planted(chosen: Any, **values: Any) -> Any:
    """A loop whose steps only count, and spoil a value in the last."""
    loop: Any = build_loop(chosen)
    last = chosen.outer_steps - 1
    loop.step = lambda number: record(number, **(values if number == last else {}))
    return loop


@pytest.mark.parametrize(
    ("place", "said"),
    [("inner", "inner loss 1: "), ("tamper", "tamper-resistance loss 1: "),
     ("retain", "retain loss: "), ("gradient", "gradient norm: ")],
)  # fmt: skip
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, -1e30])
def test_any_value_that_is_not_finite_ends_the_loop(
    tmp_path: Any, place: str, said: str, value: float
) -> None:
    chosen = settings(outer_steps=3)
    loop = planted(chosen, **{place: value})
    if math.isfinite(value):  # a negative loss may fall without a bound
        assert len(train_tar(loop).steps) == 3
        return
    with pytest.raises(TrainingDiverged, match=said) as caught:
        train_tar(loop, folder=CheckpointFolder(tmp_path), save_every=1)
    assert (caught.value.step, caught.value.last_good_checkpoint) == (2, 2)
    with pytest.raises(TrainingDiverged) as caught:
        train_tar(planted(chosen, **{place: value}))
    assert caught.value.last_good_checkpoint is None


@pytest.mark.parametrize(
    ("how", "wrong"),
    [({"measure_at": (0, 2)}, False), ({"measure_at": (3,)}, True), ({"measure_at": (-1,)}, True),
     ({"save_every": 1}, False), ({"save_every": 0}, True)],
)  # fmt: skip
def test_measuring_and_saving_fit_the_run(how: dict[str, Any], wrong: bool) -> None:
    refused(
        lambda: train_tar(planted(settings(outer_steps=2)), **how), wrong, "does not fit 2 outer"
    )


@pytest.mark.parametrize(("every", "saved"), [(1, [1, 2, 3, 4]), (2, [2, 4]), (3, [3]), (5, [])])
def test_checkpoints_come_after_every_so_many_steps(
    tmp_path: Any, every: int, saved: list[int]
) -> None:
    told: list[int] = []
    folder = CheckpointFolder(tmp_path, keep=None)
    train_tar(
        planted(settings(outer_steps=4)), folder=folder, save_every=every,
        on_step=lambda step: told.append(step.number),
    )  # fmt: skip
    assert folder.steps() == saved
    assert told == [0, 1, 2, 3]


def test_each_point_is_measured_once_whatever_was_resumed(tmp_path: Any) -> None:
    seen: list[int] = []

    def measure(model: Any, done: int) -> Any:
        assert not model.training
        seen.append(done)
        return {"at": done}

    folder = CheckpointFolder(tmp_path)
    run = train_tar(
        planted(settings(outer_steps=2)), measure=measure, measure_at=(0, 2), folder=folder
    )
    again = train_tar(
        planted(settings(outer_steps=2)), measure=measure, measure_at=(0, 1, 2), folder=folder
    )
    assert seen[:2] == [0, 2]
    assert [step for step, _ in run.measured] == [0, 2]
    assert again.measured[:2] == run.measured[: len(again.measured)]
    assert train_tar(planted(settings(outer_steps=1)), measure_at=(0, 1)).measured == []
    assert TarRun.from_curves(run.curves()) == run


@pytest.mark.parametrize("lowest", [-1e9, 1e9])
def test_nothing_is_left_collected_after_a_step(tmp_path: Any, lowest: float) -> None:
    """Whether the tamper-resistance gradient counts or not, the next step begins without it."""
    chosen = settings(outer_steps=1, lowest_tamper_loss=lowest)
    engine = SingleProcess(build_model(0).float(), outer_spec(chosen))
    loop = build_loop(chosen, engine=engine)
    loop.step(0)
    engine.save(CheckpointFolder(tmp_path), Progress(1))


@pytest.mark.parametrize(
    ("steps", "every", "wrong"),
    [(4, 4, False), (4, 3, True), (0, 1, True), (4, 0, True), (1, 1, False), (4, 8, True)],
)
def test_gaps_between_gradients_divide_the_steps(steps: int, every: int, wrong: bool) -> None:
    refused(lambda: inner_weights(steps, every, 1.0), wrong, "do not divide into gaps")


def test_coefficients_of_inner_steps_by_hand() -> None:
    assert inner_weights(6, 2, 3.0, scheme="uniform") == dict.fromkeys((1, 3, 5), 0.5)
    assert inner_weights(6, 2, 3.0, scheme="mean-of-evaluated") == dict.fromkeys((1, 3, 5), 1.0)
    made = inner_weights(6, 3, 2.0, scheme="exponential", rate=0.5)
    assert made == pytest.approx({2: 2 * math.exp(-1.5), 5: 2.0})


@pytest.mark.parametrize(("beta", "wrong"), [(0.0, True), (-0.1, True), (1e-9, False)])
def test_a_preference_has_a_positive_scale(beta: float, wrong: bool) -> None:
    refused(lambda: dpo_loss(torch.zeros(2), beta=beta), wrong, "needs a positive")


def test_preferences_by_hand() -> None:
    margin = torch.tensor([2.0, -1.0, 0.0])
    by_hand = sum(math.log(1 + math.exp(-0.5 * m)) for m in (2, -1, 0)) / 3
    assert dpo_loss(margin, beta=0.5).item() == pytest.approx(by_hand)
    assert won(margin).tolist() == [True, False, False]
    two = build_batch(1, lengths=(4, 5))
    pairs = Pairs(two, two, torch.tensor([1.0, 2.0]), torch.tensor([5.0, 3.0]))
    made = margins(torch.tensor([10.0, 20.0]), torch.tensor([7.0, 30.0]), pairs)
    assert made.tolist() == [9 - 2, 18 - 27]
    for sides in ((1, 2, 2, 2), (2, 1, 2, 2), (2, 2, 1, 2), (2, 2, 2, 1)):
        chosen, rejected = (build_batch(1, lengths=(4, 5)[:n]) for n in sides[:2])
        values = [torch.zeros(n) for n in sides[2:]]
        refused(lambda c=chosen, r=rejected, v=values: Pairs(c, r, *v), True, "pairs of")


def test_the_log_probability_of_a_response_is_the_sum_of_its_labels() -> None:
    batch = build_batch(3, lengths=(6, 4))
    states = torch.randn(2, 6, 5, dtype=torch.float64)
    head = torch.nn.Linear(5, 29, dtype=torch.float64)
    log_p = torch.log_softmax(head(states), -1).detach()
    by_hand = [
        sum(float(log_p[row, at - 1, batch.ids[row, at]]) for at in range(2, length))
        for row, length in enumerate((6, 4))
    ]
    for chunk in (1, 3, 100):
        made = response_log_probs(states, head, batch.labels, chunk=chunk)
        assert made.tolist() == pytest.approx(by_hand)
    empty = batch.labels.clone()
    empty[1] = -100
    with pytest.raises(ValueError, match="without any label token"):
        response_log_probs(states, head, empty)
