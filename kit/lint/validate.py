"""Schema and lint over files; what ``kit validate`` does."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from kit.engine.registry import Registry
from kit.errors import InvalidInput, KitError, Many
from kit.lint import lint_expectation, lint_manifest, lint_pins
from kit.lint.core import Finding
from kit.manifest.catalog import SUFFIXES, Catalog
from kit.manifest.home import open_folder
from kit.manifest.load import parse, read_expectation, read_manifest, read_pins, read_register
from kit.manifest.source import shown

_TELLING = {"pins": "pins", "expectation": "cells", "manifest": "steps", "register": "kits"}
"""Kind of file -> the key at its top that no other kind has."""


def repository_files(catalog: Catalog) -> list[Path]:
    """Every file that ``kit validate`` looks at without arguments."""
    return [*catalog.pin_files(), *catalog.files().values(), *catalog.expectation_files()]


def named_files(paths: Sequence[Path]) -> list[Path]:
    """The files that are meant: of a folder every manifest, pin file and expectation in it.

    What is hidden, and what runs left in ``runs``, is passed by.

    Raises:
        InvalidInput: A folder without any.
    """
    files: list[Path] = []
    for path in paths:
        if not path.is_dir():
            files.append(path)
            continue
        inside = [file for file in sorted(path.rglob("*")) if file.suffix in SUFFIXES]
        parts = [(file, file.relative_to(path).parts) for file in inside]
        mine = [f for f, names in parts if not any(n[0] == "." or n == "runs" for n in names)]
        files_here = [file for file in mine if file.is_file() and _is_ours(file)]
        if not files_here:
            raise InvalidInput("no manifest, pins or expectation in this folder", where=str(path))
        files += files_here
    return files


def _is_ours(file: Path) -> bool:
    """Whether a file of a folder is meant; what cannot be read is, if its name says YAML."""
    try:
        return kind_of_file(file) is not None
    except KitError:
        return file.suffix != ".json"


def kind_of_file(path: Path) -> str | None:
    """``manifest``, ``pins``, ``expectation`` or ``register``, by the keys at the top of the file.

    Raises:
        KitError: Not readable.
    """
    keys = parse(path).root.index
    return next((kind for kind, telling in _TELLING.items() if telling in keys), None)


def validate(
    catalog: Catalog,
    paths: Sequence[Path] | None = None,
    registry: Registry | None = None,
    progress: Callable[[Path], None] | None = None,
) -> list[Finding]:
    """All findings over the files (default: everything in the repository).

    A file that the schema refuses is reported and does not stop the others.
    """
    findings: list[Finding] = []
    for path in paths or repository_files(catalog):
        if progress is not None:
            progress(path)
        try:
            findings += _file_findings(path, catalog, registry)
        except KitError as error:
            findings += _as_findings(error, path)
    return findings


def _file_findings(path: Path, catalog: Catalog, registry: Registry | None) -> list[Finding]:
    kind = kind_of_file(path)
    if kind == "pins":
        return lint_pins(read_pins(path, full=True), catalog)
    if kind == "expectation":
        return lint_expectation(read_expectation(path, full=True), catalog)
    if kind == "register":
        read_register(path, full=True)
        return []
    if kind == "manifest":
        open_folder(path)
        return lint_manifest(read_manifest(path, full=True), catalog, registry)
    raise InvalidInput(
        "neither a manifest, nor pins, nor an expectation, nor a register",
        where=shown(path),
        why="they are told apart by the keys 'steps', 'pins', 'cells' and 'kits' at the top",
    )


def _as_findings(error: KitError, path: Path) -> list[Finding]:
    errors = error.errors if isinstance(error, Many) else (error,)
    return [
        Finding(
            level="error",
            rule="schema",
            where=error.where or shown(path),
            message=f"{error.what} ({error.why})" if error.why else error.what,
            next_step=error.next_step,
        )
        for error in errors
    ]
