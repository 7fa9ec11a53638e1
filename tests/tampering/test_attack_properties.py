"""What an attack leaves: the weights that were measured, the point where it stopped, and tables."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from kit.evals.sets import Watch
from kit.tampering.attack import FORGET, RETAIN, Attack, Phase, phases, scaled, steps_of_epochs
from kit.tampering.run import Attacked, attack_streams, require_finite, run_attack, run_stages
from kit.tampering.search import Space, draw_attacks
from kit.tampering.trajectory import Trajectory, every, joined
from kit.tampering.watched import FinishedAttack, record
from kit.tampering.worst_case import (
    Bound,
    Candidate,
    Halves,
    by_steps,
    by_trials,
    candidates_of,
    halves,
    worst_case,
)
from kit.tampering.worst_table import Search, tabulate_worst
from kit.train.batching import Example
from kit.train.engine import AVERAGED, TRAINING
from kit.train.errors import TrainingDiverged
from kit.train.lora import Lora
from kit.train.optimizers import SGD, AdamW, ScheduleFreeAdamW
from kit.train.schedules import Schedule
from kit.train.single_process import SingleProcess
from tests.refused import refused
from tests.tampering.test_attacks import DATA, attack, look, run
from tests.train.tiny import llama

FREE = ScheduleFreeAdamW(learning_rate=0.02, weight_decay=0.0)


@pytest.mark.parametrize("weights", [AVERAGED, TRAINING])
@pytest.mark.parametrize("optimizer", [FREE, AdamW(0.01, 0.0)])
def test_the_weights_that_are_kept_are_those_that_were_measured_last(
    weights: str, optimizer: Any
) -> None:
    chosen = attack(optimizer=optimizer, weights=weights, steps=4)
    done = run(llama(), chosen, evaluate=look, at_steps=(4,))
    assert done.trajectory.points[-1][1] == look(done.model, 4)
    assert not done.model.training


def test_dropout_is_the_seeds_and_not_that_of_whoever_came_before() -> None:
    losses = []
    for outside, seed in ((1, 0), (2, 0), (1, 5)):
        chosen = attack(seed=seed, shuffle=False, lora=Lora(2, 2.0, dropout=0.5), steps=3)
        model = llama()
        torch.manual_seed(outside)
        losses.append(run(model, chosen).trajectory.losses)
    assert losses[0] == losses[1] != losses[2]


@pytest.mark.parametrize(
    ("tokens", "prompt", "length", "left"),
    [(5, 2, 3, 3), (5, 3, 3, None), (5, 4, 3, None), (3, 3, 3, 3), (3, 2, 3, 3), (2, 2, 3, 2),
     (4, 3, 3, None), (5, 5, None, 5)],
)  # fmt: skip
def test_a_cut_leaves_a_label_and_what_fits_is_left_alone(
    tokens: int, prompt: int, length: int | None, left: int | None
) -> None:
    data = {FORGET: [Example("x", tuple(range(tokens)), prompt)]}
    act = lambda: attack_streams(data, attack(length=length, batch=1))  # noqa: E731
    refused(act, left is None, "example x has no label in its first 3")
    if left is not None:
        (example,) = act()[FORGET].take()
        assert (len(example.ids), example.prompt_length) == (left, prompt)


class Broken(SingleProcess):
    """Loses its loss, or its weights, at a step counted from 0."""

    lost: int | None = None
    spoilt: int | None = None
    frozen = False

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self.done = 0

    def accumulate(self, *given: Any, **named: Any) -> Any:
        value = super().accumulate(*given, **named)
        return value * float("nan") if self.done == self.lost else value

    def step(self, rate: float | None = None) -> None:
        super().step(rate)
        if self.done == self.spoilt:
            with torch.no_grad():
                next(iter(self.model.parameters()))[0, 0] = float("nan")
        self.done += 1


def broken(lost: int | None = None, spoilt: int | None = None) -> Any:
    return type("At", (Broken,), {"lost": lost, "spoilt": spoilt})


def watched(asked: list[int]) -> Any:
    def evaluate(model: Any, step: int) -> Any:
        asked.append(step)
        return look(model, step)

    return evaluate


@pytest.mark.parametrize(
    ("at", "lost", "spoilt", "asked", "diverged"),
    [
        ((0,), 2, None, [0, 2], (2, "a loss")),
        ((0, 2), 2, None, [0, 2], (2, "a loss")),  # measured there already
        ((0, 1), 3, None, [0, 1, 3], (3, "a loss")),
        ((0,), None, 1, [0], (2, "")),  # nothing is left to measure
        ((0, 2), None, 1, [0], (1, "left a weight that is not finite")),
    ],
)
def test_a_diverged_attack_is_measured_where_it_stopped_if_there_is_a_model(
    at: tuple[int, ...], lost: int, spoilt: int, asked: list[int], diverged: tuple[int, str]
) -> None:
    seen: list[int] = []
    make = broken(lost, spoilt)
    done = run(llama(), attack(), evaluate=watched(seen), at_steps=at, make_engine=make)
    assert seen == asked
    assert [step for step, _ in done.trajectory.points] == asked
    assert all(set(values) == {"norm"} for _, values in done.trajectory.points)
    assert done.trajectory.diverged is not None
    assert done.trajectory.diverged[0] == diverged[0]
    assert diverged[1] in done.trajectory.diverged[1]
    assert isinstance(done.engine, SingleProcess)
    assert done.engine.gradients() == {}
    alone = run(llama(), attack(), make_engine=make)
    assert alone.trajectory.points == []


def test_only_trained_weights_have_to_be_finite() -> None:
    model = torch.nn.Linear(2, 2)
    require_finite(model, 3)
    with torch.no_grad():
        model.bias[1] = float("inf")
    model.bias.requires_grad_(False)
    require_finite(model, 3)
    model.bias.requires_grad_(True)
    with pytest.raises(TrainingDiverged, match="bias") as caught:
        require_finite(model, 3)
    assert caught.value.step == 2


def test_a_point_between_two_stages_is_measured_at_the_end_of_the_first() -> None:
    stages = [attack(name=name, steps=2) for name in ("a", "b", "c")]
    seen: list[int] = []
    done = run_stages(
        llama(), DATA, stages, pad_id=0, evaluate=watched(seen), at_steps=(0, 2, 3, 4, 6)
    )
    assert [step for step, _ in done.trajectory.points] == [0, 2, 3, 4, 6]
    assert len(seen) == 5
    assert done.trajectory.steps == 6


def test_nothing_follows_a_diverged_stage() -> None:
    stages = [attack(name="a", steps=2, optimizer=SGD(1e30, 0.0)), attack(name="b", steps=2)]
    done = run_stages(llama(), DATA, stages, pad_id=0)
    assert [made.name for made in done.trajectory.attacks] == ["a"]
    assert done.trajectory.diverged is not None


def test_a_whole_model_is_written_by_the_first_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = run(llama(), attack(steps=1))
    assert done.whole
    monkeypatch.setattr(SingleProcess, "rank", property(lambda self: 1))
    done.save(tmp_path / "other", None)
    assert not (tmp_path / "other").exists()
    monkeypatch.undo()
    done.save(tmp_path / "own", None)
    assert (tmp_path / "own" / "config.json").is_file()
    assert isinstance(done, Attacked)


def test_trials_have_orders_of_their_own_in_31_bits() -> None:
    space = Space(attack(), (1e-3, 1e-1))
    drawn = draw_attacks(space, 60, seed=0)
    seeds = [made.seed for made in drawn]
    assert len(set(seeds)) == 60
    assert 2**30 < max(seeds) < 2**31
    assert min(seeds) < 2**30
    rates = [made.optimizer.learning_rate for made in drawn]
    assert 1e-3 <= min(rates) < 3e-3 < 3e-2 < max(rates) <= 1e-1
    assert sorted(rates)[30] == pytest.approx(1e-2, rel=0.6)  # uniform in the logarithm
    assert [made.name for made in drawn[:2]] == ["trial-000", "trial-001"]
    assert draw_attacks(space, 3, seed=0) == drawn[:3]
    assert draw_attacks(space, 3, seed=1) != drawn[:3]
    assert all(made.schedule == attack().schedule for made in drawn)


@pytest.mark.parametrize(
    ("rates", "wrong"), [((0.1, 0.1), False), ((0.0, 0.1), True), ((0.2, 0.1), True)]
)
def test_a_range_of_rates_lies_above_0(rates: Any, wrong: bool) -> None:
    refused(lambda: Space(attack(), rates), wrong, "no range above 0")


@pytest.mark.parametrize("trials", [0, 1])
def test_a_search_has_a_trial(trials: int) -> None:
    refused(lambda: draw_attacks(Space(attack(), (0.1, 0.2)), trials, seed=0), trials < 1, "trials")


def test_schedule_free_trials_go_without_a_schedule() -> None:
    plan = Schedule("linear", 1)
    space = Space(attack(), (0.1, 0.2), optimizers=(FREE, AdamW(1.0, 0.0)), schedules=(plan,))
    drawn = draw_attacks(space, 12, seed=0)
    kinds = {(type(made.optimizer), made.schedule) for made in drawn}
    assert kinds == {(ScheduleFreeAdamW, Schedule()), (AdamW, plan)}


def test_points_ascend_whichever_part_measured_them() -> None:
    first = Trajectory(points=[(0, {}), (3, {})], losses=[1.0])
    second = Trajectory(points=[(1, {}), (5, {})], losses=[1.0])
    assert [step for step, _ in first.followed_by(second).points] == [0, 2, 3, 6]
    assert joined([first, second]).points == first.followed_by(second).points
    with pytest.raises(ValueError, match="there is a, b, c, d"):
        Trajectory(points=[(0, {"c": 1, "a": 1}), (1, {"d": 1, "b": 1})]).curve("x")
    level = Trajectory(points=[(0, {"x": 1}), (4, {"x": 2}), (9, {"x": 2})])
    assert level.highest("x") == (4, 2.0)


def test_scales_and_shares() -> None:
    full = attack(steps=1000, schedule=Schedule("restarts", 10, 0.1, 100), batch=64)
    half = scaled(full, steps=0.5)
    assert (half.steps, half.batch, half.schedule.warmup, half.schedule.period) == (500, 64, 5, 50)
    assert half.optimizer.learning_rate == full.optimizer.learning_rate
    assert scaled(full) == full
    tiny = scaled(full, steps=0.01)
    assert (tiny.steps, tiny.schedule.warmup) == (10, 1)  # 0.1 of a step is a step
    free = attack(optimizer=ScheduleFreeAdamW(0.1, 0.0, warmup_steps=40), steps=100)
    assert scaled(free, steps=0.5).optimizer.warmup_steps == 20
    assert scaled(attack(), steps=2).schedule.warmup == 0
    assert [steps_of_epochs(items, 4, 3) for items in (1, 4, 5, 8, 9)] == [3, 3, 6, 6, 9]
    assert phases("x") == (Phase("x", 1.0),)
    assert phases("x", "y", first=0.25) == (Phase("x", 0.25), Phase("y", 0.75))
    assert phases(FORGET, RETAIN) == (Phase(FORGET, 0.4), Phase(RETAIN, 0.6))
    plain = Attack("a", AdamW(0.1, 0.0), 1, 1)
    assert (plain.shuffle, plain.reconstruction, plain.seed) == (True, False, 0)
    for share, wrong in ((1e-10, False), (3e-9, True), (-3e-9, True)):
        both = (Phase("x", 0.5), Phase("y", 0.5 + share))
        refused(lambda both=both: attack(phases=both), wrong, "do not sum to 1")


def test_effort_is_told_by_rising_steps() -> None:
    points = [Candidate("a", step, (step > 1,) * 2, 1.0) for step in (8, 1, 64, 16)]
    made = by_steps(points, Bound(least=0.0), Halves((0,), (1,)))
    assert [(step, share.k) for step, share in made] == [(1, 0), (8, 1), (16, 1), (64, 1)]
    assert [every(steps, 5) for steps in (9, 10, 4)] == [(0, 5, 9), (0, 5, 10), (0, 4)]


def test_a_record_says_where_an_attack_diverged_if_it_did() -> None:
    nothing = Watch({}, {}, 0)
    way = Trajectory(points=[(0, {"x": 1.0})], losses=[2.0], data=["d"], diverged=(3, "why"))
    made = record(way, nothing)
    assert made["diverged"] == [3, "why"]
    assert (made["points"], made["losses"], made["data"]) == ([[0, {"x": 1.0}]], [2.0], ["d"])
    assert record(Trajectory(), nothing)["diverged"] == []


def test_questions_are_halved_the_same_however_they_are_listed() -> None:
    ids = [f"q{number}" for number in range(9)]
    listed = [ids, ids[::-1], ids[4:] + ids[:4]]
    made = [halves(order, seed=2) for order in listed]
    sides = [
        ({order[i] for i in half.choosing}, {order[i] for i in half.measuring})
        for order, half in zip(listed, made, strict=True)
    ]
    assert sides[0] == sides[1] == sides[2]
    assert [len(side) for side in sides[0]] == [4, 5]
    for half in made:
        assert list(half.choosing) == sorted(half.choosing)
        assert list(half.measuring) == sorted(half.measuring)


RIGHT = {"t0": {0: "000000", 5: "100000"}, "t1": {0: "000000", 5: "111111", 9: "111110"}}
UTILITY = {"t0": {0: 0.8, 5: 0.7}, "t1": {0: 0.8, 5: 0.1, 9: 0.72}}


def files(folder: Path) -> dict[str, Path]:
    made = {}
    for name, points in RIGHT.items():
        record = {
            "questions": {"forget": {"items": list("abcdef"), "answers": "A" * 6}},
            "points": [
                [step, {"picks": {"forget": "".join("BA"[int(r)] for r in right)},
                        "retain": UTILITY[name][step]}]
                for step, right in points.items()
            ],
        }  # fmt: skip
        made[name] = folder / f"{name}.json"
        made[name].write_text(json.dumps(record), encoding="utf-8")
    return made


def test_the_table_of_a_search_is_what_its_parts_say(tmp_path: Path) -> None:
    """Attacks of one search are those that share everything but its axis, in any order of axes."""
    paths = files(tmp_path)
    trials = [
        FinishedAttack("a", paths["t0"], {"seed": 0, "method": "x", "trial": "t0"}),
        FinishedAttack("b", paths["t1"], {"trial": "t1", "method": "x", "seed": 0}),
    ]
    search = Search("trial", "forget", "retain", 0.2, 0.9, "item", 3)
    table = tabulate_worst(trials, {"seed": "replicate", "method": "setting"}, search)
    cells = {cell.id: cell for cell in table.cells}
    value = {id.removeprefix("all/worst/"): cell.value for id, cell in cells.items()}
    records = {name: json.loads(path.read_text()) for name, path in paths.items()}
    candidates, ids = candidates_of(records, "forget", "retain")
    bound, divided = Bound(least=0.8 * 0.8), halves(ids, seed=3)
    worst = worst_case(candidates, bound, divided, level=0.9)
    assert (worst.trial, worst.step, worst.kept, worst.tried) == ("t1", 9, 4, 5)
    assert value["measured"] == pytest.approx(100 * worst.measured.value)
    assert value["naive"] == pytest.approx(100 * 5 / 6)
    assert value["low"] == pytest.approx(100 * worst.low)
    assert value["high"] == pytest.approx(100 * worst.high)
    assert value["utility"] == pytest.approx(72.0)
    assert (value["step"], value["before"]) == (9, 0)
    lines = {name: curves for series in table.series for name, curves in series.lines.items()}
    points = {
        name: [(point.x, point.value) for point in curves[0].points]
        for name, curves in lines.items()
    }
    steps = next(p for name, p in points.items() if "steps" in name)
    tried = next(p for name, p in points.items() if "trials" in name)
    assert [x for x, _ in steps] == [0, 5, 9]
    assert steps[-1][1] == pytest.approx(100 * worst.measured.value)
    for (x, y), (n, share) in zip(tried, by_trials(candidates, bound, divided), strict=True):
        assert (x, y) == (n, pytest.approx(100 * share))
    with pytest.raises(ValueError, match="b has no axis 'trial'"):
        tabulate_worst(
            [trials[0], FinishedAttack("b", paths["t1"], {"seed": 0})],
            {"seed": "replicate"},
            search,
        )


def test_questions_about_a_subject_are_halved_together(tmp_path: Path) -> None:
    paths = files(tmp_path)
    items = ["s-0-0", "s-0-1", "s-1-0", "t-0-0", "t-1-1", "t-2-2"]
    for path in paths.values():
        record = json.loads(path.read_text())
        record["questions"]["forget"]["items"] = items
        path.write_text(json.dumps(record))
    asked = {}
    for by in ("item", "subject"):
        search = Search("trial", "forget", "retain", 0.2, 0.9, by, 0)
        trials = [FinishedAttack(name, path, {"trial": name}) for name, path in paths.items()]
        table = tabulate_worst(trials, {}, search)
        asked[by] = {label.id.rpartition("/")[2]: set(label.items) for label in table.labels}
    assert all({item[0] for item in side} in ({"s"}, {"t"}) for side in asked["subject"].values())
    assert any(len({item[0] for item in side}) == 2 for side in asked["item"].values())


@pytest.mark.parametrize(
    ("by", "losing", "wrong"),
    [("item", 0.0, False), ("subject", 0.99, False), ("item", 1.0, True), ("item", -0.01, True),
     ("fact", 0.5, True)],
)  # fmt: skip
def test_searches_that_can_be_meant(by: str, losing: float, wrong: bool) -> None:
    refused(lambda: Search("t", "f", "r", losing, 0.9, by, 0), wrong, "halved by|cannot be lost")


def test_an_untouched_data_set_is_no_part_of_a_run() -> None:
    with pytest.raises(ValueError, match="there is nothing"):
        run_attack(llama(), {}, attack(), pad_id=0)
