"""The science rooms know nothing of the kit's machinery (design page, wall 2)."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import kit

ROOT = Path(kit.__file__).parent
ROOMS = ("lm", "train", "evals", "tampering", "methods/defensive_tokens", "methods/tar")
FORBIDDEN = ("kit.engine", "kit.manifest", "kit.cli", "kit.steps", "kit.verify", "kit.report")
FILES = sorted(file for room in ROOMS for file in (ROOT / room).rglob("*.py"))


def imported(file):
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            yield from (f"{base}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("file", FILES, ids=lambda f: str(f.relative_to(ROOT)))
def test_no_machinery_is_imported(file):
    assert not [name for name in imported(file) if name.startswith(FORBIDDEN)]


def test_the_rooms_have_files():
    assert len(FILES) > 30


@pytest.mark.parametrize(
    "module",
    [
        "kit.lm.chat",
        "kit.lm.prefix",
        "kit.lm.generate",
        "kit.lm.load",
        "kit.methods.defensive_tokens.attacks",
        "kit.methods.defensive_tokens.struq",
        "kit.methods.defensive_tokens.alpaca",
        "kit.methods.defensive_tokens.schedule",
        "kit.methods.defensive_tokens.self_label",
        "kit.methods.defensive_tokens.examples",
        "kit.methods.defensive_tokens.evaluate",
        "kit.methods.defensive_tokens.gather",
    ],
)
def test_modules_about_text_import_no_torch(module):
    code = f"import sys, {module}; print('torch' in sys.modules or 'transformers' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
