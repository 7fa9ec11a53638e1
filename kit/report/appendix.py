"""The artifact appendix: two pages of Markdown that evaluation committees ask for.

From a run it states what was measured; from an experiment alone, what the manifest declares. It is
cut to what two pages hold, and says where the rest is.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from kit.manifest.expectation_types import Expectation
from kit.manifest.pin_types import Pin
from kit.manifest.types import Manifest
from kit.plural import plural
from kit.report.claims import marks
from kit.report.content import notes, rehearsal, variant_of
from kit.report.details import as_typed
from kit.report.facts import declared_resources, measured_resources
from kit.report.files import Run
from kit.report.markdown import code, escape, table
from kit.report.text import bytes_word, p_equals

MAX_CLAIM = 2000
MAX_SUMMARY = 500
"""Characters of a sentence of a claim, and of what an experiment is."""
MOST_CLAIMS = 12
MOST_INPUTS = 14
MOST_UNUSUAL = 10

ALWAYS = (
    "`kit verify` and `kit reproduce` end with exit code 3 when something stays undecided and 1 "
    "when a primary claim fails; neither is a crash.",
    "Run twice, finished steps are taken from the store: the second run takes seconds and gives "
    "the same numbers.",
    "A number better than the published one counts as a deviation too.",
)
"""Behaviour of every experiment that evaluators have taken for a fault."""


def of_run(run: Run, manifest: Manifest | None = None) -> str:
    """The appendix of a finished and verified run."""
    verdict = run.verdict
    claims = [
        [
            escape(claim.tested or claim.detail, MAX_CLAIM),
            f"{claim.outcome.replace('-', ' ')}"
            + (f", {escape(p_equals(claim.p))}" if claim.p is not None else ""),
            f"\u201c{escape(claim.sentence, MAX_CLAIM)}\u201d ({escape(claim.place, MAX_CLAIM)})"
            + (f" **{escape(claim.published)}**" if claim.published else ""),
        ]
        for claim in sorted(verdict.claims, key=lambda claim: not claim.primary)
    ]
    started = as_typed(run.record.argv) if run.record is not None and run.record.argv else ""
    unusual = [f"{mark}: {why}" for mark, why in marks(verdict, rehearsal(run))]
    unusual += notes(run, manifest)
    title = manifest.title if manifest is not None else verdict.experiment
    return _page(
        title=title,
        summary=manifest.summary if manifest is not None else "",
        about=[
            ("experiment", f"{verdict.experiment}, version {verdict.version}"),
            ("variant", variant_of(run, manifest) or "not recorded"),
            ("profile", verdict.profile),
            ("verdict of this run", verdict.headline or verdict.verdict),
            ("commit", (run.record.commit or "not recorded") if run.record else "not recorded"),
        ],
        claims=claims,
        head=["Tested here", "Outcome", "Sentence of the document"],
        resources=measured_resources(run),
        commands=_commands(verdict.experiment, verdict.profile, started),
        pins=run.plan.pins if run.plan is not None else [],
        unusual=unusual,
        not_covered=verdict.not_covered,
    )


def of_experiment(
    manifest: Manifest,
    profile: str,
    expectation: Expectation | None,
    pins: Sequence[Pin],
) -> str:
    """The appendix of an experiment that was not run here."""
    spec = next(spec for name, spec in manifest.profiles.items() if name == profile)
    listed = expectation.claims if expectation is not None else []
    claims = [
        [
            escape(claim.id),
            f"\u201c{escape(claim.sentence, MAX_CLAIM)}\u201d ({escape(claim.place, MAX_CLAIM)})",
            "primary" if claim.primary else "further",
        ]
        for claim in sorted(listed, key=lambda claim: not claim.primary)
    ]
    return _page(
        title=manifest.title,
        summary=manifest.summary,
        about=[
            ("experiment", f"{manifest.id}, version {manifest.version}"),
            ("variant", manifest.variant),
            ("profile", f"{profile}: {spec.summary}"),
        ],
        claims=claims,
        head=["Claim", "Sentence and place", "Weight"],
        resources=declared_resources(manifest, spec),
        commands=_commands(manifest.id, profile, ""),
        pins=pins,
        unusual=[*manifest.notes, *(expectation.notes if expectation is not None else [])],
        not_covered=[],
    )


def _page(
    *,
    title: str,
    summary: str,
    about: list[tuple[str, str]],
    claims: list[list[str]],
    head: list[str],
    resources: list[tuple[str, str]],
    commands: list[tuple[str, str]],
    pins: Sequence[Pin],
    unusual: list[str],
    not_covered: list[str],
) -> str:
    lines = [f"# Artifact appendix: {escape(title, 120)}", ""]
    lines += [escape(summary, MAX_SUMMARY), ""] if summary else []
    lines += [f"- {name}: {escape(text, 300)}" for name, text in about]
    lines += ["", "## Claims", ""]
    lines += table(head, claims[:MOST_CLAIMS])
    lines += _rest(len(claims) - MOST_CLAIMS, "further claim", "verdict.json or `kit show`")
    lines += ["## Time, resources, hardware", ""]
    lines += [f"- {name}: {escape(text)}" for name, text in resources] or ["- not recorded"]
    lines += ["", "## Commands", ""]
    lines += [f"- {what}: {code(command)}" for what, command in commands]
    lines += ["", "## Inputs and licences", ""]
    lines += [_pin(pin) for pin in pins[:MOST_INPUTS]] or ["- none listed"]
    lines += _rest(len(pins) - MOST_INPUTS, "further input", "plan.json or `kit show`")
    lines += ["", "## Behaviour to expect", ""]
    lines += [f"- {escape(text, 300)}" for text in unusual[:MOST_UNUSUAL]]
    lines += _rest(len(unusual) - MOST_UNUSUAL, "further note", "the report")
    lines += [f"- {text}" for text in ALWAYS]
    if not_covered:
        lines += ["", "## Not covered", ""]
        lines += [f"- {escape(text, 200)}" for text in not_covered[:MOST_UNUSUAL]]
        lines += _rest(len(not_covered) - MOST_UNUSUAL, "further point", "the report")
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines).rstrip()) + "\n"


def _commands(experiment: str, profile: str, started: str) -> list[tuple[str, str]]:
    commands = [
        ("set-up", "make setup"),
        ("can this machine run it", f"kit doctor {experiment} --profile {profile}"),
        ("inputs, after which no network is needed", f"kit fetch {experiment}"),
        ("run, compare, report", f"kit reproduce {experiment} --profile {profile}"),
        ("does the comparison notice deviations", "kit verify RUN --selftest"),
    ]
    return [*commands, ("this run was started with", started)] if started else commands


def _pin(pin: Pin) -> str:
    sizes = [file.size for file in pin.files]
    known = [size for size in sizes if size is not None]
    size = f", {bytes_word(sum(known))}" if known and len(known) == len(sizes) else ""
    marks = [name for name in ("gated", "unconfirmed", "unavailable") if getattr(pin, name)]
    said = f", **{', '.join(marks)}**" if marks else ""
    return f"- {escape(pin.title, 100)}: {escape(pin.licence, 80)}{size}{said}"


def _rest(count: int, word: str, where: str) -> list[str]:
    return [f"- {plural(count, word)} in {where}", ""] if count > 0 else []
