"""What ``kit list`` says of each experiment, and ``kit show`` of one, as plain data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from msgspec import Struct, to_builtins

from kit.errors import KitError
from kit.manifest.catalog import Catalog
from kit.manifest.expectation_types import Expectation
from kit.manifest.matrix import combinations
from kit.manifest.pin_types import Pin
from kit.manifest.types import Profile, Sourced, StepSpec, profile_of, steps_of


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
            _profile_summary(name, catalog.expectation(id, name))
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


def _profile_summary(name: str, expectation: Expectation | None) -> ProfileSummary:
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


def describe(
    catalog: Catalog, experiment: str, profiles: list[str] | None = None
) -> dict[str, Any]:
    """The experiment with claims, inputs, resources and sourced parameters, per profile."""
    manifest = catalog.manifest(experiment)
    for name in profiles or []:
        profile_of(manifest, name)
    pins = {pin.id: pin for pin in catalog.pins(experiment).pins}
    about = ("id", "title", "summary", "family", "variant", "counterpart", "full_size")
    return _fields(manifest, *about, "version", "notes") | {
        "documents": [_fields(document, "id", "title", "cite") for document in manifest.documents],
        "profiles": {
            name: _profile(catalog, experiment, name, pins)
            for name in sorted(manifest.profiles)
            if not profiles or name in profiles
        },
    }


def _fields(value: Struct, *names: str) -> dict[str, Any]:
    return {name: getattr(value, name) for name in names}


def _profile(
    catalog: Catalog, experiment: str, name: str, pins: Mapping[str, Pin]
) -> dict[str, Any]:
    manifest, expectation = catalog.manifest(experiment), catalog.expectation(experiment, name)
    profile = manifest.profiles[name]
    claims = sorted(expectation.claims, key=lambda c: not c.primary) if expectation else []
    return _fields(profile, "summary", "matrix", "exclude") | {
        "inputs": [_input(id, pins.get(id)) for id in catalog.needed_pins(experiment, name)],
        "models": {
            role: _fields(model, "pin", "step", "at") for role, model in profile.models.items()
        },
        "roles": {axis: manifest.axes.get(axis) for axis in profile.matrix},
        "steps": [_step(step, profile) for step in steps_of(manifest, name).values()],
        "cells": len(expectation.cells) if expectation else 0,
        "claims": [_fields(c, "id", "kind", "primary", "sentence", "place") for c in claims],
        "notes": expectation.notes if expectation else [],
    }


def _input(id: str, pin: Pin | None) -> dict[str, Any]:
    if pin is None:
        return {"id": id, "problem": "there is no such pin"}
    sizes = [file.size for file in pin.files]
    about = ("id", "kind", "title", "licence", "gated", "revision", "unconfirmed", "unavailable")
    return _fields(pin, *about) | {
        "at": pin.origin,
        "files": len(sizes),
        "bytes": sum(size or 0 for size in sizes) if sizes and None not in sizes else None,
    }


def _step(step: StepSpec, profile: Profile) -> dict[str, Any]:
    values = {
        name: _fields(value, "value", "source")
        if isinstance(value, Sourced)
        else {"value": value, "source": None}
        for name, value in profile.set.get(step.id, {}).items()
    }
    needs = profile.resources.get(step.id)
    return _fields(step, "id", "kind", "each") | {
        "instances": sum(1 for _ in combinations(profile, step.each, limit=200_000)),
        "resources": to_builtins(needs) if needs is not None else None,
        "set": values,
    }
