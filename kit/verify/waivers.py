"""Waivers: a committed file says which deviation is known, why, and who answers for it.

There is no flag to silence a cell: it stays visible as ``deviates (waived: ...)`` and the claims
are decided without looking at waivers.
"""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Any

import msgspec

from kit.errors import InvalidInput
from kit.manifest.expectation_types import Expectation
from kit.verify.verdict import Waiver


def read_waivers(path: Path, expected: Expectation) -> dict[str, Waiver]:
    """Waivers by cell id from a YAML file with a list ``waivers``.

    Args:
        path: The file; absent means none.
        expected: Whose cells may be waived.

    Raises:
        InvalidInput: A field is missing or empty, a date that is none, a cell unknown or twice.
    """
    if not path.is_file():
        return {}
    listed = _load(path)
    waivers: dict[str, Waiver] = {}
    known = {cell.id for cell in expected.cells}
    for index, raw in enumerate(listed):
        where = f"{path}: waivers[{index}]"
        entry = {k: v.isoformat() if isinstance(v, date) else v for k, v in raw.items()}
        try:
            waiver = msgspec.convert(entry, Waiver)
            date.fromisoformat(waiver.date)
        except (msgspec.ValidationError, ValueError) as error:
            raise InvalidInput(str(error), where=where) from None
        for name in ("reason", "owner"):
            if not getattr(waiver, name).strip():
                raise InvalidInput(f"field {name!r} is empty", where=where)
        if waiver.cell not in known:
            raise InvalidInput(f"unknown cell {waiver.cell!r}", where=where)
        if waiver.cell in waivers:
            raise InvalidInput(f"cell {waiver.cell!r} is waived twice", where=where)
        waivers[waiver.cell] = waiver
    return waivers


def _load(path: Path) -> list[dict[str, Any]]:
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    try:
        document = YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))
    except (YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}:{mark.line + 1}" if mark is not None else str(path)
        says = getattr(error, "problem", None) or str(error)
        raise InvalidInput(f"not YAML: {says}", where=where) from None
    listed = document.get("waivers") if isinstance(document, dict) else None
    if not isinstance(listed, list) or not all(isinstance(item, dict) for item in listed):
        raise InvalidInput(
            "field 'waivers' must be a list",
            where=str(path),
            next_step="waivers: [{cell: ..., reason: ..., owner: ..., date: 2026-01-31}]",
        )
    return listed
