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
    k: int | None = None
    n: int | None = None
    labels: str | None = None
    """Path of the per-item labels relative to the run directory."""


class Cell(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One measured number."""

    id: str
    unit: str
    value: float | None = None
    k: int | None = None
    n: int | None = None
    seeds: list[SeedValue] = []
    labels: str | None = None
    series: list[list[float]] = []
    step: str = ""
    """Instance id of the step that measured it."""
    not_run: str | None = None
    """Reason, when the cell was deliberately not measured."""


class Series(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A curve for the report (loss, ASR by checkpoint, trade-off)."""

    id: str
    title: str
    x_label: str
    y_label: str
    lines: dict[str, list[list[float]]]
    """Line name -> [x, y] points."""


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
