"""Rules over the figures that an expectation asks for."""

from __future__ import annotations

from collections.abc import Iterator

from kit.engine.wiring import Hit
from kit.lint.core import EXPECTATION, ExpectationContext
from kit.manifest.expectation_types import Figure
from kit.results.asks import split
from kit.results.ids import matches

_PATTERNS = {"grid": 1, "trade-off": 2}


@EXPECTATION.rule("figures")
def figures(context: ExpectationContext) -> Iterator[Hit]:
    """A figure has the patterns that its kind needs, and they match listed cells."""
    ids = [cell.id for cell in context.expectation.cells]
    for index, figure in enumerate(context.expectation.figures):
        path = ("figures", index, "cells")
        wrong = _shape(figure)
        if wrong:
            yield Hit(path, f"figure {figure.title!r}: {wrong}")
            continue
        for place, pattern in enumerate(figure.cells):
            base = pattern.partition(":")[0]
            listed = [*ids, *(split(id)[0] for id in ids)]
            if not matches(pattern, ids) and not matches(base, listed):
                yield Hit(
                    (*path, place),
                    f"figure {figure.title!r}: no listed cell matches {pattern!r}",
                    "* stands for a name without '/', '@' and ':'",
                    level="warning",
                )


def _shape(figure: Figure) -> str:
    stars = [pattern.count("*") for pattern in figure.cells]
    wanted = _PATTERNS[figure.kind]
    if len(stars) != wanted:
        return f"{figure.kind} needs {wanted} of these, not {len(stars)}"
    if figure.kind == "grid" and stars != [2]:
        return f"a grid has one * for its rows and one for its columns, not {stars[0]}"
    if figure.kind == "trade-off" and (stars[0] != stars[1] or stars[0] == 0):
        return "both patterns of a trade-off need the same number of *, at least one"
    return ""
