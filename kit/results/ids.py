"""Cell ids: ``<group>/<metric>/<row>[@<setting>...]``, the same grammar in every family.

``group`` says of what (a pair of models, a victim), ``metric`` what was measured, ``row`` of which
line of the table (a token set, an attack), and each ``@<setting>`` one value that the experiment
compares. Replicates stand in no id: they are the seeds of the cell.

Cells about the generations behind the numbers are ``stats/<group>/<row>[@<setting>...]/<name>``.
They are no results; :class:`Statistic` lists the names that the verifier looks at first.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

ALL = "all"
"""The group of everything: where an experiment has one group only, and where groups are pooled."""
STATS = "stats"
"""First part of the ids of cells about generations."""
EXTRA = f"{STATS}/"
"""Cells below this prefix describe generations; an expectation need not list them."""

_PART = re.compile(r"[^/@#\s]+")


class Statistic(StrEnum):
    """What a cell below :data:`STATS` says about the generations behind other cells."""

    EMPTY = "empty-rate"
    """Share of responses without text."""
    TRUNCATED = "truncated-rate"
    """Share of responses that were cut off at the most tokens allowed."""
    REFUSED = "refusal-rate"
    """Share of responses that refuse."""
    MEAN_TOKENS = "mean-tokens"
    """Mean length of a response in tokens."""


_STATISTICS = {statistic.value: statistic for statistic in Statistic}


@dataclass(frozen=True)
class CellId:
    """The parts of a cell id.

    Attributes:
        group: What was measured on; :data:`ALL` where there are no groups.
        metric: What was measured; the name of the statistic where ``about_generations``.
        row: Line of the table.
        settings: Values of the axes that are compared, in the order of the axes.
        about_generations: Whether it is a cell ``stats/...``.

    Raises:
        ValueError: A part is empty, or holds a space or one of ``/ @ #``.
    """

    group: str
    metric: str
    row: str
    settings: tuple[str, ...] = ()
    about_generations: bool = False

    def __post_init__(self) -> None:
        parts = {"group": self.group, "metric": self.metric, "row": self.row}
        parts |= {f"setting {i}": text for i, text in enumerate(self.settings, 1)}
        for name, text in parts.items():
            if not _PART.fullmatch(text):
                raise ValueError(
                    f"the {name} of a cell id is {text!r}: it must be a name without spaces, "
                    "'/', '@' and '#'"
                )
        if self.group == STATS and not self.about_generations:
            raise ValueError(f"no group can be called {STATS!r}: cells about generations begin so")

    def __str__(self) -> str:
        row = "@".join((self.row, *self.settings))
        if self.about_generations:
            return f"{STATS}/{self.group}/{row}/{self.metric}"
        return f"{self.group}/{self.metric}/{row}"


def parse(text: str) -> CellId:
    """The parts of an id.

    Raises:
        ValueError: Not of the grammar.
    """
    parts = text.split("/")
    about_generations = parts[0] == STATS
    if len(parts) != (4 if about_generations else 3):
        raise ValueError(f"{text!r} is no cell id: <group>/<metric>/<row>[@<setting>]")
    if about_generations:
        _, group, row, metric = parts
    else:
        group, metric, row = parts
    row, *settings = row.split("@")
    return CellId(group, metric, row, tuple(settings), about_generations)


def row_of(text: str) -> str:
    """The last part of any id, with its settings: the line of the table that it stands in.

    For tables from elsewhere too, whose ids need not follow the grammar.
    """
    return text.rpartition("/")[2]


def statistic_of(text: str) -> tuple[str, Statistic] | None:
    """What a cell about generations describes, and by which statistic; None for any other id.

    The first is the prefix ``<group>/<row>``. An id without ``stats/`` in front is accepted, as
    tables made by hand may leave it out.
    """
    prefix, _, name = text.removeprefix(EXTRA).rpartition("/")
    return (prefix, _STATISTICS[name]) if name in _STATISTICS else None


def matches(pattern: str, ids: Iterable[str]) -> dict[tuple[str, ...], str]:
    """What stands for the ``*`` of a pattern -> the id, in the order of the ids.

    >>> matches("a/*/x@*", ["a/b/x@1", "a/c/x@1@2", "a/c/x@2"])
    {('b', '1'): 'a/b/x@1', ('c', '2'): 'a/c/x@2'}
    """
    shape = re.compile("([^/@:]+)".join(re.escape(part) for part in pattern.split("*")))
    matches = ((shape.fullmatch(id), id) for id in ids)
    return {match.groups(): id for match, id in matches if match is not None}
