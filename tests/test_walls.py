"""The walls of the house (docs/architecture.md), read off the imports."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

KIT = Path(__file__).resolve().parents[1] / "kit"
HEAVY = {"torch", "transformers", "vllm", "deepspeed", "datasets", "accelerate", "peft"}
LIGHT_ROOMS = (
    "results",
    "manifest",
    "pins",
    "engine",
    "verify",
    "report",
    "lint",
    "doctor",
    "cli",
    "steps",
)
LIBRARY_ROOMS = ("methods", "tampering", "train", "evals", "lm")
MACHINERY = tuple(
    f"kit.{room}"
    for room in ("engine", "manifest", "pins", "cli", "steps", "verify", "report", "lint", "doctor")
)


def _imports(path: Path, *, at_import_time: bool) -> set[str]:
    """Modules that a file imports; those inside functions and TYPE_CHECKING only on request."""
    found: set[str] = set()

    def visit(node: ast.AST) -> None:
        if at_import_time and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            return
        if at_import_time and isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            return
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            found.add(node.module)
        for child in ast.iter_child_nodes(node):
            visit(child)

    visit(ast.parse(path.read_text(encoding="utf-8")))
    return found


def _files(rooms: tuple[str, ...]) -> list[Path]:
    return [path for room in rooms for path in sorted((KIT / room).rglob("*.py"))]


def _name(path: Path) -> str:
    return path.relative_to(KIT).as_posix()


@pytest.mark.parametrize("path", _files(LIGHT_ROOMS), ids=_name)
def test_light_rooms_import_nothing_heavy(path: Path) -> None:
    heavy = {m for m in _imports(path, at_import_time=True) if m.split(".")[0] in HEAVY}
    assert not heavy


@pytest.mark.parametrize("path", _files(LIBRARY_ROOMS), ids=_name)
def test_library_rooms_do_not_know_the_machinery(path: Path) -> None:
    known = {m for m in _imports(path, at_import_time=False) if m.startswith(MACHINERY)}
    assert not known


@pytest.mark.parametrize("path", sorted(KIT.rglob("*.py")), ids=_name)
def test_no_file_is_long(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 500


@pytest.mark.parametrize("path", _files(("results", "verify", "report")), ids=_name)
def test_what_reads_a_run_does_not_know_what_runs_it(path: Path) -> None:
    above = ("kit.engine", "kit.steps", "kit.methods", "kit.cli")
    assert not {m for m in _imports(path, at_import_time=False) if m.startswith(above)}


def test_the_check_sees_an_import(tmp_path: Path) -> None:
    """The test above can fail: a planted import is found, a deferred one is told apart."""
    planted = tmp_path / "planted.py"
    planted.write_text("import torch\ndef f():\n    import vllm\n")
    assert _imports(planted, at_import_time=True) == {"torch"}
    assert _imports(planted, at_import_time=False) == {"torch", "vllm"}


def test_importing_the_steps_loads_no_torch() -> None:
    code = "import sys, kit.steps, kit.cli.main; print(any(m in sys.modules for m in ('torch',)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
