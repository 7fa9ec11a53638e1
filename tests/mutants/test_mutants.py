"""What counts as noticed: a test that fails with the bug and passes without it."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from tests.mutants import run
from tests.mutants.plant import Mutant, mutants
from tests.mutants.tried import ROOT, Bench, TimeOver

SOURCE = """def larger(a, b):
    if a > b:
        return a
    return b


def unused(a):
    return a + 1
"""
TESTS = {
    "tests/room/test_sums.py": "from kit.room.sums import larger\n\n"
    "def test_broken_anyway():\n    assert larger(1, 2) == 5\n\n"
    "def test_larger():\n    assert larger(1, 2) == 2\n",
    "tests/room/test_gone.py": "import no_such_library\nfrom kit.room import sums\n",
}


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    """A repository of one function that is tested, one that is not, and tests that cannot pass."""
    tree, known = tmp_path / "tree", tmp_path / "known"
    known.mkdir()
    for name, text in {"kit/room/sums.py": SOURCE, **TESTS}.items():
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_text(text)
    return Bench(tree, known, time.monotonic() + 120)


def planted(what: str) -> Mutant:
    return next(one for one in mutants("kit/room/sums.py", SOURCE) if one.what == what)


def test_only_a_test_that_passes_without_it_notices_a_bug(bench: Bench) -> None:
    entry = bench.tried(planted("> becomes >="))
    assert not entry["killed"]  # equal numbers: nobody asks, and two tests fail anyway
    assert entry["not_run"] == ["tests/room/test_gone.py"]
    entry = bench.tried(planted("the condition is turned round"))
    assert entry["by"] == "tests/room/test_sums.py::test_larger"
    assert (entry["line"], entry["column"], entry["function"]) == (2, 7, "larger")
    entry = bench.tried(planted("+ becomes -"))
    assert (entry["killed"], entry["files"]) == (False, 1)
    assert (bench.tree / "kit/room/sums.py").read_text() == SOURCE


def test_no_time_is_no_verdict(bench: Bench) -> None:
    with pytest.raises(TimeOver):
        Bench(bench.tree, bench.known, time.monotonic()).tried(planted("+ becomes -"))
    assert (bench.tree / "kit/room/sums.py").read_text() == SOURCE


def test_a_record_tells_the_first_pass_from_what_was_mended() -> None:
    path = "kit/room/a.py"
    entries = [
        {"path": path, "killed": True},
        {"path": path, "killed": True, "survived_first": True},
        {"path": path, "killed": False},
        {"path": path, "killed": False, "equivalent": "no input makes a difference"},
    ]
    made = run.summary(entries)
    assert (made["real"], made["killed_first"], made["killed"]) == (3, 1, 2)
    assert (made["share_first"], made["share"]) == (0.3333, 0.6667)
    assert made["rooms"] == {"room": {"killed": 2, "none": 1, "survived": 1}}


def test_most_bugs_that_once_lived_can_be_planted_today() -> None:
    every = json.loads((ROOT / "tests/mutants/named.json").read_text())
    assert len(run.named(ROOT)) > len(every) / 2


def test_an_entry_is_the_same_bug_when_its_lines_have_moved(bench: Bench) -> None:
    entry = bench.tried(planted("+ becomes -"))
    path = bench.tree / "kit/room/sums.py"
    path.write_text("\n\n" + SOURCE)
    again = run.same(entry, bench.tree)
    assert again is not None
    assert again.planted(path.read_text()) == "\n\n" + SOURCE.replace("a + 1", "a  -  1")
    path.write_text(SOURCE.replace("a + 1", "a + 2"))
    assert run.same(entry, bench.tree) is None
