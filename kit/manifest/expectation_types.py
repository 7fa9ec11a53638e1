"""Types of ``expected_results/<family>/<experiment>.<profile>.yaml``.

The file says a thing once (:class:`ExpectationFile`): defaults for all cells whose id fits a
pattern, cells that differ in one part of their id only on one line, reference values in the record
that they come from. What the verifier compares with is the whole (:class:`Expectation`), made when
the file is read.

Published numbers stay strings as printed: ``"1.9"`` and ``"1.90"`` are different statements.
"""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

from kit.manifest.types import Identifier

CellId = Annotated[
    str,
    Meta(
        pattern=r"^[a-z0-9][a-z0-9./@+_-]{0,127}"
        r"(:(end|max|min|area|first-(above|below):[-+]?[0-9]{1,40}(\.[0-9]{1,40})?))?$(?!\n)"
    ),
]
"""A cell; with ``:<question>`` behind it what is asked of a trajectory: ``end``, ``max``, ``min``,
``area``, ``first-above:<value>``, ``first-below:<value>``."""
Pattern = Annotated[
    str,
    Meta(
        pattern=r"^[a-z0-9*][a-z0-9./@+_*-]{0,127}"
        r"(:(end|max|min|area|first-(above|below):[-+]?[0-9]{1,40}(\.[0-9]{1,40})?))?$(?!\n)"
    ),
]
"""A cell id in which ``*`` stands for any name without ``/`` and ``@``."""
Number = Annotated[
    str, Meta(pattern=r"^[-+]?[0-9]{1,40}(\.[0-9]{1,40})?([eE][-+]?[0-9]{1,2})?$(?!\n)")
]
"""A number as printed. Its length has a limit because it is kept exactly: the fraction behind
``1e999999999`` has a billion digits."""

Unit = Literal[
    "percent", "fraction", "count", "seconds", "minutes", "ratio", "norm", "loss", "number"
]
Direction = Literal["lower_is_better", "higher_is_better", "none"]
Status = Literal[
    "reported", "quoted", "running", "diverged", "cancelled", "reference", "unreported"
]
IdPattern = Annotated[str, Meta(pattern=r"^[a-z0-9{*][a-z0-9./@+_:{},*-]{0,4095}$(?!\n)")]
"""Cell ids: ``{a,b}`` stands for each of its parts in turn, ``*`` for any text without ``/`` and
``**`` for any text."""


class Tolerance(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How far a cell may move, and who says so.

    Which fields a kind needs (checked by lint): ``exact`` none; ``absolute`` margin; ``relative``
    margin, floor; ``binomial``, ``paired``, ``seeds``, ``trajectory`` margin; ``flip`` margin and
    flip_rate; ``bound`` bound and side. ``margin``, ``bound`` and ``floor`` are in the cell's unit
    (``margin`` of ``relative`` is a fraction).
    """

    kind: Literal[
        "exact",
        "absolute",
        "relative",
        "binomial",
        "paired",
        "flip",
        "seeds",
        "trajectory",
        "bound",
    ]
    margin: Number | None = None
    floor: Number | None = None
    bound: Number | None = None
    side: Literal["at_most", "at_least"] | None = None
    flip_rate: Number | None = None
    drift: Number | None = None
    """For ``trajectory``: largest allowed mean residual."""
    source: Literal["document", "convention", "pilot", "reference", "author"] = "convention"
    reason: Annotated[str, Meta(min_length=3)]


class Reference(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What reference runs of the kit gave for a cell, one value a seed."""

    mean: Number
    sd: Number
    n_seeds: Annotated[int, Meta(ge=1)]
    values: list[Number]
    seeds: list[str] = []
    """Id of each value's replicate; a run with the same ids is compared seed by seed."""
    record: str
    """The record that they stand in, as the expectation names it."""


class Derived(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How a printed cell follows from other printed cells; lint recomputes it."""

    formula: Literal["gap_closed", "max", "difference", "ratio", "mean"]
    cells: Annotated[list[CellId], Meta(min_length=1)]
    """gap_closed: [undefended, this, full]; difference: a - b; ratio: a / b."""


class ExpectedCell(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One published (or reference) number."""

    id: CellId
    title: str = ""
    status: Status
    """``quoted``: the document copied it from elsewhere and never measured it. ``running``,
    ``diverged``, ``cancelled``: the document has no final number; never a failure.
    ``reference``: from runs of this kit, not from a document. ``unreported``: no number exists yet;
    the cell is here because a claim looks at it."""
    value: Number | None = None
    unit: Unit
    n: Annotated[int, Meta(ge=1)] | None = None
    """Items behind a proportion."""
    k: Annotated[int, Meta(ge=0)] | None = None
    """Count of items, where the document prints it."""
    direction: Direction = "none"
    place: Annotated[str, Meta(min_length=1)]
    """Document and place of the printed string."""
    tolerance: Tolerance | None = None
    reference: Reference | None = None
    derived: Derived | None = None
    labels: str | None = None
    """Path of published per-item labels, where they exist."""
    labelled: bool = False
    """A whole run has the label of each item, with the item's id (not of a cell pooled over
    groups, whose labels stand in its parts)."""
    series: list[list[Number]] = []
    """For ``trajectory``: [x, y] points."""
    runs: Annotated[int, Meta(ge=1)] = 1
    """For ``trajectory``: runs that the published curve is the mean of."""
    note: str = ""


class Claim(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A sentence of the document as something that can fail.

    ``order``: cells from smallest to largest, neighbours at least ``margin`` apart.
    ``threshold``: each cell of ``cells`` ``side`` ``value``.
    ``direction``: each ``[before, after]`` pair moves down (``side: at_most``) or up by at least
    ``margin``; holds when that is so in ``at_least_pairs`` of them (default: all).
    ``ratio``: first cell / second cell ``side`` ``value``.
    ``within``: first and second cell no further apart than ``margin`` (two-sided), or the first no
    more than ``margin`` above (``side: at_most``) / below (``side: at_least``) the second.
    """

    id: Identifier
    kind: Literal["order", "threshold", "direction", "ratio", "within"]
    sentence: Annotated[str, Meta(min_length=3)]
    """Quoted from the document, or the kit's own sentence (then ``place`` says so)."""
    tested: str = ""
    """What was tested here, in plain words, with ``{0}``, ``{1}``, ... where the measured numbers
    of the claim's cells go ("200 steps bring ASR from {1} to {0}"). Printed before the sentence."""
    place: Annotated[str, Meta(min_length=1)]
    primary: bool = False
    cells: list[CellId] = []
    pairs: list[list[CellId]] = []
    value: Number | None = None
    margin: Number = "0"
    side: Literal["at_most", "at_least"] | None = None
    at_least_pairs: int | None = None
    reason: str = ""
    """Why this value or margin, where the document does not give it."""


class FigureLine(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A measured line of a figure over steps."""

    name: str
    series: str
    """Of the results, and which of its lines."""
    line: str
    start: CellId | None = None
    """What was measured before the first step; drawn at 0."""


class FigurePublished(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Published numbers over measured ones: cells of the expectation of the documents' scale."""

    cells: Pattern
    """Over steps the ``*`` stands for the step; in a trade-off what is drawn from left to right."""
    start: CellId | None = None
    upward: Pattern | None = None
    """Of a trade-off, which needs it: what is drawn upwards."""


class Figure(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A figure that the report draws beside forest plots; the first stands on its first screen.

    ``grid``: one pattern with two ``*``; the first gives the rows, the second the columns of a heat
    map with the numbers in it. ``trade-off``: two patterns, what is drawn from left to right and
    what upwards; a point for everything that stands for the ``*`` in both. ``steps``: measured
    lines. Published points may stand over the last two.
    """

    kind: Literal["grid", "trade-off", "steps"]
    title: Annotated[str, Meta(min_length=3)]
    cells: Annotated[list[Pattern], Meta(max_length=2)] = []
    lines: list[FigureLine] = []
    published: FigurePublished | None = None
    x_label: str = ""
    y_label: str = ""


class Shared(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a cell may leave to a default."""

    title: str | UnsetType = UNSET
    status: Status | UnsetType = UNSET
    unit: Unit | UnsetType = UNSET
    n: Annotated[int, Meta(ge=1)] | UnsetType = UNSET
    direction: Direction | UnsetType = UNSET
    place: Annotated[str, Meta(min_length=1)] | UnsetType = UNSET
    tolerance: Tolerance | UnsetType = UNSET
    labelled: bool | UnsetType = UNSET
    note: str | UnsetType = UNSET


class DerivedDefault(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """:class:`Derived` for many cells at once."""

    formula: Literal["gap_closed", "max", "difference", "ratio", "mean"]
    cells: Annotated[
        list[Annotated[str, Meta(pattern=r"^[a-z0-9{][a-z0-9./@+_:{}-]{0,127}$(?!\n)")]],
        Meta(min_length=1),
    ]
    """``{group}`` and ``{row}`` stand for the first and the last part of the cell's own id."""


class CellDefault(Shared, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Fields of every cell whose id fits. Of several that fit, the later ones win, field by field;
    what stands with the cell wins over all."""

    match: IdPattern
    derived: DerivedDefault | UnsetType = UNSET


class CellEntry(Shared, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One cell, or with ``{a,b}`` in the id one for each. Fields are those of a cell."""

    id: IdPattern
    value: Number | UnsetType = UNSET
    k: Annotated[int, Meta(ge=0)] | UnsetType = UNSET
    derived: Derived | UnsetType = UNSET
    labels: str | UnsetType = UNSET
    series: list[list[Number]] | UnsetType = UNSET
    runs: Annotated[int, Meta(ge=1)] | UnsetType = UNSET


class ExpectationFile(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The file."""

    schema_version: Literal[1]
    experiment: Identifier
    profile: Identifier
    version: Annotated[str, Meta(pattern=r"^[1-9][0-9]*-[A-Z]$(?!\n)")]
    """Must agree with the manifest's N."""
    record: str = ""
    """Record of reference runs, relative to this file; `kit reference` writes it. Every cell that
    stands in it has its values as reference."""
    defaults: list[CellDefault] = []
    cells: list[CellEntry]
    present: list[IdPattern] = []
    """Further cells that a whole run has, with which nothing is compared: statistics of the
    generations, the parts that derived cells are computed from."""
    claims: list[Claim]
    figures: list[Figure] = []
    scale: str = ""
    """Size that its numbers speak of, in a word or two ("miniature", "8B"); verdicts name it."""
    main: Identifier | None = None
    """The claim that stands for the experiment where there is room for one."""
    caveats: Annotated[list[str], Meta(max_length=3)] = []
    """What decides how far a verdict reaches; stands beside it. The rest belongs into ``notes``."""
    terms: dict[str, str] = {}
    """Words of the field that the claims use -> what they mean, for who wants them explained."""
    notes: list[str] = []


class Expectation(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a run is compared with: the file, written out."""

    schema_version: Literal[1]
    experiment: Identifier
    profile: Identifier
    version: Annotated[str, Meta(pattern=r"^[1-9][0-9]*-[A-Z]$(?!\n)")]
    record: str = ""
    cells: list[ExpectedCell]
    present: list[CellId] = []
    claims: list[Claim]
    figures: list[Figure] = []
    scale: str = ""
    main: Identifier | None = None
    caveats: list[str] = []
    terms: dict[str, str] = {}
    notes: list[str] = []
