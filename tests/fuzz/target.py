"""What the fuzzers drive: everything the kit does with a document before any step runs.

Reading (types and JSON Schema), lint, and then the use: a manifest is planned at each of its
profiles, an expectation verified against a table made to fit it, pins are given their digests.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from kit.cli.planning import plan_of
from kit.engine.environment import Machine
from kit.engine.registry import load_registry
from kit.errors import EXIT_INVALID, KitError, Many, Preflight
from kit.lint import lint_expectation, lint_manifest, lint_pins
from kit.lint.core import Finding
from kit.manifest.catalog import Catalog
from kit.manifest.expectation_types import Expectation, ExpectedCell
from kit.manifest.load import Loaded, parse, read_expectation, read_manifest, read_pins
from kit.manifest.pin_types import Pins
from kit.manifest.types import Manifest
from kit.pins.store import PinStore
from kit.results.labels import LabelFiles
from kit.results.types import Cell, Results, SeedValue
from kit.verify.basis import Basis, encode, verdict_of
from kit.verify.core import Subject

ROOT = Path(__file__).resolve().parents[2]
DEMO = ROOT / "tests" / "demo" / "data" / "repo"
RECORDS = Path(__file__).parent / "corpus" / "records"
"""Of reference runs; a seed names its own as ``records/NAME``."""
SECONDS = 20.0
"""Of processor time (a shared machine may stand still meanwhile); the slowest legitimate document
takes two."""

_PLACED = re.compile(r":\d+:\d+($|: )")
_WHOLE_FILE = re.compile(r"no such file|bytes; the limit is|neither a manifest|cannot be read")


class Broken(AssertionError):
    """The invariant does not hold."""


@cache
def catalog() -> Catalog:
    """The kit's own experiments and pins, read once."""
    return Catalog(ROOT)


def check(data: bytes, folder: Path) -> str:
    """Put a document through; returns how far it came.

    Raises:
        Broken: A message without its place, another exit code, or too long.
        Exception: Whatever the kit let through that is no ``KitError``.
    """
    path = folder / ("x.json" if data[:1] in (b"{", b"[") else "x.yaml")
    path.write_bytes(data)
    for name in _records(data):
        (folder / RECORDS.name).mkdir(exist_ok=True)
        (folder / RECORDS.name / name).write_bytes((RECORDS / name).read_bytes())
    started = time.process_time()
    came = _through(path, folder)
    seconds = time.process_time() - started
    if seconds > SECONDS:
        raise Broken(f"took {seconds:.1f} s of processor time")
    return came


def _records(data: bytes) -> set[str]:
    """Those of the corpus that a document names."""
    named = {name.decode() for name in re.findall(rb"\brecords/([a-z0-9.-]{1,60})", data)}
    return named & {path.name for path in RECORDS.iterdir()}


def _through(path: Path, folder: Path) -> str:
    try:
        keys = set(parse(path).root.index)
    except KitError as error:
        _placed(error)
        return "unreadable"
    use: Callable[[Path, Path], str] = _manifest
    if "pins" in keys:
        use = _pins
    elif "cells" in keys:
        use = _expectation
    try:
        return use(path, folder)
    except KitError as error:
        _placed(error)
        return "refused"


def _placed(error: KitError) -> None:
    """Every message has exit code 4 and a place in the file."""
    for one in error.errors if isinstance(error, Many) else (error,):
        if one.exit_code != EXIT_INVALID or not one.render():
            raise Broken(f"exit {one.exit_code}: {one.render()}")
        if isinstance(one, Preflight):  # about this machine, not about the document
            continue
        if not _PLACED.search(one.where) and not _WHOLE_FILE.search(one.what):
            raise Broken(f"no file:line:column in {one.where!r}: {one.what}")


def _findings(found: list[Finding]) -> None:
    for one in found:
        if not one.render() or not _PLACED.search(one.where):
            raise Broken(f"no file:line:column in {one.where!r}: {one.message}")


def _manifest(path: Path, folder: Path) -> str:
    loaded: Loaded[Manifest] = read_manifest(path, full=True)
    _findings(lint_manifest(loaded, catalog()))
    pins = catalog().pins()
    for profile in loaded.value.profiles:
        plan_of(
            loaded,
            profile,
            pins={pin.id: pin for pin in pins.pins},
            digests=PinStore(folder / "home", pins),
            registry=load_registry(),
            machine=Machine(),
        )
    return "planned"


def _pins(path: Path, folder: Path) -> str:
    loaded: Loaded[Pins] = read_pins(path, full=True)
    _findings(lint_pins(loaded, catalog()))
    store = PinStore(folder / "home", loaded.value)
    for pin in loaded.value.pins:
        store.state(pin.id)
    return "stated"


def _expectation(path: Path, folder: Path) -> str:
    loaded: Loaded[Expectation] = read_expectation(path, full=True)
    _findings(lint_expectation(loaded, catalog()))
    expected = loaded.value
    for table in (fitting(expected, 0.0), fitting(expected, 1.0)):
        subject = Subject(
            expected=expected,
            results=table,
            published=LabelFiles(path.parent, ROOT),
            expectation=str(path),
        )
        encode(verdict_of(Basis(subject, loaded=loaded)))
    return "verified"


def fitting(expected: Expectation, offset: float) -> Results:
    """A table that a run could have left for this expectation."""
    return Results(
        schema_version=1,
        experiment=expected.experiment,
        version=expected.version,
        profile=expected.profile,
        cells=[_cell(cell, offset) for cell in {c.id: c for c in expected.cells}.values()],
    )


def _cell(expected: ExpectedCell, offset: float) -> Cell:
    whole = {"percent": 100.0, "fraction": 1.0}.get(expected.unit)
    counts: dict[str, Any] = {}
    value = offset + 0.25
    if whole is not None and expected.n is not None and expected.n < 10**9:
        k = min(expected.n, int(expected.n * (offset + 1) / 4))
        counts, value = {"k": k, "n": expected.n}, whole * k / expected.n
    elif whole is not None:
        value = whole * (offset + 1) / 4
    if expected.reference is not None and 1 < len(expected.reference.values) < 50:
        ids = expected.reference.seeds or [str(i) for i in range(len(expected.reference.values))]
        seeds = [SeedValue(seed=id, value=value, **counts) for id in dict.fromkeys(ids)]
        return Cell(id=expected.id, unit=expected.unit, value=value, seeds=seeds)
    return Cell(id=expected.id, unit=expected.unit, value=value, **counts)
