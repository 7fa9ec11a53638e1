"""The last results of `make test-image`, one an engine, as sentences of ``docs/container.md``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from kit.report.markdown import escape

FILE = Path("benchmarks") / "image-test.json"
NEVER = "`make test-image` has not been run yet."


def block(root: Path) -> str:
    """The list for ``kit docs``; says so if the image was never tested.

    Args:
        root: Repository root.
    """
    path = root / FILE
    if not path.is_file():
        return NEVER
    results: dict[str, dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
    return "\n".join(
        ["Last `make test-image` with each engine:", ""]
        + [f"- {_sentence(results[engine])}" for engine in sorted(results)]
    )


def _sentence(record: dict[str, Any]) -> str:
    engine = str(record["engine"]).split(" (")[0]
    return (
        f"{record['date']}, {escape(engine)}, base `{record['base']}` "
        f"(Python {record['python']}, torch {record['torch']}), cpu image built, then `tiny-adapt` "
        f"without a network as user {record['user']}: **{escape(str(record['verdict']))}**, "
        f"{record['steps']} steps, {record['run_seconds']:g} s on {record['cores']} cores of "
        f"{escape(str(record['cpu']))}."
    )
