"""What ``kit verify`` says: the types of ``verdict.json``.

Every number of a cell stands in the cell's own unit (``percent`` cells in percentage points), so a
reader never converts. ``p`` and ``q`` are probabilities between 0 and 1.
"""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from kit.errors import EXIT_CLAIM_FAILED, EXIT_INCOMPLETE, EXIT_OK
from kit.results.record import Blind

SCHEMA_VERSION = 1
"""As the first release writes it."""

CellVerdict = Literal[
    "match",
    "reproduced",
    "inconclusive",
    "deviates",
    "missing",
    "not-run",
    "not-compared",
    "invalid",
]
"""``match``: identical at printed precision. ``reproduced``: equivalence shown. ``inconclusive``:
neither equivalence nor difference shown. ``deviates``: difference shown, equivalence not.
``missing``: the step ran, the cell is absent. ``not-run``: deliberately not measured, with reason.
``not-compared``: there is no number to compare with (the document left it running, diverged or
cancelled, or only quotes it without a tolerance). ``invalid``: a precondition broke; outranks
every number."""

ClaimOutcome = Literal["holds", "fails", "undetermined", "not-evaluated"]

RunVerdict = Literal[
    "REPRODUCED", "PARTIALLY", "NOT REPRODUCED", "INCOMPLETE", "REHEARSED", "NOT COMPARED"
]
"""``REPRODUCED``: all primary claims hold, nothing is invalid or missing, no table differs in more
cells than chance explains. ``NOT REPRODUCED``: a primary claim fails. ``PARTIALLY``: some primary
claims hold, none fails, something is open or the numbers of a table are off as a whole.
``INCOMPLETE``: no primary claim could be decided. ``REHEARSED``: stand-in data, no verdict.
``NOT COMPARED``: no expectation, no verdict."""

EXIT_CODES: dict[RunVerdict, int] = {
    "REPRODUCED": EXIT_OK,
    "NOT REPRODUCED": EXIT_CLAIM_FAILED,
    "PARTIALLY": EXIT_INCOMPLETE,
    "INCOMPLETE": EXIT_INCOMPLETE,
    "REHEARSED": EXIT_OK,
    "NOT COMPARED": EXIT_INCOMPLETE,
}
"""Exit code of ``kit verify`` for each run verdict."""


class Interval(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A confidence (or prediction) interval."""

    low: float
    high: float
    level: float
    """0.95 for the difference test, 0.90 for the equivalence test."""

    @property
    def half(self) -> float:
        """Half its width."""
        return (self.high - self.low) / 2


class CellReport(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One expected cell and what became of it."""

    id: str
    table: str
    """First part of the id: the group over which the omnibus line counts."""
    title: str = ""
    status: str
    """Status in the expectation: reported, quoted, running, diverged, cancelled, reference."""
    place: str
    """Document and place of the printed number."""
    published: str | None = None
    """As printed."""
    baseline: float | None = None
    """What it was compared with: the published value, else the reference mean or the bound."""
    value: float | None = None
    """Measured, in ``unit``; the mean when there are several seeds."""
    unit: str
    direction: str = "none"
    k: int | None = None
    n: int | None = None
    """Items behind the measured proportion (of one seed, where there are several)."""
    seeds: int = 0
    """How many seeds were measured; 0 for a single run without seed."""
    kind: str | None = None
    """Tolerance kind."""
    difference: float | None = None
    """Measured minus published."""
    interval: Interval | None = None
    """Of the difference, at 95 %: excludes 0 when a difference is shown."""
    interval_equivalence: Interval | None = None
    """Of the difference, at 90 %: inside +-margin when equivalence is shown."""
    value_interval: Interval | None = None
    """Of the measured value itself, at 95 %, for figures."""
    margin: float | None = None
    """Half-width inside which the cell counts as equal (``bound`` cells: the bound)."""
    margin_source: str | None = None
    """document, convention, pilot, reference, author."""
    margin_reason: str | None = None
    verdict: CellVerdict
    detail: str
    """One sentence a reader can quote."""
    shifted: bool = False
    """Equivalent within the margin, and yet a difference is shown."""
    flip_rate: float | None = None
    """Share of items whose label changed, where both sides have labels."""
    p: float | None = None
    """Two-sided p of no difference; None for kinds without noise model."""
    q: float | None = None
    """Benjamini-Hochberg adjusted ``p`` over all cells of the run."""
    z: float | None = None
    """Signed normal score of ``p``, for the calibration figure."""
    needed: str | None = None
    """For an inconclusive cell: how many items or seeds would decide it."""


class ClaimReport(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One claim of the document and what became of it."""

    id: str
    kind: str
    sentence: str
    place: str
    primary: bool
    cells: list[str]
    """Every cell the claim looks at."""
    outcome: ClaimOutcome
    detail: str
    tested: str = ""
    """What was tested here, in words, with the measured numbers."""
    published: str = ""
    """What became of ``sentence`` at its own scale; empty where that is what was tested."""
    needed: str = ""
    """For an open claim: what would decide it."""
    method: str = ""
    """How it was decided: paired seeds, paired labels, proportions, plain comparison, ..."""
    p: float | None = None
    """One-sided p that the claim holds; None where there is no noise to test against."""
    p_holm: float | None = None
    """``p`` Holm-adjusted over the primary claims; None for other claims."""
    p_fails: float | None = None
    """One-sided p that the claim fails (unadjusted)."""
    estimate: str = ""
    """The measured numbers the outcome rests on, in words."""
    rests_on_unmeasured: bool = False
    """The document has no measured number for one of these cells (quoted, running, ...)."""
    reason: str = ""
    """Why this value or margin, where the document does not give it."""


class CanaryReport(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A check looked at before any number."""

    id: str
    passed: bool
    detail: str
    source: Literal["step", "built-in"]
    step: str = ""
    cells: list[str] = []
    """Ids of the cells it made ``invalid``."""


class Omnibus(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One line a table: how many cells differ and how many chance alone explains."""

    table: str
    """A group, or ``<group>/<metric>`` where this metric alone exceeds its line."""
    tested: int
    """Cells with a noise model."""
    differing: int
    """Of these, cells where a difference is shown at the 5 % level."""
    chance: int
    """99th percentile of Binomial(tested, 0.05)."""
    exceeds: bool
    mean_z: float | None = None
    """Mean normal score; far from 0 means a shift that no single cell shows."""
    sentence: str


class Verdict(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The file ``verdict.json``."""

    schema_version: int = SCHEMA_VERSION
    experiment: str
    profile: str
    scope: str = ""
    """What it speaks of, as the profile declares; empty where the table came from elsewhere."""
    scale: str = ""
    """Size of what was run, as the expectation says: "miniature", "8B"."""
    headline: str = ""
    """Verdict, scale, count of claims and what was not touched, in one sentence."""
    published: str = ""
    """What became of the documents' own numbers: not run, or so many of so many compared."""
    caveats: list[str] = []
    """At most three: what decides how far this verdict reaches."""
    terms: dict[str, str] = {}
    """Words that the claims use, explained."""
    version: str
    expectation: str = ""
    """Path of the expectation as given, and its sha256 below."""
    expectation_sha256: str = ""
    own_expectation: bool = False
    """It was given by name instead of the repository's."""
    results_sha256: str = ""
    kit_version: str = ""
    verdict: RunVerdict
    exit_code: int
    modified: bool = False
    """Something is not as the kit has it: see ``overrides``."""
    overrides: list[str] = []
    """Overrides of the run record; uncommitted changes of the code; an edited expectation."""
    blind: Blind | None = None
    """Steps could not open the expectation until the results were hashed; None: nobody asked."""
    not_run_here: bool = False
    """The numbers were brought as a table; nothing was run by this kit."""
    reasons: list[str] = []
    """Why the run got this verdict, a sentence each."""
    cells: list[CellReport]
    claims: list[ClaimReport]
    canaries: list[CanaryReport] = []
    omnibus: list[Omnibus] = []
    notes: list[str] = []
    not_covered: list[str] = []
    """What this verdict says nothing about (cells not run, claims not evaluated, quoted cells)."""
