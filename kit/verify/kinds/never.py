"""A first crossing that did not happen in some seeds, against a published or asked number."""

from __future__ import annotations

from fractions import Fraction

from kit.manifest.expectation_types import ExpectedCell, Tolerance
from kit.verify.censored import in_words, ordering, values_of
from kit.verify.finding import ALPHA, Finding
from kit.verify.measurement import Measurement
from kit.verify.numbers import show
from kit.verify.seeds import baseline


def never(cell: Measurement, expected: ExpectedCell, rule: Tolerance) -> Finding:
    """No mean and no interval exist, so equivalence cannot be shown; a difference can.

    A single run deviates when it was followed past everything that the tolerance allows. Seeds
    deviate, or keep a ``bound``, by the exact sign test against the number.
    """
    says = in_words(cell)
    if rule.kind == "bound":
        assert rule.bound is not None
        return _bound(cell, Fraction(rule.bound), rule.side or "at_least", says)
    said = baseline(expected)
    assert said is not None
    if len(cell.seeds) == 1:
        return _single(cell, said.value + said.half, expected, rule, says)
    known = ordering(cell, None, said.value, Fraction(1))
    p = min(1.0, 2 * min(known.above, known.below))
    return Finding(
        "deviates" if p <= ALPHA else "inconclusive",
        f"{says}, against {said.text}: {known.method}",
        p=p,
        needed=None if p <= ALPHA else "curves that reach further, or more seeds",
    )


def _bound(cell: Measurement, value: Fraction, side: str, says: str) -> Finding:
    word = "at most" if side == "at_most" else "at least"
    detail = f"{says}, {word} {show(value)} asked"
    if len(cell.seeds) == 1:
        return Finding(
            "inconclusive", f"{detail}; one run says nothing about seeds", needed="at least 5 seeds"
        )
    known = ordering(cell, None, value, Fraction(1))
    kept, broken = known.above, known.below
    if side == "at_most":
        kept, broken = broken, kept
    verdict = "reproduced" if kept <= ALPHA else "deviates" if broken <= ALPHA else "inconclusive"
    return Finding(
        verdict,  # type: ignore[arg-type]
        f"{detail}; {known.method}",
        margin=float(value),
        needed="curves that reach further, or more seeds" if verdict == "inconclusive" else None,
    )


def _single(
    cell: Measurement, upper: Fraction, expected: ExpectedCell, rule: Tolerance, says: str
) -> Finding:
    ((_, last),) = values_of(cell)
    margin = Fraction(rule.margin or "0")
    if rule.kind == "relative":
        margin = max(margin * abs(upper), Fraction(rule.floor or "0"))
    detail = f"{says}, against {expected.value or 'the reference'}"
    if rule.kind in ("exact", "absolute", "relative") and last.value >= upper + margin:
        return Finding("deviates", f"{detail}; margin {show(margin)}, no noise model")
    return Finding(
        "inconclusive",
        f"{detail}; one run that was not followed further",
        needed="a curve that reaches further, and at least 5 seeds",
    )
