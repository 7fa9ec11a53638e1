"""What references, seeds and axes of a profile come to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kit.errors import InvalidInput, UsageError
from kit.manifest import matrix, reference_record
from kit.manifest.catalog import Catalog
from kit.manifest.matrix import (
    LARGEST_SEED,
    Point,
    id_fault,
    kept_only,
    meanings,
    models,
    pin_ids,
    profile_faults,
    read_steps,
    resolve,
    shift_seeds,
    with_trials,
)
from kit.manifest.reference_record import measured, reference
from kit.manifest.types import InputRef, ModelSource, Profile, StepSpec

AXES: dict[str, Any] = {"a": ["x", "y"], "b": [1, 2, 3]}


@pytest.mark.parametrize(
    ("exclude", "most", "each", "found"),
    [
        ([], 100, ["a", "b"], ["x", "y"]),
        ([], 2, ["a", "b"], ["x", "y"]),  # the other axis takes none of the room
        ([{"a": "x"}], 100, ["a", "b"], ["y"]),
        ([{"a": "x", "b": b} for b in (1, 2, 3)], 100, ["a", "b"], ["y"]),
        ([{"a": "x", "b": 1}], 100, ["a", "b"], ["x", "y"]),
    ],
)
def test_a_reference_means_what_some_combination_has(
    monkeypatch: pytest.MonkeyPatch,
    exclude: list[dict[str, Any]],
    most: int,
    each: list[str],
    found: list[str],
) -> None:
    monkeypatch.setattr(matrix, "MOST_POINTS", most)
    profile = Profile(summary="", matrix=AXES, exclude=exclude)
    made = meanings("${a}", profile, each)
    assert list(made) == found
    assert all(point == {"a": name} for name, point in made.items())


def test_a_text_without_reference_means_itself_at_one_point(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    profile = Profile(summary="", matrix=AXES, exclude=[{"a": "x"}, {"a": "y"}])
    assert meanings("plain", profile, ["a", "b"]) == {"plain": {}}


def test_an_input_means_pins_or_models_and_the_steps_that_make_them() -> None:
    profile = Profile(
        summary="",
        matrix={"m": ["one", "two", "three"]},
        pins={"local": "p-local"},
        models={
            "one": ModelSource(pin="${pins.local}"),
            "two": ModelSource(step="train"),
        },
    )
    assert pin_ids(InputRef(pin="${pins.local}"), profile, []) == ["p-local"]
    assert pin_ids(InputRef(model="${m}"), profile, ["m"]) == ["p-local"]
    assert list(models(InputRef(model="${m}"), profile, ["m"])) == ["one", "two"]
    assert models(InputRef(step="s"), profile, ["m"]) == {}
    step = StepSpec(
        id="e", kind="f/k", version=1, each=["m"],
        inputs={"a": InputRef(model="${m}"), "b": InputRef(step="data"),
                "c": InputRef(model="${none}")},
    )  # fmt: skip
    assert read_steps(step, profile) == {"a": {"train"}, "b": {"data"}, "c": set()}


@pytest.mark.parametrize(
    ("value", "found"),
    [
        ("${r}", "i"),
        ("${r.f}", 7),
        ("${r.p}", "p-local"),
        ("${plain}", 3),
        ("${bare}", {"f": 1}),
        (["${r.f}", {"k": "${plain}"}], [7, {"k": 3}]),
        ("a.b", "a.b"),
    ],
)
def test_references_are_replaced_at_any_depth(value: object, found: object) -> None:
    axes: dict[str, Any] = {
        "r": {"id": "i", "f": 7, "p": "${pins.local}"}, "plain": 3, "bare": {"f": 1},
    }  # fmt: skip
    assert resolve(value, axes, {"local": "p-local"}) == found


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("x ${a}", "mixes a reference"),
        ("${a}${a}", "mixes a reference"),
        ("${pins.none}", r"it has: local, other\)"),
        ("${r.none}", r"has no field 'none' \(it has: id, f\)"),
        ("${plain.f}", "no axis 'plain' here"),
        ("${none}", r"no axis 'none' here \(axes: r, plain\)"),
    ],
)
def test_references_that_lead_nowhere_say_what_there_is(value: str, said: str) -> None:
    axes: dict[str, Any] = {"r": {"id": "i", "f": 7}, "plain": 3}
    with pytest.raises(InvalidInput, match=said):
        resolve(value, axes, {"other": "o", "local": "p"})


def test_points_are_named_by_their_axes() -> None:
    assert Point({}, {}).instance("s") == "s"
    assert Point({"a": "x", "b": "1"}, {}).instance("s") == "s[a=x,b=1]"


@pytest.mark.parametrize(
    ("value", "fault"),
    [
        ({"id": "x"}, ""), ({"id": 3}, ""), ({"id": "${y}"}, ""), ({"n": 1}, "has no id"),
        ({"id": "a b"}, "cannot name"), ("${x}", ""), ("a b", "cannot name"), (3, ""), (0.5, ""),
        (True, ""),
    ],
)  # fmt: skip
def test_an_axis_value_names_an_instance_or_not(value: Any, fault: str) -> None:
    assert fault in id_fault(value)
    assert bool(fault) == bool(id_fault(value))


@pytest.mark.parametrize(
    ("axis", "value", "places"),
    [
        ("seed", 3, []),
        ("seed", -1, [()]),
        ("other", "a b", [()]),
        ("other", 1, []),
        ("seed", {"id": "x", "seed": 3}, []),
        ("pair", {"id": "x", "seed": -3}, [("seed",)]),
        ("pair", {"id": "x", "group": "a b"}, [("group",)]),
        ("pair", {"id": "a b", "seed": "x", "group": "g"}, [(), ("seed",)]),
        ("pair", {"id": "x", "group": "g"}, []),
    ],
)
def test_faults_of_axis_values_have_their_place(
    axis: str, value: Any, places: list[tuple[str, ...]]
) -> None:
    profile = Profile(summary="", matrix={axis: ["fine" if axis != "seed" else 0, value]})
    faults = [path for path, _ in profile_faults("p", profile)]
    assert faults == [("profiles", "p", "matrix", axis, 1, *place) for place in places]


@pytest.mark.parametrize(("seed", "fault"), [(3, False), (-1, True), (None, False)])
def test_a_seed_that_is_set_is_looked_at_too(seed: int | None, fault: bool) -> None:
    given = {} if seed is None else {"seed": seed}
    profile = Profile(summary="", set={"train": {"lr": 0.1, **given}})
    paths = [path for path, _ in profile_faults("p", profile)]
    assert paths == ([("profiles", "p", "set", "train", "seed")] if fault else [])


SEEDS: dict[str, Any] = {
    "seed": [3, 5],
    "pair": [{"id": "a", "seed": 4}, {"id": "b"}],
    "other": [9, "x"],
}


def test_all_seeds_move_together_and_nothing_else() -> None:
    profile = Profile(
        summary="", matrix=SEEDS, exclude=[{"seed": 3, "other": 9}],
        models={"m": ModelSource(step="s", at={"seed": 5, "other": 9})},
    )  # fmt: skip
    made = shift_seeds(profile, 10, where="w")
    assert made.matrix == {
        "seed": [10, 12], "pair": [{"id": "a", "seed": 11}, {"id": "b"}], "other": [9, "x"],
    }  # fmt: skip
    assert made.exclude == [{"seed": 10, "other": 9}]
    assert made.models["m"].at == {"seed": 12, "other": 9}


@pytest.mark.parametrize(
    ("first", "fine"),
    [(0, True), (-1, False), (LARGEST_SEED - 2, True), (LARGEST_SEED - 1, False)],
)
def test_seeds_stay_whole_and_within_what_libraries_take(first: int, fine: bool) -> None:
    profile = Profile(summary="", matrix=SEEDS)
    if fine:
        assert min(shift_seeds(profile, first, where="w").matrix["seed"]) == first  # type: ignore[type-var]
        return
    with pytest.raises(UsageError, match="seeds are whole numbers"):
        shift_seeds(profile, first, where="w")


@pytest.mark.parametrize(
    "axes", [{}, {"a": [1]}, {"seed": ["x"]}, {"seed": [1, "x"]}, {"seed": [True]}]
)
def test_without_whole_seeds_nothing_moves(axes: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="has nothing to move"):
        shift_seeds(Profile(summary="", matrix=axes), 1, where="w")


def test_trials_count_from_zero() -> None:
    profile = Profile(summary="", matrix={"trial": [0], "a": ["x"]})
    assert with_trials(profile, 3, where="w").matrix == {"trial": [0, 1, 2], "a": ["x"]}
    with pytest.raises(UsageError, match="no axis 'trial'"):
        with_trials(Profile(summary=""), 3, where="w")


def test_some_values_of_an_axis_are_kept() -> None:
    profile = Profile(summary="", matrix={"a": ["x", "y", {"id": "z"}], "b": [1]})
    assert kept_only(profile, ["a=z,x"], where="w").matrix == {"a": [{"id": "z"}, "x"], "b": [1]}
    assert kept_only(profile, [], where="w") == profile
    for text, said, there in (
        ("a=x,q", "the axis 'a' has no 'q'", "there is: x, y, z"),
        ("c=x", "there is no axis 'c'", "there is: a, b"),
    ):
        with pytest.raises(UsageError, match=said) as caught:
            kept_only(profile, [text], where="w")
        assert caught.value.next_step == there


LINE = '{{"id": "t/a", "unit": "percent", "value": {value}, "seeds": [{seeds}]{more}}}\n'


def lines(*cells: str) -> dict[str, reference_record.Measured]:
    return measured("".join(cells).encode(), "made.jsonl")


def test_values_of_all_runs_stand_under_their_replicates() -> None:
    made = lines(
        '{"run": "r1"}\n\n',
        LINE.format(value=5, seeds='{"seed": "0", "value": 4}, {"seed": "1", "value": 6}', more=""),
        '{"run": "r2"}\n',
        LINE.format(value=7, seeds='{"seed": "2", "value": 7, "labels": "x"}', more=""),
        '{"id": "t/b", "unit": "loss", "value": 1.5}\n',
        '{"id": "t/c", "unit": "loss", "value": null}\n',
        '{"id": "t/d", "unit": "loss", "value": 2, "not_run": "why"}\n',
    )
    assert {id: cell.values for id, cell in made.items()} == {
        "t/a": {"0": 4, "1": 6, "2": 7}, "t/b": {"r2": 1.5},
    }  # fmt: skip
    assert (made["t/a"].labelled, made["t/b"].labelled) == (True, False)
    assert made["t/a"].in_unit("fraction") == {"0": 0.04, "1": 0.06, "2": 0.07}
    assert made["t/b"].in_unit("loss") == {"r2": 1.5}


@pytest.mark.parametrize(
    ("text", "said", "line"),
    [
        ('{"run": "r1"}\n{"id": 3}\n', "is damaged", 2),
        ("\n\n{\n", "is damaged", 3),
        (2 * LINE.format(value=5, seeds='{"seed": "0", "value": 4}', more=""),
         "seed '0' is in two runs", 2),
    ],
)  # fmt: skip
def test_a_line_of_a_record_that_is_wrong_is_named(text: str, said: str, line: int) -> None:
    with pytest.raises(InvalidInput, match=said) as caught:
        lines(text)
    assert caught.value.where == f"made.jsonl:{line}"


@pytest.mark.parametrize(
    ("values", "mean", "sd"),
    [({"0": 4.0}, "4", "0"), ({"0": 4.0, "1": 6.0}, "5", "1.41421356237"),
     ({"0": 0.1, "1": 0.1, "2": 0.1}, "0.1", "0")],
)  # fmt: skip
def test_a_reference_is_mean_and_spread(values: dict[str, float], mean: str, sd: str) -> None:
    made = reference(values, "r.jsonl")
    assert (made.mean, made.sd, made.n_seeds) == (mean, sd, len(values))
    assert (made.seeds, made.record) == (list(values), "r.jsonl")


def test_a_manifest_of_ones_own_opens_the_folder_it_is_in(
    repo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[Path] = []
    own = tmp_path / "mine" / "own.yaml"
    own.parent.mkdir()
    own.write_text((repo / "manifests" / "defensive_tokens" / "demo.yaml").read_text())
    monkeypatch.setattr("kit.manifest.catalog.open_folder", opened.append)
    catalog = Catalog(repo)
    assert catalog.manifest_path(own) == own.resolve()
    assert opened == [own]
    catalog.manifest_path("demo")
    assert opened == [own]
    assert catalog.pins().schema_version == 1
    assert catalog.own_path(own) == own.resolve()
    assert catalog.own_path(catalog.manifest_path("demo")) is None


def test_the_largest_seed_is_numpy_s() -> None:
    np.random.RandomState(LARGEST_SEED)
    with pytest.raises(ValueError, match="Seed must be between"):
        np.random.RandomState(LARGEST_SEED + 1)
