"""What a report says, before it becomes HTML or Markdown."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kit.manifest.expectation_types import Expectation, ExpectedCell
from kit.manifest.types import Manifest
from kit.report import claims, details, gallery, tables
from kit.report.declared import declared
from kit.report.files import Run


def content(
    run: Run,
    *,
    manifest: Manifest | None = None,
    expectation: Expectation | None = None,
    published: Expectation | None = None,
    figures: bool = True,
) -> dict[str, Any]:
    """Everything that a report prints, by name.

    Args:
        run: The run.
        manifest: Adds title, summary and documents.
        expectation: Adds reference values and the notes of cells.
        published: What the documents printed, for figures of a run at another scale.
        figures: Draw them too; needs matplotlib.
    """
    verdict = run.verdict
    expected = {cell.id: cell for cell in expectation.cells} if expectation is not None else {}
    measured = {cell.id: cell for cell in run.results.cells}
    all_tables = tables.tables(verdict, expected, measured)
    kept = {line.anchor for table in all_tables for line in table.rows}
    anchors = {cell.id: f"c{i}" for i, cell in enumerate(verdict.cells) if f"c{i}" in kept}
    claim_rows = claims.claim_rows(verdict, anchors)
    brief, more_brief = claims.brief(claim_rows)
    deviations, more_deviations = details.deviations(verdict)
    steps, more_steps = details.steps(run)
    checks, more_checks = details.checks(verdict)
    return {
        "title": manifest.title if manifest is not None else verdict.experiment,
        "summary": manifest.summary if manifest is not None else "",
        "documents": manifest.documents if manifest is not None else [],
        "run": run,
        "verdict": verdict,
        "banner": claims.banner(
            verdict, variant=variant_of(run, manifest), rehearsal=rehearsal(run), seeds=seeds(run)
        ),
        "claims": claim_rows,
        "brief": brief,
        "more_brief": more_brief,
        "css_of": claims.CLASS,
        "tables": all_tables,
        "deviations": deviations,
        "more_deviations": more_deviations,
        "not_run": details.not_run(verdict),
        "environment": details.environment(run),
        "inputs": details.inputs(run),
        "commands": details.run_commands(run),
        "steps": steps,
        "more_steps": more_steps,
        "checks": checks,
        "more_checks": more_checks,
        "passed_checks": sum(canary.passed for canary in verdict.canaries),
        "failed_checks": sum(not canary.passed for canary in verdict.canaries),
        "notes": notes(run, manifest),
        **(_figures(run, expected, expectation, published) if figures else {}),
    }


def _figures(
    run: Run,
    expected: Mapping[str, ExpectedCell],
    expectation: Expectation | None,
    published: Expectation | None,
) -> dict[str, Any]:
    forests, forest_remark = gallery.forests(run.verdict, expected)
    results = run.results
    made = declared(results, run.verdict, expectation, published)
    curves, curve_remark = gallery.curves(results, expected)
    calibration, calibration_remark = gallery.calibration_picture(run.verdict)
    return {
        "forests": forests,
        "forest_remark": forest_remark,
        "story": made[0] if made else None,
        "declared": made[1:],
        "curves": curves,
        "curve_remark": curve_remark,
        "calibration": calibration,
        "calibration_remark": calibration_remark,
    }


def variant_of(run: Run, manifest: Manifest | None) -> str:
    """``as-reported`` or ``corrected``; empty where neither plan nor manifest is there."""
    if run.plan is not None and run.plan.variant:
        return run.plan.variant
    return manifest.variant if manifest is not None else ""


def rehearsal(run: Run) -> bool:
    """Whether the run was a rehearsal, whatever the verdict's word."""
    plan, record = run.plan, run.record
    return bool((plan and plan.rehearsal) or (record and record.rehearsal))


def seeds(run: Run) -> int:
    """Most seeds any cell was measured with."""
    return max((cell.seeds for cell in run.verdict.cells), default=0)


def notes(run: Run, manifest: Manifest | None) -> list[str]:
    """Known departures: of the plan (or manifest) and of the expectation, each once."""
    own = run.plan.notes if run.plan is not None else []
    more = manifest.notes if manifest is not None else []
    return list(dict.fromkeys([*own, *more, *run.verdict.notes]))
