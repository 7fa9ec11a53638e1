"""Axes, references, seeds."""

from __future__ import annotations

from typing import Any

import pytest

from kit.errors import InvalidInput, UsageError
from kit.manifest.matrix import id_fault, points, resolve, resolved, shift_seeds
from kit.manifest.types import ModelSource, Profile

MATRIX: dict[str, Any] = {
    "pair": [{"id": "newer", "source": "a"}, {"id": "older", "source": "b"}],
    "seed": [0, 1],
}


def test_last_axis_varies_fastest() -> None:
    made = points(Profile(summary="", matrix=MATRIX), ["pair", "seed"])
    assert [point.instance("train") for point in made] == [
        "train[pair=newer,seed=0]",
        "train[pair=newer,seed=1]",
        "train[pair=older,seed=0]",
        "train[pair=older,seed=1]",
    ]
    assert made[0].values == {"pair": {"id": "newer", "source": "a"}, "seed": 0}


def test_without_axes_there_is_one_instance() -> None:
    (point,) = points(Profile(summary="", matrix=MATRIX), [])
    assert point.instance("table") == "table"


@pytest.mark.parametrize(
    ("value", "label"),
    [(True, "true"), (0.1, "0.1"), (-0.5, "-0.5"), (3, "3"), ("a_b.C+1-2", "a_b.C+1-2")],
)
def test_labels(value: Any, label: str) -> None:
    assert not id_fault(value)
    (point,) = points(Profile(summary="", matrix={"x": [value]}), ["x"])
    assert point.labels == {"x": label}


@pytest.mark.parametrize(
    "value",
    ["a b", "a,b", "a=b", "[x]", "", "a/b", "../", "..", "-5", "x" * 10_000, "a\u200bb", "\u00e4"],
)
def test_labels_that_would_break_instance_ids(value: str) -> None:
    assert "cannot name an instance" in id_fault(value)
    assert "cannot name an instance" in id_fault({"id": value})
    assert len(id_fault(value)) < 250
    assert "has no id" in id_fault({"source": value})


@pytest.mark.parametrize(
    ("written", "found"),
    [
        ("plain", "plain"),
        (3, 3),
        ("${seed}", 1),
        ("${pair}", "newer"),
        ("${pair.rate}", 0.5),
        ("${pins.base}", "llama"),
        (["${seed}", "${pair.rate}", "x"], [1, 0.5, "x"]),
    ],
)
def test_references(written: object, found: object) -> None:
    axes = {"seed": 1, "pair": {"id": "newer", "rate": 0.5}}
    assert resolve(written, axes, {"base": "llama"}) == found


def test_dotted_axis_names() -> None:
    axes = {"a.b": {"id": "x", "c": 1}, "d.e": 2}
    assert resolve("${a.b.c}", axes, {}) == 1
    assert resolve("${d.e}", axes, {}) == 2


@pytest.mark.parametrize(
    "written", ["${nothing}", "${pair.nothing}", "${pins.other}", "${}", "run-${pair}"]
)
def test_references_that_lead_nowhere(written: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        resolve(written, {"pair": {"id": "x", "rate": 1}}, {"base": "llama"})
    assert "each" in caught.value.next_step


def test_pins_in_the_matrix() -> None:
    pair = {"pair": [{"id": "a", "model": "${pins.base}"}]}
    profile = Profile(summary="", pins={"base": "x"}, matrix=pair)  # type: ignore[arg-type]
    assert resolved("mini", profile).matrix == {"pair": [{"id": "a", "model": "x"}]}
    with pytest.raises(InvalidInput, match="no pin name 'base'") as caught:
        resolved("mini", Profile(summary="", matrix=pair))  # type: ignore[arg-type]
    assert caught.value.path == ("profiles", "mini", "matrix", "pair", 0)


def test_seeds_move_together() -> None:
    profile = Profile(
        summary="",
        matrix={
            "cell": [{"id": "a", "seed": 3}, {"id": "b", "seed": 5}, {"id": "c"}],
            "seed": [4, 6],
            "size": [1],
        },
        exclude=[{"cell": "a", "seed": 6}],
        models={"base": ModelSource(step="train", at={"seed": 4, "size": 1})},
    )
    moved = shift_seeds(profile, 10, where="")
    assert moved.matrix == {
        "cell": [{"id": "a", "seed": 10}, {"id": "b", "seed": 12}, {"id": "c"}],
        "seed": [11, 13],
        "size": [1],
    }
    assert moved.exclude == [{"cell": "a", "seed": 13}]
    assert moved.models["base"].at == {"seed": 11, "size": 1}


def test_excluded_combinations_are_left_out() -> None:
    """An entry holds for all values of the axes it does not name; only where all its axes are."""
    exclude: list[dict[str, Any]] = [{"pair": "newer", "seed": 1}]

    def at(each: list[str], left_out: list[dict[str, Any]]) -> list[Any]:
        return points(Profile(summary="", matrix=MATRIX, exclude=left_out), each)

    made = at(["pair", "seed"], exclude)
    assert [point.instance("x") for point in made] == [
        "x[pair=newer,seed=0]",
        "x[pair=older,seed=0]",
        "x[pair=older,seed=1]",
    ]
    assert len(at(["pair"], exclude)) == 2
    assert len(at(["pair", "seed"], [{"seed": 1}])) == 2


@pytest.mark.parametrize("matrix", [{}, {"size": [1]}, {"seed": ["a", "b"]}, {"seed": [True]}])
def test_no_seeds_to_move(matrix: dict[str, list[object]]) -> None:
    with pytest.raises(UsageError, match="nothing to move"):
        shift_seeds(Profile(summary="", matrix=matrix), 1, where="")  # type: ignore[arg-type]


@pytest.mark.parametrize("first", [-1, 2**32 - 1])
def test_seeds_stay_in_the_range_that_libraries_take(first: int) -> None:
    with pytest.raises(UsageError, match="from 0 to 4294967295"):
        shift_seeds(Profile(summary="", matrix={"seed": [3, 4]}), first, where="")
