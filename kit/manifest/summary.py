"""What ``kit list`` and the experiments table of the README say about each experiment."""

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
        first = getattr(error, "errors", [error])[0]
        return ExperimentSummary(id=id, family=family, problem=str(first), **empty)
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
