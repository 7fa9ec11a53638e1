"""The table that opens the README: what is claimed, and how far each claim has been checked."""

from __future__ import annotations

import json
import re
from pathlib import Path

from kit.manifest.catalog import Catalog
from kit.manifest.expectation_types import Expectation
from kit.manifest.load import load_expectation
from kit.manifest.tables import table
from kit.manifest.types import Manifest
from kit.report.log import FOLDER, Entry, entries
from kit.report.published import IN_ITS_OWN_NUMBERS
from kit.verify.published import PRINTED, verdict_on_itself, verdict_on_reference
from kit.verify.verdict import ClaimReport, Verdict

_HEAD = [
    "experiment",
    "claim of the document",
    "its own numbers",
    "in miniature",
    "with 0.5B models",
    "rehearsed at full size",
    "run at full size",
]
_SMALL = "small"
# Of a rehearsal's file name: not every step, or not every layer, was in it.
_PART = re.compile("(steps|layers)-")


def block(root: Path) -> str:
    """A row for the main claim of each as-reported experiment, for ``kit docs``."""
    catalog = Catalog(root)
    log = entries(root / FOLDER)
    rows = []
    for experiment in catalog.ids():
        manifest = catalog.manifest(experiment)
        if manifest.variant == "as-reported":
            row = _row(catalog, manifest, log)
            rows += [row] if row else []
    return table(_HEAD, rows)


def _row(catalog: Catalog, manifest: Manifest, log: list[Entry]) -> list[str]:
    """The cells of a row; empty where no expectation names a main claim."""
    by_scale: dict[str, tuple[Path, Expectation]] = {}
    for name, profile in manifest.profiles.items():
        path = catalog.expectation_path(manifest.id, name)
        if path is not None and (expected := load_expectation(path)).main:
            by_scale.setdefault(profile.compares, (path, expected))
    if not by_scale:
        return []
    path, expected = by_scale.get("published") or by_scale["reference"]
    sentence = next(claim.sentence for claim in expected.claims if claim.id == expected.main)
    return [
        f"`{manifest.id}`",
        f"\u201c{sentence}\u201d" if not sentence.startswith("Of the kit") else sentence,
        _own_numbers(*by_scale["published"]) if "published" in by_scale else "-",
        _miniature(*by_scale["reference"]) if "reference" in by_scale else "-",
        _small(catalog.root, manifest, log) if _SMALL in manifest.profiles else "-",
        _rehearsed(catalog.root, manifest.id, small=False),
        _runs(manifest, log, small=False),
    ]


def _main(verdict: Verdict, expected: Expectation) -> ClaimReport:
    return next(claim for claim in verdict.claims if claim.id == expected.main)


def _own_numbers(path: Path, expected: Expectation) -> str:
    if not any(cell.value is not None and cell.status in PRINTED for cell in expected.cells):
        return "prints none"
    outcome = _main(verdict_on_itself(path), expected).outcome
    return IN_ITS_OWN_NUMBERS.get(outcome, "prints none for it")


def _miniature(path: Path, expected: Expectation) -> str:
    verdict = verdict_on_reference(path)
    if verdict is None:
        return "no reference run yet"
    claim = _main(verdict, expected)
    return f"**{claim.outcome}**: {claim.tested}"


def _small(root: Path, manifest: Manifest, log: list[Entry]) -> str:
    """Of the profile ``small``: what was rehearsed and what was run."""
    cards = _rehearsed(root, manifest.id, small=True)
    rehearsed = "not rehearsed" if cards == "no" else f"rehearsed, {cards}"
    return f"{rehearsed}; {_runs(manifest, log, small=True)}"


def _rehearsed(root: Path, experiment: str, *, small: bool) -> str:
    """Cards of the committed rehearsals of the whole experiment."""
    cards = []
    for path in sorted((root / "benchmarks").glob("rehearsal-*.json")):
        record = json.loads(path.read_text(encoding="utf-8"))
        if record["experiment"] != experiment or (record["profile"] == _SMALL) != small:
            continue
        gpus = [gpu["name"].removeprefix("NVIDIA ") for gpu in record["hardware"]["gpus"]]
        if gpus:
            part = ", a part" if record.get("fraction") or _PART.search(path.name) else ""
            cards.append(f"{len(gpus)} x {gpus[0].split()[0]}{part}")
    return ", ".join(dict.fromkeys(cards)) or "no"


def _runs(manifest: Manifest, log: list[Entry], *, small: bool) -> str:
    """What the reproduction log says of profiles that are compared with printed numbers."""
    names = {
        name
        for name, item in manifest.profiles.items()
        if item.compares == "published" and (name == _SMALL) == small
    }
    runs = [item for item in log if item.experiment == manifest.id and item.profile in names]
    said = (f"{i.verdict} ({i.date}{', changed' * bool(i.changes or i.brought)})" for i in runs)
    return ", ".join(said) or "not run"
