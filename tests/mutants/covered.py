"""Which tests run which lines of ``kit/``: measured by coverage.py, a test a context.

Every file of tests is run in a process of its own. What a test runs in a program that it starts is
not seen, and what several tests share (a fixture of the module, a cache) is seen at the first of
them: so a line's tests are where to begin, and its files of tests are run as wholes after them.
"""

from __future__ import annotations

import ast
import difflib
import gzip
import hashlib
import json
import os
import time
from collections import defaultdict
from collections.abc import Generator, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.mutants.fork import forked
from tests.mutants.plant import Mutant

FILE_SECONDS = 90.0
"""Of one file of tests; those of its tests that come later are not measured."""
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
Lines = dict[str, dict[int, list[str]]]


class Measuring:
    """A plugin: the lines that each test runs, written when all have ended.

    Args:
        to: File to write.
        until: ``time.monotonic()`` after which no further test is begun.
    """

    def __init__(self, to: Path, until: float) -> None:
        self.to, self.until = to, until
        self.coverage: Any = None
        self.tree = Path()

    def begin(self, tree: Path) -> None:
        """Before anything of ``kit`` is imported."""
        os.environ.setdefault("COVERAGE_CORE", "ctrace")
        from coverage import Coverage

        self.tree = tree
        self.coverage = Coverage(
            data_file=None, config_file=False, source=[str(tree / "kit")], messages=False
        )
        self.coverage.set_option("run:disable_warnings", ["no-data-collected", "trace-changed"])
        self.coverage.start()

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, Any, Any]:
        """A test with its fixtures."""
        self.coverage.switch_context(item.nodeid)
        try:
            return (yield)
        finally:
            self.coverage.switch_context("")
            if time.monotonic() > self.until:
                item.session.shouldstop = "the time for this file is over"

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self) -> None:
        """Write what was seen."""
        self.coverage.stop()
        data, made = self.coverage.get_data(), {}
        for file in data.measured_files():
            lines = {line: sorted(filter(None, contexts))
                     for line, contexts in data.contexts_by_lineno(file).items()}  # fmt: skip
            if lines := {line: tests for line, tests in lines.items() if tests}:
                made[os.path.relpath(file, self.tree)] = lines
        part = self.to.with_suffix(".part")
        part.write_text(json.dumps(made))
        part.replace(self.to)


@dataclass
class Map:
    """What was measured.

    Attributes:
        seconds: Of each test that passed, with the measuring.
        failed: Tests that fail without any bug, and files that cannot be read.
        lines: Tests by file of ``kit/`` and line.
    """

    seconds: dict[str, float] = field(default_factory=dict)
    failed: list[str] = field(default_factory=list)
    lines: Lines = field(default_factory=dict)

    def of(self, mutant: Mutant, source: str) -> list[str]:
        """Tests that run the line of a bug, or its statement, or for a constant its module."""
        known = self.lines.get(mutant.path, {})
        span = statement(source, mutant.line)
        for lines in ([] if declares(source, mutant.line) else [mutant.line], span or known):
            if tests := {test for line in lines for test in known.get(line, ())}:
                return [test for test in sorted(tests) if test in self.seconds]
        return []


def statement(source: str, line: int) -> range:
    """Lines of the innermost statement at a line; of a function's head, all of the function.

    Of a statement of a module or a class, none: it runs when the module is imported.
    """
    inner, within = _innermost(source, line)
    if inner is None or not within:
        return range(0)
    last = inner.end_lineno or inner.lineno
    if not isinstance(inner, FUNCTIONS) and (body := getattr(inner, "body", None)):
        last = max(inner.lineno, body[0].lineno - 1)
    return range(inner.lineno, last + 1)


def declares(source: str, line: int) -> bool:
    """Whether a line runs at an import: of a module, a class, or the head of a function."""
    inner, within = _innermost(source, line)
    return not within or isinstance(inner, FUNCTIONS)


def _innermost(source: str, line: int) -> tuple[ast.stmt | None, bool]:
    """The innermost statement at a line, and whether it is in a function or the head of it."""
    about: list[ast.stmt] = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.stmt) and node.lineno <= line <= (node.end_lineno or line):
            about.append(node)
    inner = max(about, key=lambda node: node.lineno, default=None)
    return inner, any(isinstance(node, FUNCTIONS) for node in about)


def measure(tree: Path, file: str, to: Path, until: float) -> dict[str, Any]:
    """What the tests of one file run, how long they take, and which fail.

    What fails is run once more without measuring, which some tests do not bear.

    Raises:
        TimeOver: Everything has to stop.
    """
    to.unlink(missing_ok=True)
    last = min(time.monotonic() + FILE_SECONDS, until)
    ran = forked(
        tree, [file], until=until, first=False, cpu_seconds=FILE_SECONDS * 2,
        plugins=[Measuring(to, last)],
    )  # fmt: skip
    lines = json.loads(to.read_text()) if to.is_file() else {}
    failed = [*ran.failed] if ran.ended else [*ran.failed, file]
    if failed:
        again = forked(
            tree, [file], until=until, first=False, cpu_seconds=FILE_SECONDS,
            only=None if file in failed else failed,
        )  # fmt: skip
        failed = [*again.failed] if again.ended else [*again.failed, file]
        ran.seconds.update(again.seconds)
    return {"file": file, "sha": _sha(tree / file), "seconds": ran.seconds, "failed": failed,
            "lines": lines}  # fmt: skip


def _sha(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""


def joined(parts: Iterable[dict[str, Any]]) -> Map:
    """One map of all files."""
    made = Map()
    lines: dict[str, dict[int, list[str]]] = defaultdict(lambda: defaultdict(list))
    for part in parts:
        bad = set(part["failed"])
        made.seconds |= {name: spent for name, spent in part["seconds"].items() if name not in bad}
        made.failed += part["failed"]
        for path, known in part["lines"].items():
            for line, tests in known.items():
                lines[path][int(line)] += tests
    made.lines = {path: dict(known) for path, known in lines.items()}
    return made


def keep(parts: list[dict[str, Any]], file: Path, root: Path) -> None:
    """Write what was measured in a repository, with its sources: for a later run."""
    part = file.with_suffix(".part")
    with gzip.open(part, "wt", encoding="utf-8") as out:
        json.dump({"sources": _sources(root), "parts": parts}, out)
    part.replace(file)


def kept(file: Path, root: Path) -> list[dict[str, Any]]:
    """What was measured before, of files of tests that are the same; nothing where nothing was.

    Where lines of ``kit/`` have moved since, tests move with them; a changed stretch has the tests
    of what stood there.
    """
    if not file.is_file():
        return []
    with gzip.open(file, "rt", encoding="utf-8") as taken:
        made = json.load(taken)
    then, now = made["sources"], _sources(root)
    moves = {path: moved(then[path], now[path]) for path in then.keys() & now.keys()
             if then[path] != now[path]}  # fmt: skip
    parts = [part for part in made["parts"] if part["sha"] == _sha(root / part["file"])]
    for part in parts:
        for path in part["lines"].keys() & moves.keys():
            lines: dict[str, list[str]] = {}
            for line, tests in part["lines"][path].items():
                for other in moves[path].get(int(line), ()):
                    lines[str(other)] = sorted({*lines.get(str(other), ()), *tests})
            part["lines"][path] = lines
    return parts


def moved(then: str, now: str) -> dict[int, list[int]]:
    """Line of a text -> the lines of a later text that stand for it."""
    made: dict[int, list[int]] = defaultdict(list)
    old, new = then.splitlines(), now.splitlines()
    codes = difflib.SequenceMatcher(None, old, new, autojunk=False).get_opcodes()
    for tag, i, j, first, last in codes:
        if tag == "equal":
            for at in range(i, j):
                made[at + 1].append(first + at - i + 1)
        else:
            around = range(i, j) if i < j else range(max(i - 1, 0), i)
            for at in around:
                made[at + 1] += range(first + 1, last + 1)
    return made


def _sources(root: Path) -> dict[str, str]:
    files = sorted((root / "kit").rglob("*.py"))
    return {str(path.relative_to(root)): path.read_text(encoding="utf-8") for path in files}
