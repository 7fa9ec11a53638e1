"""The table of finished runs, on answers that are written by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from kit.evals.collapse import MOST_ONE_LETTER
from kit.methods.checkpoint_transfer.answers import NOT_FINITE
from kit.methods.checkpoint_transfer.gather import Finished, tabulate
from kit.results.builder import Table

ROLES = {"run": "setting", "teacher": "setting", "seed": "replicate"}
RIGHT = "ABCD" * 5


def answered(picked: str) -> dict[str, Any]:
    """Twenty questions."""
    return {
        "items": [str(number) for number in range(len(RIGHT))],
        "right": [int(p == a) for p, a in zip(picked, RIGHT, strict=True)],
        "picked": list(picked),
        "answers": list(RIGHT),
        "probability": 0.25,
    }


class Runs:
    """Writes files of steps."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self, instance: str, file: str, value: Any, **axes: Any) -> Finished:
        path = self.folder / instance
        path.mkdir(exist_ok=True)
        (path / file).write_text(json.dumps(value), encoding="utf-8")
        return Finished(instance, path, {"seed": 0, **axes})


@pytest.fixture
def runs(tmp_path: Path) -> Runs:
    return Runs(tmp_path)


def table(**given: Any) -> tuple[Table, list[str]]:
    empty = dict.fromkeys(("unlearned", "trainings", "originals", "teachers", "oracles"), ())
    return tabulate(**{**empty, "roles": ROLES, "losses": "last-step", **given})


def cells(**given: Any) -> dict[str, Any]:
    return {cell.id: cell for cell in table(**given)[0].cells}


def test_rows_of_one_letter_are_named_once_and_in_order(runs: Runs) -> None:
    """Just as much as a model that still chooses may pick is no collapse."""
    most = int(MOST_ONE_LETTER * 20)
    allowed = "A" * most + "BCDBC"
    too_many = "A" * (most + 1) + "BCDB"
    sets = {"forget": answered(too_many), "retain": answered("B" * 20)}
    broken = [
        runs(name, "answers.json", sets, run={"id": name}) for name in ("d", "b", "a", "c", "e")
    ]
    whole = runs("whole", "answers.json", {"forget": answered(allowed)}, run={"id": "whole"})
    _, collapses = table(unlearned=[whole, *broken])
    assert collapses == ["a", "b", "c", "d", "e"]
    # Only an unlearned model can be broken by unlearning.
    original = runs("original", "answers.json", {"forget": answered("A" * 20)})
    assert table(originals=[original])[1] == []


@pytest.mark.parametrize("also", [(), ("one-letter",)])
def test_the_share_of_one_letter_is_a_cell_where_it_is_asked_for(
    runs: Runs, also: tuple[str, ...]
) -> None:
    picked = runs("x", "answers.json", {"forget": answered("A" * 12 + "BCDBCDBC")}, run={"id": "x"})
    made = cells(unlearned=[picked], also=also)
    assert ("unlearned/forget-one-letter/x" in made) is bool(also)
    if also:
        assert made["unlearned/forget-one-letter/x"].value == pytest.approx(60)
        assert made["unlearned/forget-one-letter/x"].unit == "percent"


def test_a_model_without_weights_has_no_number_and_is_no_collapse(runs: Runs) -> None:
    gone = runs("x", "answers.json", {"forget": {NOT_FINITE: True}}, run={"id": "x"})
    made, collapses = table(unlearned=[gone], also=("one-letter",))
    (cell,) = made.cells
    assert (cell.id, cell.value) == ("unlearned/forget/x", None)
    assert "not finite" in str(cell.not_run)
    assert collapses == []


@pytest.mark.parametrize(("losses", "remove"), [("logged", 1.0), ("last-step", 3.0)])
def test_losses_are_those_that_were_asked_for(runs: Runs, losses: str, remove: float) -> None:
    training = {
        "logged": {"remove": 1.0, "retain": 0.0},
        "last-step": {"remove": 3.0, "retain": 0.5},
        "diverged_at": None,
        "trained_percent": 12.5,
        "base_moved": 0,
        "muon_tensors": 7,
    }
    one = runs("t", "training.json", training, run={"id": "x"})
    also = ("trained-percent", "base-moved", "muon-tensors", "one-letter")
    made = cells(trainings=[one], losses=losses, also=also)
    assert {id: (cell.value, cell.unit) for id, cell in made.items()} == {
        "unlearned/cb-loss/x": (remove, "loss"),
        "unlearned/retain-kl/x": (training[losses]["retain"], "loss"),  # type: ignore[index]
        "unlearned/trained-percent/x": (12.5, "percent"),
        "unlearned/base-moved/x": (0, "count"),
        "unlearned/muon-tensors/x": (7, "count"),
    }


def test_a_loss_that_is_not_finite_is_not_run(runs: Runs) -> None:
    training = {"last-step": {"remove": None, "retain": 0.5}, "diverged_at": 7}
    one = runs("t", "training.json", training, run={"row": "x", "at": 3, "id": "x-3"})
    made = cells(trainings=[one])
    assert made["unlearned/cb-loss/x@3"].value is None
    assert made["unlearned/cb-loss/x@3"].unit == "loss"
    assert "optimizer step 7" in str(made["unlearned/cb-loss/x@3"].not_run)
    assert made["unlearned/retain-kl/x@3"].value == 0.5


@pytest.mark.parametrize(
    ("record", "id"),
    [
        ({"id": "a"}, "unlearned/forget/a"),
        ({"id": "a-2", "row": "a", "at": 2}, "unlearned/forget/a@2"),
        ({"id": "a-2", "row": "a"}, "unlearned/forget/a"),
        ({"id": "a-2", "at": 2}, "unlearned/forget/baseline@2"),
        ("plain", "unlearned/forget/plain"),
    ],
)
def test_where_an_instance_stands(runs: Runs, record: Any, id: str) -> None:
    one = runs("x", "answers.json", {"forget": answered(RIGHT)}, run=record)
    assert list(cells(unlearned=[one])) == [id]


def test_early_checkpoints_and_patched_blocks(runs: Runs) -> None:
    """A teacher that no axis names has the row that is given; one that is named keeps its own."""
    answers = {"forget": answered(RIGHT)}
    blocks = {"forget": {"blocks": {"1": answered(RIGHT), "4": answered("A" * 20)}}}
    given = {
        "originals": [runs("original", "answers.json", answers)],
        "teachers": [
            runs("early", "answers.json", answers),
            runs("named", "answers.json", answers, teacher={"id": "step-9"}),
        ],
        "oracles": [
            runs("oracle", "answers.json", blocks),
            runs("patched", "answers.json", blocks, teacher={"id": "step-9"}),
        ],
    }
    made = cells(**given, checkpoint="step-3")
    assert set(made) == {
        "original/forget/baseline",
        "teacher/forget/step-3",
        "teacher/forget/step-9",
        *(f"oracle/forget/block-{b}{at}" for b in (1, 4) for at in ("", "@step-9")),
    }
    assert made["oracle/forget/block-4"].value == 25
    assert made["oracle/forget/block-1"].value == 100
