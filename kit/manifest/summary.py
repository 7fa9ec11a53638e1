"""What ``kit list`` and the table of experiments say about each experiment."""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from kit.errors import KitError
from kit.manifest.catalog import Catalog
from kit.manifest.expectation_types import Expectation


class ProfileSummary(Struct, frozen=True, kw_only=True):
    """One profile of an experiment."""

    profile: str
    cells: int
    """Cells with a number to compare with; 0 without an expectation."""
    primary_claims: int
    records: list[str]
    """Committed run records behind its reference values."""


class ExperimentSummary(Struct, frozen=True, kw_only=True):
    """One line of the list."""

    id: str
    family: str
    variant: str
    version: str
    title: str
    profiles: list[ProfileSummary]
    problem: str = ""
    """Why the manifest cannot be read; everything else but id and family is then empty."""

    @property
    def recorded(self) -> list[str]:
        """Profiles for which a committed run record exists."""
        return [profile.profile for profile in self.profiles if profile.records]


class Line(Struct, frozen=True, kw_only=True):
    """What the printed list says of an experiment; no expectation is opened for it.

    Reading all of them takes ten times as long as reading the manifests.
    """

    id: str
    family: str
    variant: str = ""
    title: str = ""
    profiles: list[str] = []
    recorded: list[str] = []
    problem: str = ""


def lines(catalog: Catalog) -> list[Line]:
    """All experiments; one that cannot be read says why and does not hide the others."""
    return [_line(catalog, id, path.parent.name) for id, path in catalog.files().items()]


def _line(catalog: Catalog, id: str, family: str) -> Line:
    try:
        manifest = catalog.manifest(id)
    except KitError as error:
        return Line(id=id, family=family, problem=_first(error))
    profiles: list[str] = sorted(manifest.profiles)
    return Line(
        id=id,
        family=manifest.family,
        variant=manifest.variant,
        title=manifest.title,
        profiles=profiles,
        recorded=[one for one in profiles if catalog.reference_record(id, one).is_file()],
    )


def _first(error: KitError) -> str:
    return str(getattr(error, "errors", [error])[0])


def summaries(catalog: Catalog) -> list[ExperimentSummary]:
    """All experiments; one that cannot be read says why and does not hide the others."""
    return [_summary(catalog, id, path.parent.name) for id, path in catalog.files().items()]


def _summary(catalog: Catalog, id: str, family: str) -> ExperimentSummary:
    empty: dict[str, Any] = {"version": "", "title": "", "variant": "", "profiles": []}
    try:
        manifest = catalog.manifest(id)
        profiles = [
            _profile(name, catalog.expectation(id, name)) for name in sorted(manifest.profiles)
        ]
    except KitError as error:
        return ExperimentSummary(id=id, family=family, problem=_first(error), **empty)
    return ExperimentSummary(
        id=id,
        family=manifest.family,
        variant=manifest.variant,
        version=manifest.version,
        title=manifest.title,
        profiles=profiles,
    )


def _profile(name: str, expectation: Expectation | None) -> ProfileSummary:
    cells = expectation.cells if expectation is not None else []
    claims = expectation.claims if expectation is not None else []
    return ProfileSummary(
        profile=name,
        cells=sum(
            cell.tolerance is not None and (cell.value is not None or cell.reference is not None)
            for cell in cells
        ),
        primary_claims=sum(claim.primary for claim in claims),
        records=sorted({cell.reference.record for cell in cells if cell.reference is not None}),
    )
