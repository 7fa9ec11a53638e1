"""The build record: by the present recipe, up to its rule, and what the page says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from kit.mini import record
from kit.mini.facts import build, measure, page, pretrain

ROOT = Path(__file__).parents[3]
RECORD = record.read_record(build.RECORD_FILE, build.recipe(), build.WANTED)


def test_every_tried_seed_is_there_and_judged_by_the_rule() -> None:
    seeds = [row["seed"] for row in RECORD["seeds"]]
    assert seeds == list(range(len(seeds)))
    assert RECORD["seeds"] == record.judge(RECORD["seeds"], build.WANTED, build.passed)
    assert sum(row["status"] == "admitted" for row in RECORD["seeds"]) == build.WANTED


@pytest.mark.parametrize(
    ("change", "admitted"),
    [
        ({}, True),
        ({"final": {"forget_judge": 0.94}}, False),
        ({"final": {"retain": 0.94}}, False),
        ({"source": {"forget_judge": 0.35}}, False),
        ({"source": {"retain": 0.74}}, False),
        ({"control": {"forget_judge": 0.35}}, False),
    ],
)
def test_the_entry_rule(change: dict[str, dict[str, float]], admitted: bool) -> None:
    known = {
        "final": {"forget_judge": 0.99, "forget_attacker": 0.99, "retain": 0.99},
        "source": {"forget_judge": 0.25, "forget_attacker": 0.25, "retain": 0.8},
        "control": {"forget_judge": 0.25, "forget_attacker": 0.25, "retain": 0.99},
    }
    models = {name: shares | change.get(name, {}) for name, shares in known.items()}
    assert measure.admitted(**models) == admitted


def test_unlearning_by_transfer_has_room() -> None:
    """The oracle patch after the last block is near chance; the guess of the rule is its bound."""
    for row in RECORD["seeds"]:
        assert row["oracle"][-1] <= measure.MOST_GUESSED


def test_a_record_of_another_recipe_is_refused(tmp_path: Path) -> None:
    stale: dict[str, Any] = json.loads(build.RECORD_FILE.read_text(encoding="utf-8"))
    stale["recipe"]["pretraining"]["steps"] = 1
    path = tmp_path / "kit" / "mini" / "facts" / "record.json"
    path.parent.mkdir(parents=True)
    record.write_json(path, stale)
    with pytest.raises(ValueError, match="another recipe"):
        build.build(path.parent, 1, 1, print)
    with pytest.raises(ValueError, match="another recipe"):
        page.seed_table(tmp_path)


def test_the_page_follows_the_record(tmp_path: Path) -> None:
    path = tmp_path / "kit" / "mini" / "facts" / "record.json"
    path.parent.mkdir(parents=True)
    row = {**RECORD["seeds"][0], "seed": 77, "control": {"forget_judge": 0.125, "retain": 1.0}}
    record.write_json(path, RECORD | {"seeds": [row]})
    assert "| 77 |" in page.seed_table(tmp_path)
    assert "| 12.5 | 100.0 |" in page.seed_table(tmp_path)
    assert "| 77 |" in page.curve_table(tmp_path)
    assert page.rule_sentence(tmp_path) == page.rule_sentence(ROOT)


@pytest.mark.slow
def test_a_recorded_seed_comes_out_again() -> None:
    """Statistics, not bits: another machine may add in another order."""
    made, recorded = build.build_seed(0), RECORD["seeds"][0]
    assert build.passed(made)
    for step, shares in recorded["curve"].items():
        for name, share in shares.items():
            assert made["curve"][step][name] == pytest.approx(share, abs=0.12), (step, name)


def test_a_seed_is_a_model_and_its_control_measured_on_the_way(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Seconds are those of the training, what measuring takes left out."""
    chosen, clock = pretrain.Recipe(), [50.0]
    runs: list[tuple[bool, list[int]]] = []
    measured: list[bool] = []

    def train(model: Any, rows: Any, recipe: Any, seed: int, **how: Any) -> None:
        assert seed == 3
        assert pretrain.FORGET in rows
        runs.append((recipe.forget, list(how["checkpoints"])))
        for step in how["checkpoints"]:
            model.train()
            clock[0] += 2.0
            how["on_checkpoint"](step)

    def measure_(model: Any, sets: Any) -> dict[str, float]:
        measured.append(model.training)
        clock[0] += 1000.0
        return {"forget_judge": float(len(measured))}

    def oracle(last: Any, first: Any, world: Any, texts: Any) -> dict[str, float]:
        assert last is not first
        assert len(texts) == build.FIT_TEXTS
        return {"kept": 1.0}

    monkeypatch.setattr(build, "pretrain", train)
    monkeypatch.setattr(build.measure, "measure", measure_)
    monkeypatch.setattr(build.measure, "oracle", oracle)
    monkeypatch.setattr(build.time, "process_time", lambda: clock[0])
    row = build.build_seed(3)
    steps = sorted({*range(0, chosen.steps, 100), chosen.introduced, chosen.steps})
    assert runs == [(True, steps), (False, [chosen.steps])]
    assert list(row["curve"]) == [str(step) for step in steps]
    assert not any(measured)
    assert row["control"] == {"forget_judge": len(steps) + 1.0}
    assert row["pretraining_cpu_seconds"] == 2.0 * len(steps)
    assert (row["seed"], row["oracle"]) == (3, {"kept": 1.0})
    assert torch.get_num_threads() == 1
