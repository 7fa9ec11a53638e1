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


FLOORS = (
    {"errors"},
    {"manifest"},
    {"results"},
    {"pins"},
    {"engine"},
    {"steps"},
    {"verify"},
    {"doctor", "lint"},
    {"report"},
    {"cli"},
)
"""From the ground up: a room imports rooms of floors below its own."""


def _upwards(room: str, modules: set[str]) -> set[str]:
    """Those of the modules that lie on the room's floor or above, in another room."""
    floor = {name: height for height, names in enumerate(FLOORS) for name in names}
    rooms = {module: module.split(".")[1] for module in modules if module.startswith("kit.")}
    return {
        m for m, other in rooms.items() if other != room and floor.get(other, -1) >= floor[room]
    }


@pytest.mark.parametrize(
    "path", _files(tuple(r for names in FLOORS[1:] for r in sorted(names))), ids=_name
)
def test_imports_run_downwards(path: Path) -> None:
    room = path.relative_to(KIT).parts[0]
    assert not _upwards(room, _imports(path, at_import_time=False))


def test_an_arrow_that_runs_up_is_seen() -> None:
    up = {"kit.engine.planner", "kit.lint", "kit.results.run", "kit.manifest.load", "torch"}
    assert _upwards("manifest", up) == {"kit.engine.planner", "kit.lint", "kit.results.run"}
    assert _upwards("lint", up | {"kit.doctor.gpus"}) == {"kit.doctor.gpus"}
    assert _upwards("cli", up) == set()


UNWANTED = {
    "one", "found", "told", "case", "tally", "drive", "nodes", "orphans", "unseen", "place",
    "leftovers",
}  # fmt: skip
"""Names that say nothing of what they hold."""
CLUSTER = (
    "engine/launch.py",
    "engine/torchrun.py",
    "engine/one_step.py",
    "cli/step.py",
    "cli/plan.py",
)
"""Where ``nodes`` are a cluster's."""


def _unwanted(path: Path) -> list[str]:
    """Variables, arguments, functions, classes and attributes that are set with an unwanted name.

    Fields of classes are keys of JSON and YAML, which are contracts: they are left out.
    """
    tree = ast.parse(path.read_text(encoding="utf-8"))
    fields = {
        id(node.target)
        for owner in ast.walk(tree)
        if isinstance(owner, ast.ClassDef)
        for node in owner.body
        if isinstance(node, ast.AnnAssign)
    }
    names: list[tuple[str, int]] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and id(node) not in fields:
            names.append((node.id, node.lineno))
        elif isinstance(node, ast.arg):
            names.append((node.arg, node.lineno))
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.append((node.name, node.lineno))
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            names.append((node.attr, node.lineno))
    return [f"{name}:{line}" for name, line in names if name.lower().strip("_") in UNWANTED]


@pytest.mark.parametrize("path", sorted(KIT.rglob("*.py")), ids=_name)
def test_names_need_no_glossary(path: Path) -> None:
    allowed = ("nodes:", "Nodes:") if _name(path) in CLUSTER else ()
    assert [name for name in _unwanted(path) if not name.startswith(allowed)] == []


def test_an_unwanted_name_is_seen(tmp_path: Path) -> None:
    planted = tmp_path / "planted.py"
    planted.write_text(
        "class Claim:\n    place: str\n\n"
        "def f(place, kept):\n    self.found = [one for one in kept]\n    return claim.place\n"
    )
    assert sorted(_unwanted(planted)) == ["found:5", "one:5", "one:5", "place:4"]


NUMERIC = {"torch", "numpy", "scipy", "math", "statistics", "random"}
OPERATIONS = {
    "abs", "amax", "argmax", "backward", "double", "exp", "float", "item", "log", "matmul", "mean",
    "norm", "pow", "softmax", "sqrt", "square", "std", "sum", "tolist", "var",
}  # fmt: skip
"""Methods of tensors and arrays by which numbers are made."""


def _computing(path: Path) -> list[str]:
    """Where a file computes: libraries of numbers (also inside functions), tensor operations."""
    found = []
    tree = ast.parse(path.read_text(encoding="utf-8"))
    typing_only = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if id(node) in typing_only:
            continue
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [a.name for a in node.names]
            modules = names if isinstance(node, ast.Import) else [str(node.module)]
            found += [m for m in modules if m.split(".")[0] in NUMERIC]
        elif (isinstance(node, ast.BinOp) and isinstance(node.op, ast.MatMult)) or (
            isinstance(node, ast.Call) and getattr(node.func, "attr", "") in OPERATIONS
        ):
            found.append(ast.unparse(node))
    return found


@pytest.mark.parametrize("path", _files(("steps",)), ids=_name)
def test_steps_compute_nothing(path: Path) -> None:
    """A step reads its inputs, calls a method and writes what it gives; numbers are made there."""
    assert _computing(path) == []


def test_computing_is_seen(tmp_path: Path) -> None:
    planted = tmp_path / "planted.py"
    planted.write_text(
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import torch\n"
        "def f(x):\n    import math\n    return x.norm() + (x @ x)\n"
    )
    assert sorted(_computing(planted)) == ["math", "x @ x", "x.norm()"]


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
