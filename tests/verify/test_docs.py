"""The worked examples are executed, and the page has one for every kind."""

from __future__ import annotations

import doctest
import importlib
import pkgutil
from pathlib import Path
from typing import get_args, get_type_hints

import pytest

import kit.verify
from kit.manifest.expectation_types import Claim, Tolerance
from kit.verify.verdict import CellVerdict, ClaimOutcome, RunVerdict

PAGE = Path(__file__).parents[2] / "docs" / "verdicts.md"
MODULES = [m.name for m in pkgutil.walk_packages(kit.verify.__path__, "kit.verify.")]


def test_worked_examples() -> None:
    outcome = doctest.testfile(str(PAGE), module_relative=False)
    assert outcome.attempted > 40
    assert outcome.failed == 0


EXAMPLES = [
    name
    for name in MODULES
    if any(test.examples for test in doctest.DocTestFinder().find(importlib.import_module(name)))
]


def test_there_are_docstring_examples() -> None:
    assert len(EXAMPLES) >= 3


@pytest.mark.parametrize("name", EXAMPLES)
def test_docstring_examples(name: str) -> None:
    outcome = doctest.testmod(importlib.import_module(name))
    assert outcome.attempted > 0
    assert outcome.failed == 0


def test_the_page_has_every_kind_and_word() -> None:
    text = PAGE.read_text()
    for kind in get_args(get_type_hints(Tolerance)["kind"]):
        assert f"\n### {kind}\n" in text
    for kind in get_args(get_type_hints(Claim)["kind"]):
        assert f"\n`{kind}`: " in text
    for word in (*get_args(CellVerdict), *get_args(ClaimOutcome), *get_args(RunVerdict)):
        assert f"`{word}`" in text
