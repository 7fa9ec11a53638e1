"""What an experiment hands to the verifier: ``results.json``.

A proportion always carries ``k`` and ``n``. Where a cell was measured over several seeds, ``seeds``
holds one entry a seed and ``value`` is their mean; items and seeds are never pooled.
"""

from __future__ import annotations

from msgspec import Struct


class SeedValue(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One seed's measurement of a cell."""

    seed: str
    """Identifies the replicate; the same string in two cells means the same replicate (paired)."""
    value: float
    beyond: bool = False
    """The true value is larger than ``value``: what was waited for (a first crossing) had not
    happened when measuring ended. A cell with such a seed has no ``value`` of its own."""
    k: int | None = None
    n: int | None = None
    labels: str | None = None
    """Path of the per-item labels relative to the run directory."""


class LineRef(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A line of a series of the same table."""

    series: str
    line: str


class Cell(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One measured number."""

    id: str
    unit: str
    value: float | None = None
    k: int | None = None
    n: int | None = None
    seeds: list[SeedValue] = []
    labels: str | None = None
    trajectory: LineRef | None = None
    """For a measured curve: the line that holds its points. Such a cell has no ``value``; what is
    asked of the curve (its end, its maximum) is derived from the points."""
    step: str = ""
    """Instance id of the step that measured it."""
    not_run: str | None = None
    """Reason, when the cell was deliberately not measured."""


class Point(Struct, frozen=True, forbid_unknown_fields=True, array_like=True):
    """One measured point; written as ``[x, value]`` or ``[x, value, k, n]``."""

    x: float
    value: float
    """In the unit of its series."""
    k: int | None = None
    n: int | None = None
    """Items behind ``k``, where the value is a proportion."""


class Curve(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What one replicate measured along x."""

    seed: str = ""
    """Identifies the replicate as in :class:`SeedValue`; empty where there is only one curve and
    nothing to tell apart."""
    points: list[Point]
    """With rising x."""


class Series(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Trajectories that belong in one figure (loss, ASR by checkpoint, accuracy under attack).

    Means and intervals are derived from the curves where they are needed, never stored.
    """

    id: str
    title: str
    x_label: str
    y_label: str
    unit: str
    """Of every point's value."""
    lines: dict[str, list[Curve]]
    """Line name -> one curve a replicate."""


class Canary(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Evidence that a mechanism ran, looked at before any number."""

    id: str
    step: str
    passed: bool
    detail: str
    cells: list[str] = []
    """Prefixes of cell ids that become ``invalid`` when it failed; empty means all."""


class Results(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The file."""

    schema_version: int
    experiment: str
    version: str
    profile: str
    cells: list[Cell]
    series: list[Series] = []
    canaries: list[Canary] = []
