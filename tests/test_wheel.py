"""An installed wheel is enough: no clone, no environment variable."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import msgspec
import pytest

ROOT = Path(__file__).resolve().parents[1]
PARTS = ("pyproject.toml", "README.md", "LICENSE", "kit", "manifests", "expected_results")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this tree, built in a copy of it."""
    tree, out = tmp_path_factory.mktemp("tree"), tmp_path_factory.mktemp("wheel")
    unwanted = shutil.ignore_patterns("__pycache__")
    for name in PARTS:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, tree / name, symlinks=True, ignore=unwanted)
        else:
            shutil.copy(source, tree / name)
    build = f"from setuptools import build_meta; build_meta.build_wheel({str(out)!r})"
    subprocess.run([sys.executable, "-W", "ignore", "-c", build], cwd=tree, check=True)
    (made,) = out.glob("*.whl")
    return made


def test_the_wheel_has_every_file_that_describes_something(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    described = [
        path.relative_to(ROOT).as_posix()
        for folder in ("manifests", "expected_results")
        for path in (ROOT / folder).rglob("*")
        if path.is_file()
    ]
    assert len(described) > 80
    assert [name for name in described if f"kit/shipped/{name}" not in names] == []


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Python in which that wheel is installed; the libraries are this one's."""
    folder = tmp_path_factory.mktemp("installed")
    venv.create(folder, symlinks=True)
    (packages,) = folder.glob("lib/python*/site-packages")
    zipfile.ZipFile(wheel).extractall(packages)
    shared = {str(Path(module.__file__).parents[1]) for module in (msgspec, pytest)}
    (packages / "shared.pth").write_text("\n".join(sorted(shared)))
    return folder / "bin" / "python"


def _kit(python: Path, cwd: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environ = {k: v for k, v in os.environ.items() if not k.startswith(("KIT_", "PYTHON"))}
    return subprocess.run(
        [python, "-m", "kit.cli.main", *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=cwd,
        env=environ,
    )


def test_outside_of_any_clone_everything_is_there(python: Path, tmp_path: Path) -> None:
    where = subprocess.run(
        [python, "-c", "import kit; print(kit.__file__)"],
        capture_output=True, text=True, check=True, cwd=tmp_path,
    )  # fmt: skip
    assert not Path(where.stdout.strip()).is_relative_to(ROOT)
    listed = _kit(python, tmp_path, "list")
    assert listed.returncode == 0, listed.stderr
    assert "tiny-adapt" in listed.stdout
    shown = _kit(python, tmp_path, "show", "tiny-adapt")
    assert shown.returncode == 0, shown.stderr
    assert "[primary]" in shown.stdout
    checked = _kit(python, tmp_path, "validate", "-q")
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert _kit(python, tmp_path, "plan", "tiny-adapt").returncode == 0


def test_a_folder_of_ones_own_runs_beside_it(python: Path, tmp_path: Path) -> None:
    assert _kit(python, tmp_path, "new", "paper").returncode == 0
    paper = tmp_path / "paper"
    checked = _kit(python, paper, "validate", ".")
    assert checked.returncode == 0, checked.stdout
    done = _kit(python, paper, "reproduce", "./paper.yaml")
    assert done.returncode == 0, done.stderr
    report = paper / done.stdout.splitlines()[-1]
    assert report.is_file()
    assert report.parent.parent == paper / "runs"
    assert (paper / ".kit" / "store").is_dir()
    kept = _kit(python, paper, "reference", "./paper.yaml", str(report.parent))
    assert kept.returncode == 0, kept.stderr
    assert (paper / "paper.laptop.reference.jsonl").is_file()


@pytest.mark.parametrize("command", [("docs",), ("log", "show")])
def test_what_writes_into_the_repository_says_that_there_is_none(
    python: Path, tmp_path: Path, command: tuple[str, ...]
) -> None:
    found = _kit(python, tmp_path, *command)
    assert found.returncode == 2
    assert "there is none here" in found.stderr
