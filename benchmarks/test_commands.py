"""How long the commands take that somebody waits for: whole processes, as they are typed.

Run by ``make bench``; ``ARGS=--benchmark-json=FILE`` keeps a record. Nothing is asserted about
seconds; what keeps the commands quick (no heavy import, nothing computed twice) is held by the
tests of ``tests/cli`` and ``tests/engine``.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

ROOT = Path(__file__).parents[1]
LINES = (
    "--help",
    "list",
    "show tiny-adapt",
    "plan tiny-adapt",
    "plan tiny-adapt --profile paper",
)


def kit(home: Path, *arguments: str) -> str:
    """One command in a process of its own; returns what it prints."""
    done = subprocess.run(
        [sys.executable, "-m", "kit.cli.main", *arguments],
        check=True,
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "KIT_HOME": str(home), "PYTHONPATH": str(ROOT)},
    )
    return done.stdout


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A finished run of tiny-adapt (mini) and the home with its store; takes a minute or two."""
    folder = tmp_path_factory.mktemp("run")
    printed = kit(folder / "home", "run", "tiny-adapt", "--runs-dir", str(folder / "runs"))
    return ROOT / printed.splitlines()[-1], folder / "home"


@pytest.mark.parametrize("line", LINES)
def test_command(benchmark: BenchmarkFixture, tmp_path: Path, line: str) -> None:
    benchmark.pedantic(kit, (tmp_path, *line.split()), rounds=5, warmup_rounds=1)


def test_run_from_the_store(benchmark: BenchmarkFixture, run: tuple[Path, Path]) -> None:
    folder, home = run
    line = ("run", "tiny-adapt", "--runs-dir", str(folder.parent))
    benchmark.pedantic(kit, (home, *line), rounds=5, warmup_rounds=1)


@pytest.mark.parametrize("command", ["verify", "report"])
def test_of_a_run(benchmark: BenchmarkFixture, run: tuple[Path, Path], command: str) -> None:
    folder, home = run
    benchmark.pedantic(kit, (home, command, str(folder)), rounds=5, warmup_rounds=1)
