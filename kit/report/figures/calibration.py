"""Calibration figure: the cells' normal scores against what chance alone would give.

A single cell says little among hundreds. If every difference were noise, the sorted scores would
follow the diagonal; a line shifted to one side is a systematic error that no single cell shows.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import NormalDist
from typing import TYPE_CHECKING

from kit.report.figures.style import INK, MUTED, RULE, SERIES, draw

if TYPE_CHECKING:
    from matplotlib.axes import Axes

ENOUGH = 5
"""Fewer scores than this show nothing."""
MOST = 240
"""Points drawn; from more, evenly spaced ranks are taken and both ends kept."""


def quantiles(scores: Sequence[float]) -> list[tuple[float, float]]:
    """(expected, observed) normal scores, at most :data:`MOST` of them."""
    ordered = sorted(scores)
    count = len(ordered)
    most = min(count, MOST)
    chosen = sorted({round(i * (count - 1) / max(1, most - 1)) for i in range(most)})
    normal = NormalDist()
    return [(normal.inv_cdf((rank + 0.5) / count), ordered[rank]) for rank in chosen]


def calibration(scores: Sequence[float]) -> str:
    """The figure as inline SVG."""
    points = quantiles(scores)
    xs, ys = [p[0] for p in points], [p[1] for p in points]
    reach = max(3.0, *(abs(v) for v in (*xs, *ys))) * 1.08

    def paint(ax: Axes) -> None:
        ax.fill_between([-reach, reach], -1.96, 1.96, color=RULE, alpha=0.5, linewidth=0)
        ax.plot([-reach, reach], [-reach, reach], color=MUTED, linewidth=1, linestyle="--")
        ax.plot(xs, ys, marker="o", markersize=3.6, color=SERIES[0], linestyle="none")
        mean = sum(scores) / len(scores)
        ax.axhline(mean, color=INK, linewidth=0.8)
        ax.annotate(
            f"mean {mean:+.2f}".replace("-", "\u2212"),
            (-reach, mean),
            xytext=(4, 3),
            textcoords="offset points",
        )
        ax.set_xlim(-reach, reach)
        ax.set_ylim(-reach, reach)
        ax.set_aspect("equal")
        ax.set_xlabel("score expected from chance alone")
        ax.set_ylabel("score of the cell")

    return draw("calibration", 4.6, 4.4, paint)
