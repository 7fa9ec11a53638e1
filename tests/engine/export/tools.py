"""Programs of other engines that the tests run: on the PATH, or in the folder KIT_TEST_TOOLS."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]


def tool(name: str) -> str:
    """The program's path; the test is skipped where it is not installed."""
    folders = os.pathsep.join(filter(None, [os.environ.get("KIT_TEST_TOOLS"), os.environ["PATH"]]))
    found = shutil.which(name, path=folders)
    if found is None:
        pytest.skip(f"{name} is not installed: `make test-exports` brings it")
    return found


def kit_program(folder: Path) -> Path:
    """A program called ``kit`` that runs this checkout, whatever is installed."""
    program = folder / "bin" / "kit"
    program.parent.mkdir(parents=True, exist_ok=True)
    program.write_text(
        f"#!{sys.executable}\n"
        "import sys\n"
        f"sys.path.insert(0, {str(ROOT)!r})\n"
        "from kit.cli.main import main\n"
        "main()\n"
    )
    program.chmod(0o755)
    return program
