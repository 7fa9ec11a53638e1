"""Verdicts of judges in a table: shares, and their mean over attacks, model by model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from kit.methods.tar.judged_table import JudgedModel, tabulate_judged

ROLES = {"method": "setting", "adversary": "setting"}
ITEMS = ["a", "b", "c", "d"]


def judged(folder: Path, method: str, adversary: int, hits: list[int], **said: Any) -> JudgedModel:
    record = {"judge": "harmbench", "hits": hits, "items": ITEMS[: len(hits)], "mean": None}
    counts = {"unreadable": 0, "verdicts": 4, "empty": 0, "answers": 4}
    file = folder / f"{method}-{adversary}.json"
    file.write_text(json.dumps(record | counts | said), encoding="utf-8")
    axes = {"method": {"id": method}, "adversary": {"id": f"adversary-{adversary}"}}
    return JudgedModel(f"judge[{method},{adversary}]", file, axes)


def test_the_mean_over_attacks_is_of_each_model_alone(tmp_path: Path) -> None:
    models = [
        judged(tmp_path, "tar", 1, [1, 1, 1, 1]),
        judged(tmp_path, "tar", 2, [1, 0, 0, 0]),
        judged(tmp_path, "rr", 1, [0, 0, 0, 0]),
    ]
    made = tabulate_judged(models, ROLES, over="adversary", absent={"r2d2": "another model"})
    means = {cell.id: cell.value for cell in made.cells if "mean-over-adversary" in cell.id}
    assert means == {
        "all/mean-over-adversary/asr@tar": 62.5,
        "all/mean-over-adversary/asr@rr": 0.0,
        "all/mean-over-adversary/asr@r2d2": None,
    }


def test_a_judge_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no verdict of the judge can be read"):
        tabulate_judged([judged(tmp_path, "tar", 1, [], judge="mt-bench")], ROLES)
