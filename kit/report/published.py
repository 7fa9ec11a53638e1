"""``docs/published-claims.md``: which of the documents' sentences their own numbers carry."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from kit.manifest.catalog import Catalog
from kit.manifest.expectation_types import Claim, Expectation
from kit.manifest.load import load_expectation
from kit.manifest.tables import table
from kit.report.claims import evidence
from kit.verify.claims import asked, claim_cells
from kit.verify.published import PRINTED, verdict_on_itself
from kit.verify.verdict import ClaimReport, Verdict

PAGE = "docs/published-claims.md"
IN_ITS_OWN_NUMBERS = {"holds": "carried", "undetermined": "open", "fails": "contradicted"}
_INTRO = """\
# What the documents' own numbers carry

Written by `kit docs`; do not edit. The printed tables were entered as if another lab had sent
them (`kit verify EXP --results FILE --profile paper`) and asked for the claims of the same
document. No model was run. A sentence is *carried* when the printed numbers, with their numbers of
items, show it at the 5 % level (primary claims of an experiment Holm-adjusted together),
*contradicted* when they show the opposite, and *open* when so many items cannot tell: repeating the
experiment as it was, however faithfully, would leave an open sentence open. Where the document
gives no threshold, the kit's own was asked; its reason stands in the expectation. Two numbers can
differ and stay on the asked side: read the columns, not the word alone.
"""


def files(root: Path) -> dict[Path, str]:
    """Generator of the page, for ``kit docs``; none where there is no folder of documents."""
    return {root / PAGE: page(root)} if (root / "docs").is_dir() else {}


def page(root: Path) -> str:
    """The page, from every expectation of printed numbers."""
    catalog = Catalog(root)
    comparisons: list[tuple[Expectation, Verdict]] = []
    silent: list[str] = []
    for path in catalog.expectation_files():
        expected = load_expectation(path)
        if not expected.claims or not _printed(catalog, expected):
            continue
        if any(cell.value is not None and cell.status == "reported" for cell in expected.cells):
            comparisons.append((expected, verdict_on_itself(path)))
        else:
            silent.append(expected.experiment)
    parts = [_INTRO, _summary([claim for _, verdict in comparisons for claim in verdict.claims])]
    parts += [_section(expected, verdict) for expected, verdict in comparisons]
    if silent:
        names = ", ".join(f"`{name}`" for name in silent)
        parts.append(f"Not in this page, because no document prints numbers for it: {names}.\n")
    return "\n".join(parts)


def _printed(catalog: Catalog, expected: Expectation) -> bool:
    """Whether the expectation's profile is compared with what documents print."""
    profile = catalog.manifest(expected.experiment).profiles.get(expected.profile)
    return profile is not None and profile.compares == "published"


def _summary(claims: list[ClaimReport]) -> str:
    counted = {
        word: sum(1 for claim in claims if claim.outcome == outcome)
        for outcome, word in IN_ITS_OWN_NUMBERS.items()
    }
    rest = len(claims) - sum(counted.values())
    says = ", ".join(f"{number} {word}" for word, number in counted.items())
    says += f", {rest} without numbers" if rest else ""
    quoted = sum(1 for claim in claims if claim.rests_on_unmeasured)
    certain = sum(1 for claim in claims if claim.outcome == "holds" and claim.p is None)
    return (
        f"Of {len(claims)} sentences: {says}. {quoted} rest on a number that the document quotes "
        f"and never measured. {certain} of those carried compare numbers for which no uncertainty "
        "is printed (ratios, norms, losses, times): they are true of the numbers as they stand.\n"
    )


def _section(expected: Expectation, verdict: Verdict) -> str:
    numbers = sum(1 for cell in expected.cells if cell.value and cell.status in PRINTED)
    units = {cell.id: cell.unit for cell in expected.cells}
    questions = {claim.id: _asked(claim, units) for claim in expected.claims}
    head = ["sentence", "place", "asked", "its numbers", "decided by", "outcome"]
    rows = [
        [
            f"\u201c{claim.sentence}\u201d" + ("" if claim.primary else " (secondary)"),
            claim.place,
            questions[claim.id],
            claim.estimate,
            evidence(claim),
            f"**{IN_ITS_OWN_NUMBERS.get(claim.outcome, claim.outcome)}**"
            + (", rests on a quoted number" if claim.rests_on_unmeasured else ""),
        ]
        for claim in verdict.claims
    ]
    lines = table(head, [[_inert(text) for text in row] for row in rows])
    return f"## {expected.experiment}\n\n{numbers} printed numbers.\n\n{lines}\n"


def _asked(claim: Claim, units: Mapping[str, str]) -> str:
    """The question a sentence was turned into, in words."""
    cells = claim_cells(claim)
    said = asked(claim, units.get(cells[0], "number")).removesuffix(" asked")
    way = ""
    if claim.kind == "direction":
        way = f"each goes {'down' if claim.side == 'at_most' else 'up'}"
    elif claim.kind == "order":
        way = "first is lower" if len(cells) == 2 else "rising"
    return ", ".join(filter(None, (way, said)))


def _inert(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace("_", "\\_")
