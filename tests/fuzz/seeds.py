"""Small starting documents, made from the repository's own: few cells, few claims, every kind.

``python -m tests.fuzz.seeds`` makes those of ``corpus/seeds`` again, and the records of reference
runs beside them. Each must come through whole: a fuzzer whose documents are refused at the door
tests the door.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

from kit.manifest.load import parse
from tests.fuzz.target import DEMO, RECORDS, ROOT, check

SEEDS = Path(__file__).parent / "corpus" / "seeds"


def small(document: dict[str, Any]) -> dict[str, Any]:
    """The document with the lists that make it long cut down."""
    if "pins" in document:
        return {**document, "pins": document["pins"][:4]}
    if "cells" not in document:
        return document
    claims, seen = [], set()
    for claim in document["claims"]:
        if claim["kind"] not in seen:
            seen.add(claim["kind"])
            claims.append(claim)
    said = json.dumps(claims)
    kinds: set[tuple[str, str]] = set()
    cells = []
    for cell in document["cells"]:
        kind = (str((cell.get("tolerance") or {}).get("kind")), str(cell.get("status")))
        if kind not in kinds or cell.get("derived") or f'"{cell["id"]}"' in said:
            kinds.add(kind)
            cells.append(cell)
    named = {id for cell in cells for id in (cell.get("derived") or {}).get("cells", [])}
    kept = [*cells, *(c for c in document["cells"] if c["id"] in named and c not in cells)]
    return {**document, "cells": kept, "claims": claims, "notes": [], "figures": []}


def recorded(document: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The document with its record of reference runs among the fuzzer's, its own cells alone."""
    if not document.get("record"):
        return document
    name = Path(document["record"]).name
    ids = json.dumps([cell["id"] for cell in document["cells"]])
    kept: list[str] = []
    for line in (folder / document["record"]).read_text(encoding="utf-8").splitlines():
        value = json.loads(line)
        if "id" not in value:
            kept.append(json.dumps({"run": value["run"]}))
        elif f'"{value["id"]}"' in ids or "{" in ids or "*" in ids:
            value["seeds"] = [
                {k: s[k] for k in ("seed", "value") if k in s} for s in value["seeds"]
            ][:4]
            kept.append(json.dumps({k: value[k] for k in ("id", "unit", "value", "seeds")}))
    RECORDS.mkdir(exist_ok=True)
    (RECORDS / name).write_text("\n".join(kept) + "\n", encoding="utf-8")
    return {**document, "record": f"{RECORDS.name}/{name}"}


def through(document: dict[str, Any]) -> bool:
    """Whether it is used, not refused."""
    with tempfile.TemporaryDirectory() as folder:
        came = check(json.dumps(document).encode(), Path(folder))
    return came not in ("unreadable", "refused")


def main() -> None:
    """Make those that are there again, from today's documents."""
    for root, prefix in ((ROOT, ""), (DEMO, "demo-")):
        for path in [*root.glob("manifests/*/*.yaml"), *root.glob("expected_results/*/*.yaml"),
                     *root.glob("manifests/*.yaml")]:  # fmt: skip
            text, tree = SEEDS / f"{prefix}{path.name}", SEEDS / f"{prefix}{path.stem}.json"
            document: dict[str, Any] = parse(path).root.plain()
            if tree.exists():
                tries = (recorded(one, path.parent) for one in (small(document), document))
                made = next((one for one in tries if through(one)), None)
                if made is None:
                    print(f"{path.relative_to(ROOT)} is refused, cut down or whole")
                    continue
                tree.write_text(json.dumps(made) + "\n", encoding="utf-8")
            if text.exists():
                text.write_bytes(path.read_bytes())
                if document.get("record"):
                    recorded(document, path.parent)
                    written = f"record: {document['record']}"
                    now = f"record: {RECORDS.name}/{Path(document['record']).name}"
                    text.write_text(text.read_text("utf-8").replace(written, now), "utf-8")


if __name__ == "__main__":
    main()
