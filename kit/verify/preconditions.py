"""Does this table belong to this expectation at all? Looked at before any cell."""

from __future__ import annotations

from collections.abc import Mapping

from kit.errors import InvalidInput, KitError, Many
from kit.manifest.derived import FORMULAS
from kit.manifest.expectation_types import Expectation
from kit.manifest.source import PathTuple
from kit.results.asks import split
from kit.results.ids import EXTRA
from kit.results.types import Results
from kit.verify.claims import claim_cells


def check_pair(
    expected: Expectation,
    results: Results,
    where: str,
    expectation: str,
    *,
    strict: bool = False,
) -> list[str]:
    """Same experiment, profile and comparable version; no cell or claim twice.

    A run may measure more than the document reports: such cells are returned. In a table made
    by hand (``strict``) an id that the expectation does not list is a slip and refused.

    Args:
        expected: The expectation.
        results: The table.
        where: The table's file, for messages.
        expectation: The expectation's file, for messages.
        strict: Refuse cells that the expectation does not list.

    Raises:
        InvalidInput: Or :class:`Many`: everything that is wrong.
    """
    problems: list[KitError] = []
    for name in ("experiment", "profile"):
        ours, theirs = getattr(results, name), getattr(expected, name)
        if ours != theirs:
            problems.append(
                InvalidInput(
                    f"field {name!r}: {ours!r}, but the expectation is for {theirs!r}",
                    where=where,
                )
            )
    if _comparable(results.version) != _comparable(expected.version):
        problems.append(
            InvalidInput(
                f"field 'version': {results.version!r} is not comparable with the expectation's "
                f"{expected.version!r}",
                where=where,
                why="the number before the dash moves when results stop being comparable",
                next_step="run the experiment again with this kit",
            )
        )
    known = [cell.id for cell in expected.cells]
    problems += [
        InvalidInput(f"cell {id!r} stands twice", where=expectation, path=("cells", id))
        for id in _twice(known)
    ]
    found = [cell.id for cell in results.cells]
    problems += [InvalidInput(f"cell {id!r} stands twice", where=where) for id in _twice(found)]
    places: dict[str, PathTuple] = {id: ("cells", id) for id in known}
    for claim in expected.claims:
        places |= {id: ("claims", claim.id) for id in claim_cells(claim) if id not in places}
    problems += _unasked(places, expectation)
    listed = {*known, *(id.partition(":")[0] for id in known)}
    extra = [id for id in found if id not in listed and not id.startswith(EXTRA)]
    problems += [
        InvalidInput(
            f"unknown cell {id!r}",
            where=where,
            why=f"{expectation} does not list it",
            next_step="correct the id, or add the cell to the expectation",
        )
        for id in (extra if strict else ())
    ]
    problems += [
        InvalidInput(f"claim {id!r} stands twice", where=expectation, path=("claims", id))
        for id in _twice([claim.id for claim in expected.claims])
    ]
    for claim in expected.claims:
        problems += [
            InvalidInput(
                f"claim {claim.id!r} names unknown cell {id!r}",
                where=expectation,
                path=("claims", claim.id),
            )
            for id in claim_cells(claim)
            if id not in listed and id.partition(":")[0] not in listed
        ]
    for cell in expected.cells:
        takes = FORMULAS[cell.derived.formula][1] if cell.derived is not None else None
        if cell.derived is not None and takes not in (None, len(cell.derived.cells)):
            problems.append(
                InvalidInput(
                    f"cell {cell.id!r}: {cell.derived.formula} takes {takes} cells, not "
                    f"{len(cell.derived.cells)}",
                    where=expectation,
                    path=("cells", cell.id, "derived", "cells"),
                )
            )
    if len(problems) == 1:
        raise problems[0]
    if problems:
        raise Many(problems)
    return extra


def _unasked(places: Mapping[str, PathTuple], expectation: str) -> list[KitError]:
    """Questions that no trajectory answers."""
    problems: list[KitError] = []
    for id, path in places.items():
        try:
            split(id)
        except ValueError as error:
            problems.append(InvalidInput(str(error), where=expectation, path=path))
    return problems


def _comparable(version: str) -> str:
    return version.partition("-")[0]


def _twice(ids: list[str]) -> list[str]:
    seen: set[str] = set()
    return [id for id in ids if id in seen or seen.add(id)]  # type: ignore[func-returns-value]
