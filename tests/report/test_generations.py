"""Which responses a report shows, and how much of each."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from kit.errors import InvalidInput
from kit.report import generations
from kit.report.files import Run
from kit.report.generations import FILE, LIMIT, section
from kit.results.files import stored
from tests.report.runs import record, write_run


def rows(set: str, count: int, condition: str = "c") -> list[dict[str, Any]]:
    return [{"set": set, "condition": condition, "id": i, "response": f"{set}{i}"}
            for i in range(count)]  # fmt: skip


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(write_run(tmp_path / "run"))


def write(folder: Path, lines: list[dict[str, Any]]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / FILE).write_text("".join(json.dumps(line) + "\n" for line in lines))


@pytest.mark.parametrize(
    ("most", "shown", "more"),
    [
        (9, ["a0", "b0", "a1", "a2", "b1"], False),
        (5, ["a0", "b0", "a1", "a2", "b1"], False),
        (4, ["a0", "b0", "a1", "a2"], True),
        (2, ["a0", "b0"], True),
        (1, ["a0"], True),
    ],
)
def test_the_first_of_each_set_comes_first(
    run: Run, monkeypatch: pytest.MonkeyPatch, most: int, shown: list[str], more: bool
) -> None:
    monkeypatch.setattr(generations, "MOST", most)
    write(run.path, [*rows("a", 3), *rows("b", 2)])
    made = section(run, show=True)
    assert [each["response"] for each in made["shown"]] == shown
    assert (made["more"], made["kept"], made["show"]) == (more, True, True)
    assert made["shown"][0]["name"] == f"{run.name}, a, c, 0"


def test_files_of_steps_in_the_store_follow_until_the_page_is_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = record()
    (first, step), (second, other) = list(made["steps"].items())[:2]
    for each in (step, other):
        each["outputs"] = {FILE: {"sha256": "b4" * 32, "size": 1}}
        write(stored(tmp_path / "home" / "store", each["key"]), rows("x", 2))
    run = Run(write_run(tmp_path / "run", record=made))
    write(run.path, rows("a", 1))
    whole = section(run, show=True, home=tmp_path / "home")
    assert [each["name"].partition(",")[0] for each in whole["shown"]] == [
        run.name, first, second, first, second,
    ]  # fmt: skip
    monkeypatch.setattr(generations, "MOST", 2)
    cut = section(run, show=True, home=tmp_path / "home")
    assert ([each["response"] for each in cut["shown"]], cut["more"]) == (["a0", "x0"], True)
    (run.path / FILE).unlink()
    without = section(run, show=True)
    assert without == {"show": True, "kept": True, "shown": [], "more": False}, "it is recorded"


def test_nothing_is_read_unless_it_is_asked_for(run: Run) -> None:
    assert section(run, show=False)["kept"] is False
    (run.path / FILE).write_text("no JSON")
    assert section(run, show=False) == {"show": False, "kept": True, "shown": [], "more": False}
    (run.path / "record.json").unlink()
    assert section(Run(run.path), show=False, home=run.path)["kept"] is True


def test_long_texts_are_cut_and_a_line_without_response_is_refused(run: Run) -> None:
    write(run.path, [{"response": "r" * (LIMIT + 1), "data": "d"}, {"response": "", "data": 3}])
    long, bare = section(run, show=True)["shown"]
    assert long["response"].startswith("r" * LIMIT)
    assert "[1 more characters]" in long["response"]
    assert (long["data"], bare["data"]) == ("d", "")
    write(run.path, [*rows("a", 1), {"data": "d"}])
    with pytest.raises(InvalidInput, match="is not a response") as caught:
        section(run, show=True)
    assert caught.value.where.endswith(":2")
