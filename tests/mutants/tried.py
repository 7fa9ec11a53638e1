"""What becomes of one planted bug: the likeliest files of tests are run until one fails for it.

Each file is run in a process that is forked from this one, where the large libraries are imported
already. A bug counts as noticed only by a test that fails with it and passes without it, in the
same environment: a test that fails anyway, for a library that is not there or for the clock of a
busy machine, is left out, and a file that cannot be collected is written down as not run.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import resource
import sys
import time
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from tests.mutants.plant import Mutant

ROOT = Path(__file__).resolve().parents[2]
CPU_SECONDS = 60
"""Of a file of tests with the bug; it "does not end" if without it half of that is enough."""
WALL_SECONDS = 300
MOST_FILES = 16


class TimeOver(Exception):
    """The time given to the whole was over before this bug was decided."""


@dataclass(frozen=True)
class Ran:
    """How pytest ended over some tests.

    Attributes:
        ended: Within its time.
        failed: Ids of the tests, or names of the files, that failed.
    """

    ended: bool
    failed: tuple[str, ...]


def chosen(mutant: Mutant, root: Path) -> list[str]:
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
    for path in sorted((root / "tests").rglob("test_*.py")):
        text, name = path.read_text(encoding="utf-8"), str(path.relative_to(root))
        if "pytestmark = pytest.mark." in text and re.search(r"mark\.(gpu|slurm|image|slow)", text):
            continue
        score = 8.0 * bool(names.search(text)) + 4.0 * (stem.strip("_") in path.stem)
        score += 4.0 * (len(function) > 3 and function.strip("_") in text)
        score += 8.0 * (package[1:] == ["cli"] and f'"{stem}"' in text)  # a command, called
        score += 3.0 * name.startswith(room) + 1.0 * name.startswith(
            "/".join(["tests", *package[1:]])
        )
        if score >= 3:
            scored.append((-score, name))
    return [name for _, name in sorted(scored)]


@dataclass
class Bench:
    """A copy of the repository that takes one bug at a time.

    Attributes:
        tree: The copy.
        known: Folder, shared by all copies, of what fails without any bug.
        until: ``time.monotonic()`` at which everything stops.
    """

    tree: Path
    known: Path
    until: float

    def tried(self, mutant: Mutant) -> dict[str, Any]:
        """What became of one mutant.

        Raises:
            TimeOver: Before it was decided.
        """
        path = self.tree / mutant.path
        source, times = path.read_text(encoding="utf-8"), path.stat()
        began, by, ran, left_out = time.monotonic(), "", 0, []

        def plant() -> None:
            path.write_text(mutant.planted(source), encoding="utf-8")

        def mend() -> None:
            path.write_text(source, encoding="utf-8")
            os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))  # its bytecode holds again

        try:
            for file in chosen(mutant, self.tree):
                plant()
                by = self._noticed(file, plant, mend)
                if by is None:
                    left_out.append(file)
                    continue
                ran += 1
                if by or ran == MOST_FILES:
                    break
        finally:
            mend()
        return {
            "path": mutant.path,
            "line": mutant.line,
            "column": mutant.start - (source.rfind("\n", 0, mutant.start) + 1),
            "function": mutant.function,
            "what": mutant.what,
            "line_text": source.split("\n")[mutant.line - 1].strip(),
            "killed": bool(by),
            "by": by or "",
            "files": ran,
            "seconds": round(time.monotonic() - began),
        } | ({"not_run": left_out} if left_out else {})

    def _noticed(self, file: str, plant: Any, mend: Any) -> str | None:
        """The test of a file that fails for the bug; empty if none does, None if it cannot run."""
        while True:
            bad = self._failing_anyway(file)
            if file in bad:
                return None
            ran = self.run([file], leave_out=bad)
            if ran.ended and not ran.failed:
                return ""
            mend()
            if not ran.ended:
                without = self.run([file], cpu_seconds=CPU_SECONDS // 2, leave_out=bad)
                return f"{file} does not end" if without.ended else None
            if not self.run([ran.failed[0]]).failed:
                return ran.failed[0]
            whole = self.run([file], first=False)
            found = {*bad, ran.failed[0], *(whole.failed if whole.ended else [file])}
            self._remember(file, found)
            plant()

    def _failing_anyway(self, file: str) -> set[str]:
        kept = self.known / f"{file.replace('/', '+')}.json"
        return set(json.loads(kept.read_text())) if kept.is_file() else set()

    def _remember(self, file: str, tests: set[str]) -> None:
        kept = self.known / f"{file.replace('/', '+')}.json"
        part = kept.with_suffix(f".{os.getpid()}")
        part.write_text(json.dumps(sorted(tests)))
        part.replace(kept)

    def run(
        self,
        tests: list[str],
        *,
        first: bool = True,
        cpu_seconds: int = CPU_SECONDS,
        leave_out: set[str] | frozenset[str] = frozenset(),
    ) -> Ran:
        """Pytest over files or single tests, in a fork; to the first failure or all of them."""
        said = self.tree.parent / f"{self.tree.name}-said.txt"
        options = [*(["-x"] if first else []), *(f"--deselect={one}" for one in sorted(leave_out))]
        status = self._forked([*options, *tests], said, cpu_seconds)
        text = said.read_text(errors="replace")
        failed = re.findall(r"^(?:FAILED|ERROR) (.+?)(?: - .*)?$", text, re.MULTILINE)
        if status > 0 and not failed:  # it broke before the first test, with the bug or without
            failed = [tests[0].partition("::")[0]]
        return Ran(status >= 0, tuple(failed))

    def _forked(self, arguments: list[str], said: Path, cpu_seconds: int) -> int:
        """Exit status of pytest in a fork; negative when its time was over."""
        pid = os.fork()
        if pid == 0:
            os.setpgid(0, 0)
            resource.setrlimit(resource.RLIMIT_CPU, (cpu_seconds, cpu_seconds + 5))
            with said.open("w") as out:
                os.dup2(out.fileno(), 1)
                os.dup2(out.fileno(), 2)
            _in_child(arguments, self.tree)
        deadline = min(time.monotonic() + WALL_SECONDS, self.until)
        done = status = 0
        try:
            while not done and time.monotonic() < deadline:
                done, status = os.waitpid(pid, os.WNOHANG)
                if not done:
                    time.sleep(0.05)
        finally:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(pid, 9)  # and what its tests have started
            if not done:
                _, status = os.waitpid(pid, 0)
        if not done and time.monotonic() >= self.until:
            raise TimeOver
        return -1 if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)


def _in_child(arguments: list[str], tree: Path) -> NoReturn:
    """Run the tests of the copy, whose packages are not the ones that this module came from."""
    code = 3
    try:
        os.chdir(tree)
        sys.stdout, sys.stderr = (os.fdopen(of, "w", closefd=False) for of in (1, 2))
        sys.path[:] = [str(tree), *(path for path in sys.path if path not in ("", str(ROOT)))]
        others = [
            p for p in os.environ.get("PYTHONPATH", "").split(":") if p not in ("", str(ROOT))
        ]
        os.environ["PYTHONPATH"] = ":".join([str(tree), *others])
        os.environ["PYTHONDONTWRITEBYTECODE"] = "1"  # two bugs within a second look the same
        os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
        sys.dont_write_bytecode = True
        for name in [name for name in sys.modules if name.partition(".")[0] in ("tests", "kit")]:
            del sys.modules[name]
        import pytest

        options = ["-q", "-p", "no:cacheprovider", "--no-header", "-rfE"]
        options += ["-p", "pytest_timeout", "-p", "_hypothesis_pytestplugin"]
        options += ["-W", "ignore:Module already imported:pytest.PytestAssertRewriteWarning"]
        code = int(pytest.main([*options, f"--basetemp={tree / 'tmp'}", *arguments]))
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0 if code == 5 else code)
