"""Every step loads models and tokenizers through the checked loader, which refuses as input."""

from __future__ import annotations

import ast
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import kit.steps
from kit.engine.registry import PinInput
from kit.errors import EXIT_INVALID, InvalidInput
from kit.steps.tampering.kinds import run_attack, run_fine_tune
from kit.steps.tar.kinds import run_safeguard, run_train
from tests.steps.contexts import FakeContext

STEPS = Path(kit.steps.__file__).parent
LOADERS = {"load_model", "load_tokenizer", "from_pretrained"}


def loaders(source: str) -> set[str]:
    """Names of loaders that a module takes from ``kit.lm.load`` or calls on a class."""
    seen: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and node.module == "kit.lm.load":
            seen |= {name.name for name in node.names} & LOADERS
        if isinstance(node, ast.Attribute) and node.attr == "from_pretrained":
            seen.add(node.attr)
    return seen


@pytest.mark.parametrize(
    "path",
    sorted(set(STEPS.rglob("*.py")) - {STEPS / "common.py"}),
    ids=lambda path: str(path.relative_to(STEPS)),
)
def test_no_step_module_loads_past_the_checks(path: Path) -> None:
    assert not loaders(path.read_text(encoding="utf-8"))


def test_a_way_past_the_checks_is_seen() -> None:
    assert loaders((STEPS / "common.py").read_text(encoding="utf-8")) == LOADERS - {
        "from_pretrained"
    }
    assert loaders("AutoTokenizer.from_pretrained(path)") == {"from_pretrained"}


@pytest.mark.parametrize("run", [run_safeguard, run_train, run_attack, run_fine_tune])
def test_a_folder_without_a_tokenizer_is_wrong_input_and_names_the_model(
    run: Callable[..., None], tmp_path: Path
) -> None:
    """Exit code 4, as for a model with missing weights; a failed step would say 5."""
    folder = tmp_path / "model"
    folder.mkdir()
    context: Any = FakeContext(
        tmp_path / "out", tmp_path / "scratch", {"model": PinInput("m", folder, {})}
    )
    with pytest.raises(InvalidInput, match=r"the model m cannot be used: no tokenizer\.json") as e:
        run(context, SimpleNamespace(dtype="float32", rows=1, engine="single-process"))
    assert e.value.exit_code == EXIT_INVALID
