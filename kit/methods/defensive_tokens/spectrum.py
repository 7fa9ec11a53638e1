"""The singular values of an alignment as a curve.

How fast they fall says how much of the map is decided by few directions; where they reach zero the
map is arbitrary (defensive_tokens.md, 4).
"""

from __future__ import annotations

from pathlib import Path

from kit.results.builder import Observation
from kit.results.curves import Line

TITLE = "singular values of source^T target"
Y_LABEL = "singular value, share of the largest"
POINTS = 64
"""Most points of a curve: 4,096 singular values would only be drawn on top of each other."""


def add_spectrum(here: Observation, folder: Path) -> None:
    """The spectrum of one alignment as a line of its own.

    Args:
        here: Where it belongs.
        folder: With ``alignment.safetensors``; without the file there is no line.
    """
    path = folder / "alignment.safetensors"
    if path.exists():
        name = here.origin.replicate or "alignment"
        here.curve(Line("spectrum", TITLE, "rank", Y_LABEL, "number", name), points(path))


def points(path: Path) -> list[list[float]]:
    """[rank from 1, share of the largest] at evenly spaced ranks, both ends among them."""
    from safetensors import safe_open

    with safe_open(str(path), framework="np") as handle:
        values = handle.get_tensor("singular_values")
    last = len(values) - 1
    ranks = sorted({round(i * last / (POINTS - 1)) for i in range(POINTS)})
    largest = float(values[0])
    return [[float(rank + 1), float(values[rank]) / largest if largest else 0.0] for rank in ranks]
