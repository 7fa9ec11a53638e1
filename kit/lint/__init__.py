"""Lint: what the types cannot say. Small rules over manifest, pins and expectation.

``error`` findings make ``kit validate`` leave with 4; ``warning`` and ``info`` are printed.
"""

from __future__ import annotations

from pathlib import Path

from kit.engine import registry as kinds
from kit.engine.registry import Registry
from kit.lint import cells, claims, manifests, pins, tolerances
from kit.lint.core import (
    EXPECTATION,
    MANIFEST,
    PINS,
    ExpectationContext,
    Finding,
    ManifestContext,
    PinsContext,
    Rule,
)
from kit.manifest.catalog import Catalog
from kit.manifest.expectation_types import Expectation
from kit.manifest.load import Loaded
from kit.manifest.pin_types import Pins
from kit.manifest.tables import table
from kit.manifest.types import Manifest

__all__ = [
    "Finding",
    "all_rules",
    "lint_expectation",
    "lint_manifest",
    "lint_pins",
]

_RULE_MODULES = (manifests, pins, cells, tolerances, claims)


def lint_manifest(
    loaded: Loaded[Manifest], catalog: Catalog, registry: Registry | None = None
) -> list[Finding]:
    """Findings over a manifest, its pins' names and its place in the catalog."""
    path = loaded.source.path
    known = {pin.id: pin for pin in catalog.pins(path).pins}
    context = ManifestContext(loaded, catalog, known, registry or kinds.load_registry())
    return list(MANIFEST.run(context))


def lint_pins(loaded: Loaded[Pins], catalog: Catalog) -> list[Finding]:
    """Findings over a pin file."""
    return list(PINS.run(PinsContext(loaded, catalog)))


def lint_expectation(loaded: Loaded[Expectation], catalog: Catalog) -> list[Finding]:
    """Findings over an expectation."""
    return list(EXPECTATION.run(ExpectationContext(loaded, catalog)))


def all_rules() -> list[Rule[ManifestContext] | Rule[PinsContext] | Rule[ExpectationContext]]:
    """Every rule, for the documentation."""
    return [*MANIFEST.rules, *PINS.rules, *EXPECTATION.rules]


def rules_table(root: Path) -> str:
    """Every rule, for the documentation."""
    rows = [[f"`{rule.id}`", rule.level, rule.doc] for rule in all_rules()]
    return table(["rule", "level", "holds when"], rows)
