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
from kit.manifest.expectation_types import Expectation
from kit.manifest.types import Manifest
from kit.report import generations
from kit.report.content import content
from kit.report.files import Run, needing
from kit.visible import visible

if TYPE_CHECKING:
    from jinja2 import Environment


def render(
    run: Run,
    *,
    manifest: Manifest | None = None,
    expectation: Expectation | None = None,
    published: Expectation | None = None,
    show_generations: bool = False,
    home: Path | None = None,
) -> str:
    """The whole report as text; the same run gives the same bytes.

    Args:
        run: What :func:`kit.report.files.read_run` read.
        manifest: Adds title, summary and documents.
        expectation: Adds reference values and the notes of cells.
        published: What the documents printed, for figures of a run at another scale.
        show_generations: Include model responses, escaped and truncated.
        home: Kit home, where steps keep their responses.
    """
    environment = _environment()
    parts = (resources.files("kit.report") / "templates" / f"report.{end}" for end in ("js", "css"))
    script, style = (part.read_text(encoding="utf-8") for part in parts)
    page = environment.get_template("report.html")
    return page.render(
        script=_trusted(script),
        style=_trusted(style),
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        kit_version=__version__,
        **content(run, manifest=manifest, expectation=expectation, published=published),
        generations=generations.section(run, show=show_generations, home=home),
    )


def _environment() -> Environment:
    with needing("the report"):
        from jinja2 import Environment, PackageLoader, StrictUndefined
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
