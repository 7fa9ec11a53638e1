"""What ``kit verify`` does between its arguments and its exit code."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import cast

import msgspec
from msgspec import structs

from kit.durable import write_output
from kit.errors import InvalidInput, KitError, Many, UsageError
from kit.manifest.expectation_types import Expectation, ExpectedCell, Unit
from kit.manifest.load import Loaded, read_expectation
from kit.manifest.shipped import edited
from kit.results.files import RESULTS, VERDICT
from kit.results.labels import LabelFiles, LabelSource
from kit.results.run import Run, open_run
from kit.results.types import Results
from kit.verify.core import Subject, verify
from kit.verify.timings import with_timings
from kit.verify.verdict import Verdict
from kit.verify.whole import absences
from kit.verify.words import Documents


@dataclass(frozen=True)
class Case:
    """A subject, and where its verdict goes.

    Attributes:
        subject: What is verified.
        output: ``verdict.json``, or None for a table without a run directory.
        loaded: The expectation with the places of its parts; None where there is none.
        expectation_sha256: Of the expectation file.
        results_sha256: Of the table.
    """

    subject: Subject
    output: Path | None
    loaded: Loaded[Expectation] | None
    expectation_sha256: str
    results_sha256: str


def open_case(
    run: str,
    results: Path | None = None,
    profile: str = "mini",
    expectation: Path | None = None,
) -> Case:
    """Read everything a verdict rests on.

    Args:
        run: Run directory; an experiment when ``results`` is given.
        results: Table brought from elsewhere.
        profile: Profile of that table.
        expectation: Expectation file instead of the repository's.

    Raises:
        KitError: Anything that is not what it must be.
    """
    if results is None:
        found = open_run(Path(run))
        table, labels, where = found.results, found.labels, found.path / RESULTS
        experiment = Path(found.manifest) if found.manifest else table.experiment
        if expectation is None and _has_none(experiment, table.profile):
            return _uncompared(found)
        file, root = _expectation(experiment, table.profile, expectation)
        loaded = read_expectation(file)
        table = with_timings(table, loaded.value, found)
        return _case(
            loaded,
            file,
            root,
            table,
            labels,
            where,
            found=found,
            given=expectation,
        )
    from kit.verify.counts import with_counts
    from kit.verify.tables import read_table

    file, root = _expectation(run, profile, expectation)
    loaded = read_expectation(file)
    brought, source = read_table(results, loaded.value)
    brought, notes = with_counts(brought, str(results))
    notes = ["not run here: the table was brought from elsewhere", *notes]
    return _case(loaded, file, root, brought, source, results, given=expectation, notes=notes)


def _case(
    loaded: Loaded[Expectation],
    file: Path,
    root: Path,
    results: Results,
    labels: LabelSource,
    where: Path,
    *,
    found: Run | None = None,
    given: Path | None = None,
    notes: Sequence[str] = (),
) -> Case:
    expected = loaded.value
    changed = _changes(found, given)
    changed += [f"{name} is not as the kit ships it" for name in _edited(file, root, expected)]
    subject = Subject(
        expected=expected,
        results=results,
        labels=labels,
        published=LabelFiles(file.parent, root),
        where=str(where),
        expectation=str(given) if given is not None else _relative(file, root),
        own_expectation=given is not None,
        overrides=changed,
        rehearsal=found is not None and found.rehearsal,
        not_run_here=found is None,
        scope=found.plan.scope if found is not None and found.plan is not None else "",
        documents=_documents(expected, found),
        replicate=_replicate(found),
        notes=[*found.notes, *_beforehand(file)] if found else notes,
        absent=absences(found, expected) if found is not None else [],
    )
    return Case(
        subject,
        found.path / VERDICT if found else None,
        loaded,
        sha256(file.read_bytes()).hexdigest(),
        sha256(where.read_bytes()).hexdigest(),
    )


def _has_none(experiment: str | Path, profile: str) -> bool:
    """Whether a manifest is there and has no expectation at a profile."""
    from kit.manifest.catalog import Catalog

    if isinstance(experiment, Path) and not experiment.is_file():
        return False
    return Catalog().expectation_path(experiment, profile) is None


def _uncompared(found: Run) -> Case:
    """The case of a run that nothing is compared with: every measured cell, and no claim."""
    table = found.results
    cells = [
        ExpectedCell(id=cell.id, status="unreported", unit=cast(Unit, cell.unit), place="nowhere")
        for cell in table.cells
    ]
    expected = Expectation(
        schema_version=1,
        experiment=table.experiment,
        profile=table.profile,
        version=table.version,
        cells=cells,
        claims=[],
    )
    subject = Subject(
        expected=expected,
        results=table,
        labels=found.labels,
        where=str(found.path / RESULTS),
        expectation="",
        overrides=_changes(found, None),
        rehearsal=found.rehearsal,
        scope=found.plan.scope if found.plan is not None else "",
        replicate=_replicate(found),
        notes=found.notes,
        absent=absences(found, expected),
        uncompared=True,
    )
    digest = sha256((found.path / RESULTS).read_bytes()).hexdigest()
    return Case(subject, found.path / VERDICT, None, "", digest)


def _documents(expected: Expectation, found: Run | None) -> Documents | None:
    """The numbers that the documents printed; None where the manifest names no document."""
    from kit.manifest.catalog import Catalog

    catalog = Catalog()
    try:
        experiment = Path(found.manifest) if found and found.manifest else expected.experiment
        manifest = catalog.manifest(experiment)
        if not manifest.documents:
            return None
        names = [name for name, one in manifest.profiles.items() if one.compares == "published"]
        if expected.profile in names:
            return Documents(scale=expected.scale, here=True, expected=expected)
        printed = catalog.expectation(experiment, names[0]) if names else None
    except KitError:
        return None  # a verdict can be asked for without the manifest
    return Documents(scale=printed.scale if printed else "", expected=printed)


def _replicate(found: Run | None) -> str:
    """What the run calls a replicate: the name of that axis, where there is one such axis."""
    roles = found.plan.roles if found is not None and found.plan is not None else {}
    names = [axis for axis, role in roles.items() if role == "replicate"]
    return names[0] if len(names) == 1 else "seed"


def _expectation(experiment: str | Path, profile: str, given: Path | None) -> tuple[Path, Path]:
    """The expectation file and the root that published paths are relative to.

    A path is the user's own manifest: whatever id it has, no expectation of the repository is its.
    """
    if given is not None:
        if not given.is_file():
            raise InvalidInput("no such expectation", where=str(given))
        return given, given.parent
    from kit.manifest.catalog import Catalog

    catalog = Catalog()
    if isinstance(experiment, Path) and not experiment.is_file():
        raise InvalidInput(
            "the manifest that was run is not here any more",
            where=str(experiment),
            next_step="kit verify RUN --expectation FILE",
        )
    path = catalog.expectation_path(experiment, profile)
    own = catalog.own_path(experiment)
    if path is None and own is not None:
        raise UsageError(
            f"{own.name} has no expectation at profile {profile!r}",
            why="numbers are only compared with what was written down beforehand",
            next_step=f"write {own.with_name(own.stem)}.{profile}.expected.yaml, or name a file: "
            "--expectation FILE",
        )
    if path is None:
        raise UsageError(
            f"experiment {str(experiment)!r} has no expectation at profile {profile!r}",
            next_step="kit list shows the profiles of each experiment",
        )
    return path, path.parent if own is not None else catalog.root


def _changes(found: Run | None, given: Path | None) -> list[str]:
    """What of a run is not as the repository has it: overrides, code, the expectation."""
    if found is None:
        return []
    changed = list(found.overrides)
    if found.record is not None and found.record.dirty:
        changed.append(f"code with changes that {found.record.commit or 'no commit'} does not have")
    stale = [id for id, step in found.record.steps.items() if step.stale] if found.record else []
    if stale:
        changed.append(f"{len(stale)} finished steps of earlier code ({stale[0]}, ...)")
    return changed + ([f"compared with {given}"] if given is not None else [])


def _beforehand(file: Path) -> list[str]:
    """What was known before the run about what it can show."""
    from kit.verify.published import not_carried

    said = not_carried(file)
    return [said] if said else []


def _edited(file: Path, root: Path, expected: Expectation) -> list[str]:
    """The expectation or its record of reference runs, where somebody changed it."""
    parts = [file, *([file.parent / expected.record] if expected.record else [])]
    return [_relative(path, root) for path in parts if edited(path, root)]


def _relative(path: Path, root: Path) -> str:
    resolved, base = path.resolve(), root.resolve()
    return str(resolved.relative_to(base)) if resolved.is_relative_to(base) else str(path)


def verdict_of(case: Case) -> Verdict:
    """The verdict, with the hashes of what it rests on.

    Raises:
        KitError: Table and expectation do not fit; file, line and column where it is about the
            expectation.
    """
    try:
        verdict = verify(case.subject)
    except KitError as error:
        for each in error.errors if isinstance(error, Many) else (error,):
            if isinstance(each, InvalidInput) and each.where.startswith(case.subject.expectation):
                each.where = each.where.removeprefix(case.subject.expectation).removeprefix(": ")
                if case.loaded is not None:
                    case.loaded.placed(each)
        raise
    return structs.replace(
        verdict,
        expectation_sha256=case.expectation_sha256,
        results_sha256=case.results_sha256,
    )


def check_follows(run: Path, verdict: Verdict) -> None:
    """Refuse a verdict that is not the one on the files beside it.

    It is made anew; what another version of the kit would word differently is to be made again.

    Raises:
        InvalidInput: It does not follow, or its expectation is not here any more.
        KitError: The files are not what they must be.
    """
    given = Path(verdict.expectation)
    own = given if verdict.own_expectation else None
    made = structs.replace(verdict_of(open_case(str(run), expectation=own)), kit_version="")
    ours, theirs = (
        msgspec.json.decode(msgspec.json.encode(one))
        for one in (made, structs.replace(verdict, kit_version=""))
    )
    other = [name for name in ours if ours[name] != theirs[name]]
    if not other:
        return
    word = f": {theirs['verdict']} there, {ours['verdict']} here" * ("verdict" in other)
    raise InvalidInput(
        "the verdict does not follow from the files beside it",
        where=str(run / VERDICT),
        why=f"made anew it differs in {', '.join(other)}{word}: {VERDICT}, the run or the "
        "expectation was changed after `kit verify`",
        next_step=f"kit verify {run}{f' --expectation {given}' if own else ''}",
    )


def encode(verdict: Verdict) -> bytes:
    """The bytes of ``verdict.json``."""
    return msgspec.json.format(msgspec.json.encode(verdict), indent=1) + b"\n"


def deliver(case: Case, verdict: Verdict, junit: Path | None = None) -> None:
    """Write ``verdict.json`` into the run directory, and the JUnit file if asked for."""
    if junit is not None:
        from kit.verify.junit import write_junit

        write_junit(verdict, junit)
    if case.output is not None:
        write_output(case.output, encode(verdict))
