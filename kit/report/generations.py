"""Model responses: counted always, read and shown only on request.

A step that keeps responses leaves them as ``responses.jsonl``, one JSON object a line with
``response`` and whatever of :data:`NAMES` it has. They stay in the store; a copy in the run
directory is read too.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from kit.engine.store import Store
from kit.errors import InvalidInput
from kit.report.files import Run
from kit.unseen import shorten

FILE = "responses.jsonl"
NAMES = ("set", "condition", "sample_id", "id", "item")
"""Fields that say which response it is."""
LIMIT = 600
"""Characters of a response that are shown."""
MOST = 200
"""Responses that are shown."""


class Generation(Struct, frozen=True, kw_only=True):
    """One line. The text is untrusted and possibly harmful."""

    name: str
    response: str


def section(run: Run, *, show: bool, home: Path | None = None) -> dict[str, Any]:
    """What the report's section on generations needs.

    Args:
        run: The run.
        show: Read and include responses.
        home: Kit home with the store, where a step's own file is.
    """
    found = list(_files(run, home))
    shown: list[dict[str, str]] = []
    more = False
    if show:
        for where, path in found:
            for one in _read(path):
                if len(shown) == MOST:
                    more = True
                    break
                name = ", ".join(part for part in (where, one.name) if part)
                shown.append({"name": name, "response": shorten(one.response, LIMIT)})
    return {"show": show, "kept": bool(found) or _recorded(run), "shown": shown, "more": more}


def _recorded(run: Run) -> bool:
    steps = run.record.steps.values() if run.record is not None else ()
    return any(Path(name).name == FILE for step in steps for name in step.outputs)


def _files(run: Run, home: Path | None) -> Iterator[tuple[str, Path]]:
    if (run.folder / FILE).is_file():
        yield run.name, run.folder / FILE
    if home is None or run.record is None:
        return
    store = Store(home)
    for id, step in run.record.steps.items():
        for name in step.outputs:
            path = store.path(step.key) / name
            if path.name == FILE and path.is_file():
                yield id, path


def _read(path: Path) -> Iterator[Generation]:
    decoder = msgspec.json.Decoder(dict[str, Any])
    with path.open("rb") as lines:
        for count, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                row = decoder.decode(line)
                response = msgspec.convert(row["response"], str)
            except (msgspec.DecodeError, UnicodeDecodeError, KeyError) as error:
                raise InvalidInput(
                    "is not a response",
                    where=f"{path}:{count}",
                    why=str(error),
                    next_step="leave out --show-generations",
                ) from error
            name = ", ".join(str(row[field]) for field in NAMES if field in row)
            yield Generation(name=name, response=response)
