"""Everything about one experiment as plain data; ``kit show`` prints it."""

from __future__ import annotations

from typing import Any

from kit.manifest.catalog import Catalog
from kit.manifest.expectation_types import Expectation
from kit.manifest.matrix import combinations
from kit.manifest.pin_types import Pin
from kit.manifest.types import Manifest, Profile, Resources, Sourced, StepSpec, profile_of, steps_of


def describe(
    catalog: Catalog, experiment: str, profiles: list[str] | None = None
) -> dict[str, Any]:
    """The experiment with claims, inputs, resources and sourced parameters, per profile."""
    manifest = catalog.manifest(experiment)
    for name in profiles or []:
        profile_of(manifest, name)
    pins = {pin.id: pin for pin in catalog.pins(experiment).pins}
    return {
        "id": manifest.id,
        "title": manifest.title,
        "summary": manifest.summary,
        "family": manifest.family,
        "variant": manifest.variant,
        "counterpart": manifest.counterpart,
        "full_size": manifest.full_size,
        "version": manifest.version,
        "documents": [
            {"id": document.id, "title": document.title, "cite": document.cite}
            for document in manifest.documents
        ],
        "notes": manifest.notes,
        "profiles": {
            name: _profile(
                manifest,
                name,
                profile,
                pins,
                catalog.expectation(experiment, name),
                catalog.needed_pins(experiment, name),
            )
            for name, profile in sorted(manifest.profiles.items())
            if not profiles or name in profiles
        },
    }


def _profile(
    manifest: Manifest,
    name: str,
    profile: Profile,
    pins: dict[str, Pin],
    expectation: Expectation | None,
    needed: list[str],
) -> dict[str, Any]:
    steps = steps_of(manifest, name).values()
    return {
        "summary": profile.summary,
        "inputs": [_input(id, pins.get(id)) for id in needed],
        "models": {
            name: {"pin": model.pin, "step": model.step, "at": model.at}
            for name, model in profile.models.items()
        },
        "matrix": profile.matrix,
        "roles": {axis: manifest.axes.get(axis) for axis in profile.matrix},
        "exclude": profile.exclude,
        "steps": [_step(step, profile) for step in steps],
        "cells": len(expectation.cells) if expectation else 0,
        "claims": _claims(expectation),
        "notes": expectation.notes if expectation else [],
    }


def _input(id: str, pin: Pin | None) -> dict[str, Any]:
    if pin is None:
        return {"id": id, "problem": "there is no such pin"}
    sizes = [file.size for file in pin.files]
    return {
        "id": id,
        "kind": pin.kind,
        "title": pin.title,
        "licence": pin.licence,
        "gated": pin.gated,
        "at": pin.place,
        "revision": pin.revision,
        "files": len(pin.files),
        "bytes": sum(size or 0 for size in sizes) if sizes and None not in sizes else None,
        "unconfirmed": pin.unconfirmed,
        "unavailable": pin.unavailable,
    }


def _step(step: StepSpec, profile: Profile) -> dict[str, Any]:
    resources: Resources | None = profile.resources.get(step.id)
    values: dict[str, Any] = {}
    for parameter, value in profile.set.get(step.id, {}).items():
        if isinstance(value, Sourced):
            values[parameter] = {"value": value.value, "source": value.source}
        else:
            values[parameter] = {"value": value, "source": None}
    return {
        "id": step.id,
        "kind": step.kind,
        "each": step.each,
        "instances": sum(1 for _ in combinations(profile, step.each, limit=200_000)),
        "resources": None
        if resources is None
        else {
            "gpus": resources.gpus,
            "gpu_memory_gb": resources.gpu_memory_gb,
            "memory_gb": resources.memory_gb,
            "minutes": resources.minutes,
            "disk_gb": resources.disk_gb,
            "source": resources.source,
        },
        "set": values,
    }


def _claims(expectation: Expectation | None) -> list[dict[str, Any]]:
    if expectation is None:
        return []
    return [
        {
            "id": claim.id,
            "kind": claim.kind,
            "primary": claim.primary,
            "sentence": claim.sentence,
            "place": claim.place,
        }
        for claim in sorted(expectation.claims, key=lambda claim: not claim.primary)
    ]
