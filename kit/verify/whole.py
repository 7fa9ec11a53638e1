"""What a whole run has, and what of it is not there.

Nothing is compared here. The plan says which steps, canaries and replicates there must be, the
expectation which counts, labels and further cells; the record says what happened. Whatever of this
is absent or belongs to another run is named, and a run of which something is named is never better
than ``INCOMPLETE``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from functools import cache

import msgspec
from msgspec import Struct

from kit.durable import sha256_file
from kit.manifest.expectation_types import Expectation, ExpectedCell
from kit.manifest.pin_types import Pin
from kit.plural import plural
from kit.results.axes import Axes, name_of
from kit.results.files import EVENTS, LABELS, PLAN, RECORD, RESULTS, SUMS
from kit.results.ids import ALL, EXTRA
from kit.results.plan import Plan, StepInstance
from kit.results.record import Record
from kit.results.run import Run
from kit.results.types import Cell, Results, SeedValue
from kit.verify.derived import undefined
from kit.verify.measurement import Measurement, measure
from kit.verify.numbers import some

SLACK = timedelta(minutes=1)
"""Time by which two clocks of one run may be apart."""


def absences(run: Run, expected: Expectation) -> list[str]:
    """What a run lacks, a sentence each; empty for a whole one.

    Args:
        run: A run directory with a table.
        expected: What it is compared with.
    """
    plan, record = run.plan, run.record
    lacking = [] if run.closed else [f"{SUMS} is not there: the files may have been changed"]
    if record is None:
        lacking.append(f"{RECORD} is not there: nothing says how the table came about")
    else:
        lacking += _by_record(run, record)
    if plan is None:
        lacking.append(f"{PLAN} is not there: nothing says what the run was to measure")
    else:
        lacking += _canaries(plan, run.results)
        lacking += _replicates(plan, run.results, expected)
    if plan is not None and record is not None:
        lacking += _by_plan(plan, record)
    return lacking + list(_by_expectation(run, expected))


def _by_record(run: Run, record: Record) -> Iterator[str]:
    """The record is of this table, and of a run that finished."""
    for name in ("experiment", "version", "profile"):
        ours, theirs = getattr(run.results, name), getattr(record, name)
        if ours != theirs:
            yield f"{RECORD} is of another {name}: {theirs!r}, the table's is {ours!r}"
    if record.status != "finished":
        yield f"the run is recorded as {record.status}"
    if not record.results_sha256:
        yield f"{RECORD} does not name the sha256 of {RESULTS}"
    step = record.steps.get(run.plan.results) if run.plan is not None else None
    labels = step.outputs.get(LABELS) if step is not None else None
    if labels is not None and (
        not run.has_labels or sha256_file(run.path / LABELS) != labels.sha256
    ):
        yield f"{LABELS} is not what the step {run.plan.results if run.plan else ''} wrote"
    if not _in_events(run, record):
        yield f"{EVENTS} knows no run that began when {RECORD} says"


class _Began(Struct):
    """The first event of a run."""

    event: str
    time: datetime
    experiment: str
    profile: str


def _in_events(run: Run, record: Record) -> bool:
    path = run.path / EVENTS
    if not path.is_file():
        return False
    try:
        started = msgspec.convert(record.started, datetime)
        with path.open("rb") as file:
            lines = [line for line in file if b'"run-started"' in line]
        began = [msgspec.json.decode(line, type=_Began) for line in lines]
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return False
    return any(
        (event.event, event.experiment, event.profile)
        == ("run-started", record.experiment, record.profile)
        and event.time.tzinfo == started.tzinfo
        and abs(event.time - started) <= SLACK
        for event in began
    )


def _by_plan(plan: Plan, record: Record) -> Iterator[str]:
    """The record tells of these steps, with these inputs."""
    for name in ("experiment", "version", "variant", "profile", "seed", "overrides", "rehearsal"):
        ours, theirs = getattr(plan, name), getattr(record, name)
        if ours != theirs:
            yield f"{RECORD} and {PLAN} differ in {name}: {theirs!r} and {ours!r}"
    steps = plan.instances
    done = [step.id for step in steps if step.id in record.steps]
    if len(done) < len(steps):
        lost = [step.id for step in steps if step.id not in record.steps]
        yield f"{len(lost)} of {len(steps)} steps are not in {RECORD}: {some(lost)}"
    other = [step.id for step in steps if step.id in done and record.steps[step.id].key != step.key]
    if other:
        stand = plural(len(other), "step stands", "steps stand")
        yield f"{stand} in {RECORD} under another key: {some(other)}"
    open_ = [id for id in done if record.steps[id].state not in ("run", "cached")]
    if open_:
        yield f"{plural(len(open_), 'step')} did not finish: {some(open_)}"
    digests = {use.pin: use.digest for step in steps for use in step.pins.values()}
    wanted = {
        pin.id: (pin.repo, pin.revision, pin.url, digests.get(pin.id, ""), _files(pin))
        for pin in plan.pins
    }
    used = {
        id: (pin.repo, pin.revision, pin.url, pin.digest, pin.files)
        for id, pin in record.pins.items()
    }
    pins = [id for id in {**wanted, **used} if wanted.get(id) != used.get(id)]
    if pins:
        yield f"{plural(len(pins), 'pin')} of {PLAN} not as {RECORD} has it: {some(pins)}"


def _files(pin: Pin) -> dict[str, str | None]:
    return {file.path: file.sha256 for file in pin.files}


def _canaries(plan: Plan, results: Results) -> Iterator[str]:
    """Every canary that the kinds of the plan's steps declare was heard."""
    heard = {(canary.step, canary.id) for canary in results.canaries}
    silent: dict[str, list[str]] = {}
    for instance in plan.instances:
        for id in instance.canaries:
            if (instance.id, id) not in heard:
                silent.setdefault(id, []).append(instance.id)
    for id, steps in silent.items():
        yield f"canary {id} of {len(steps)} steps is not there: {some(steps)}"


def _replicates(plan: Plan, results: Results, expected: Expectation) -> Iterator[str]:
    """Every expected cell has the replicates that the axes of its step give it."""
    wanted = _expected(results, expected)
    named = any(cell.step for cell in results.cells)
    steps = plan.by_step
    axes = {
        step: Axes([instance.axes for instance in same], plan.roles or None)
        for step, same in steps.items()
    }
    whole_sets = [
        {axes[step].origin(instance.id, instance.axes).replicate for instance in same}
        for step, same in steps.items()
    ]
    # A cell of a single replicate names none, pooled over another axis though it may be.
    alone = any(len(names) == 1 and names != {""} for names in whole_sets)
    nameless = alone and any(len(names) > 1 for names in whole_sets)
    derived = {cell.id: cell for cell in expected.cells if cell.derived}

    @cache
    def measured() -> dict[str, Measurement]:
        return {cell.id: measure(cell, cell.unit, RESULTS, None) for cell in results.cells}

    fewer: list[str] = []
    stray: list[str] = []
    for cell in wanted.values():
        made_by = plan.by_id.get(cell.step)
        if made_by is None:
            # A statistic over an axis comes from several steps: it has all replicates of some step.
            names = _names(cell, results)
            pooled = not cell.step and (names in whole_sets or (nameless and not names))
            stray += [cell.id] if named and not pooled else []
            continue
        planned = {
            origin.replicate
            for instance in steps[made_by.step]
            if _of(
                cell,
                instance,
                (origin := axes[made_by.step].origin(instance.id, instance.axes)).group,
            )
        }
        lost = sorted(planned - _names(cell, results)) if len(planned) > 1 else []
        rule = derived.get(cell.id)
        if lost and rule is not None:
            lost = [name for name in lost if not undefined(rule, expected, measured(), name)]
        if lost:
            fewer.append(f"{cell.id} ({len(lost)} of {len(planned)}: {some(lost)})")
    if fewer:
        yield f"replicates of {plural(len(fewer), 'cell')} are not there: {some(fewer)}"
    if stray:
        yield f"{plural(len(stray), 'cell names', 'cells name')} no step of {PLAN}: {some(stray)}"


def _of(cell: Cell, instance: StepInstance, group: str) -> bool:
    """Whether a cell holds what this instance measured: its group and its settings."""
    own, _, rest = cell.id.removeprefix(EXTRA).partition("/")
    settings = rest.partition("/")[0 if cell.id.startswith(EXTRA) else 2].split("@")[1:]
    values = {name_of(value) for value in instance.axes.values()}
    return own in (group, ALL) and values.issuperset(settings)


def _names(cell: Cell, results: Results) -> set[str]:
    """Replicates that a cell was measured on."""
    ref = cell.trajectory
    if ref is None:
        return {seed.seed for seed in cell.seeds}
    lines = (series.lines.get(ref.line, []) for series in results.series if series.id == ref.series)
    return {curve.seed for curves in lines for curve in curves}


def _expected(results: Results, expected: Expectation) -> dict[str, Cell]:
    """The expected cells that were measured."""
    listed = {cell.id.partition(":")[0] for cell in expected.cells} | set(expected.present)
    return {cell.id: cell for cell in results.cells if cell.id in listed and cell.not_run is None}


def _by_expectation(run: Run, expected: Expectation) -> Iterator[str]:
    """Counts, labels and further cells, as the expectation declares them."""
    table = {cell.id: cell for cell in run.results.cells}
    absent = [id for id in expected.present if id not in table]
    if absent:
        yield f"not there beside the listed ones: {plural(len(absent), 'cell')}: {some(absent)}"
    measured = [
        (cell, table[cell.id])
        for cell in expected.cells
        if cell.id in table and table[cell.id].not_run is None and cell.n is not None
    ]
    bare = _without(measured, lambda part: part.k is not None and part.n is not None)
    if bare:
        yield f"counts (k of n) of {plural(len(bare), 'cell')} are not there: {some(bare)}"
    groups = {id.partition("/")[0] for id in table if not id.startswith(EXTRA)}
    labelled = [
        (cell, measured_cell)
        for cell, measured_cell in measured
        if cell.labelled and not (cell.id.startswith(f"{ALL}/") and len(groups) > 1)
    ]

    def has_items(part: Cell | SeedValue) -> bool:
        return part.labels is not None and bool(run.labels.get(part.labels).items)

    blank = _without(labelled, has_items)
    if blank:
        yield f"labels of single items of {plural(len(blank), 'cell')} are not there: {some(blank)}"


def _without(
    pairs: Iterable[tuple[ExpectedCell, Cell]], has: Callable[[Cell | SeedValue], bool]
) -> list[str]:
    """Cells of which the whole, or a replicate, does not have something."""
    parts: list[tuple[str, Sequence[Cell | SeedValue]]] = [
        (cell.id, measured_cell.seeds or [measured_cell]) for cell, measured_cell in pairs
    ]
    return [id for id, of in parts if not all(has(part) for part in of)]
