"""What ``kit verify`` does between its arguments and its exit code."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import msgspec
from msgspec import structs

from kit.durable import sha256_file, write_output
from kit.errors import InvalidInput, KitError, Many, UsageError
from kit.manifest.expectation_types import Expectation, ExpectedCell, Unit
from kit.manifest.load import Loaded, read_expectation
from kit.manifest.shipped import edited
from kit.plural import plural
from kit.results.files import RESULTS, VERDICT
from kit.results.labels import LabelFiles
from kit.results.run import Run, open_run
from kit.results.types import Results
from kit.verify.core import Subject, verify
from kit.verify.timings import with_timings
from kit.verify.verdict import Verdict
from kit.verify.whole import absences
from kit.verify.words import Documents


@dataclass(frozen=True)
class Basis:
    """What a verdict rests on, and where it goes.

    Attributes:
        subject: What is verified.
        results_sha256: Of the table.
        output: ``verdict.json``, or None for a table without a run directory.
        loaded: The expectation with the places of its parts; None where there is none.
        expectation_sha256: Of the expectation file.
    """

    subject: Subject
    results_sha256: str = ""
    output: Path | None = None
    loaded: Loaded[Expectation] | None = None
    expectation_sha256: str = ""


def read_basis(
    run: str,
    results: Path | None = None,
    profile: str = "mini",
    expectation: Path | None = None,
) -> Basis:
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
        return _of_run(open_run(Path(run)), expectation)
    from kit.verify.tables import read_table, with_counts

    file, root = _expectation(run, profile, expectation)
    loaded = read_expectation(file)
    table, labels = read_table(results, loaded.value)
    table, notes = with_counts(table, str(results))
    subject = Subject(
        expected=loaded.value,
        results=table,
        labels=labels,
        where=str(results),
        not_run_here=True,
        documents=_documents(loaded.value, loaded.value.experiment),
        notes=["not run here: the table was brought from elsewhere", *notes],
    )
    return _compared(Basis(subject, sha256_file(results)), loaded, file, root, expectation)


def _of_run(run: Run, expectation: Path | None) -> Basis:
    """With no expectation there is every measured cell, and no claim."""
    experiment = Path(run.manifest) if run.manifest else run.results.experiment
    profile, where = run.results.profile, run.path / RESULTS
    against = None
    if expectation is not None or not _has_none(experiment, profile):
        file, root = _expectation(experiment, profile, expectation)
        against = read_expectation(file), file, root
    expected = against[0].value if against else _unreported(run.results)
    subject = Subject(
        expected=expected,
        results=with_timings(run.results, expected, run),
        labels=run.labels,
        where=str(where),
        expectation="",
        overrides=_changes(run) + ([f"compared with {expectation}"] if expectation else []),
        rehearsal=run.rehearsal,
        scope=run.plan.scope if run.plan is not None else "",
        documents=_documents(expected, experiment) if against else None,
        replicate=_replicate(run),
        notes=[*run.notes, *(_beforehand(against[1]) if against else [])],
        absent=absences(run, expected),
        blind=run.record.blind if run.record is not None else None,
        uncompared=against is None,
    )
    basis = Basis(subject, sha256_file(where), run.path / VERDICT)
    return _compared(basis, *against, expectation) if against else basis


def _compared(
    basis: Basis, loaded: Loaded[Expectation], file: Path, root: Path, given: Path | None
) -> Basis:
    """With what the expectation file adds."""
    parts = [file, *([file.parent / loaded.value.record] if loaded.value.record else [])]
    changed = [_relative(path, root) for path in parts if edited(path, root)]
    subject = replace(
        basis.subject,
        published=LabelFiles(file.parent, root),
        expectation=str(given) if given is not None else _relative(file, root),
        own_expectation=given is not None,
        overrides=[
            *basis.subject.overrides,
            *(f"{name} is not as the kit ships it" for name in changed),
        ],
    )
    return replace(basis, subject=subject, loaded=loaded, expectation_sha256=sha256_file(file))


def _unreported(table: Results) -> Expectation:
    """An expectation that lists what was measured, and has a number for nothing."""
    return Expectation(
        schema_version=1,
        experiment=table.experiment,
        profile=table.profile,
        version=table.version,
        cells=[
            ExpectedCell(
                id=cell.id, status="unreported", unit=cast(Unit, cell.unit), place="nowhere"
            )
            for cell in table.cells
        ],
        claims=[],
    )


def _has_none(experiment: str | Path, profile: str) -> bool:
    """Whether a manifest is there and has no expectation at a profile."""
    from kit.manifest.catalog import Catalog

    if isinstance(experiment, Path) and not experiment.is_file():
        return False
    return Catalog().expectation_path(experiment, profile) is None


def _documents(expected: Expectation, experiment: str | Path) -> Documents | None:
    """The numbers that the documents printed; None where the manifest names no document."""
    from kit.manifest.catalog import Catalog

    catalog = Catalog()
    try:
        manifest = catalog.manifest(experiment)
        if not manifest.documents:
            return None
        names = [
            name for name, profile in manifest.profiles.items() if profile.compares == "published"
        ]
        if expected.profile in names:
            return Documents(scale=expected.scale, here=True, expected=expected)
        printed = catalog.expectation(experiment, names[0]) if names else None
    except KitError:
        return None  # a verdict can be asked for without the manifest
    return Documents(scale=printed.scale if printed else "", expected=printed)


def _replicate(run: Run) -> str:
    """What the run calls a replicate: the name of that axis, where there is one such axis."""
    roles = run.plan.roles if run.plan is not None else {}
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


def _changes(run: Run) -> list[str]:
    """What of a run is not as the repository has it: overrides and code."""
    changed, record = list(run.overrides), run.record
    if record is not None and record.dirty:
        changed.append(f"code with changes that {record.commit or 'no commit'} does not have")
    stale = [id for id, step in record.steps.items() if step.stale] if record else []
    if stale:
        changed.append(f"{plural(len(stale), 'finished step')} of earlier code ({stale[0]}, ...)")
    return changed


def _beforehand(file: Path) -> list[str]:
    """What was known before the run about what it can show."""
    from kit.verify.published import not_carried

    return list(filter(None, [not_carried(file)]))


def _relative(path: Path, root: Path) -> str:
    resolved, base = path.resolve(), root.resolve()
    return str(resolved.relative_to(base)) if resolved.is_relative_to(base) else str(path)


def verdict_of(basis: Basis) -> Verdict:
    """The verdict, with the hashes of what it rests on.

    Raises:
        KitError: Table and expectation do not fit; file, line and column where it is about the
            expectation.
    """
    try:
        verdict = verify(basis.subject)
    except KitError as error:
        for each in error.errors if isinstance(error, Many) else (error,):
            if isinstance(each, InvalidInput) and each.where.startswith(basis.subject.expectation):
                each.where = each.where.removeprefix(basis.subject.expectation).removeprefix(": ")
                if basis.loaded is not None:
                    basis.loaded.placed(each)
        raise
    return structs.replace(
        verdict,
        expectation_sha256=basis.expectation_sha256,
        results_sha256=basis.results_sha256,
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
    made = structs.replace(verdict_of(read_basis(str(run), expectation=own)), kit_version="")
    ours, theirs = (
        msgspec.json.decode(msgspec.json.encode(said))
        for said in (made, structs.replace(verdict, kit_version=""))
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


def deliver(basis: Basis, verdict: Verdict, junit: Path | None = None) -> None:
    """Write ``verdict.json`` into the run directory, and the JUnit file if asked for."""
    if junit is not None:
        from kit.verify.junit import document

        write_output(junit, document(verdict))
    if basis.output is not None:
        write_output(basis.output, encode(verdict))
