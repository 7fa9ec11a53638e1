"""Render the report: one HTML file that loads nothing.

The content security policy of the page allows its own style, and its own script by hash; so even
if a hostile string found a way through the escaping, the browser would not run it.
"""

from __future__ import annotations

import base64
import hashlib
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kit import __version__
from kit.errors import Preflight
from kit.manifest.expectation_types import Expectation
from kit.manifest.types import Manifest
from kit.report import claims, details, gallery, generations, tables
from kit.report.files import Run
from kit.report.text import visible

if TYPE_CHECKING:
    from jinja2 import Environment


def render(
    run: Run,
    *,
    manifest: Manifest | None = None,
    expectation: Expectation | None = None,
    show_generations: bool = False,
    home: Path | None = None,
) -> str:
    """The whole report as text; the same run gives the same bytes.

    Args:
        run: What :func:`kit.report.files.read_run` read.
        manifest: Adds title, summary and documents.
        expectation: Adds reference values and the notes of cells.
        show_generations: Include model responses, escaped and truncated.
        home: Kit home, where steps keep their responses.
    """
    environment = _environment()
    script, style = _part("report.js"), _part("report.css")
    page = environment.get_template("report.html")
    return page.render(
        script=_trusted(script),
        style=_trusted(style),
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        kit_version=__version__,
        **content(run, manifest=manifest, expectation=expectation),
        generations=generations.section(run, show=show_generations, home=home),
    )


def content(
    run: Run, *, manifest: Manifest | None = None, expectation: Expectation | None = None
) -> dict[str, Any]:
    """Everything that the templates print, by name."""
    verdict = run.verdict
    expected = {cell.id: cell for cell in expectation.cells} if expectation is not None else {}
    measured = {cell.id: cell for cell in run.results.cells} if run.results is not None else {}
    all_tables = tables.tables(verdict, expected, measured)
    kept = {line.anchor for table in all_tables for line in table.rows}
    anchors = {cell.id: f"c{i}" for i, cell in enumerate(verdict.cells) if f"c{i}" in kept}
    forests, forest_remark = gallery.forests(verdict, expected)
    curves, curve_remark = gallery.curves(run.results)
    calibration, calibration_remark = gallery.calibration_picture(verdict)
    deviations, more_deviations = details.deviations(verdict)
    steps, more_steps = details.steps(run)
    return {
        "title": manifest.title if manifest is not None else verdict.experiment,
        "summary": manifest.summary if manifest is not None else "",
        "documents": manifest.documents if manifest is not None else [],
        "run": run,
        "verdict": verdict,
        "banner": claims.banner(
            verdict, variant=variant_of(run, manifest), rehearsal=rehearsal(run), seeds=seeds(run)
        ),
        "claims": claims.claim_rows(verdict, anchors),
        "css_of": claims.CLASS,
        "tables": all_tables,
        "forests": forests,
        "forest_remark": forest_remark,
        "curves": curves,
        "curve_remark": curve_remark,
        "calibration": calibration,
        "calibration_remark": calibration_remark,
        "deviations": deviations,
        "more_deviations": more_deviations,
        "not_run": details.not_run(verdict),
        "environment": details.environment(run),
        "inputs": details.inputs(run),
        "commands": details.run_commands(run),
        "steps": steps,
        "more_steps": more_steps,
        "notes": notes(run, manifest),
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


def _environment() -> Environment:
    try:
        from jinja2 import Environment, PackageLoader, StrictUndefined
    except ImportError as error:
        raise Preflight(
            "the report needs jinja2, which is not installed",
            why=str(error),
            next_step="pip install 'safety-repro-kit[report]'   (or: make setup)",
        ) from error
    environment = Environment(
        loader=PackageLoader("kit.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_printable,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals["svg"] = _trusted
    return environment


def _printable(value: Any) -> Any:
    """What every printed expression goes through before it is escaped."""
    if hasattr(value, "__html__"):
        return value
    text = visible(value if isinstance(value, str) else str(value))
    return text.replace(" %", "\u00a0%")  # a number and its sign stay on one line


def _trusted(markup: str) -> Any:
    """Markup made by the kit itself: its figures, style and script."""
    from markupsafe import Markup

    return Markup(markup)


def _part(name: str) -> str:
    return (resources.files("kit.report") / "templates" / name).read_text(encoding="utf-8")
