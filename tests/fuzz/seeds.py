"""Small starting documents, made from the repository's own: few cells, few claims, every kind."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from kit.manifest.load import parse
from tests.fuzz.target import DEMO, ROOT


def small(document: dict[str, Any]) -> dict[str, Any]:
    """The document with the lists that make it long cut down."""
    if "cells" in document:
        named: list[str] = []
        kinds: set[tuple[str, str]] = set()
        cells = []
        for cell in document["cells"]:
            kind = (str((cell.get("tolerance") or {}).get("kind")), cell.get("status"))
            if kind not in kinds or cell.get("derived"):
                kinds.add(kind)
                cells.append(cell)
                named += (cell.get("derived") or {}).get("cells", [])
        claims, seen = [], set()
        for claim in document["claims"]:
            if claim["kind"] not in seen:
                seen.add(claim["kind"])
                claims.append(claim)
                named += claim.get("cells", []) + [
                    id for pair in claim.get("pairs", []) for id in pair
                ]
        have = {cell["id"] for cell in cells}
        cells += [c for c in document["cells"] if c["id"] in named and c["id"] not in have]
        return {**document, "cells": cells[:14], "claims": claims, "notes": []}
    if "pins" in document:
        return {**document, "pins": document["pins"][:4]}
    return document


def main(folder: Path) -> None:
    """Write them, as JSON and the smallest as YAML, too."""
    folder.mkdir(parents=True, exist_ok=True)
    for root in (ROOT, DEMO):
        for path in [*root.glob("manifests/*/*.yaml"), *root.glob("expected_results/*/*.yaml"),
                     *root.glob("manifests/*.yaml")]:  # fmt: skip
            document = small(parse(path).root.plain())
            (folder / f"{root.name}-{path.name}.json").write_text(json.dumps(document))
            if path.stat().st_size < 4000:
                (folder / f"{root.name}-{path.name}").write_bytes(path.read_bytes())
