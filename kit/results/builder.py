"""From the measurements of many step instances to one table, for every family.

A family walks over its finished instances, says where each stands (:class:`kit.results.axes.Axes`)
and what was measured there; cells, label lines and curves follow::

    table, axes = TableBuilder(), Axes([one.axes for one in evaluations], roles)
    for one in evaluations:
        here = table.at(axes.origin(one.instance, one.axes))
        here.proportion("asr", "lora", labels, items)
        here.number("loss", "lora", 1.25, "loss")
        here.trajectory(Line("forget", ..., unit="percent", name="lora"), [(0, 25.0, 5, 20), ...])
        here.derived("gap-closed", "lora", gap_closed, [("asr", "none"), ...], "ratio")
    table.build().write(folder)

A cell lists its replicates and averages them; items and replicates are never pooled.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean

from msgspec import structs

from kit.plural import plural
from kit.results.axes import Origin
from kit.results.curves import Curves, Line
from kit.results.files import LABELS, write_table
from kit.results.ids import ALL, CellId, Statistic
from kit.results.labels import Labels
from kit.results.types import Cell, LineRef, SeedValue, Series

UNLISTED = ""
"""Id of label vectors before the cell that they belong to is known."""


@dataclass(frozen=True)
class Measurement:
    """One number of one replicate.

    Attributes:
        id: Its cell.
        replicate: Its replicate.
        step: Step instance that measured it.
        value: In ``unit``; of a proportion ``k`` of ``n``.
        unit: percent, fraction, ratio, norm, ...
        k: Items that count, for a proportion.
        n: Items, for a proportion.
        labels: Per item, where they are known; they get a line of ``labels.jsonl``.
    """

    id: CellId
    replicate: str
    step: str
    value: float
    unit: str
    k: int | None = None
    n: int | None = None
    labels: Labels | None = None


class Observation:
    """What one step instance measured: one replicate of one group at one setting."""

    def __init__(self, builder: TableBuilder, origin: Origin) -> None:
        self.origin = origin
        self._builder = builder

    def id(self, metric: str, row: str) -> CellId:
        """The cell of a metric and row here; a :class:`Statistic` is about generations."""
        where = self.origin
        about = isinstance(metric, Statistic)
        return CellId(where.group, str(metric), row, where.settings, about)

    def proportion(
        self,
        metric: str,
        row: str,
        labels: Sequence[int | bool],
        items: Sequence[str | int] = (),
        *,
        unit: str = "percent",
        choices: Sequence[str] = (),
        answers: Sequence[str] = (),
    ) -> None:
        """A share of items, with the label of each.

        Args:
            metric: Second part of the cell id.
            row: Third part of the cell id.
            labels: [n] 0 or 1; 1 where the item counts.
            items: [n] identity of each item, the same string wherever the item is the same.
            unit: ``percent`` or ``fraction``.
            choices: [n] letters picked, of multiple choice.
            answers: [n] right letters.

        Raises:
            ValueError: No items, lists of unequal length, labels other than 0 and 1.
        """
        flags = [int(label) for label in labels]
        for name, given in (("items", items), ("choices", choices), ("answers", answers)):
            if given and len(given) != len(flags):
                raise ValueError(f"{len(given)} {name} for {plural(len(flags), 'label')}")
        if set(flags) - {0, 1}:
            raise ValueError("a label of a proportion is 0 or 1")
        line = Labels(
            id=UNLISTED,
            items=list(items),
            labels=list(flags),
            choices=list(choices),
            answers=list(answers),
        )
        self._proportion(metric, row, sum(flags), len(flags), unit, line)

    def count(self, metric: str, row: str, k: int, n: int, *, unit: str = "percent") -> None:
        """A share of items of which only the count is known: ``k`` of ``n``."""
        self._proportion(metric, row, k, n, unit, None)

    def _proportion(
        self, metric: str, row: str, k: int, n: int, unit: str, labels: Labels | None
    ) -> None:
        id = self.id(metric, row)
        if not 0 <= k <= n or n == 0:
            raise ValueError(f"cell {id}: {k} of {n} is no proportion")
        scale = {"percent": 100.0, "fraction": 1.0}.get(unit)
        if scale is None:
            raise ValueError(f"cell {id}: a proportion is in percent or fraction, not {unit!r}")
        self._add(id, scale * k / n, unit, k, n, labels)

    def number(self, metric: str, row: str, value: float, unit: str) -> None:
        """A number that is no proportion."""
        self._add(self.id(metric, row), float(value), unit)

    def has(self, metric: str, row: str) -> bool:
        """Whether this was measured here."""
        return self._builder.find(self.id(metric, row), self.origin.replicate) is not None

    def value(self, metric: str, row: str) -> float:
        """What was measured here.

        Raises:
            ValueError: It was not.
        """
        return self._operand(self.id(metric, row))

    def derived(
        self,
        metric: str,
        row: str,
        formula: Callable[..., float | None],
        of: Iterable[tuple[str, str] | CellId],
        unit: str,
    ) -> None:
        """A number that follows from others of the same replicate.

        Args:
            metric: Second part of the cell id.
            row: Third part of the cell id.
            formula: Called with the values in the order of ``of``; ``None`` where it is undefined,
                and then there is no cell.
            of: Metric and row of this observation, or a whole cell id, for what another step of
                the same replicate measured. All must have been added before.
            unit: Of the outcome.

        Raises:
            ValueError: One of them was not measured.
        """
        ids = [part if isinstance(part, CellId) else self.id(*part) for part in of]
        value = formula(*(self._operand(id) for id in ids))
        if value is not None:
            self.number(metric, row, value, unit)

    def curve(self, line: Line, points: Iterable[Sequence[float]]) -> None:
        """A measured curve of this replicate.

        Args:
            line: Figure and name of the line; replicates of one group at one setting share it.
            points: x and y of each point.
        """
        self._builder.curves.add(self.origin, line, points)

    def trajectory(self, line: Line, points: Iterable[Sequence[float]]) -> None:
        """A measured curve of this replicate that cells and claims may ask something of.

        Its cell is ``<group>/<figure of the line>/<name of the line>[@<setting>]``.

        Args:
            line: Figure and name of the line; replicates of one group at one setting share it.
            points: x and value, for a proportion also k and n.

        Raises:
            ValueError: The replicate has this line already, or two points at one x.
        """
        ref = self._builder.curves.add(self.origin, line, points)
        self._builder.add_trajectory(self.id(line.figure, line.name), line.unit, ref, self.origin)

    def _operand(self, id: CellId) -> float:
        measured = self._builder.find(id, self.origin.replicate)
        if measured is None:
            raise ValueError(f"cell {id} of {self.origin.replicate or 'the run'} was not measured")
        return measured.value

    def _add(
        self,
        id: CellId,
        value: float,
        unit: str,
        k: int | None = None,
        n: int | None = None,
        labels: Labels | None = None,
    ) -> None:
        where = self.origin
        self._builder.add(Measurement(id, where.replicate, where.step, value, unit, k, n, labels))


@dataclass(frozen=True)
class Table:
    """A finished table.

    Attributes:
        cells: In the order in which they were measured first.
        labels: Lines of ``labels.jsonl``, which the cells refer to.
        series: Curves.
    """

    cells: list[Cell]
    labels: list[Labels]
    series: list[Series]

    def write(self, folder: Path) -> None:
        """Write it as a results step must: :func:`kit.results.files.write_table`."""
        write_table(folder, self.cells, labels=self.labels, series=self.series)


class TableBuilder:
    """Collects measurements; see the module."""

    def __init__(self) -> None:
        self.curves = Curves()
        self._measurements: dict[tuple[CellId, str], Measurement] = {}
        self._not_run: dict[CellId, Cell] = {}
        self._trajectories: dict[CellId, Cell] = {}

    def at(self, origin: Origin) -> Observation:
        """Where the numbers of one instance are added."""
        return Observation(self, origin)

    def add(self, measurement: Measurement) -> None:
        """Add one number.

        Raises:
            ValueError: Its replicate has this cell already, or the value is not finite.
        """
        key = measurement.id, measurement.replicate
        of = f" of {measurement.replicate}" if measurement.replicate else ""
        if not math.isfinite(measurement.value):
            raise ValueError(f"cell {key[0]}{of} is {measurement.value}: no finite number")
        if key in self._measurements:
            raise ValueError(
                f"cell {key[0]} was measured twice in one replicate ({key[1] or 'the only one'}), "
                f"by {self._measurements[key].step} and {measurement.step}"
            )
        self._measurements[key] = measurement

    def find(self, id: CellId, replicate: str) -> Measurement | None:
        """What was measured, if it was."""
        return self._measurements.get((id, replicate))

    def add_trajectory(self, id: CellId, unit: str, line: LineRef, origin: Origin) -> None:
        """Add the cell of a line; once for all its replicates."""
        made = Cell(id=str(id), unit=unit, trajectory=line, step=origin.step)
        self._trajectories.setdefault(id, made)

    def not_run(self, id: CellId, unit: str, reason: str) -> None:
        """Declare a cell that is deliberately not measured.

        Raises:
            ValueError: Without a reason.
        """
        if not reason:
            raise ValueError(f"cell {id} is not run: say why")
        self._not_run[id] = Cell(id=str(id), unit=unit, not_run=reason)

    def pool_groups(self) -> None:
        """Add every cell once more over the replicates of all groups, in the group ``all``.

        Does nothing where there is one group only. Labels stay listed in their own group. Curves
        are not pooled: :func:`kit.results.curves.by_checkpoint` makes them from pooled cells.

        Raises:
            ValueError: Two groups have a replicate of the same name, so that the observations
                of the pooled cell could not be told apart.
        """
        if len({id.group for id, _ in self._measurements}) > 1:
            for measured in list(self._measurements.values()):
                self.add(replace(measured, id=replace(measured.id, group=ALL), labels=None))

    def build(self) -> Table:
        """The table of everything that was added.

        Raises:
            ValueError: A cell is declared as not run and was measured, or its replicates have
                different units.
        """
        by_cell: dict[CellId, list[Measurement]] = {}
        for measured in self._measurements.values():
            by_cell.setdefault(measured.id, []).append(measured)
        both = self._trajectories.keys() & by_cell.keys()
        if both:
            raise ValueError(f"cell {min(map(str, both))} is a number and a curve")
        both = (by_cell.keys() | self._trajectories.keys()) & self._not_run.keys()
        if both:
            raise ValueError(f"cell {min(map(str, both))} is declared as not run and was measured")
        labels: list[Labels] = []
        # Cells about generations stand behind the numbers that they are about.
        cells = [
            _cell(id, by_cell[id], labels)
            for about in (False, True)
            for id in by_cell
            if id.about_generations is about
        ]
        cells += [*self._trajectories.values(), *self._not_run.values()]
        return Table(cells, labels, self.curves.series())


def _cell(id: CellId, replicates: Sequence[Measurement], labels: list[Labels]) -> Cell:
    """One cell from its replicates; their labels are appended."""
    first = replicates[0]
    other = next((replicate for replicate in replicates if replicate.unit != first.unit), None)
    if other is not None:
        raise ValueError(f"cell {id} is in {first.unit} and in {other.unit}")
    if len(replicates) == 1:
        return Cell(
            id=str(id),
            unit=first.unit,
            value=first.value,
            k=first.k,
            n=first.n,
            labels=_listed(first, labels),
            step=first.step,
        )
    seeds = [
        SeedValue(
            seed=replicate.replicate,
            value=replicate.value,
            k=replicate.k,
            n=replicate.n,
            labels=_listed(replicate, labels),
        )
        for replicate in replicates
    ]
    return Cell(
        id=str(id),
        unit=first.unit,
        value=fmean(replicate.value for replicate in replicates),
        n=first.n if len({replicate.n for replicate in replicates}) == 1 else None,
        seeds=seeds,
        step=first.step,
    )


def _listed(measured: Measurement, lines: list[Labels]) -> str | None:
    """Give the labels of a measurement a line, and say what refers to it."""
    if measured.labels is None:
        return None
    id = f"{measured.id}#{measured.replicate}"
    lines.append(structs.replace(measured.labels, id=id))
    return f"{LABELS}#{id}"
