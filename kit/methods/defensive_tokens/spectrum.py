"""The singular values of an alignment as a curve.

How fast they fall says how much of the map is decided by few directions; where they reach zero the
map is arbitrary (reference page, section 4).
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

POINTS = 64
"""Most points of a curve: 4,096 singular values would only be drawn on top of each other."""


def spectrum_series(alignments: Iterable[tuple[str, str, Path]]) -> list[dict[str, Any]]:
    """One figure a group, one line an alignment.

    Args:
        alignments: Group, name of the line, folder with ``alignment.safetensors``; a folder
            without the file has no line.
    """
    figures: dict[str, dict[str, list[list[float]]]] = {}
    for group, line, folder in alignments:
        path = folder / "alignment.safetensors"
        if path.exists():
            figures.setdefault(group, {})[line] = points(path)
    return [
        {
            "id": f"spectrum/{group}",
            "title": f"singular values of source^T target, {group}",
            "x_label": "rank",
            "y_label": "singular value, share of the largest",
            "lines": lines,
        }
        for group, lines in figures.items()
    ]


def points(path: Path) -> list[list[float]]:
    """[rank from 1, share of the largest] at evenly spaced ranks, both ends among them."""
    from safetensors import safe_open

    with safe_open(str(path), framework="np") as handle:
        values = handle.get_tensor("singular_values")
    last = len(values) - 1
    ranks = sorted({round(i * last / (POINTS - 1)) for i in range(POINTS)})
    largest = float(values[0])
    return [[float(rank + 1), float(values[rank]) / largest if largest else 0.0] for rank in ranks]
