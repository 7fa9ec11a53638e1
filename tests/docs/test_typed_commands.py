"""What pages and messages tell a reader to type exists: targets of make, commands of kit, options.

Packages that ``kit doctor`` asks for are those that the kit imports.
"""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from kit.cli.main import cli
from kit.manifest.catalog import Catalog

ROOT = Path(__file__).parents[2]
PAGES = [
    *(ROOT / name for name in ("README.md", "AGENTS.md", "CONTRIBUTING.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
]
SOURCES = sorted((ROOT / "kit").rglob("*.py"))
TARGETS = re.findall(
    r"^([a-z][a-z%-]*):(?!=)", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M
)
WORD = re.compile(r"[a-z][a-z-]*$")


def typed(text: str) -> Iterator[str]:
    """Lines of code blocks and code spans that begin with ``kit`` or ``make``, without a prompt."""
    blocks = re.findall(r"^```.*?\n(.*?)^```", text, re.M | re.S)
    spans = re.findall(r"`+([^`\n]+)`+", re.sub(r"^```.*?^```", "", text, flags=re.M | re.S))
    lines = [part for line in "\n".join(blocks).splitlines() for part in line.split("&&")]
    for line in [*lines, *spans]:
        said = line.strip().removeprefix("$ ").removeprefix(".venv/bin/").partition("  #")[0]
        if re.match(r"(kit|make) [a-z-]", said):
            yield said.strip()


def messages(file: Path) -> Iterator[str]:
    """The same in the texts of a module: code spans, and whole texts that begin so."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield from typed(node.value)
            for part in re.split(r", then: |; ", node.value):
                if re.match(r"(kit [a-z]+ |make [a-z-]+$)", part):
                    yield part.strip()


def fault(said: str) -> str:
    """Why a command line cannot be typed; empty where it can."""
    program, *words = said.split()
    if program == "make":
        return "" if known_target(words[0]) else f"no target {words[0]!r}"
    command: click.Command = cli
    value = False  # of the option before
    for index, word in enumerate(words):
        name, given = word.strip("[](),.;:"), value
        value = False
        if given:
            continue
        if isinstance(command, click.Group) and WORD.match(name):
            inner = command.get_command(click.Context(command), name)
            if inner is None:
                return f"{command.name} has no command {name!r}"
            command = inner
        elif name.startswith("--") and WORD.match(name[2:].partition("=")[0]):
            option, equals, _ = name.partition("=")
            known = {text: p for p in command.params for text in (*p.opts, *p.secondary_opts)}
            if option not in {*known, "--help"}:
                return f"{' '.join(words[:index])} has no option {option}"
            value = not equals and not getattr(known.get(option), "is_flag", True)
    return ""


def known_target(target: str) -> bool:
    """Of the Makefile; ``reproduce-EXP`` and the like with an experiment that there is."""
    if target in TARGETS:
        return True
    for pattern in TARGETS:
        head, percent, _ = pattern.partition("%")
        if percent and target.startswith(head):
            rest = target.removeprefix(head)
            return not WORD.match(rest) or rest in Catalog(ROOT).ids()
    return False


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_a_page_says_to_type_exists(page: Path) -> None:
    found = {said: why for said in typed(page.read_text(encoding="utf-8")) if (why := fault(said))}
    assert found == {}


def test_what_a_message_says_to_type_exists() -> None:
    said = {(line, file.name) for file in SOURCES for line in messages(file)}
    assert len(said) > 40
    assert {(line, name): why for line, name in said if (why := fault(line))} == {}


@pytest.mark.parametrize(
    "said", ["make reproduce-nothing", "make everything", "kit verfy RUN", "kit run EXP --sead 7"]
)
def test_what_does_not_exist_is_noticed(said: str) -> None:
    assert fault(said)


def test_what_exists_is_not() -> None:
    for said in (
        "make verify-tiny-adapt",
        "make reproduce-<exp>",
        "kit store remove --older-than D",
    ):
        assert fault(said) == ""


def test_the_doctor_asks_for_nothing_that_the_kit_does_not_import() -> None:
    imported = set()
    for file in SOURCES:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                imported |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                imported.add(node.module.partition(".")[0])
            elif isinstance(node, ast.Call) and "import_module" in ast.unparse(node.func):
                names = [a.value for a in node.args if isinstance(a, ast.Constant)]
                imported |= {name.partition(".")[0] for name in names if isinstance(name, str)}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    sets = {"": project["dependencies"], **project["optional-dependencies"]}
    asked = {
        re.split(r"[^A-Za-z0-9_.-]", text)[0].replace("-", "_").partition(".")[0]
        for name, listed in sets.items()
        if name != "dev"
        for text in listed
    }
    assert asked - imported == set()
    extras = {
        name
        for file in SOURCES
        for name in re.findall(r"safety-repro-kit\[([a-z]+)\]", file.read_text(encoding="utf-8"))
    }
    assert extras <= sets.keys()
