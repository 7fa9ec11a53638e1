"""One look for all figures, and the way from matplotlib to an inline SVG.

matplotlib draws with sentinel colours; afterwards every sentinel becomes ``currentColor`` or a CSS
variable of the page, so that a figure follows the page into dark mode and onto paper. Fonts become
the page's too. The bytes depend on the data alone: fixed hash salt, no date, no version.

matplotlib is imported inside the functions: it costs most of a second, which only ``kit report``
pays.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from kit.report.files import needing
from kit.visible import visible

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK = "#010101"
MUTED = "#020202"
RULE = "#030303"
GOOD = "#040404"
OPEN = "#050505"
BAD = "#060606"
VOID = "#070707"
SERIES = tuple(f"#1{i}1{i}1{i}" for i in range(6))
"""Line colours; a line also differs by dash and marker, because colour alone tells too little."""

DASHES = ("-", "--", ":", "-.")
MARKERS = ("o", "s", "^", "D", "v", "P")

_CSS = {
    INK: "currentColor",
    MUTED: "var(--muted)",
    RULE: "var(--rule)",
    GOOD: "var(--good)",
    OPEN: "var(--open)",
    BAD: "var(--bad)",
    VOID: "var(--void)",
    **{sentinel: f"var(--s{i})" for i, sentinel in enumerate(SERIES)},
}

_RC: Any = {
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 9.0,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.unicode_minus": True,
    "axes.formatter.use_mathtext": False,
    "axes.formatter.useoffset": False,
    "text.color": INK,
    "text.parse_math": False,
    "text.usetex": False,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "grid.color": RULE,
    "legend.frameon": False,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
}


@contextmanager
def _look(name: str) -> Iterator[None]:
    with needing("the report"):
        import matplotlib as mpl

    # Glyphs that matplotlib's own font lacks are drawn by the browser, which has more fonts.
    with mpl.rc_context({**_RC, "svg.hashsalt": f"kit-{name}"}), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        yield


def draw(name: str, width: float, height: float, paint: Callable[[Axes], None]) -> str:
    """One figure as inline SVG text.

    Args:
        name: Unique on the page; salts the ids inside the SVG.
        width: Inches.
        height: Inches.
        paint: Draws onto the axes.
    """
    with _look(name):
        from matplotlib.figure import Figure as MplFigure

        figure: Figure = MplFigure(figsize=(width, height), layout="constrained")
        paint(figure.add_subplot())
        out = io.StringIO()
        metadata = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(out, format="svg", metadata=metadata)
    return inline(out.getvalue())


_TOKEN = re.compile(r"<[^>]*>|[^<]+")
_NUMBERS = re.compile(r' (?:d|x|y|transform|points)="[^"]*"')


def inline(svg: str) -> str:
    """Strip what a page does not need and tie colours and fonts to the page.

    Only tags are touched, so that no label can be mistaken for markup of the figure.
    """
    svg = svg[svg.index("<svg") :].strip()
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"<style type=.*?</style>", "", svg, flags=re.DOTALL)
    tokens = _TOKEN.findall(svg)
    tags = [token for token in tokens if token.startswith("<")]
    used = {ref for tag in tags for ref in re.findall(r'(?:href="#|url\(#)([^")]+)', tag)}
    out = []
    for token in tokens:
        if token.startswith("<!--"):
            continue
        if token.startswith("<"):
            out.append(_tag(token, used))
        elif token.strip():
            out.append(token)
    return "".join(out)


def _tag(tag: str, used: set[str]) -> str:
    if tag.startswith("<svg"):
        tag = re.sub(r' (?:xmlns(?::xlink)?|width|height|version)="[^"]*"', "", tag)
        return tag[:-1] + ' aria-hidden="true" focusable="false">'
    tag = tag.replace("xlink:href=", "href=")
    tag = re.sub(r' id="([^"]*)"', lambda m: m.group() if m.group(1) in used else "", tag)
    for sentinel, css in _CSS.items():
        tag = tag.replace(sentinel, css)
    tag = re.sub(r" font-family: 'DejaVu Sans'[^;\"]*;", "", tag)  # the page's font instead
    tag = re.sub(r' transform="rotate\(-0 [^"]*"', "", tag).replace("\n", " ")
    return _NUMBERS.sub(lambda m: re.sub(r"(\.\d\d)\d+", r"\1", m.group()), tag)


def label(text: str, limit: int = 48) -> str:
    """Untrusted text for a figure: visible, on one line, short."""
    text = visible(" ".join(text.split()))
    return text if len(text) <= limit else text[: limit - 1] + "\u2026"
