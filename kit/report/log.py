"""The reproduction log: one small file a run, which anybody can add to the repository.

An entry says what came out and on what hardware, and binds itself to the verdict by its sha256. It
carries a name only if its owner gives one.
"""

from __future__ import annotations

import re
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import msgspec
from msgspec import Struct

from kit import jsonfile
from kit.durable import sha256_file
from kit.errors import InvalidInput
from kit.report.facts import hardware_line
from kit.report.files import Run, write_file
from kit.report.markdown import escape, table
from kit.report.text import one_line
from kit.verify.verdict import ClaimReport, RunVerdict, Verdict

FOLDER = "reproductions"
_LIBRARIES = ("torch", "transformers", "vllm", "deepspeed", "accelerate", "numpy")
_LONGEST = 120


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
    modified: bool
    brought: bool
    """The numbers were brought as a table and not run by the kit."""
    claims: dict[str, int]
    """Outcome -> number of primary claims."""
    cells: dict[str, int]
    """Verdict -> number of cells."""
    verdict_sha256: str
    date: str
    """UTC day on which the run ended."""
    hardware: str
    kit_version: str
    commit: str | None = None
    dirty: bool | None = None
    versions: dict[str, str] = {}
    name: str | None = None
    seed: int | None = None
    """What the smallest seed was moved to; None for the seeds of the manifest."""
    modified_beyond_seed: bool = False
    environment: str = ""
    """Device and, on a GPU, its architecture."""
    by_claim: list[ClaimEntry] = []
    """Every primary claim with its numbers, so that entries can be pooled."""


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
    versions = record.versions if record is not None else {}
    when = (record.ended or record.started) if record is not None else ""
    return Entry(
        experiment=verdict.experiment,
        version=verdict.version,
        profile=verdict.profile,
        variant=plan.variant if plan is not None else "",
        verdict=verdict.verdict,
        modified=verdict.modified,
        brought=verdict.not_run_here,
        claims=dict(sorted(Counter(c.outcome for c in verdict.claims if c.primary).items())),
        cells=dict(sorted(Counter(cell.verdict for cell in verdict.cells).items())),
        verdict_sha256=sha256_file(run.path / "verdict.json"),
        date=_day(when),
        hardware=_short(hardware or hardware_line(record.hardware if record else {})),
        kit_version=verdict.kit_version or (record.kit_version if record else ""),
        commit=record.commit if record is not None else None,
        dirty=record.dirty if record is not None else None,
        versions={lib: versions[lib] for lib in _LIBRARIES if versions.get(lib)},
        name=_short(name) or None,
        seed=record.seed if record is not None else None,
        modified_beyond_seed=any(not text.startswith("seed=") for text in verdict.overrides),
        environment=_environment(run),
        by_claim=[_claim(claim, verdict) for claim in verdict.claims if claim.primary],
    )


def _environment(run: Run) -> str:
    known = run.record.environment if run.record is not None else {}
    return ", ".join(str(known[key]) for key in ("device", "gpu_arch") if known.get(key))


def _claim(claim: ClaimReport, verdict: Verdict) -> ClaimEntry:
    cells = []
    for report in verdict.cells:
        if report.id in claim.cells and report.value is not None:
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
    name_of_run = re.sub(r"[^a-z0-9.-]+", "-", f"{made.experiment}-{made.profile}")[:80]
    path = folder / f"{made.date}-{name_of_run}-{made.verdict_sha256[:8]}.json"
    folder.mkdir(parents=True, exist_ok=True)
    write_file(path, msgspec.json.format(msgspec.json.encode(made), indent=2) + b"\n")
    return path


def entries(folder: Path) -> list[Entry]:
    """The log, by experiment, profile and day.

    Raises:
        InvalidInput: A file of the log is damaged.
    """
    paths = sorted(folder.glob("*.json")) if folder.is_dir() else []
    listed = [
        jsonfile.read(path, Entry, next_step=f"remove or mend {path.name}", version=1)
        for path in paths
    ]
    return sorted(listed, key=lambda entry: (entry.experiment, entry.profile, entry.date))


def matrix_markdown(folder: Path) -> str:
    """The log as a Markdown table, for the documentation."""
    listed = entries(folder)
    if not listed:
        return "Nobody has added a reproduction yet: `kit log add RUN`.\n"
    rows = [
        [
            escape(entry.experiment),
            f"{escape(entry.profile)}{f', {escape(entry.variant)}' if entry.variant else ''}",
            f"**{entry.verdict}**{_marks(entry)}",
            _claims(entry),
            escape(entry.date),
            escape(entry.hardware),
            escape(entry.kit_version) + (f" ({escape(entry.commit[:8])})" if entry.commit else ""),
            escape(entry.name) if entry.name else "\u2014",
        ]
        for entry in listed
    ]
    head = ["Experiment", "Profile", "Verdict", "Primary claims", "Day", "Hardware", "Kit", "By"]
    return "\n".join(table(head, rows)).rstrip() + "\n"


def block(root: Path) -> str:
    """The log of a repository, for ``kit docs``."""
    return matrix_markdown(root / FOLDER)


def _marks(entry: Entry) -> str:
    marks = [
        word for word, said in (("modified", entry.modified), ("brought", entry.brought)) if said
    ]
    return f" ({', '.join(marks)})" if marks else ""


def _claims(entry: Entry) -> str:
    total = sum(entry.claims.values())
    return f"{entry.claims.get('holds', 0)} of {total} hold" if total else "none"


def _day(time: str) -> str:
    try:
        return datetime.fromisoformat(time).astimezone(UTC).date().isoformat()
    except ValueError:
        return datetime.now(UTC).date().isoformat()


def _short(text: str) -> str:
    return one_line(text)[:_LONGEST]
