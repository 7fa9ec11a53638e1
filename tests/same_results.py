"""Whether two runs gave the same numbers: ``python -m tests.same_results RUN RUN``.

Compares by value, in no order: every cell with its replicates and the labels behind them, and
every canary with its outcome and detail. Exit status 1 where anything differs.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any


def cells(run: Path) -> dict[str, Any]:
    """Cell id -> everything measured, labels in the place of their references."""
    results = json.loads((run / "results.json").read_text())
    lines = (
        (run / "labels.jsonl").read_text().splitlines() if (run / "labels.jsonl").exists() else []
    )
    labels = {line["id"]: (line["items"], line["labels"]) for line in map(json.loads, lines)}

    def value(entry: dict[str, Any]) -> dict[str, Any]:
        reference = entry.get("labels")
        items = labels[reference.split("#", 1)[1]] if reference else None
        seeds = sorted((value(seed) for seed in entry.get("seeds") or []), key=lambda s: s["seed"])
        kept = {key: entry.get(key) for key in ("seed", "unit", "value", "k", "n", "not_run")}
        return {**kept, "labels": items, "seeds": seeds}

    return {cell["id"]: value(cell) for cell in results["cells"]}


def canaries(run: Path) -> list[tuple[Any, ...]]:
    """Step, id, outcome and detail of every canary."""
    results = json.loads((run / "results.json").read_text())
    return sorted((c["step"], c["id"], c["passed"], c["detail"]) for c in results["canaries"])


def main() -> int:
    """Compare the two run directories of the command line."""
    first, second = (Path(argument) for argument in sys.argv[1:3])
    one, other = cells(first), cells(second)
    differ = sorted(id for id in one.keys() | other.keys() if one.get(id) != other.get(id))
    evidence = canaries(first) == canaries(second)
    print(
        f"{len(one)} and {len(other)} cells, {len(differ)} differ; "
        f"canaries {'equal' if evidence else 'differ'}"
    )
    for id in differ[:10]:
        print(f"  {id}")
    return int(bool(differ) or not evidence)


if __name__ == "__main__":
    sys.exit(main())
