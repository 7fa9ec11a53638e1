"""What becomes of one planted bug: the tests that run its line, quick ones first, until one fails.

After them the other tests of the files that name its module, for what is shared between tests or
runs in another program. A bug counts as noticed only by a test that, run alone, fails with it and
passes without it, in the same environment: not by what fails anyway, for a library that is not
there, for the clock of a busy machine or for what an earlier test left behind.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any

from tests.mutants.covered import Map, declares
from tests.mutants.fork import Ran, forked
from tests.mutants.plant import Mutant

COVERING_SECONDS = 80.0
"""Of tests that run the line of a bug, as measured without it: at most, the quickest first."""
OTHER_SECONDS = 40.0
"""Of tests beside them, in the likeliest files."""
OTHER_FILES = 8
DEFAULTS = ("tests/test_defaults.py",)
"""Files that look at what every module declares."""
BATCHES = (4.0, 20.0, 60.0)
"""Seconds of the tests that are run together, first to last."""


def likely(mutant: Mutant, root: Path) -> list[str]:
    """Test files for a mutant, the likeliest first.

    Those that name its module, those of its room that name its function, and those of its room's
    mirror.
    """
    module = mutant.path.removesuffix(".py").removesuffix("/__init__")
    *package, stem = module.split("/")
    dotted, parent = module.replace("/", "."), ".".join(package)
    names = re.compile(rf"{re.escape(dotted)}\b|from {re.escape(parent)} import [^\n]*\b{stem}\b")
    function = mutant.function.split(".")[-1] if mutant.function else ""
    room = f"tests/{package[1]}/" if len(package) > 1 else "tests/test_"
    scored: list[tuple[float, str]] = []
    for name, text in _files(root):
        score = 8.0 * bool(names.search(text)) + 4.0 * (stem.strip("_") in Path(name).stem)
        score += 4.0 * (len(function) > 3 and function.strip("_") in text)
        score += 8.0 * (package[1:] == ["cli"] and f'"{stem}"' in text)  # a command, called
        score += 3.0 * name.startswith(room) + 1.0 * name.startswith(
            "/".join(["tests", *package[1:]])
        )
        if score >= 3:
            scored.append((-score, name))
    return [name for _, name in sorted(scored)]


@lru_cache(maxsize=4)
def _files(root: Path) -> tuple[tuple[str, str], ...]:
    """Files of tests that ``make test`` runs, with their text."""
    made = []
    for path in sorted((root / "tests").rglob("test_*.py")):
        text = path.read_text(encoding="utf-8")
        if "pytestmark = " not in text or not re.search(r"mark\.(gpu|slurm|image|slow)", text):
            made.append((str(path.relative_to(root)), text))
    return tuple(made)


def files_of_tests(root: Path) -> list[str]:
    """Files of tests that ``make test`` runs, the longest text first."""
    return [name for name, text in sorted(_files(root), key=lambda one: -len(one[1]))]


@dataclass
class Bench:
    """A copy of the repository that takes one bug at a time.

    Attributes:
        tree: The copy.
        map: Which tests run what.
        until: ``time.monotonic()`` at which everything stops.
        shaky: Tests that failed in this copy without any bug.
    """

    tree: Path
    map: Map
    until: float
    shaky: set[str] = field(default_factory=set)

    def tried(self, mutant: Mutant) -> dict[str, Any]:
        """What became of one mutant.

        Raises:
            TimeOver: Before it was decided.
        """
        path = self.tree / mutant.path
        source = path.read_text(encoding="utf-8")
        covering = self.map.of(mutant, source)
        files = [*(DEFAULTS if declares(source, mutant.line) else ()), *likely(mutant, self.tree)]
        spent, by, ran, not_run = 0.0, "", 0, [*self.map.failed, *self.shaky]
        try:
            for batch in self._batches(covering, files, set(not_run)):
                by, cpu = self._noticed(mutant, path, source, batch)
                spent, ran = spent + cpu, ran + len(batch)
                if by:
                    break
        finally:
            self._mend(path, source)
        return {
            "path": mutant.path,
            "line": mutant.line,
            "column": mutant.start - (source.rfind("\n", 0, mutant.start) + 1),
            "function": mutant.function,
            "what": mutant.what,
            "line_text": source.split("\n")[mutant.line - 1].strip(),
            "killed": bool(by),
            "by": by,
            "covering": len(covering),
            "tests": ran,
            "seconds": round(spent),
        }

    def _batches(
        self, covering: list[str], files: list[str], left_out: set[str]
    ) -> Iterator[list[str]]:
        """Tests to be run together: first those that run the line, then the files as wholes."""
        known = self.map.seconds
        first = set(files[:4])
        order = sorted(
            (test for test in covering if test not in left_out),
            key=lambda test: (known[test] + 0.1) * (0.3 if _file(test) in first else 1.0),
        )
        kept, most = list[str](), COVERING_SECONDS
        for test in order:
            if known[test] <= most or not kept:
                kept.append(test)
                most -= known[test]
        done, sizes = set(kept), iter((*BATCHES, *[BATCHES[-1]] * 99))
        yield from _cut(kept, known, sizes)
        beside = dict.fromkeys([*files, *map(_file, kept)])
        others, most = [], OTHER_SECONDS
        for file in islice((one for one in beside if one not in left_out), OTHER_FILES):
            inside = [test for test in known if _file(test) == file]
            for test in sorted(set(inside) - done - left_out, key=lambda test: known[test]):
                if known[test] <= most:
                    others.append(test)
                    most -= known[test]
        yield from _cut(others, known, iter([OTHER_SECONDS] * 99))

    def _noticed(
        self, mutant: Mutant, path: Path, source: str, batch: list[str]
    ) -> tuple[str, float]:
        """The test that fails for the bug, empty if none does; seconds of processor time."""
        spent, batch = 0.0, [*batch]
        estimated = sum(self.map.seconds[test] for test in batch)
        most = 30 + 3 * estimated
        while batch:
            times = path.stat()
            path.write_text(mutant.planted(source), encoding="utf-8")
            ran = self._run(batch, most)
            spent += ran.cpu
            if ran.ended and not ran.failed:
                return "", spent
            failed = _first(ran, batch)
            alone = self._run([failed], most) if ran.ended and len(batch) > 1 else ran
            self._mend(path, source, times)
            without = self._run([failed] if ran.ended else batch, most / 2)
            spent += without.cpu + (alone.cpu if alone is not ran else 0)
            if without.ended and not without.failed:
                if not ran.ended:
                    return f"{_file(batch[0])} and others do not end", spent
                if alone.failed or not alone.ended:
                    return failed, spent
            if not ran.ended:
                return "", spent
            if without.failed:
                self.shaky.add(failed)
            batch.remove(failed)
        return "", spent

    def _run(self, tests: list[str], most: float) -> Ran:
        files = list(dict.fromkeys(_file(test) for test in tests))
        return forked(self.tree, files, until=self.until, only=tests, cpu_seconds=most)

    @staticmethod
    def _mend(path: Path, source: str, times: os.stat_result | None = None) -> None:
        """The file as it was; with its times its bytecode holds again."""
        if path.read_text(encoding="utf-8") != source:
            path.write_text(source, encoding="utf-8")
        if times:
            os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def _first(ran: Ran, batch: list[str]) -> str:
    """The first test that failed, or that of a file which could not be read."""
    for name in ran.failed:
        for test in batch:
            if name in (test, _file(test)):
                return test
    return batch[0]


def _file(test: str) -> str:
    return test.partition("::")[0]


def _cut(
    tests: list[str], seconds: dict[str, float], sizes: Iterator[float]
) -> Iterator[list[str]]:
    """Consecutive tests of about so many seconds."""
    batch: list[str] = []
    size, total = next(sizes), 0.0
    for test in tests:
        if batch and total + seconds[test] > size:
            yield batch
            batch, total, size = [], 0.0, next(sizes)
        batch.append(test)
        total += seconds[test]
    if batch:
        yield batch
