"""Model responses: counted always, read and shown only on request.

A step that keeps responses leaves them as ``responses.jsonl``, one JSON object a line with
``response`` and whatever of :data:`NAMES` it has. They stay in the store; a copy in the run
directory is read too.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from kit import jsonfile
from kit.errors import InvalidInput
from kit.report.files import Run
from kit.results.files import stored
from kit.visible import shorten

FILE = "responses.jsonl"
NAMES = ("set", "condition", "sample_id", "id", "item")
"""Fields that say which response it is."""
GROUP = ("set", "condition")
LIMIT = 600
MOST = 200
"""Characters of a response, and responses, that are shown."""


def section(run: Run, *, show: bool, home: Path | None = None) -> dict[str, Any]:
    """What the report's section on generations needs.

    Args:
        run: The run.
        show: Read and include responses.
        home: Kit home with the store, where a step's own file is.
    """
    files = list(_files(run, home))
    shown, more = _chosen(files) if show else ([], False)
    return {"show": show, "kept": bool(files) or _recorded(run), "shown": shown, "more": more}


def _chosen(files: list[tuple[str, Path]]) -> tuple[list[dict[str, str]], bool]:
    """One response of each set and condition, file by file, then the others while there is room;
    and whether there are more."""
    firsts: list[dict[str, str]] = []
    others: list[dict[str, str]] = []
    count = 0
    for where, path in files:
        if len(firsts) >= MOST:
            return firsts[:MOST], True
        seen: set[tuple[str, ...]] = set()
        for row in _read(path):
            group = tuple(str(row[field]) for field in GROUP if field in row)
            names = [where, *(str(row[field]) for field in NAMES if field in row)]
            kept = {"name": ", ".join(filter(None, names))}
            kept |= {key: shorten(row[key], LIMIT) for key in ("data", "response")}
            count += 1
            if group not in seen:
                firsts.append(kept)
            elif len(others) < MOST:
                others.append(kept)
            seen.add(group)
    return (firsts + others)[:MOST], count > MOST


def _recorded(run: Run) -> bool:
    steps = run.record.steps.values() if run.record is not None else ()
    return any(Path(name).name == FILE for step in steps for name in step.outputs)


def _files(run: Run, home: Path | None) -> Iterator[tuple[str, Path]]:
    if (run.path / FILE).is_file():
        yield run.name, run.path / FILE
    if home is None or run.record is None:
        return
    for id, step in run.record.steps.items():
        for name in step.outputs:
            path = stored(home / "store", step.key) / name
            if path.name == FILE and path.is_file():
                yield id, path


def _read(path: Path) -> Iterator[dict[str, Any]]:
    """Lines with a text as ``response`` and one, maybe empty, as ``data``: what was worked on."""
    advice = "leave out --show-generations"
    for number, row in jsonfile.lines(path, dict[str, Any], next_step=advice):
        if not isinstance(row.get("response"), str):
            raise InvalidInput(
                "is not a response",
                where=f"{path}:{number}",
                why="it has no field 'response' with a text",
                next_step=advice,
            )
        yield row | {"data": row["data"] if isinstance(row.get("data"), str) else ""}
