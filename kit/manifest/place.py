"""Errors found while a document is used, put at the place in the file a human has to edit.

Planning and verifying speak of steps, axes, cells and claims, because what they work on need not
come from a file. Where it does, this module adds ``file:line:column``.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from kit.errors import InvalidInput, KitError, Many
from kit.manifest.expectation_types import Expectation
from kit.manifest.load import Loaded
from kit.manifest.source import PathTuple
from kit.manifest.types import Manifest

_STEP = re.compile(r"step '([^']*)'")
_INPUT = re.compile(r"input '([^']*)'")
_AXIS = re.compile(r"axis '([^']*)'")
_CELL = re.compile(r"\bcell '?([^\s',;]+)")
_CLAIM = re.compile(r"\bclaim '?([^\s',;]+)")


def in_manifest(error: InvalidInput, loaded: Loaded[Manifest], profile: str) -> InvalidInput:
    """An error of planning, at its place in the manifest."""
    return _at(error, loaded.locate(error.path or _manifest_path(error.where, loaded, profile)))


def in_expectation(error: KitError, loaded: Loaded[Expectation], name: str) -> KitError:
    """An error of verifying (or several), at its place where it is about the expectation.

    Args:
        error: As raised.
        loaded: The expectation.
        name: How the verifier calls the file; other errors are left as they are.
    """
    if isinstance(error, Many):
        return Many([in_expectation(one, loaded, name) for one in error.errors])
    if not isinstance(error, InvalidInput) or not error.where.startswith(name):
        return error
    place = loaded.locate(_expectation_path(error, loaded.value))
    return _at(error, place, error.where.removeprefix(name).removeprefix(": "))


def _at(error: InvalidInput, place: str, where: str | None = None) -> InvalidInput:
    rest = error.where if where is None else where
    return InvalidInput(
        error.what,
        where=f"{place}: {rest}" if rest else place,
        why=error.why,
        next_step=error.next_step,
    )


def _manifest_path(where: str, loaded: Loaded[Manifest], profile: str) -> PathTuple:
    def named(pattern: re.Pattern[str]) -> str | None:
        found = pattern.search(where)
        return found.group(1) if found else None

    steps = {step.id: index for index, step in enumerate(loaded.value.steps)}
    step, axis, source = named(_STEP), named(_AXIS), named(_INPUT)
    if axis is not None:
        return ("profiles", profile, "matrix", axis)
    if step in steps:
        return ("steps", steps[step], *(("inputs", source) if source is not None else ()))
    # "train.rate": the parameter of a step whose id may have dots itself.
    for id in sorted(steps, key=len, reverse=True):
        if where == id or where.startswith(f"{id}."):
            written: PathTuple = ("profiles", profile, "set", id)
            parameter = where[len(id) + 1 :].partition("[")[0]
            if loaded.source.node((*written, parameter)) is not None:
                return (*written, parameter)
            return written if loaded.source.node(written) is not None else ("steps", steps[id])
    return ("profiles", profile)


def _expectation_path(error: InvalidInput, expected: Expectation) -> PathTuple:
    said = f"{error.where} {error.what}"

    def index(pattern: re.Pattern[str], ids: Callable[[], list[str]]) -> int | None:
        known = ids()
        found = [match for match in pattern.findall(said) if match in known]
        # Of a thing that stands twice the second is the one too many.
        return len(known) - 1 - known[::-1].index(found[0]) if found else None

    claim = index(_CLAIM, lambda: [one.id for one in expected.claims])
    if claim is not None:
        return ("claims", claim)
    cell = index(_CELL, lambda: [one.id for one in expected.cells])
    return ("cells", cell) if cell is not None else ()
