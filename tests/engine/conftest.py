"""What the engine's tests share: toy manifests, a toy pin store, plans."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from kit.engine.environment import Machine
from kit.engine.planner import make_plan
from kit.engine.registry import REGISTRY
from kit.errors import Preflight
from kit.manifest.pin_types import Pin
from kit.manifest.types import Manifest
from kit.results.plan import Plan
from tests.engine import toy  # noqa: F401

MACHINE = Machine(versions={"torch": "2.0", "transformers": "5.0"})
PIN = Pin(
    id="words",
    kind="hf-dataset",
    title="Words",
    licence="MIT",
    attributes={"format": "plain"},
)


class ToyPins:
    """A pin store of one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, id: str) -> Path:
        return self.folder / id

    def digest(self, id: str) -> str:
        return f"digest-of-{id}"

    def require(self, id: str) -> Path:
        if not self.path(id).exists():
            raise Preflight("not fetched", where=id)
        return self.path(id)


def manifest(**changes: Any) -> Manifest:
    """An experiment: make data for each seed, mix each, collect a table."""
    document = {
        "schema_version": 1,
        "id": "toy",
        "family": "tar",
        "version": "1-A",
        "title": "Toy",
        "summary": "Toy.",
        "variant": "corrected",
        "documents": [],
        "steps": [
            {"id": "make", "kind": "toy/make", "version": 2, "each": ["seed"]},
            {
                "id": "mix",
                "kind": "toy/mix",
                "version": 1,
                "each": ["seed"],
                "inputs": {"data": {"step": "make"}},
            },
            {
                "id": "table",
                "kind": "toy/table",
                "version": 1,
                "inputs": {"numbers": {"step": "mix"}},
            },
        ],
        "results": "table",
        "profiles": {
            "mini": {
                "summary": "small",
                "matrix": {"seed": [0, 1, 2]},
                "set": {"make": {"seed": "${seed}", "size": 1000}},
            },
        },
    }
    document.update(changes)
    axes = {axis for made in document["profiles"].values() for axis in made.get("matrix", {})}
    document.setdefault("axes", dict.fromkeys(sorted(axes), "replicate"))
    return msgspec.convert(document, Manifest)


def plan_of(
    made: Manifest | None = None, profile: str = "mini", *, pins: Sequence[Pin] = (), **options: Any
) -> Plan:
    """Plan a toy experiment; ``pins`` are added to the only one there is."""
    options.setdefault("machine", MACHINE)
    return make_plan(
        made if made is not None else manifest(),
        profile,
        pins={pin.id: pin for pin in (PIN, *pins)},
        digests=options.pop("digests", ToyPins(Path("nowhere"))),
        registry=REGISTRY,
        **options,
    )


def relabelled(plan: Plan, labels: Sequence[str]) -> Plan:
    """A plan whose labels ``n0``, ``n1``, ... are others: a plan file may have been edited.

    Manifests take no such labels; what is made of a plan must bear them.
    """

    def renamed(value: Any) -> Any:
        if isinstance(value, dict):
            return {renamed(key): renamed(inner) for key, inner in value.items()}
        if isinstance(value, list):
            return [renamed(inner) for inner in value]
        if isinstance(value, str):
            return re.sub(r"=n(\d+)\]", lambda m: f"={labels[int(m.group(1))]}]", value)
        return value

    return msgspec.convert(renamed(msgspec.to_builtins(plan)), Plan)


@pytest.fixture(autouse=True)
def _toy_modules(monkeypatch: pytest.MonkeyPatch) -> None:
    """Worker processes load the toy kinds."""
    monkeypatch.setenv("KIT_STEPS_MODULES", "tests.engine.toy")


@pytest.fixture
def run_toy(tmp_path: Path) -> Callable[..., Path]:
    """Run a plan in ``tmp_path``; returns the run directory."""
    from kit.engine.session import Options, Session

    def run(plan: Plan | None = None, **options: Any) -> Path:
        options.setdefault("jobs", 2)
        return Session(
            plan if plan is not None else plan_of(),
            home=tmp_path / "home",
            pins=ToyPins(tmp_path / "pins"),
            options=Options(runs_dir=tmp_path / "runs", **options),
            argv=["kit", "run", "toy"],
        ).run()

    return run
