"""The packages that this kit promises to build on are imported by it, and used where imported."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

KIT = Path(__file__).resolve().parents[1] / "kit"
PROMISED = (
    "torch",
    "transformers",
    "vllm",
    "deepspeed",
    "accelerate",
    "datasets",
    "click",
    "jsonschema",
)


def uses(package: str) -> list[str]:
    """``file: name`` of every name that comes from a package and is then used in the same file."""
    found = []
    for path in sorted(KIT.rglob("*.py")):
        if package not in (text := path.read_text(encoding="utf-8")):
            continue
        tree = ast.parse(text)
        used = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
        for node in ast.walk(tree):
            names: list[ast.alias] = []
            if isinstance(node, ast.Import):
                names = [name for name in node.names if name.name.split(".")[0] == package]
            elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == package:
                names = node.names
            bound = {name.asname or name.name.split(".")[0] for name in names}
            found += [f"{path.relative_to(KIT)}: {name}" for name in sorted(bound & used)]
    return found


@pytest.mark.parametrize("package", PROMISED)
def test_a_promised_package_is_used(package: str) -> None:
    assert uses(package), f"nothing in kit/ uses {package}: use it, or promise it no longer"


def test_an_unused_one_is_noticed() -> None:
    assert uses("tensorflow") == []
