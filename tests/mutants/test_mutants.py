"""What counts as noticed: a test that fails with the bug and passes without it."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from tests.mutants import run
from tests.mutants.covered import joined, keep, kept, measure, statement
from tests.mutants.fork import ROOT, TimeOver
from tests.mutants.plant import Mutant, mutants, sample
from tests.mutants.rules import RULES, rule
from tests.mutants.tried import Bench, files_of_tests

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
    "tests/test_other.py": "def test_by_another_way():\n    import kit.room.sums as one\n"
    "    assert one.unused(1) == 2\n",
}
SUMS, OTHER = "tests/room/test_sums.py", "tests/test_other.py"


def written(tree: Path) -> Path:
    """A repository of two small functions, and tests of which one fails and one cannot be read."""
    for name, text in {"kit/room/sums.py": SOURCE, **TESTS}.items():
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_text(text)
    return tree


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What is measured in it."""
    tree, end = written(tmp_path_factory.mktemp("measured") / "tree"), time.monotonic() + 120
    files = files_of_tests(tree)
    return [measure(tree, file, tree.parent / "lines.json", end) for file in files]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """That repository."""
    return written(tmp_path / "tree")


@pytest.fixture
def bench(tree: Path, parts: list[dict[str, Any]]) -> Bench:
    """That repository with its map."""
    return Bench(tree, joined(parts), time.monotonic() + 120)


def planted(what: str) -> Mutant:
    return next(one for one in mutants("kit/room/sums.py", SOURCE) if one.what == what)


def test_a_map_knows_the_tests_of_each_line(bench: Bench) -> None:
    both = [f"{SUMS}::test_broken_anyway", f"{SUMS}::test_larger"]
    other = [f"{OTHER}::test_by_another_way"]
    lines = {2: both, 4: both, 8: other, 1: other, 7: other}  # the last two at an import
    assert bench.map.lines == {"kit/room/sums.py": lines}
    assert set(bench.map.failed) == {f"{SUMS}::test_broken_anyway", "tests/room/test_gone.py"}
    assert set(bench.map.seconds) == {f"{SUMS}::test_larger", f"{OTHER}::test_by_another_way"}


def test_only_a_test_that_passes_without_it_notices_a_bug(bench: Bench) -> None:
    entry = bench.tried(planted("> becomes >="))
    assert not entry["killed"]  # equal numbers: nobody asks, and two tests fail anyway
    assert (entry["covering"], entry["tests"]) == (1, 2)
    entry = bench.tried(planted("the condition is turned round"))
    assert entry["by"] == f"{SUMS}::test_larger"
    assert (entry["line"], entry["column"], entry["function"]) == (2, 7, "larger")
    entry = bench.tried(planted("+ becomes -"))
    assert entry["by"] == f"{OTHER}::test_by_another_way"  # which names neither file nor function
    assert (bench.tree / "kit/room/sums.py").read_text() == SOURCE


def test_a_test_that_fails_only_after_others_notices_nothing(bench: Bench, tree: Path) -> None:
    (tree / SUMS).write_text(
        "from kit.room.sums import larger\n\nseen = []\n\n"
        "def test_larger():\n    seen.append(larger(1, 2))\n\n"
        "def test_after_it():\n    assert larger(1, 2) == 2 or not seen\n"
    )
    tests = [f"{SUMS}::test_larger", f"{SUMS}::test_after_it"]
    bench.map.seconds |= dict.fromkeys(tests, 0.0)
    bench.map.lines["kit/room/sums.py"][2] = tests
    assert not bench.tried(planted("the condition is turned round"))["killed"]


def test_a_map_moves_with_the_lines(
    tree: Path, parts: list[dict[str, Any]], tmp_path: Path
) -> None:
    file, path = tmp_path / "kept.map.gz", tree / "kit/room/sums.py"
    keep(parts, file, tree)
    lines = joined(kept(file, tree)).lines["kit/room/sums.py"]
    assert lines == joined(parts).lines["kit/room/sums.py"]
    path.write_text("import os\n\n" + SOURCE.replace("return a + 1", "b = a\n    return b + 1"))
    later = joined(kept(file, tree)).lines["kit/room/sums.py"]
    assert (later[4], later[6]) == (lines[2], lines[4])
    assert later[10] == later[11] == lines[8]
    (tree / OTHER).write_text("def test_nothing():\n    pass\n")
    assert {part["file"] for part in kept(file, tree)} == {SUMS, "tests/room/test_gone.py"}
    assert kept(tmp_path / "none.map.gz", tree) == []


def test_no_time_is_no_verdict(bench: Bench) -> None:
    with pytest.raises(TimeOver):
        Bench(bench.tree, bench.map, time.monotonic()).tried(planted("+ becomes -"))
    assert (bench.tree / "kit/room/sums.py").read_text() == SOURCE


@pytest.mark.parametrize(
    ("line", "lines"),
    [
        (1, [*range(1, 10)]),
        (2, [*range(1, 10)]),
        (4, [4, 5, 6]),
        (6, [4, 5, 6]),
        (8, [8]),
        (9, [9]),
        (10, []),
        (13, []),
    ],
)
def test_the_statement_about_a_line(line: int, lines: list[int]) -> None:
    source = (
        "def a(\n    b=1,\n):\n    if (b\n            and [c for c in b]\n            or 2):\n"
        "        pass\n    for d in b:\n        return 1\n\nclass E:\n    f: int = 1\n    g = 2\n"
    )
    assert list(statement(source, line)) == lines


@pytest.mark.parametrize(
    ("source", "old", "name"),
    [
        ("a = zip(b, c, strict=True)", "True", "invariant"),
        ("a = zip(b, c, strict=False)", "False", None),
        ("a = {f(b, strict=True)}", "True", None),
        ("time.sleep(2 + b)", "2", "speed"),
        ("_POLL_SECONDS = 0.2", "0.2", "speed"),
        ("STEPS = 200", "200", None),
        ("os.fsync(b)", "os.fsync(b)", "durability"),
        ("a = f'{b} row' + ('s' if b != 1 else '')", "1", "plural"),
        ("a = 'é' + ('reproduced' if b != 1 else 'deviates')", "1", None),
        ("if a.device.type == 'cuda':\n    b = 1\nelse:\n    b = 2", "1", "gpu"),
        ("if a.device.type == 'cuda':\n    b = 1\nelse:\n    b = 2", "2", None),
        ("if a.device.type == 'cuda':\n    b = 1", "a.device.type == 'cuda'", None),
        ("torch.cuda.synchronize()", "torch.cuda.synchronize()", "gpu"),
        ("def __repr__(self):\n    return 1", "1", "repr"),
    ],
)
def test_the_rules_exclude_no_more_than_they_say(source: str, old: str, name: str | None) -> None:
    start = source.index(old)
    assert rule("kit/room/sums.py", source, start, start + len(old)) == name


@pytest.mark.parametrize(
    ("path", "source", "old", "name"),
    [
        ("kit/report/markdown.py", "MOST_ROWS = 40", "40", "limit"),
        ("kit/report/markdown.py", "shown = rows[:MOST_ROWS + 1]", "1", None),
        ("kit/steps/defensive_tokens/training.py", "MOST_MASKED = 0.01", "0.01", None),
        ("kit/report/figures/forest.py", "return draw(name, 7.2, 0.75)", "7.2", "drawing"),
        ("kit/report/figures/forest.py", "ax.set_ylim(4, -0.6)", "4", None),
        ("kit/report/gallery.py", "draw(name, 7.2)", "7.2", None),
    ],
)
def test_limits_and_sizes_are_excluded_where_they_are(
    path: str, source: str, old: str, name: str | None
) -> None:
    start = source.index(old)
    assert rule(path, source, start, start + len(old)) == name


def test_a_sample_counts_what_it_leaves_out() -> None:
    every, excluded = sample(ROOT, 150, 1)
    assert len(every) == 150
    assert set(excluded) <= set(RULES)
    assert sum(excluded.values()) < 10
    again, _ = sample(ROOT, 40, 1)
    assert again == every[:40]


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
