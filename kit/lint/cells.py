"""Rules over an expectation's cells."""

from __future__ import annotations

from collections.abc import Iterator

from kit.engine.wiring import duplicates
from kit.errors import KitError
from kit.lint.core import EXPECTATION, ExpectationContext, waived
from kit.manifest.catalog import SUFFIXES
from kit.manifest.derived import FORMULAS, Undecidable, in_unit
from kit.manifest.expectation_types import ExpectedCell
from kit.manifest.printed import WHOLE, Printed, counts, nearest_shares
from kit.manifest.reference_record import read_record
from kit.manifest.source import Hit, nearest
from kit.plural import plural
from kit.results.ids import ALL, EXTRA

_UNFINISHED = ("running", "diverged", "cancelled", "unreported")


@EXPECTATION.rule("duplicate-id")
def duplicate_id(context: ExpectationContext) -> Iterator[Hit]:
    """Cell and claim ids are unique."""
    for index, id in duplicates(cell.id for cell in context.expectation.cells):
        yield Hit(("cells", index, "id"), f"a second cell {id!r}")
    for index, id in duplicates(claim.id for claim in context.expectation.claims):
        yield Hit(("claims", index, "id"), f"a second claim {id!r}")


@EXPECTATION.rule("experiment")
def experiment(context: ExpectationContext) -> Iterator[Hit]:
    """The expectation belongs to an experiment, a profile of it, and its version N."""
    expectation, path = context.expectation, context.loaded.source.path
    files = context.catalog.files()
    stem = path.stem.removesuffix(".expected")
    if stem != path.stem:  # x.mini.expected.yaml belongs to the x.yaml beside it
        beside = [path.with_name(f"{expectation.experiment}{suffix}") for suffix in SUFFIXES]
        files |= {file.stem: file for file in beside if file.is_file()}
    if expectation.experiment not in files:
        yield Hit(
            ("experiment",),
            f"there is no experiment {expectation.experiment!r}",
            nearest(expectation.experiment, files),
        )
        return
    wanted = f"{expectation.experiment}.{expectation.profile}"
    if stem != wanted:
        yield Hit(("experiment",), f"the file is named {stem!r}, its content is {wanted!r}")
    try:
        manifest = context.catalog.manifest(files[expectation.experiment])
    except KitError:
        return
    if expectation.profile not in manifest.profiles:
        yield Hit(("profile",), f"{manifest.id!r} has no profile {expectation.profile!r}")
    if expectation.version.split("-")[0] != manifest.version.split("-")[0]:
        yield Hit(
            ("version",),
            f"these numbers are for version {expectation.version}, the manifest is at "
            f"{manifest.version}: they are not comparable",
            "make new reference runs, or note what changed and write the new N",
        )


@EXPECTATION.rule("value")
def value(context: ExpectationContext) -> Iterator[Hit]:
    """A reported or quoted cell has a number, a reference its runs, an unfinished one neither."""
    for index, cell in enumerate(context.expectation.cells):
        path = ("cells", index)
        numberless = (*_UNFINISHED, "reference")
        if cell.value is None and not cell.series and cell.status not in numberless:
            yield Hit(path, f"cell {cell.id!r} is {cell.status} but has no value")
        if cell.status in _UNFINISHED and cell.tolerance is not None:
            yield Hit(
                (*path, "tolerance"),
                f"cell {cell.id!r} is {cell.status}: there is no final number to compare with",
            )


@EXPECTATION.rule("reference-runs")
def reference_runs(context: ExpectationContext) -> Iterator[Hit]:
    """A reference names the runs it comes from (before the first ones: a warning for the file)."""
    cells = list(enumerate(context.expectation.cells))
    lacking = [
        (index, cell.id)
        for index, cell in cells
        if cell.status == "reference" and cell.reference is None
    ]
    hint = f"kit reference {context.expectation.experiment} RUN..."
    if lacking and not any(cell.reference for _, cell in cells):
        yield Hit(
            ("cells",),
            f"no reference runs yet: {plural(len(lacking), 'cell')} with nothing to compare with",
            hint,
            level="warning",
        )
        return
    for index, id in lacking:
        yield Hit(("cells", index), f"cell {id!r} is a reference without its runs", hint)


@EXPECTATION.rule("labelled")
def labels_declared(context: ExpectationContext) -> Iterator[Hit]:
    """Where reference runs kept labels of items, the expectation says so: every run needs them."""
    expectation = context.expectation
    if not expectation.record:
        return
    known = read_record(context.loaded.source.path.parent / expectation.record)
    groups = {id.partition("/")[0] for id in known if not id.startswith(EXTRA)}
    for index, cell in enumerate(expectation.cells):
        pooled = cell.id.startswith(f"{ALL}/") and len(groups) > 1  # of the groups' own labels
        if cell.id in known and known[cell.id].labelled and not cell.labelled and not pooled:
            yield Hit(
                ("cells", index),
                f"cell {cell.id!r}: the reference runs kept labels, and no run has to",
                "add `labelled: true` to the cell, or to a default that matches it",
            )


@EXPECTATION.rule("n")
def items(context: ExpectationContext) -> Iterator[Hit]:
    """A proportion has n."""
    for index, cell in enumerate(context.expectation.cells):
        if cell.unit not in WHOLE or cell.n is not None or cell.derived is not None:
            continue
        if cell.value is None:
            continue
        if waived(cell.note, "n"):
            yield Hit(("cells", index), f"cell {cell.id!r}: {cell.note}", level="info")
            continue
        yield Hit(
            ("cells", index),
            f"cell {cell.id!r} is a {cell.unit} without n",
            "add n (items behind it); for a percentage that is no share of items, "
            "a note 'n: why there is none'",
        )


@EXPECTATION.rule("direction")
def direction(context: ExpectationContext) -> Iterator[Hit]:
    """A proportion says which way is better, or that neither is."""
    for index, cell in enumerate(context.expectation.cells):
        written = context.loaded.source.node(("cells", index, "direction")) is not None
        if cell.unit in WHOLE and cell.status not in _UNFINISHED and not written:
            yield Hit(
                ("cells", index),
                f"cell {cell.id!r} is a {cell.unit} without direction",
                "add direction: lower_is_better, higher_is_better or none",
            )


@EXPECTATION.rule("impossible")
def impossible(context: ExpectationContext) -> Iterator[Hit]:
    """A proportion lies between 0 and 1 and fits its count."""
    for index, cell in enumerate(context.expectation.cells):
        path = ("cells", index)
        if cell.k is not None and cell.n is None:
            yield Hit((*path, "k"), f"cell {cell.id!r} has k but no n")
        if cell.k is not None and cell.n is not None and cell.k > cell.n:
            yield Hit((*path, "k"), f"cell {cell.id!r}: {cell.k} of {cell.n} items")
        printed = _printed(cell)
        whole = WHOLE.get(cell.unit)
        if printed is None or whole is None or (cell.derived is not None and cell.n is None):
            continue
        if not 0 <= printed.value <= whole:
            yield Hit(
                (*path, "value"),
                f"cell {cell.id!r}: {printed.text} is no {cell.unit} (0 to {whole})",
                "is it a ratio, or a fraction written as a percentage?",
            )


@EXPECTATION.rule("grim")
def grim(context: ExpectationContext) -> Iterator[Hit]:
    """A printed share is attainable with n items, and is the one that k gives."""
    for index, cell in enumerate(context.expectation.cells):
        printed = _printed(cell)
        whole = WHOLE.get(cell.unit)
        if printed is None or whole is None or cell.n is None or cell.status == "reference":
            continue
        if not 0 <= printed.value <= whole:
            continue
        message, hint = "", "check the digits and n; if the document prints it so, note 'grim: ...'"
        if not counts(printed, cell.n, whole):
            near = [
                f"{k}/{cell.n} = {float(s):.4g}" for k, s in nearest_shares(printed, cell.n, whole)
            ]
            message = f"no count of {cell.n} items gives {printed.text} ({', '.join(near)})"
        elif cell.k is not None and cell.k not in counts(printed, cell.n, whole):
            share = float(whole * cell.k / cell.n)
            message = f"{cell.k}/{cell.n} is {share:.4g}, not {printed.text}"
        if message:
            known = waived(cell.note, "grim")
            yield Hit(
                ("cells", index, "value"),
                f"cell {cell.id!r}: {message}" + (f"; noted: {cell.note}" if known else ""),
                "" if known else hint,
                level="warning" if known else "error",
            )


@EXPECTATION.rule("derived")
def derived(context: ExpectationContext) -> Iterator[Hit]:
    """A derived cell follows from the cells it names, within what their rounding allows."""
    cells = context.cells()
    for index, cell in enumerate(context.expectation.cells):
        if cell.derived is None:
            continue
        path = ("cells", index, "derived", "cells")
        present = set(context.expectation.present)
        unknown = [id for id in cell.derived.cells if id not in cells and id not in present]
        for id in unknown:
            position = cell.derived.cells.index(id)
            yield Hit((*path, position), f"there is no cell {id!r}", nearest(id, cells))
        wanted = FORMULAS[cell.derived.formula][1]
        if wanted is not None and len(cell.derived.cells) != wanted:
            yield Hit(path, f"{cell.derived.formula} takes {wanted} cells")
        elif not unknown and not present.intersection(cell.derived.cells):
            yield from _recompute(cell, [cells[id] for id in cell.derived.cells], index)


def _recompute(cell: ExpectedCell, sources: list[ExpectedCell], index: int) -> Iterator[Hit]:
    assert cell.derived is not None
    formula = cell.derived.formula
    path = ("cells", index, "value")
    result = _printed(cell)
    inputs = [_printed(source) for source in sources]
    if result is None or any(item is None for item in inputs):
        return
    known = [(n, source.unit) for n, source in zip(inputs, sources, strict=True) if n is not None]
    try:
        span = in_unit(formula, known, cell.unit)
    except Undecidable as error:
        yield Hit(path, f"cell {cell.id!r} cannot be recomputed: {error}", level="info")
        return
    if span is None:
        units = ", ".join(sorted({source.unit for source in sources}))
        yield Hit(path, f"cell {cell.id!r} is a {cell.unit} of cells in {units}")
        return
    low, high = span
    if low <= result.high and result.low <= high:
        return
    noted = waived(cell.note, "derived")
    yield Hit(
        path,
        f"cell {cell.id!r}: {formula} of the printed numbers is {float(low):.4g} to "
        f"{float(high):.4g}, not {cell.value}" + (f"; noted: {cell.note}" if noted else ""),
        "" if noted else "check the cells; if the document prints it so, note 'derived: ...'",
        level="warning" if noted else "error",
    )


def _printed(cell: ExpectedCell) -> Printed | None:
    if cell.value is None:
        return None
    try:
        return Printed.parse(cell.value)
    except ValueError:
        return None
