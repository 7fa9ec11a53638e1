"""Where a number begins to count in the miniature worlds: at a limit, on either side of it."""

from __future__ import annotations

from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kit.mini import record, trials
from kit.mini.facts import measure, runs
from kit.mini.facts.model import Shape
from kit.mini.facts.pretrain import FORGET, REQUEST, Recipe, shares
from kit.mini.facts.texts import copy_texts, count_runs, count_texts
from kit.mini.injection.entry import LEAST_ACCURACY, LEAST_ATTACK_SUCCESS, RULE_ATTACKS, Entry
from kit.mini.injection.pretrain import SOURCE, lr_factor

STEP = 1e-9


@pytest.mark.parametrize(
    ("final", "source", "control", "retained", "admitted"),
    [
        (0.0, 0.0, 0.0, 0.0, True),
        (-STEP, 0.0, 0.0, 0.0, False),
        (0.0, STEP, 0.0, 0.0, False),
        (0.0, 0.0, STEP, 0.0, False),
        (0.0, 0.0, 0.0, -STEP, False),
    ],
)
def test_the_entry_rule_of_facts_holds_its_limits(
    final: float, source: float, control: float, retained: float, admitted: bool
) -> None:
    known = {"forget_judge": 1.0, "retain": measure.LEAST_KNOWN + final}
    before = {
        "forget_judge": measure.MOST_GUESSED + source,
        "retain": measure.LEAST_RETAINED + retained,
    }
    guessed = {"forget_judge": measure.MOST_GUESSED + control, "retain": 1.0}
    assert measure.admitted(known, before, guessed) is admitted


@pytest.mark.parametrize(
    ("accuracy", "success", "admitted"), [(0, 0, True), (-STEP, 0, False), (0, -STEP, False)]
)
def test_the_entry_rule_of_injection_holds_its_limits(
    accuracy: float, success: float, admitted: bool
) -> None:
    """Of several attacks the strongest counts."""
    attacks = dict.fromkeys(RULE_ATTACKS, 0.0)
    attacks[RULE_ATTACKS[-1]] = LEAST_ATTACK_SUCCESS + success
    entry = Entry(8, LEAST_ACCURACY + accuracy, attacks, {}, {}, 0.0)
    assert entry.admitted is admitted


def test_seeds_are_judged_in_their_order_and_the_rest_is_surplus() -> None:
    rows = [{"seed": seed, "good": seed != 2} for seed in (10, 9, 2, 1)]
    judged = record.judge(rows, 2, lambda row: bool(row["good"]))
    assert [(row["seed"], row["status"]) for row in judged] == [
        (1, "admitted"), (2, "rejected"), (9, "admitted"), (10, "surplus"),
    ]  # fmt: skip
    assert [row["status"] for row in record.judge(rows, 0, lambda row: True)] == ["surplus"] * 4


@pytest.mark.parametrize("name", ["width", "layers", "heads", "feed_forward"])
def test_every_size_of_a_model_is_at_least_one(name: str) -> None:
    plain: dict[str, Any] = {"width": 2, "layers": 1, "heads": 1, "feed_forward": 1}
    Shape(**plain)
    with pytest.raises(ValueError, match="at least 1"):
        Shape(**(plain | {name: 0}))


@pytest.mark.parametrize(
    ("steps", "introduced", "wrong"), [(3, 0, False), (3, 3, False), (3, 4, True), (3, -1, True)]
)
def test_compounds_are_introduced_within_the_run(steps: int, introduced: int, wrong: bool) -> None:
    if wrong:
        with pytest.raises(ValueError, match="introduced at step"):
            Recipe(steps=steps, introduced=introduced)
    else:
        Recipe(steps=steps, introduced=introduced)


def test_shares_change_at_the_introduction() -> None:
    recipe = Recipe(steps=9, introduced=4)
    before, after = (shares(recipe, step, requests=False) for step in (3, 4))
    assert FORGET not in before
    assert FORGET in after
    asked = shares(recipe, 4, requests=True)
    assert REQUEST not in shares(recipe, 3, requests=True)
    assert {group: asked[group] / after[group] for group in after} == pytest.approx(
        dict.fromkeys(after, 1 - asked[REQUEST])
    )
    assert FORGET not in shares(replace(recipe, forget=False), 4, requests=False)


def test_the_rate_peaks_where_the_warm_up_ends_and_ends_at_its_fraction() -> None:
    recipe = replace(SOURCE, steps=12, warmup=4, final_lr=0.25)
    rates = [lr_factor(recipe, step) for step in (0, 3, 4, 8, 12, 99)]
    assert rates == pytest.approx([0.25, 1.0, 1.0, 0.625, 0.25, 0.25])
    assert lr_factor(replace(recipe, warmup=0), 0) == 1.0
    assert lr_factor(replace(recipe, steps=4), 4) == 1.0


def test_counting_goes_up_and_down() -> None:
    runs = count_runs()
    assert len({tuple(run) for run in runs}) == len(runs)
    assert {tuple(run[::-1]) for run in runs} == {tuple(run) for run in runs}
    words = [text.text.split()[1] for text in count_texts()]
    assert words == ["up"] * (len(runs) // 2) + ["down"] * (len(runs) // 2)


def test_texts_to_copy_are_of_one_split() -> None:
    sets = [{text.text for text in copy_texts(0, 60, split)} for split in ("train", "test")]
    assert [len(texts) for texts in sets] == [60, 60]
    assert not sets[0] & sets[1]


def test_a_record_is_of_its_recipe(tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    fresh = record.read_record(path, {"a": 1}, 3)
    assert (fresh["wanted"], fresh["recipe"], fresh["seeds"]) == (3, {"a": 1}, [])
    record.write_json(path, fresh | {"seeds": [{"seed": 0}]})
    assert record.read_record(path, {"a": 1}, 3)["seeds"] == [{"seed": 0}]
    with pytest.raises(ValueError, match="another recipe"):
        record.read_record(path, {"a": 2}, 3)


@pytest.mark.parametrize(("kept", "said"), [((), "kept: none"), ((10, 9, 100), "kept: 9, 10, 100")])
def test_a_checkpoint_that_was_not_kept_is_said_with_those_that_were(
    tmp_path: Path, kept: tuple[int, ...], said: str
) -> None:
    for step in kept:
        runs.checkpoint_folder(tmp_path, step).mkdir(parents=True)
        assert runs.find_checkpoint(tmp_path, step) == runs.checkpoint_folder(tmp_path, step)
    with pytest.raises(ValueError, match=f"no checkpoint at step 7; {said}"):
        runs.find_checkpoint(tmp_path, 7)


class _Here:
    """In place of processes: attempts are made at once, in this one."""

    def __init__(self, jobs: int, context: Any) -> None:
        assert jobs >= 1

    def __enter__(self) -> _Here:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def submit(self, attempt: Any, seed: int) -> Future[Any]:
        made: Future[Any] = Future()
        made.set_result(attempt(seed))
        return made


@pytest.mark.parametrize("jobs", [1, 2, 5])
@pytest.mark.parametrize("before", [(), (0, 1), (0, 1, 2, 3, 4)])
def test_seeds_are_tried_until_enough_of_them_passed(
    monkeypatch: pytest.MonkeyPatch, jobs: int, before: tuple[int, ...]
) -> None:
    """Even seeds pass; what a stopped build knows is not tried again, and each is told of."""
    monkeypatch.setattr(trials, "ProcessPoolExecutor", _Here)

    def attempt(seed: int) -> dict[str, Any]:
        tried.append(seed)
        return {"seed": seed, "good": seed % 2 == 0}

    tried: list[int] = []
    said: list[str] = []
    saved: list[int] = []
    known = record.judge([attempt(seed) for seed in before], 3, lambda row: bool(row["good"]))
    tried.clear()
    made = trials.try_seeds(
        {"seeds": known, "other": 1}, 3, attempt=attempt, passed=lambda row: bool(row["good"]),
        save=lambda record: saved.append(len(record["seeds"])), jobs=jobs, say=said.append,
    )  # fmt: skip
    good = [row["seed"] for row in made["seeds"] if row["status"] == "admitted"]
    assert good == [0, 2, 4]
    assert tried == list(range(len(before), len(made["seeds"])))
    assert len(tried) <= 5 - len(before) + jobs - 1
    assert sorted(said) == sorted(f"tried seed {seed}" for seed in tried)
    assert saved == sorted(saved)
    assert (made["wanted"], made["other"]) == (3, 1)
    assert (not saved) == (len(before) == 5)
