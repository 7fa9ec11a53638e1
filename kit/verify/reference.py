"""The record of reference runs, which an expectation's reference values are read from.

``kit reference EXP RUN...`` keeps a compact record of the runs beside the expectations, so that
every number has a pedigree and stands in one place only.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from kit.durable import write_output
from kit.errors import InvalidInput
from kit.manifest.expectation_types import Expectation
from kit.manifest.reference_record import measured
from kit.plural import plural
from kit.results.asks import with_answers
from kit.results.run import Run
from kit.verify.preconditions import check_pair
from kit.verify.whole import absences

HOST_FIELDS = frozenset(
    {"host", "hostname", "user", "username", "cwd", "home", "kit_home", "argv", "path"}
)
"""Fields of a record that say where it ran and not what ran."""


def check_runs(expected: Expectation, runs: Sequence[Run]) -> None:
    """Refuse runs that cannot be a reference.

    Raises:
        InvalidInput: A run of another experiment, a rehearsal, an overridden run, one of which
            something is absent, one with finished steps of earlier code, runs of different code.
    """
    for run in runs:
        # Other seeds are what a reference is made of; other parameters are another experiment.
        changed = [text for text in run.overrides if not text.startswith("seed=")]
        if run.rehearsal or changed:
            what = "a rehearsal" if run.rehearsal else f"modified ({', '.join(changed)})"
            raise InvalidInput(f"the run is {what}", where=str(run.path), why="no reference")
        check_pair(expected, run.results, str(run.path / "results.json"), expected.experiment)
        lacking = absences(run, expected)
        if lacking:
            raise InvalidInput(
                f"the run is not whole: {lacking[0]}", where=str(run.path), why="no reference"
            )
    _check_code(runs)


def _check_code(runs: Sequence[Run]) -> None:
    """Refuse steps of earlier code, and of different code; no digest says nothing."""
    made: dict[tuple[str, int], tuple[str, str]] = {}
    for run in runs:
        plan, record = run.plan, run.record
        stale = [id for id, step in record.steps.items() if step.stale] if record else []
        if stale:
            raise InvalidInput(
                plural(len(stale), "finished step was", "finished steps were")
                + f" made by earlier code ({stale[0]}, ...)",
                where=str(run.path),
                why="a reference would mix what old and new code measured",
                next_step="make them again: kit run EXP --fresh; or raise the step's version",
            )
        for instance in plan.instances if plan is not None and record is not None else ():
            step = record.steps.get(instance.id) if record is not None else None
            if step is None or not step.code:
                continue
            where = f"{instance.id} of {run.path}"
            code, other = made.setdefault((instance.kind, instance.version), (step.code, where))
            if code != step.code:
                raise InvalidInput(
                    f"steps of {instance.kind} were made by different code",
                    where=where,
                    why=f"{other} is of version {instance.version} too, and its code was another",
                    next_step="make all runs with the same code: kit run EXP --fresh",
                )


def compact_record(expected: Expectation, runs: Sequence[Run]) -> bytes:
    """Records (without host names) and the expectation's cells of the runs, as JSON lines.

    The first line of a run is its record with the sha256 of its whole ``results.json``; a cell
    follows on a line of its own, so that a change shows as such in a diff.
    """
    wanted = [cell.id for cell in expected.cells]
    lines: list[Any] = []
    for run in runs:
        record = without_host(msgspec.to_builtins(run.record) or {})
        head = {"run": run.path.name, "results_sha256": run.results_sha256, "record": record}
        cells, _ = with_answers(run.results, wanted)
        lines += [head, *(cell for id, cell in cells.items() if id in set(wanted))]
    return b"".join(msgspec.json.encode(line) + b"\n" for line in lines)


def without_host(record: Any) -> Any:
    """The record without the fields in :data:`HOST_FIELDS`, at any depth."""
    if isinstance(record, dict):
        return {k: without_host(v) for k, v in record.items() if k.lower() not in HOST_FIELDS}
    if isinstance(record, list):
        return [without_host(item) for item in record]
    return record


def update(path: Path, expected: Expectation, runs: Sequence[Run], root: Path) -> tuple[Path, int]:
    """Write the record of reference runs that an expectation names; the record and how many cells.

    An expectation that names none gets the line ``record:``: below ``expected_results/reference``
    in the repository, beside itself elsewhere.

    Raises:
        InvalidInput: A run that cannot be a reference; a replicate of a cell in two runs.
    """
    check_runs(expected, runs)
    name = expected.record or _default_name(path, expected, root)
    target = path.parent / name
    content = compact_record(expected, runs)
    cells = len(measured(content, str(target)).keys() & {cell.id for cell in expected.cells})
    target.parent.mkdir(parents=True, exist_ok=True)
    write_output(target, content)
    if not expected.record:
        text = path.read_text(encoding="utf-8")
        written = re.sub(r"(?m)^version:.*$", lambda line: f"{line.group()}\nrecord: {name}", text)
        write_output(path, written.encode())
    return target, cells


def _default_name(path: Path, expected: Expectation, root: Path) -> str:
    stem = f"{expected.experiment}.{expected.profile}"
    if path.resolve().is_relative_to(root.resolve() / "expected_results"):
        return f"../reference/{stem}.jsonl"
    return f"{stem}.reference.jsonl"
