"""What ``kit list`` and the table of experiments say about each experiment."""

from __future__ import annotations

from msgspec import Struct

from kit.errors import KitError
from kit.manifest.catalog import Catalog
from kit.manifest.expectation_types import Expectation


class ProfileSummary(Struct, frozen=True, kw_only=True):
    """One profile of an experiment."""

    profile: str
    cells: int = 0
    """Cells with a number to compare with; 0 without an expectation."""
    primary_claims: int = 0
    records: list[str] = []
    """Committed run records behind its reference values."""


class ExperimentSummary(Struct, frozen=True, kw_only=True):
    """One line of the list."""

    id: str
    family: str
    variant: str = ""
    version: str = ""
    title: str = ""
    profiles: list[ProfileSummary] = []
    problem: str = ""
    """Why the manifest cannot be read; everything else but id and family is then empty."""

    @property
    def recorded(self) -> list[str]:
        """Profiles for which a committed run record exists."""
        return [profile.profile for profile in self.profiles if profile.records]


def summaries(catalog: Catalog, *, expectations: bool = True) -> list[ExperimentSummary]:
    """All experiments; one that cannot be read says why and does not hide the others.

    Args:
        catalog: Of the repository.
        expectations: Read them, too, for what a profile compares with; it takes ten times as long.
    """
    return [
        _summary(catalog, id, path.parent.name, expectations)
        for id, path in catalog.files().items()
    ]


def _summary(catalog: Catalog, id: str, family: str, expectations: bool) -> ExperimentSummary:
    try:
        manifest = catalog.manifest(id)
        profiles = [
            _profile(name, catalog.expectation(id, name))
            if expectations
            else ProfileSummary(profile=name, records=_record(catalog, id, name))
            for name in sorted(manifest.profiles)
        ]
    except KitError as error:
        problem = str(getattr(error, "errors", [error])[0])
        return ExperimentSummary(id=id, family=family, problem=problem)
    return ExperimentSummary(
        id=id,
        family=manifest.family,
        variant=manifest.variant,
        version=manifest.version,
        title=manifest.title,
        profiles=profiles,
    )


def _record(catalog: Catalog, id: str, profile: str) -> list[str]:
    file = catalog.reference_record(id, profile)
    return [file.name] if file.is_file() else []


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
