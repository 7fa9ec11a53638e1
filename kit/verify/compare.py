"""Two runs side by side: cells with paired statistics, then the first place where they part."""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path

from msgspec import Struct

from kit.errors import InvalidInput
from kit.plural import plural
from kit.results.files import RESULTS
from kit.results.run import Run
from kit.verify.contrast import contrast
from kit.verify.diverge import Divergence, compare_files, diverge, read_side
from kit.verify.finding import ALPHA
from kit.verify.measurement import Measurement, measure
from kit.verify.multiple import with_q
from kit.verify.numbers import points, show, show_p, some

_RANKS = {"differs": 0, "noise": 2, "same": 3}
"""What is only in one run stands between the two kinds of difference."""
_SHOWN = 20


class CellPair(Struct, frozen=True, kw_only=True):
    """One cell in both runs."""

    id: str
    unit: str
    first: float | None = None
    second: float | None = None
    difference: float | None = None
    """First minus second."""
    p: float | None = None
    """Two-sided; None where nothing random is recorded."""
    q: float | None = None
    """Benjamini-Hochberg adjusted over the cells."""
    method: str = ""
    says: str
    """``same``, ``noise`` (differs, and chance explains it), ``differs``, ``only in ...``."""


class Comparison(Struct, frozen=True, kw_only=True):
    """Outcome of ``kit compare``."""

    first: str
    second: str
    cells: list[CellPair]
    divergence: Divergence | None = None
    identical: bool
    code: list[str] = []
    """How the code of the two runs is known to differ."""
    notes: list[str] = []


def compare(
    first: Run, second: Run, stores: tuple[Path | None, Path | None] = (None, None)
) -> Comparison:
    """Compare two runs.

    Args:
        first: A run.
        second: Another run of the same experiment.
        stores: Where the outputs of each run's steps are.

    Raises:
        InvalidInput: The runs are of different experiments, or a table is not what it must be.
    """
    if first.results.experiment != second.results.experiment:
        raise InvalidInput(
            f"field 'experiment': {second.results.experiment!r} against "
            f"{first.results.experiment!r}",
            where=str(second.path / "results.json"),
            next_step="compare two runs of one experiment",
        )
    cells = _cells(first, second)
    sides = (read_side(first, stores[0]), read_side(second, stores[1]))
    notes, divergence = [], None
    if sides[0] is not None and sides[1] is not None:
        divergence = diverge(sides[0], sides[1])
    else:
        notes.append("no plan.json in one of the runs: only tables and labels are compared")
    if divergence is None:
        divergence = _files(first.path, second.path)
    for side, run in (("first", first), ("second", second)):
        steps = run.record.steps.values() if run.record is not None else ()
        if steps and all(step.state == "cached" for step in steps):
            notes.append(
                f"all of the {side} run ({plural(len(steps), 'step')}) came from the store: "
                "nothing was computed again, so that being the same is no repetition"
            )
    if first.results.profile != second.results.profile:
        notes.append(f"profiles {first.results.profile} and {second.results.profile}")
    same = divergence is None and all(cell.says == "same" for cell in cells)
    return Comparison(
        first=str(first.path),
        second=str(second.path),
        cells=cells,
        divergence=divergence,
        identical=same,
        code=_code(first, second, notes),
        notes=notes,
    )


def _code(first: Run, second: Run, notes: list[str]) -> list[str]:
    """Step kinds that ran other code; where that is not recorded it is a note."""
    ours, theirs = first.code, second.code
    both = [kind for kind in ours if kind in theirs]
    blank = [kind for kind in both if "" in ours[kind] | theirs[kind]]
    apart = [kind for kind in both if kind not in blank and ours[kind] != theirs[kind]]
    said = [f"differs in {some(apart, 5)}"] if apart else []
    for side, run in (("first", first), ("second", second)):
        if run.record is not None and run.record.dirty:
            said.append(
                f"of the {side} run had changes that {run.record.commit or 'no commit'} lacks"
            )
    if blank:
        notes.append(f"which code ran is not recorded for {some(blank, 5)}")
    return said


def _cells(first: Run, second: Run) -> list[CellPair]:
    ours = {cell.id: cell for cell in first.results.cells}
    theirs = {cell.id: cell for cell in second.results.cells}
    pairs = []
    for id in dict.fromkeys((*ours, *theirs)):
        if id not in ours or id not in theirs:
            side = "first" if id in ours else "second"
            unit = (ours.get(id) or theirs[id]).unit
            pairs.append(CellPair(id=id, unit=unit, says=f"only in the {side}"))
            continue
        here, there = (
            measure(
                cells[id], ours[id].unit, str(run.path / RESULTS), run.labels, run.results.series
            )
            for run, cells in ((first, ours), (second, theirs))
        )
        pairs.append(_pair(here, there))
    return with_q(pairs)


def _pair(first: Measurement, second: Measurement) -> CellPair:
    if first.value is None or second.value is None:
        ours, theirs = ((side.value, side.seeds, side.curves) for side in (first, second))
        same = ours == theirs
        return CellPair(id=first.id, unit=first.unit, says="same" if same else "differs")
    difference = contrast(first, second, Fraction(0))
    p = difference.p
    says = "differs" if p is None or p < ALPHA else "noise"
    if first.value == second.value and [s.value for s in first.seeds] == [
        s.value for s in second.seeds
    ]:
        says = "same"
    return CellPair(
        id=first.id,
        unit=first.unit,
        first=float(first.value),
        second=float(second.value),
        difference=float(first.value - second.value),
        p=p,
        method=difference.method,
        says=says,
    )


def _files(first: Path, second: Path) -> Divergence | None:
    """Without a diverging step: do the run directories' own tables and labels agree?"""
    for name in ("labels.jsonl", "results.json"):
        about = Divergence(step="(run directory)", what="outputs")
        difference = compare_files(about, first / name, second / name)
        if difference is not None:
            return difference
    return None


def lines(outcome: Comparison, *, every: bool = False) -> Iterable[str]:
    """The comparison as lines: code, where the runs part, then cells, real differences first.

    Args:
        outcome: Of :func:`compare`.
        every: Whether all cells have lines of their own, those that are the same too.
    """
    yield from (f"code {words}" for words in outcome.code)
    yield from _parting(outcome)
    yield from (f"note {note}" for note in outcome.notes)
    ranked = sorted(outcome.cells, key=lambda cell: _RANKS.get(cell.says, 1))
    apart = [cell for cell in ranked if cell.says != "same"]
    shown = ranked if every else apart[:_SHOWN]
    yield from (_cell_line(cell) for cell in shown)
    if len(shown) < len(ranked):
        same = len(ranked) - len(apart)
        more = f"{len(apart) - len(shown)} more differ, " if len(apart) > len(shown) else ""
        yield f"cells {more}{same} the same; --all lists them"


def _parting(outcome: Comparison) -> Iterable[str]:
    """Where the plans part, in a few lines."""
    divergence = outcome.divergence
    if divergence is None:
        yield "identical" if outcome.identical else "no step differs; the tables do"
        return
    yield f"first difference: step {divergence.step}, {divergence.what}"
    yield from (f"  because {cause}" for cause in divergence.causes)
    if divergence.file:
        at = ", ".join(
            part for part in (divergence.record, divergence.kind, divergence.field) if part
        )
        yield f"  {divergence.file}: {at}"
    if divergence.hint:
        yield f"  {divergence.hint}"
    if divergence.first or divergence.second:
        yield f"  first:  {divergence.first}"
        yield f"  second: {divergence.second}"


def _cell_line(cell: CellPair) -> str:
    if cell.difference is None or cell.first is None or cell.second is None:
        return f"cell {cell.id} {cell.says}"
    says = f"cell {cell.id} {cell.says}: {show(cell.first)} against {show(cell.second)}"
    if cell.difference:
        says += f", {show(cell.difference, signed=True)}{points(cell.unit)}"
    if cell.p is not None and cell.says != "same":
        says += f" ({show_p(cell.p)}; {cell.method})"
    return says
