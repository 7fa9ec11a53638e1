"""Tables of the documentation, as Markdown."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from kit.manifest.catalog import Catalog
from kit.manifest.schema import described_schema
from kit.manifest.summary import ExperimentSummary, ProfileSummary, summaries
from kit.plural import plural


def cell(text: str) -> str:
    """Text that cannot break out of a table cell."""
    return " ".join(text.split()).replace("|", "\\|")


def table(head: list[str], rows: list[list[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell(text) for text in line) + " |" for line in lines)


def experiments(root: Path) -> str:
    """The experiments of the repository."""
    rows = [_row(item) for item in summaries(Catalog(root))]
    return table(["experiment", "what", "variant", "profiles", "compared with", "recorded"], rows)


def _row(item: ExperimentSummary) -> list[str]:
    compared = [_compared(profile) for profile in item.profiles if profile.cells]
    return [
        f"`{item.id}`",
        item.title or item.problem,
        item.variant,
        ", ".join(profile.profile for profile in item.profiles),
        "; ".join(compared) or "-",
        ", ".join(item.recorded) or "-",
    ]


def _compared(profile: ProfileSummary) -> str:
    claims = plural(profile.primary_claims, "primary claim")
    return f"{profile.profile}: {plural(profile.cells, 'cell')}, {claims}"


def fields(root: Path) -> str:
    """Every field of the three kinds of file, from the types."""
    parts = []
    for name in ("manifest", "pins", "expectation"):
        schema = described_schema(name)
        rows = []
        for title, definition in schema["$defs"].items():
            required = definition.get("required", [])
            rows.append([f"**{title}**", "", definition.get("description", "")])
            for field, spec in definition.get("properties", {}).items():
                rows.append(
                    [
                        f"`{title}.{field}`",
                        "required" if field in required else "optional",
                        spec.get("description", "") + _allowed(spec),
                    ]
                )
        parts.append(f"### {name}\n\n" + table(["field", "", "meaning"], rows))
    return "\n\n".join(parts)


def _allowed(spec: dict[str, Any]) -> str:
    """The words a field accepts, where they are a fixed few."""
    branches = [spec, spec.get("items", {}), *spec.get("anyOf", [])]
    words = [value for branch in branches for value in branch.get("enum", []) if value is not None]
    return f" One of {', '.join(f'`{word}`' for word in words)}." if words else ""


def pins(root: Path) -> str:
    """Every input that is fetched, with its licence."""
    rows = []
    for pin in Catalog(root).pins().pins:
        if pin.kind != "package":
            marks = [mark for mark in ("gated", "unconfirmed", "unavailable") if getattr(pin, mark)]
            rows.append([f"`{pin.id}`", pin.title, pin.licence, ", ".join(marks) or "-"])
    return table(["pin", "what", "licence", "marks"], rows)
