"""Utility that a judge decides: cells declared not run, until somebody brings the judgement.

The paper's WinRate compares a model's 805 AlpacaEval answers with another model's, and a third
model judges. Neither the judge nor what it says can be pinned, so the kit does not run it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from kit.results.axes import Origin
from kit.results.builder import TableBuilder
from kit.results.ids import CellId

METRIC = "winrate"


def add_utility(
    table: TableBuilder,
    groups: Iterable[str],
    sets: Sequence[str],
    given: Mapping[str, float],
    reason: str,
) -> None:
    """``<group>/winrate/<token set>`` for every combination.

    Args:
        table: Gets the cells.
        groups: Groups of the table, in order.
        sets: Token sets whose utility a document reports.
        given: ``<group>/<token set>`` -> percent, brought by the user.
        reason: Why the others were not run.

    Raises:
        ValueError: Something is given that is no cell of the table, or is no percentage.
    """
    wanted = [(group, name) for group in groups for name in sets]
    unknown = given.keys() - {f"{group}/{name}" for group, name in wanted}
    if unknown:
        known = ", ".join(f"{group}/{name}" for group, name in wanted) or "none"
        raise ValueError(f"utility is given for {', '.join(sorted(unknown))}; rows here: {known}")
    for group, name in wanted:
        value = given.get(f"{group}/{name}")
        if value is None:
            table.not_run(CellId(group, METRIC, name), "percent", reason)
        elif 0 <= value <= 100:
            table.at(Origin(group, "")).number(METRIC, name, value, "percent")
        else:
            raise ValueError(f"utility of {group}/{name} is {value}: no percentage")
