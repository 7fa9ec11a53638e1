"""The later sections: deviations, what was not run, environment, inputs, commands."""

from __future__ import annotations

import shlex
from collections import Counter
from typing import Any
from urllib.parse import quote

from msgspec import Struct

from kit.manifest.pin_types import Pin
from kit.plural import plural
from kit.report.cells import SEVERITY, word
from kit.report.claims import CLASS, evidence
from kit.report.files import Run
from kit.report.text import bytes_word, seconds_word
from kit.results.files import LOGS, SLURM
from kit.results.plan import StepInstance
from kit.results.record import StepRecord
from kit.verify.verdict import CanaryReport, Verdict

MOST_DEVIATIONS = 100
MOST_STEPS = 300
MOST_CHECKS = 80


class Deviation(Struct, kw_only=True):
    """Something that did not come out, with its reason as far as it is known."""

    name: str
    word: str
    css: str
    detail: str
    evidence: str = ""
    why: str = ""


class Input(Struct, kw_only=True):
    """A pinned input."""

    id: str
    title: str
    origin: str
    licence: str
    files: str
    marks: list[tuple[str, str]]


class Step(Struct, kw_only=True):
    """A step with the command that runs it again."""

    id: str
    kind: str
    command: str
    cost: str
    cells: str
    cached: bool
    job: str
    """Cluster job that ran it, where one did."""
    logs: list[tuple[str, str]]
    """(link relative to the run directory, name) of what it printed."""


def deviations(verdict: Verdict) -> tuple[list[Deviation], int]:
    """Failing claims, broken checks and deviating cells, gravest first; and how many are left."""
    shown = [
        Deviation(
            name=claim.id, word=claim.outcome, css="bad", detail=claim.tested or claim.detail,
            evidence=evidence(claim), why=claim.reason,
        )
        for claim in verdict.claims
        if claim.outcome == "fails"
    ]  # fmt: skip
    grave = [cell for cell in verdict.cells if SEVERITY[cell.verdict] <= SEVERITY["deviates"]]
    grave.sort(key=lambda cell: SEVERITY[cell.verdict])
    for cell in grave[:MOST_DEVIATIONS]:
        by = f"Margin chosen by {cell.margin_source or 'nobody named'}: {cell.margin_reason}"
        shown.append(
            Deviation(
                name=cell.id, word=word(cell), css=CLASS[cell.verdict], detail=cell.detail,
                why=by if cell.margin_reason else "",
            )
        )  # fmt: skip
    return shown, max(0, len(grave) - MOST_DEVIATIONS)


def checks(verdict: Verdict) -> tuple[list[CanaryReport], int]:
    """Failed checks, then passed ones as far as a page needs them; and how many are left."""
    ordered = sorted(verdict.canaries, key=lambda canary: canary.passed)
    return ordered[:MOST_CHECKS], max(0, len(ordered) - MOST_CHECKS)


def not_run(verdict: Verdict, most: int = 60) -> list[tuple[str, str]]:
    """(what, why) for everything the verdict says nothing about, the same reasons together."""
    rows: list[tuple[str, str]] = []
    if verdict.published.endswith("not run"):
        rows.append(("", f"{verdict.published.capitalize()} here; what is said is about this run."))
    rows += [("", sentence) for sentence in verdict.not_covered[:most]]
    if len(verdict.not_covered) > most:
        rows.append(("", f"and {len(verdict.not_covered) - most} more, in verdict.json"))
    said = " ".join(verdict.not_covered)
    reasons: dict[tuple[str, str], list[str]] = {}
    for cell in verdict.cells:
        if cell.verdict in ("not-run", "not-compared") and cell.id not in said:
            reasons.setdefault((cell.verdict, cell.detail), []).append(cell.id)
    for (verdict_word, detail), ids in list(reasons.items())[:most]:
        name = ids[0] if len(ids) == 1 else f"{plural(len(ids), 'cell')}, such as {ids[0]}"
        rows.append((f"{name} ({verdict_word.replace('-', ' ')})", detail))
    if len(reasons) > most:
        rows.append(("", f"and {plural(len(reasons) - most, 'more reason')}, in verdict.json"))
    for claim in verdict.claims:
        if claim.outcome == "not-evaluated" and claim.id not in said:
            rows.append((f"claim {claim.id} (not evaluated)", claim.detail))
    return rows


def environment(run: Run) -> list[tuple[str, list[tuple[str, str]]]]:
    """Groups of (label, value) about where the numbers come from."""
    groups: list[tuple[str, list[tuple[str, str]]]] = []
    record = run.record
    if record is not None:
        source = {
            "commit": record.commit or "not recorded",
            "uncommitted changes": record.dirty,
            "kit": record.kit_version or run.verdict.kit_version,
            "started": record.started,
            "ended": record.ended,
            "took": seconds_word(record.seconds) if record.seconds else "",
        }
        groups.append(("Source", flat(source)))
        groups.append(("Hardware", flat(record.hardware)))
    kind = record.environment if record is not None and record.environment else {}
    if not kind and run.plan is not None:
        kind = run.plan.environment
    groups.append(("Environment class", flat(kind)))
    if record is not None:
        versions = {"python": record.python, "platform": record.platform, **record.versions}
        groups.append(("Versions", list(versions.items())))
    verdict = run.verdict
    hashes = {"expectation": verdict.expectation_sha256, "results": verdict.results_sha256}
    groups.append(("sha256 of what was compared", flat(hashes)))
    return [(name, rows) for name, rows in groups if rows]


def inputs(run: Run) -> list[Input]:
    """The pins of the plan, those with a mark first."""
    pins = run.plan.pins if run.plan is not None else []
    return sorted((_input(pin) for pin in pins), key=lambda shown: not shown.marks)


def _input(pin: Pin) -> Input:
    where = f"ships with the kit: {pin.path}" if pin.kind == "package" else pin.origin
    origin = where + (f" @ {pin.revision}" if pin.revision else "")
    sizes = [file.size for file in pin.files if file.size is not None]
    files = plural(len(pin.files), "file")
    if sizes and len(sizes) == len(pin.files):
        files += f", {bytes_word(sum(sizes))}"
    unhashed = sum(file.sha256 is None for file in pin.files)
    if unhashed:
        files += f", {unhashed} without sha256"
    gated = "the owner must grant access before it can be downloaded" if pin.gated else ""
    known = [("unconfirmed", pin.unconfirmed), ("unavailable", pin.unavailable), ("gated", gated)]
    marks = [(mark, why) for mark, why in known if why]
    return Input(
        id=pin.id, title=pin.title, origin=origin, licence=pin.licence, files=files, marks=marks
    )


def run_commands(run: Run) -> list[tuple[str, str]]:
    """(what it does, command) for the run as a whole."""
    started = as_typed(run.record.argv) if run.record is not None and run.record.argv else ""
    whole = ["kit", "reproduce", run.verdict.experiment, "--profile", run.verdict.profile]
    folder = shlex.quote(f"runs/{run.name}")
    commands = [
        ("this run was started with", started),
        ("everything again: run, compare, report", shlex.join(whole)),
        ("only the comparison", f"kit verify {folder}"),
        ("only this report", f"kit report {folder}"),
    ]
    return [(what, command) for what, command in commands if command]


def as_typed(argv: list[str]) -> str:
    """A command line with the program's name instead of its path."""
    return shlex.join(["kit", *argv[1:]])


def steps(run: Run) -> tuple[list[Step], int]:
    """Steps in the order of the plan with the command of each; and how many were left out."""
    planned = run.plan.instances if run.plan is not None else []
    done = run.record.steps if run.record is not None else {}
    cells = run.results.cells
    measured = Counter(cell.step for cell in cells if cell.step)
    made = []
    for step in planned[:MOST_STEPS]:
        record = done.get(step.id, StepRecord(key=step.key, state=""))
        cost = [
            seconds_word(record.seconds) if record.seconds else "",
            f"{record.peak_memory_gb:.1f} GB" if record.peak_memory_gb else "",
            f"{record.peak_gpu_memory_gb:.1f} GB GPU" if record.peak_gpu_memory_gb else "",
        ]
        made.append(
            Step(
                id=step.id,
                kind=f"{step.kind} v{step.version}",
                command=step_command(run, step),
                cost=", ".join(filter(None, cost)),
                cells=plural(measured[step.id], "cell") if measured[step.id] else "",
                cached=record.state == "cached",
                job=record.job,
                logs=log_links(record.logs),
            )
        )
    return made, max(0, len(planned) - MOST_STEPS)


def log_links(paths: list[str]) -> list[tuple[str, str]]:
    """Links to log files inside the run directory; anything else in a record is left out."""
    inside = [
        path
        for path in paths
        if path.startswith((f"{LOGS}/", f"{SLURM}/")) and ".." not in path.split("/")
    ]
    return [(quote(path), path) for path in inside]


def step_command(run: Run, step: StepInstance) -> str:
    """The command that runs one step of this run's plan again."""
    return shlex.join(["kit", "step", f"runs/{run.name}/plan.json", step.id])


def flat(tree: dict[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """A nested object as label and text, for a table of two columns."""
    rows: list[tuple[str, str]] = []
    for key, value in tree.items():
        name = f"{prefix}{key}".replace("_", " ")
        if isinstance(value, dict):
            rows += flat(value, f"{name}: ")
        elif isinstance(value, list) and any(isinstance(item, dict) for item in value):
            for i, item in enumerate(value):
                inner = item if isinstance(item, dict) else {"": item}
                rows += flat(inner, f"{name} {i + 1}: ")
        elif isinstance(value, list):
            rows.append((name, ", ".join(str(item) for item in value) or "none"))
        elif value is not None and value != "":
            shown = {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)
            rows.append((name, shown))
    return rows
