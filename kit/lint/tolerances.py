"""Rules over the tolerances of an expectation's cells."""

from __future__ import annotations

from collections.abc import Iterator

from kit.lint.claims import used_cells
from kit.lint.core import EXPECTATION, ExpectationContext
from kit.manifest.derived import UNITLESS
from kit.manifest.expectation_types import ExpectedCell, Tolerance
from kit.manifest.source import Hit
from kit.results.asks import of_single_curve, split
from kit.verify.cells import NEEDS, OF_ITEMS
from kit.verify.numbers import PROPORTIONS

_FIELDS = ("margin", "floor", "bound", "side", "flip_rate", "drift")
_NONNEGATIVE = ("margin", "floor", "flip_rate", "drift")
_OPTIONAL = {"trajectory": ("drift",), "paired": ("flip_rate",)}
_EMPTY_REASONS = {"todo", "tbd", "none", "n/a", "unknown", "default", "...", "see above"}


def toleranced(context: ExpectationContext) -> Iterator[tuple[int, ExpectedCell, Tolerance]]:
    """(index, cell, tolerance) of every cell that has one."""
    for index, cell in enumerate(context.expectation.cells):
        if cell.tolerance is not None:
            yield index, cell, cell.tolerance


@EXPECTATION.rule("no-tolerance")
def no_tolerance(context: ExpectationContext) -> Iterator[Hit]:
    """A cell that the document (or a reference run) measured names a tolerance."""
    for index, cell in enumerate(context.expectation.cells):
        measured = cell.status in ("reported", "reference")
        if measured and cell.tolerance is None and (cell.value is not None or cell.series):
            yield Hit(("cells", index), f"cell {cell.id!r} has no tolerance")


@EXPECTATION.rule("tolerance-fields")
def tolerance_fields(context: ExpectationContext) -> Iterator[Hit]:
    """A tolerance has the fields its kind needs, and no others."""
    for index, cell, tolerance in toleranced(context):
        path = ("cells", index, "tolerance")
        needs = NEEDS[tolerance.kind]
        for field in _FIELDS:
            given = getattr(tolerance, field)
            if given is None:
                if field in needs:
                    yield Hit(path, f"cell {cell.id!r}: {tolerance.kind} needs {field!r}")
                continue
            if field not in (*needs, *_OPTIONAL.get(tolerance.kind, ())):
                yield Hit((*path, field), f"cell {cell.id!r}: {tolerance.kind} ignores {field!r}")
            if field in _NONNEGATIVE and float(given) < 0:
                yield Hit((*path, field), f"cell {cell.id!r}: a negative {field}")
        rate = tolerance.flip_rate
        if rate is not None and float(rate) > 1:
            yield Hit((*path, "flip_rate"), f"cell {cell.id!r}: a flip rate is a fraction, 0 to 1")


@EXPECTATION.rule("tolerance-fits")
def tolerance_fits(context: ExpectationContext) -> Iterator[Hit]:
    """The kind suits the cell: proportions for counts, runs for seeds, points for trajectories."""
    for index, cell, tolerance in toleranced(context):
        path = ("cells", index, "tolerance", "kind")
        proportion = cell.unit in PROPORTIONS
        if tolerance.kind == "relative" and proportion:
            yield Hit(
                path,
                f"cell {cell.id!r}: 'relative' is forbidden for a {cell.unit}",
                "5 % of 0.5 % is a fraction of an item; use binomial, paired or absolute",
            )
        ratio = cell.derived is not None and cell.derived.formula in UNITLESS
        suits = (proportion and cell.n) or (ratio and tolerance.kind == "binomial")
        if tolerance.kind in OF_ITEMS and not suits:
            yield Hit(path, f"cell {cell.id!r}: {tolerance.kind} needs a proportion with n")
        if tolerance.kind == "trajectory" and not cell.series:
            yield Hit(path, f"cell {cell.id!r}: trajectory needs a series")
        if tolerance.kind != "trajectory" and cell.series:
            yield Hit(path, f"cell {cell.id!r} has a series: its tolerance is 'trajectory'")
        if tolerance.kind in OF_ITEMS and of_single_curve(cell.id):
            yield Hit(
                path,
                f"cell {cell.id!r}: {tolerance.kind} compares items of one point, and this is "
                "chosen among many or no share of items",
                "use seeds, bound or absolute",
            )
        if tolerance.kind == "paired" and cell.labels is None:
            yield Hit(
                path,
                f"cell {cell.id!r}: paired, but no per-item labels are published for it",
                "name them in 'labels', or use binomial",
                level="warning",
            )


@EXPECTATION.rule("margin-reason")
def margin_reason(context: ExpectationContext) -> Iterator[Hit]:
    """A margin says why."""
    for index, cell, tolerance in toleranced(context):
        said = tolerance.reason.strip().lower().rstrip(".")
        if said in _EMPTY_REASONS or sum(map(str.isalpha, said)) < 3:
            yield Hit(
                ("cells", index, "tolerance", "reason"),
                f"cell {cell.id!r}: {tolerance.reason!r} is no reason for a margin",
            )


@EXPECTATION.rule("margin-source")
def margin_source(context: ExpectationContext) -> Iterator[Hit]:
    """A margin says who chose it."""
    for index, cell, _ in toleranced(context):
        path = ("cells", index, "tolerance")
        if context.loaded.source.node((*path, "source")) is None:
            yield Hit(
                path,
                f"cell {cell.id!r}: a margin without a source",
                "add source: document, convention, pilot, reference or author",
            )


@EXPECTATION.rule("series-points")
def series_points(context: ExpectationContext) -> Iterator[Hit]:
    """A series is a list of [x, y] with rising x."""
    for index, cell in enumerate(context.expectation.cells):
        before: float | None = None
        for position, point in enumerate(cell.series):
            path = ("cells", index, "series", position)
            if len(point) != 2:
                yield Hit(path, f"cell {cell.id!r}: a point is [x, y]")
                break
            if before is not None and float(point[0]) <= before:
                yield Hit(path, f"cell {cell.id!r}: x does not rise")
            before = float(point[0])


@EXPECTATION.rule("trajectory-question")
def trajectory_question(context: ExpectationContext) -> Iterator[Hit]:
    """What is asked of a trajectory has the unit of its answer, and a level that can be crossed."""
    cells = context.cells()
    for index, cell in enumerate(context.expectation.cells):
        path = ("cells", index)
        base, ask = split(cell.id)
        if cell.runs > 1 and not cell.series:
            yield Hit((*path, "runs"), f"cell {cell.id!r} has runs, which only a series has")
        if ask is None:
            continue
        if cell.series:
            yield Hit((*path, "series"), f"cell {cell.id!r} is a number of a curve, and no curve")
        if base in cells and not cells[base].series and cells[base].value is not None:
            yield Hit((*path, "id"), f"cell {base!r} is a single number: nothing to ask of it")
        own = cells[base].unit if base in cells else cell.unit
        if cell.unit != ask.unit(own):
            yield Hit(
                (*path, "unit"),
                f"cell {cell.id!r} is a {ask.unit(own)}, not a {cell.unit}",
                "a first crossing is a count of x, an area a number",
            )
    for where, id in _questions(context):
        base, ask = split(id)
        whole = {"percent": 100, "fraction": 1}.get(cells[base].unit) if base in cells else None
        if ask is None or ask.level is None or whole is None or 0 <= ask.level <= whole:
            continue
        yield Hit(where, f"{id!r}: no {cells[base].unit} crosses {float(ask.level):g}")


def _questions(context: ExpectationContext) -> Iterator[tuple[tuple[str | int, ...], str]]:
    """(place, id) wherever an id may ask something of a trajectory."""
    for index, cell in enumerate(context.expectation.cells):
        yield ("cells", index, "id"), cell.id
    for index, claim in enumerate(context.expectation.claims):
        for path, id in used_cells(claim):
            yield ("claims", index, *path), id
