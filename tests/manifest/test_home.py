"""Folders of one's own, text that cannot be read, and records of reference runs."""

from __future__ import annotations

import json
import os
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from kit.errors import InvalidInput, UsageError
from kit.manifest import home, text
from kit.manifest.home import MODULES_VARIABLE, open_folder, step_modules
from kit.manifest.matrix import kept_only, with_trials
from kit.manifest.reference_record import measured, read_record, reference
from kit.manifest.types import Profile


@pytest.fixture
def modules(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(MODULES_VARIABLE, "kit.steps")


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ("[project]\nname = 'x'\n", None),
        ("", None),
        ("[tool.other]\nx = 1\n", None),
        ("[tool.kit]\n", []),
        ('[tool.kit]\nsteps = ["a.b", "c"]\n', ["a.b", "c"]),
    ],
)
def test_a_project_names_its_modules(tmp_path: Path, content: str, named: list[str] | None) -> None:
    (tmp_path / "pyproject.toml").write_text(content)
    assert step_modules(tmp_path / "pyproject.toml") == named


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('[tool.kit]\nsteps = "a"\n', "steps is no list of module names"),
        ('[tool.kit]\nsteps = ["a", 1]\n', "steps is no list of module names"),
        ("[tool.kit\n", "it cannot be read"),
    ],
)
def test_a_project_that_cannot_be_read_is_named(tmp_path: Path, content: str, said: str) -> None:
    file = tmp_path / "pyproject.toml"
    file.write_text(content)
    with pytest.raises(InvalidInput, match=said) as caught:
        step_modules(file)
    assert caught.value.where.startswith(str(file))
    with pytest.raises(InvalidInput, match="it cannot be read"):
        step_modules(tmp_path / "none.toml")


def test_a_folder_is_opened_once_and_found_upwards(tmp_path: Path, modules: None) -> None:
    (tmp_path / "pyproject.toml").write_text("[tool.kit]\nsteps = []\n")
    inner = tmp_path / "a" / "b"
    inner.mkdir(parents=True)
    for _ in range(2):
        open_folder(inner / "x.yaml")
        assert os.environ[MODULES_VARIABLE] == f"kit.steps,{tmp_path}"
    (inner / "pyproject.toml").write_text("[project]\n")
    open_folder(inner)
    assert os.environ[MODULES_VARIABLE] == f"kit.steps,{tmp_path}", "the nearest counts"


def test_a_folder_with_a_comma_is_refused_where_it_has_steps(tmp_path: Path, modules: None) -> None:
    folder = tmp_path / "a,b"
    folder.mkdir()
    open_folder(folder)
    (folder / "pyproject.toml").write_text("[tool.kit]\n")
    with pytest.raises(UsageError, match="no comma"):
        open_folder(folder)
    assert os.environ[MODULES_VARIABLE] == "kit.steps"


def test_what_writes_needs_a_repository(monkeypatch: pytest.MonkeyPatch, repo: Path) -> None:
    assert home.writable_root() == repo
    monkeypatch.setattr(home, "shipped_root", lambda: repo)
    with pytest.raises(UsageError, match="writes into the kit's repository"):
        home.writable_root()


def test_text_that_cannot_be_read_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text, "MAX_BYTES", 10)
    file = tmp_path / "x.yaml"
    for content, said in (
        (b"0123456789", None), (b"0123456789a", "11 bytes; the limit is 10"),
        (b"a\nb\xff", "not UTF-8: byte 0xff"),
    ):  # fmt: skip
        file.write_bytes(content)
        if said is None:
            assert text.read_text(file) == content.decode()
            continue
        with pytest.raises(InvalidInput, match=said) as caught:
            text.read_text(file)
    assert caught.value.where.endswith("x.yaml:2:2")
    file.write_bytes(b"\xef\xbb\xbfa")
    assert text.read_text(file) == "a"
    with pytest.raises(InvalidInput, match="this is a folder"):
        text.read_text(tmp_path)
    with pytest.raises(InvalidInput, match="no such file"):
        text.read_text(tmp_path / "none")
    with pytest.raises(InvalidInput, match="cannot be read: Not a directory"):
        text.read_text(file / "x")
    with pytest.raises(InvalidInput, match="cannot be read: embedded null"):
        text.read_text(Path("a\0b"))


def test_a_file_that_grows_while_it_is_read_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pipe or a device has no size; what comes is bounded all the same."""
    monkeypatch.setattr(text, "MAX_BYTES", 10)
    os.mkfifo(tmp_path / "pipe")
    writer = Thread(target=(tmp_path / "pipe").write_bytes, args=(b"0123456789ab",))
    writer.start()
    with pytest.raises(InvalidInput, match="the limit is 10"):
        text.read_text(tmp_path / "pipe")
    writer.join()


# -- profiles that are cut

PROFILE = Profile(summary="s", matrix={"trial": [0], "pair": [{"id": "a", "x": 1}, "b"], "n": [5]})


def test_trials_are_counted_where_there_is_their_axis() -> None:
    made = with_trials(PROFILE, 3, where="x")
    assert made.matrix == {**PROFILE.matrix, "trial": [0, 1, 2]}
    with pytest.raises(UsageError, match="no axis 'trial'"):
        with_trials(Profile(summary="s"), 3, where="x")


def test_an_axis_is_cut_to_what_is_kept() -> None:
    made = kept_only(PROFILE, ["pair=b,a", "n=5"], where="x")
    assert made.matrix == {**PROFILE.matrix, "pair": ["b", {"id": "a", "x": 1}]}
    for text_, said, hint in (
        ("pair=c", "the axis 'pair' has no 'c'", "there is: a, b"),
        ("pair=a,c", "the axis 'pair' has no 'c'", "there is: a, b"),
        ("q=c", "there is no axis 'q'", "there is: trial, pair, n"),
    ):
        with pytest.raises(UsageError, match=said) as caught:
            kept_only(PROFILE, [text_], where="w")
        assert (caught.value.next_step, caught.value.where) == (hint, "w")


# -- records of reference runs


def lines(*items: dict[str, Any]) -> bytes:
    return b"".join(json.dumps(item).encode() + b"\n" for item in items)


RUN = {"run": "r1"}
CELL = {"id": "t/a", "unit": "percent", "value": 10.0}


def test_values_are_those_of_replicates_or_of_runs() -> None:
    seeds = [{"seed": "0", "value": 1.0}, {"seed": "1", "value": 3.0, "labels": "l"}, {"seed": "2"}]
    made = measured(
        lines(RUN, CELL, CELL | {"id": "t/b", "seeds": seeds}, {"run": "r2"},
              CELL | {"value": 20.0},
              CELL | {"id": "t/c", "value": None}, CELL | {"id": "t/d", "not_run": "n"},
              CELL | {"id": "t/e", "seeds": [{"seed": "0"}]}) + b"\n",
        "x",
    )  # fmt: skip
    assert {id: cell.values for id, cell in made.items()} == {
        "t/a": {"r1": 10.0, "r2": 20.0}, "t/b": {"0": 1.0, "1": 3.0},
    }  # fmt: skip
    assert (made["t/a"].labelled, made["t/b"].labelled) == (False, True)
    assert made["t/a"].in_unit("fraction") == pytest.approx({"r1": 0.1, "r2": 0.2})
    assert made["t/a"].in_unit("loss") == made["t/a"].values


def test_a_replicate_stands_once_and_damage_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="cell t/a: seed 'r1' is in two runs") as caught:
        measured(lines(RUN, CELL, CELL), "x")
    assert caught.value.where == "x:3"
    with pytest.raises(InvalidInput, match="is damaged") as caught:
        measured(lines(RUN) + b"{\n", "x")
    assert caught.value.where == "x:2"
    with pytest.raises(InvalidInput, match="cannot be read"):
        read_record(tmp_path / "none")


@pytest.mark.parametrize(
    ("values", "mean", "sd"),
    [((2.0,), "2", "0"), ((1.0, 3.0), "2", "1.41421356237"), ((0.1,) * 3, "0.1", "0")],
)
def test_a_reference_is_mean_and_sample_sd(values: tuple[float, ...], mean: str, sd: str) -> None:
    made = reference({f"s{i}": value for i, value in enumerate(values)}, "r")
    assert (made.mean, made.sd, made.n_seeds, made.record) == (mean, sd, len(values), "r")
    assert made.seeds == [f"s{i}" for i in range(len(values))]
    assert [float(value) for value in made.values] == list(values)
