"""Generated files, and generated blocks of hand-written documents.

A block stands between ``<!-- generated:NAME -->`` and ``<!-- /generated -->``.
To add one, write a function ``(root) -> text`` anywhere and a line in :data:`BLOCKS`; to add whole
files, ``(root) -> {path: text}`` and a line in :data:`FILES`. Both are imported only by `kit docs`.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kit.durable import write_text
from kit.errors import InvalidInput
from kit.manifest.source import nearest
from kit.manifest.text import read_text

FILES: dict[str, str] = {
    "schema": "kit.manifest.schema:schema_files",
    "mini-pins": "kit.mini.worlds:pins_files",
    "expectation-hashes": "kit.manifest.shipped:files",
    "published-claims": "kit.report.published:files",
}
"""Generator name -> ``module:function`` giving path -> text."""

BLOCKS: dict[tuple[str, str], str] = {
    ("README.md", "main-claims"): "kit.report.main_claims:block",
    ("docs/experiments.md", "experiments"): "kit.manifest.tables:experiments",
    ("docs/container.md", "image-test"): "kit.report.image_test:block",
    ("docs/cluster.md", "launch"): "kit.engine.slurm.page:launch_example",
    ("docs/cluster.md", "requests"): "kit.engine.slurm.page:requests",
    ("docs/cluster.md", "slurm-test"): "kit.engine.slurm.page:tested",
    ("docs/manifests.md", "fields"): "kit.manifest.tables:fields",
    ("docs/manifests.md", "lint"): "kit.lint:rules_table",
    ("docs/manifests.md", "pins"): "kit.manifest.tables:pins",
    ("docs/mini-world.md", "facts-curves"): "kit.mini.facts.page:curve_table",
    ("docs/mini-world.md", "facts-rule"): "kit.mini.facts.page:rule_sentence",
    ("docs/mini-world.md", "facts-seeds"): "kit.mini.facts.page:seed_table",
    ("docs/mini-world.md", "facts-training"): "kit.mini.facts.page:training_table",
    ("docs/mini-world.md", "mix"): "kit.mini.injection.page:mix_table",
    ("docs/mini-world.md", "rule"): "kit.mini.injection.page:rule_sentence",
    ("docs/mini-world.md", "seeds"): "kit.mini.injection.page:seed_table",
    ("docs/mini-world.md", "summary"): "kit.mini.injection.page:summary_sentence",
    ("docs/mini-world.md", "training"): "kit.mini.injection.page:training_table",
    ("docs/reproductions.md", "pooled"): "kit.report.pooled:pooled_block",
    ("docs/reproductions.md", "log"): "kit.report.pooled:log_block",
}
"""(document, block) -> ``module:function`` giving the text. A document that is absent, or lacks
the block, is left alone."""

_BLOCK = re.compile(
    r"(?P<open><!-- generated:(?P<name>[A-Za-z0-9_-]+) -->\n)(?P<body>.*?)"
    r"(?P<close><!-- /generated -->)",
    re.DOTALL,
)


@dataclass(frozen=True)
class Drift:
    """A file that is not what its generators give.

    Attributes:
        path: The file.
        parts: Names of the generators whose text differs.
        text: What it should be.
    """

    path: Path
    parts: tuple[str, ...]
    text: str


def drift(root: Path) -> list[Drift]:
    """Every generated file or document under ``root`` that is out of date.

    Raises:
        InvalidInput: A document of the registry has a block that is opened and not closed, or one
            that no generator knows.
    """
    drifts = []
    for name, target in FILES.items():
        for path, text in _function(target)(root).items():
            if not path.is_file() or path.read_text(encoding="utf-8") != text:
                drifts.append(Drift(path, (name,), text))
    for document in dict.fromkeys(document for document, _ in BLOCKS):
        path = root / document
        if path.is_file():
            before = read_text(path)
            after, parts = fill(before, document, root)
            if after != before:
                drifts.append(Drift(path, parts, after))
    return drifts


def fill(text: str, document: str, root: Path) -> tuple[str, tuple[str, ...]]:
    """The document with every block written anew, and the names of those that changed."""
    known = {name: target for (file, name), target in BLOCKS.items() if file == document}
    changed: list[str] = []

    def replace(match: re.Match[str]) -> str:
        name = match["name"]
        if name not in known:
            raise InvalidInput(
                f"unknown generated block {name!r}",
                where=f"{document}:{text.count(chr(10), 0, match.start()) + 1}",
                next_step=nearest(name, known) or f"known here: {', '.join(known)}",
            )
        body = _function(known[name])(root).strip("\n") + "\n"
        if body != match["body"]:
            changed.append(name)
        return f"{match['open']}{body}{match['close']}"

    filled = _BLOCK.sub(replace, text)
    opened = len(re.findall(r"<!-- generated:", text))
    if opened != len(_BLOCK.findall(text)):
        raise InvalidInput(
            "a generated block is opened and not closed",
            where=document,
            next_step="close it with <!-- /generated -->",
        )
    return filled, tuple(changed)


def write(root: Path) -> list[Drift]:
    """Bring everything up to date; returns what was written."""
    changes = drift(root)
    for change in changes:
        change.path.parent.mkdir(parents=True, exist_ok=True)
        write_text(change.path, change.text)
    return changes


def _function(target: str) -> Callable[[Path], Any]:
    module, _, name = target.partition(":")
    function: Callable[[Path], Any] = getattr(importlib.import_module(module), name)
    return function
