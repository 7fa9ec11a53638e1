"""Write the table of ``docs/exports.md`` from the newest record of ``measure_grid.py``.

python -m benchmarks.write_grid
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
PAGE = HERE.parent / "docs" / "exports.md"
START, END = "<!-- grid -->\n", "<!-- end of grid -->\n"
PARTS = {
    "plan": "plan",
    "check": "what is finished",
    "run": "`kit run`, all cached",
    "snakemake": "`export snakemake`",
    "snakemake_dry_run": "`snakemake -n`",
}


def record() -> dict[str, Any]:
    """The newest record; the date ends the file's name."""
    files = sorted(HERE.glob("grid-*.json"), key=lambda file: file.stem[-10:])
    values: dict[str, Any] = json.loads(files[-1].read_text(encoding="utf-8"))
    return values


def seconds(measured: dict[str, float] | None) -> str:
    """Computing time, and the clock's."""
    return f"{measured['cpu']:.2f} ({measured['wall']:.1f})" if measured else "not measured"


def table() -> str:
    """A line a size."""
    values = record()
    machine = values["machine"]
    lines = [
        f"{machine['cpu']}, {machine['cores']} cores shared with other work, "
        f"Python {machine['python']}, {machine['date']}. Seconds of computing, in brackets by the "
        "clock; memory is the peak of planning, checking and running.",
        "",
        f"| cells | steps | {' | '.join(PARTS.values())} | memory | plan.json |",
        "|" + "---:|" * (len(PARTS) + 4),
    ]
    for row in values["rows"]:
        cells = " | ".join(seconds(row[part]) for part in PARTS)
        lines.append(
            f"| {row['cells']:,} | {row['instances']:,} | {cells} | "
            f"{row['memory_gb'] * 1024:.0f} MB | {row['plan_bytes'] / 1e6:.1f} MB |"
        )
    return "\n".join(lines)


def main() -> None:
    """Replace what stands between the two marks."""
    text = PAGE.read_text(encoding="utf-8")
    before, rest = text.split(START)
    _, after = rest.split(END)
    PAGE.write_text(f"{before}{START}\n{table()}\n\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
