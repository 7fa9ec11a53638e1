"""The reproduction log: one small file a run, which anybody can add to the repository.

An entry says what came out and on what hardware, and binds itself to the verdict by its sha256. It
carries a name only if its owner gives one.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Literal

import msgspec
from msgspec import Struct

from kit import jsonfile
from kit.durable import sha256_file
from kit.errors import InvalidInput
from kit.report.facts import hardware_line
from kit.report.files import Run, write_file
from kit.report.text import one_line
from kit.results.files import RECORD, VERDICT
from kit.results.plan import Plan
from kit.verify.outcome import NOT_WHOLE
from kit.verify.verdict import ClaimReport, RunVerdict, Verdict

FOLDER = "reproductions"
_LONGEST = 120
MAX_NAME = 80
"""Characters of a file's name that experiment and profile give."""


class CellEntry(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A measured number that a claim looks at."""

    id: str
    unit: str
    value: float
    low: float | None = None
    high: float | None = None
    """Its 95 % interval, where something is uncertain."""


class ClaimEntry(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What became of a primary claim."""

    id: str
    outcome: str
    p: float | None = None
    cells: list[CellEntry] = []


class Entry(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One file of the log."""

    schema_version: Literal[1] = 1
    experiment: str
    version: str
    profile: str
    variant: str
    verdict: RunVerdict
    brought: bool
    """The numbers were brought as a table and not run by the kit."""
    changes: list[str] = []
    """What of the run is not as the kit has it, or is absent; other seeds are no change."""
    claims: list[ClaimEntry] = []
    """Every primary claim with its numbers, so that entries can be pooled."""
    verdict_sha256: str
    date: str
    """UTC day on which the run ended."""
    hardware: str
    kit_version: str
    commit: str | None = None
    name: str | None = None
    seeds: list[int] = []
    environment: dict[str, str] = {}
    """The environment class: what the steps' keys say of device, types and libraries."""
    code: dict[str, str] = {}
    """Step kind -> digest of the code that made its outputs; empty where that is not recorded."""


def entry(run: Run, *, name: str = "", hardware: str = "") -> Entry:
    """The log entry of a verified run.

    Args:
        run: The run.
        name: Whoever made it, if they want to be named.
        hardware: Says it better than the record does.

    Raises:
        InvalidInput: A rehearsal, a run without a comparison, or hardware that nobody knows.
    """
    verdict, record, plan = run.verdict, run.record, run.plan
    if verdict.verdict == "NOT COMPARED":
        raise InvalidInput(
            "a run that nothing was compared with is no reproduction",
            where=str(run.path),
            next_step=f"write an expectation, then: kit verify {run.path}",
        )
    if verdict.verdict == "REHEARSED":
        raise InvalidInput(
            "a rehearsal is no reproduction",
            where=str(run.path),
            why="it ran on stand-in data and says nothing about any claim",
            next_step=f"kit run {verdict.experiment} --profile {verdict.profile}",
        )
    if not hardware and record is None:
        raise InvalidInput(
            "the hardware is not recorded",
            where=str(run.path),
            why="an entry without hardware does not help the next reader",
            next_step="kit log add RUN --hardware 'what it ran on'",
        )
    when = (record.ended or record.started) if record is not None else ""
    return Entry(
        experiment=verdict.experiment,
        version=verdict.version,
        profile=verdict.profile,
        variant=plan.variant if plan is not None else "",
        verdict=verdict.verdict,
        brought=verdict.not_run_here,
        changes=_changes(verdict),
        claims=[_claim(claim, verdict) for claim in verdict.claims if claim.primary],
        verdict_sha256=sha256_file(run.path / VERDICT),
        date=_day(when),
        hardware=_short(hardware or hardware_line(record.hardware if record else {})),
        kit_version=verdict.kit_version or (record.kit_version if record else ""),
        commit=record.commit if record is not None else None,
        name=_short(name) or None,
        seeds=_seeds(plan),
        environment=_environment(plan),
        code=_code(run),
    )


def _changes(verdict: Verdict) -> list[str]:
    changed = [text for text in verdict.overrides if not text.startswith("seed=")]
    if verdict.own_expectation:  # whose path is nobody else's business
        changed = [text for text in changed if not text.startswith("compared with ")]
        changed.append("compared with an expectation of its own")
    absent = [reason for reason in verdict.reasons if reason.startswith(NOT_WHOLE)]
    return [_short(text) for text in (*changed, *absent)]


def _seeds(plan: Plan | None) -> list[int]:
    """The seeds that its steps were given: fields ``seed`` of their axes, or an axis ``seed``."""
    axes = [axis for step in (plan.instances if plan else ()) for axis in step.axes.items()]
    given = [value.get("seed") if isinstance(value, dict) else value
             for name, value in axes if isinstance(value, dict) or name == "seed"]  # fmt: skip
    return sorted({seed for seed in given if isinstance(seed, int)})


def _environment(plan: Plan | None) -> dict[str, str]:
    fields: dict[str, set[str]] = {}
    for step in plan.instances if plan is not None else ():
        for name, value in step.environment.items():
            if value not in (None, False):
                fields.setdefault(name, set()).add(str(value))
    return {name: "+".join(sorted(fields[name])) for name in sorted(fields)}


def _code(run: Run) -> dict[str, str]:
    digests = run.code
    if any("" in known for known in digests.values()):
        return {}
    joined = {kind: ",".join(sorted(digests[kind])) for kind in sorted(digests)}
    return {kind: sha256(text.encode()).hexdigest()[:16] for kind, text in joined.items()}


def _claim(claim: ClaimReport, verdict: Verdict) -> ClaimEntry:
    cells = []
    for report in verdict.cells:
        counts = report.id in claim.cells and report.verdict != "invalid"
        if counts and report.value is not None:
            interval = report.value_interval
            cells.append(
                CellEntry(
                    id=report.id,
                    unit=report.unit,
                    value=report.value,
                    low=interval.low if interval is not None else None,
                    high=interval.high if interval is not None else None,
                )
            )
    return ClaimEntry(id=claim.id, outcome=claim.outcome, p=claim.p, cells=cells)


def add(run: Run, folder: Path, *, name: str = "", hardware: str = "") -> Path:
    """Write the entry of a run below ``folder``; the same run gives the same file."""
    made = entry(run, name=name, hardware=hardware)
    name_of_run = re.sub(r"[^a-z0-9.-]+", "-", f"{made.experiment}-{made.profile}")[:MAX_NAME]
    # Two runs may have one verdict; their records differ, at least by the time.
    own = next(run.path / file for file in (RECORD, VERDICT) if (run.path / file).is_file())
    path = folder / f"{made.date}-{name_of_run}-{sha256_file(own)[:8]}.json"
    folder.mkdir(parents=True, exist_ok=True)
    write_file(path, msgspec.json.format(msgspec.json.encode(made), indent=2) + b"\n")
    return path


def entries(folder: Path) -> list[Entry]:
    """The log, by experiment, version, profile and day.

    Raises:
        InvalidInput: A file of the log is damaged.
    """
    paths = sorted(folder.glob("*.json")) if folder.is_dir() else []
    listed = [
        jsonfile.read(path, Entry, next_step=f"remove or mend {path.name}", version=1)
        for path in paths
    ]
    return sorted(listed, key=lambda e: (e.experiment, e.version, e.profile, e.date))


def _day(time: str) -> str:
    try:
        return datetime.fromisoformat(time).astimezone(UTC).date().isoformat()
    except ValueError:
        return datetime.now(UTC).date().isoformat()


def _short(text: str) -> str:
    return one_line(text)[:_LONGEST]
