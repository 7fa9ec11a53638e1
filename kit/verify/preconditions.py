"""Does this table belong to this expectation at all? Looked at before any cell."""

from __future__ import annotations

from kit.errors import InvalidInput, KitError, raise_all
from kit.manifest.derived import FORMULAS
from kit.manifest.expectation_types import Expectation
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

    def fault(message: str, *path: str, why: str = "", next_step: str = "") -> None:
        """Of the expectation at ``path``; without one, of the table."""
        file = expectation if path else where
        problems.append(InvalidInput(message, where=file, path=path, why=why, next_step=next_step))

    for name in ("experiment", "profile"):
        ours, theirs = getattr(results, name), getattr(expected, name)
        if ours != theirs:
            fault(f"field {name!r}: {ours!r}, but the expectation is for {theirs!r}")
    if _comparable(results.version) != _comparable(expected.version):
        fault(
            f"field 'version': {results.version!r} is not comparable with the expectation's "
            f"{expected.version!r}",
            why="the number before the dash moves when results stop being comparable",
            next_step="run the experiment again with this kit",
        )
    known = [cell.id for cell in expected.cells]
    for id in _twice(known):
        fault(f"cell {id!r} stands twice", "cells", id)
    measured = [cell.id for cell in results.cells]
    for id in _twice(measured):
        fault(f"cell {id!r} stands twice")
    places = {id: ("cells", id) for id in known}
    for claim in expected.claims:
        places |= {id: ("claims", claim.id) for id in claim_cells(claim) if id not in places}
    for id, path in places.items():
        try:
            split(id)
        except ValueError as error:  # a question that no trajectory answers
            fault(str(error), *path)
    listed = {*known, *(id.partition(":")[0] for id in known)}
    extra = [id for id in measured if id not in listed and not id.startswith(EXTRA)]
    for id in extra if strict else ():
        fault(
            f"unknown cell {id!r}",
            why=f"{expectation} does not list it",
            next_step="correct the id, or add the cell to the expectation",
        )
    for id in _twice([claim.id for claim in expected.claims]):
        fault(f"claim {id!r} stands twice", "claims", id)
    for claim in expected.claims:
        for id in claim_cells(claim):
            if id not in listed and id.partition(":")[0] not in listed:
                fault(f"claim {claim.id!r} names unknown cell {id!r}", "claims", claim.id)
    for cell in expected.cells:
        takes = FORMULAS[cell.derived.formula][1] if cell.derived is not None else None
        if cell.derived is not None and takes not in (None, len(cell.derived.cells)):
            fault(
                f"cell {cell.id!r}: {cell.derived.formula} takes {takes} cells, not "
                f"{len(cell.derived.cells)}",
                *("cells", cell.id, "derived", "cells"),
            )
    raise_all(problems)
    return extra


def _comparable(version: str) -> str:
    return version.partition("-")[0]


def _twice(ids: list[str]) -> list[str]:
    seen: set[str] = set()
    return [id for id in ids if id in seen or seen.add(id)]  # type: ignore[func-returns-value]
