"""Rules over an expectation's claims and figures."""

from __future__ import annotations

import re
from collections.abc import Iterator

from kit.lint.core import EXPECTATION, ExpectationContext
from kit.manifest.expectation_types import Claim, Figure
from kit.manifest.source import Hit, nearest
from kit.plural import plural
from kit.results.asks import split
from kit.results.ids import matches
from kit.verify.claims import UNMEASURED, claim_faults

MOST_PRIMARY = 15


def used_cells(claim: Claim) -> list[tuple[tuple[str | int, ...], str]]:
    """(place below the claim, cell id) of every cell a claim names."""
    named: list[tuple[tuple[str | int, ...], str]] = [
        (("cells", index), id) for index, id in enumerate(claim.cells)
    ]
    for index, pair in enumerate(claim.pairs):
        named += [(("pairs", index, position), id) for position, id in enumerate(pair)]
    return named


@EXPECTATION.rule("claim-cells")
def claim_cells(context: ExpectationContext) -> Iterator[Hit]:
    """A claim names cells that exist, in one unit; of a curve it asks something."""
    cells = context.cells()
    for index, claim in enumerate(context.expectation.claims):
        units: set[str] = set()
        for path, id in used_cells(claim):
            base, ask = split(id)
            if id in cells:
                units.add(cells[id].unit)
                if cells[id].series:
                    yield Hit(
                        ("claims", index, *path),
                        f"claim {claim.id!r}: {id!r} is a curve, and a claim compares numbers",
                        f"ask {id}:end, :max, :min, :area, :first-above:V or :first-below:V",
                    )
            elif ask is not None and base in cells:
                units.add(ask.unit(cells[base].unit))
            else:
                yield Hit(
                    ("claims", index, *path),
                    f"claim {claim.id!r}: there is no cell {base!r}",
                    nearest(base, cells),
                )
        if len(units) > 1 and not (claim.kind == "ratio" and units == {"seconds", "minutes"}):
            yield Hit(
                ("claims", index),
                f"claim {claim.id!r} compares {', '.join(sorted(units))}",
                level="warning",
            )


@EXPECTATION.rule("claim-fields")
def claim_fields(context: ExpectationContext) -> Iterator[Hit]:
    """A claim has what its kind needs, and nothing its kind ignores."""
    for index, claim in enumerate(context.expectation.claims):
        path = ("claims", index)
        for message in claim_faults(claim):
            yield Hit(path, f"claim {claim.id!r}: {message}")
        if claim.kind == "within" and float(claim.margin) == 0:
            yield Hit(path, f"claim {claim.id!r}: within needs a margin above zero")
        for field in _ignored(claim):
            yield Hit((*path, field), f"claim {claim.id!r}: {claim.kind} ignores {field!r}")
        if float(claim.margin) < 0:
            yield Hit((*path, "margin"), f"claim {claim.id!r}: a negative margin")


def _ignored(claim: Claim) -> Iterator[str]:
    if claim.kind == "direction":
        if claim.cells:
            yield "cells"
    else:
        if claim.pairs:
            yield "pairs"
        if claim.at_least_pairs is not None:
            yield "at_least_pairs"
    if claim.kind in ("order", "direction", "within") and claim.value is not None:
        yield "value"
    if claim.kind == "order" and claim.side is not None:
        yield "side"
    if claim.kind in ("threshold", "ratio") and float(claim.margin) != 0:
        yield "margin"


@EXPECTATION.rule("claim-margin-reason")
def claim_margin_reason(context: ExpectationContext) -> Iterator[Hit]:
    """A claim's margin says why."""
    for index, claim in enumerate(context.expectation.claims):
        if float(claim.margin) != 0 and not claim.reason.strip():
            yield Hit(
                ("claims", index, "margin"),
                f"claim {claim.id!r} has a margin without a reason",
                "write 'reason:', also when the document gives the margin",
            )


@EXPECTATION.rule("primary-claims")
def primary_claims(context: ExpectationContext) -> Iterator[Hit]:
    """There are 1 to 15 primary claims; they decide the run."""
    primary = sum(claim.primary for claim in context.expectation.claims)
    if not 1 <= primary <= MOST_PRIMARY:
        yield Hit(
            ("claims",),
            f"{plural(primary, 'primary claim')}; there must be 1 to {MOST_PRIMARY}",
            "mark the claims that the document stands or falls with",
        )


@EXPECTATION.rule("rests-on-unmeasured", "info")
def rests_on_unmeasured(context: ExpectationContext) -> Iterator[Hit]:
    """A claim rests on cells that the document never measured."""
    cells = context.cells()
    for index, claim in enumerate(context.expectation.claims):
        for path, id in used_cells(claim):
            cell = cells.get(id) or cells.get(split(id)[0])
            if cell is not None and cell.status in UNMEASURED:
                yield Hit(
                    ("claims", index, *path),
                    f"claim {claim.id!r} rests on unmeasured {id!r} ({cell.status})",
                )


_PATTERNS = {"grid": 1, "trade-off": 2, "steps": 0}


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
        for position, pattern in enumerate(figure.cells):
            base = pattern.partition(":")[0]
            listed = [*ids, *(split(id)[0] for id in ids)]
            if not matches(pattern, ids) and not matches(base, listed):
                yield Hit(
                    (*path, position),
                    f"figure {figure.title!r}: no listed cell matches {pattern!r}",
                    "* stands for a name without '/', '@' and ':'",
                    level="warning",
                )


def _shape(figure: Figure) -> str:
    if (figure.kind == "steps") != bool(figure.lines):
        return "lines are what steps are drawn from, and only they"
    stars = [pattern.count("*") for pattern in figure.cells]
    wanted = _PATTERNS[figure.kind]
    if len(stars) != wanted:
        return f"{figure.kind} needs {wanted} of these, not {len(stars)}"
    if figure.kind == "grid" and stars != [2]:
        return f"a grid has one * for its rows and one for its columns, not {stars[0]}"
    if figure.kind == "trade-off" and (stars[0] != stars[1] or stars[0] == 0):
        return "both patterns of a trade-off need the same number of *, at least one"
    published = figure.published
    upward = published.upward if published is not None else None
    if published is not None and (figure.kind == "trade-off") != (upward is not None):
        return "published points of a trade-off, and only they, say what is drawn upwards"
    if published and upward and published.cells.count("*") != upward.count("*"):
        return "both patterns of the published points need the same number of *"
    return ""


@EXPECTATION.rule("claim-words")
def claim_words(context: ExpectationContext) -> Iterator[Hit]:
    """A claim says what is tested; what is printed points to cells and claims that exist."""
    expectation = context.expectation
    ids = {claim.id for claim in expectation.claims}
    for index, claim in enumerate(expectation.claims):
        count = len({id for _, id in used_cells(claim)})
        if not claim.tested:
            yield Hit(
                ("claims", index),
                f"claim {claim.id!r} does not say what is tested",
                'add tested: "200 steps bring ASR from {1} to {0}", for example; it stands first',
            )
        for number in re.findall(r"\{([^}]*)\}", claim.tested):
            if not number.isdigit() or int(number) >= count:
                yield Hit(
                    ("claims", index, "tested"),
                    f"claim {claim.id!r}: {{{number}}} is no cell of it",
                    f"the claim has {plural(count, 'cell')}; the first is {{0}}",
                )
    for index, caveat in enumerate(expectation.caveats):
        for name in re.findall(r"\{([^}]*)\}", caveat):
            if name not in ids:
                yield Hit(("caveats", index), f"there is no claim {name!r}", nearest(name, ids))
    if expectation.main is not None and expectation.main not in ids:
        yield Hit(
            ("main",), f"there is no claim {expectation.main!r}", nearest(expectation.main, ids)
        )
