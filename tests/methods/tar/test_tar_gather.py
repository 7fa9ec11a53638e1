"""The table of attacks: collapse beside every number, statistics over an axis."""

from __future__ import annotations

import json
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from kit.methods.tar.gather import tabulate
from kit.methods.tar.pooled import Pooled
from kit.tampering.watched import FinishedAttack

ROLES = {"seed": "replicate", "method": "setting", "order": "replicate", "adversary": "setting"}
ANSWERS = "ABCD" * 5


def trajectory(folder: Path, name: str, right: list[int], *, letter: str = "") -> Path:
    """An attack whose share of right answers at steps 0, 10, 20 is ``right`` of 20."""
    points = []
    for number, count in enumerate(right):
        picks = ANSWERS[:count] + "".join("BCDA"["ABCD".index(a)] for a in ANSWERS[count:])
        picks = letter * 20 if letter and number else picks
        share = sum(a == b for a, b in zip(picks, ANSWERS, strict=True)) / 20
        points.append([10 * number, {"forget": share, "picks": {"forget": picks}}])
    path = folder / f"{name}.json"
    path.write_text(
        json.dumps(
            {
                "points": points,
                "losses": [float(step) for step in range(10 * (len(right) - 1))],
                "questions": {"forget": {"items": [str(i) for i in range(20)], "answers": ANSWERS}},
            }
        ),
        encoding="utf-8",
    )
    return path


def cells(attacks: list[FinishedAttack], **options: Any) -> dict[str, Any]:
    table, _ = tabulate(attacks, ROLES, forget="forget", **options)
    return {cell.id: cell for cell in table.cells}


def test_points_asked_for_and_the_adversary_s_loss(tmp_path: Path) -> None:
    attack = FinishedAttack("a", trajectory(tmp_path, "a", [5, 12, 8]), {"seed": 0})
    made = cells([attack], steps=(10, 20))
    assert made["all/forget/before"].value == 25.0
    assert made["all/forget/step-10"].value == 60.0
    assert made["all/forget/step-20"].value == made["all/forget/after"].value == 40.0
    table, _ = tabulate([attack], ROLES, forget="forget")
    (loss,) = [series for series in table.series if series.id == "adversary/all"]
    (curve,) = loss.lines["loss"]
    assert [(point.x, point.value) for point in curve.points] == [(10, 4.5), (20, 14.5)]


def test_a_model_of_one_letter_is_a_collapse_and_shows_in_the_picks(tmp_path: Path) -> None:
    attacks = [
        FinishedAttack("a", trajectory(tmp_path, "a", [5, 5, 5]), {"seed": 0, "method": "tar"}),
        FinishedAttack(
            "b", trajectory(tmp_path, "b", [5, 5], letter="C"), {"seed": 0, "method": "none"}
        ),
    ]
    table, collapses = tabulate(attacks, ROLES, forget="forget")
    made = {cell.id: cell.value for cell in table.cells}
    assert made["all/forget/after@none"] == made["all/forget/after@tar"] == 25.0
    assert [made[f"all/picked/{letter}@tar"] for letter in "abcd"] == [30.0, 20.0, 25.0, 25.0]
    assert made["all/picked/c@none"] == made["all/one-letter/after@none"] == 100.0
    assert not collapses["tar"][0]
    assert collapses["none"][0]
    assert collapses["none"][2] == ["all/forget/after@none", "all/under-attack/forget@none"]


@pytest.mark.parametrize(("first", "collapsed"), [(15, False), (16, True)])
def test_three_quarters_of_one_letter_are_no_collapse_yet(
    tmp_path: Path, first: int, collapsed: bool
) -> None:
    """Of several attacks on a model the worst is named."""
    paths = [trajectory(tmp_path, name, [5, 5]) for name in ("a", "b", "c")]
    read = json.loads(paths[1].read_text(encoding="utf-8"))
    read["points"][-1][1]["picks"]["forget"] = "A" * first + "BCDBC"[: 20 - first]
    paths[1].write_text(json.dumps(read), encoding="utf-8")
    attacks = [
        FinishedAttack(f"attack[adversary={path.stem}]", path, {"seed": seed})
        for seed, path in enumerate(paths)
    ]
    _, collapses = tabulate(attacks, ROLES, forget="forget")
    ((outcome, detail, _),) = collapses.values()
    assert outcome is collapsed
    assert f"{5 * first:.1f} %" in detail


def test_the_range_over_orders_is_taken_in_each_model(tmp_path: Path) -> None:
    right = {(0, 1): [5, 10, 6], (0, 2): [5, 4, 7], (1, 1): [5, 5, 9], (1, 2): [5, 8, 9]}
    attacks = [
        FinishedAttack(
            f"{seed}-{order}",
            trajectory(tmp_path, f"{seed}-{order}", right[seed, order]),
            {"seed": seed, "order": order},
        )
        for seed, order in product((0, 1), (1, 2))
    ]
    made = cells(attacks, pooled=Pooled("order", "range", (10, 20)))
    spread = {
        row: [seed.value for seed in made[f"all/range-over-order/{row}"].seeds]
        for row in ("step-10", "step-20", "max")
    }
    assert spread["step-10"] == pytest.approx([30.0, 15.0])
    assert spread["step-20"] == pytest.approx([5.0, 0.0])
    assert spread["max"] == pytest.approx([15.0, 0.0])


def test_the_mean_over_adversaries_leaves_the_other_settings(tmp_path: Path) -> None:
    right = {("tar", "x"): [5, 6], ("tar", "y"): [5, 8], ("rm", "x"): [5, 20], ("rm", "y"): [5, 10]}
    attacks = [
        FinishedAttack(
            f"{method}-{adversary}",
            trajectory(tmp_path, f"{method}-{adversary}", values),
            {"method": method, "adversary": adversary, "seed": 0},
        )
        for (method, adversary), values in right.items()
    ]
    made = cells(attacks, pooled=Pooled("adversary", "mean"))
    assert made["all/mean-over-adversary/max@tar"].value == pytest.approx(35.0)
    assert made["all/mean-over-adversary/max@rm"].value == pytest.approx(75.0)


def test_a_statistic_that_cannot_be_taken_is_refused(tmp_path: Path) -> None:
    attack = FinishedAttack("a", trajectory(tmp_path, "a", [5, 5]), {"seed": 0, "order": 1})
    with pytest.raises(ValueError, match="no statistic 'median'"):
        Pooled("order", "median")
    with pytest.raises(ValueError, match="no attack has the axis adversary"):
        cells([attack], pooled=Pooled("adversary", "mean"))
    with pytest.raises(ValueError, match="step 30 was not measured"):
        cells([attack], pooled=Pooled("order", "mean", (30,)))
    longer = FinishedAttack("b", trajectory(tmp_path, "b", [5, 5, 5]), {"seed": 0, "order": 2})
    with pytest.raises(ValueError, match="step 20 was not measured in every attack"):
        cells([attack, longer], pooled=Pooled("order", "mean", (20,)))
