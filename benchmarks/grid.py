"""A grid of many matrix cells, planned and put into a store without computing anything."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from kit.engine.context import StepContext
from kit.engine.environment import Machine
from kit.engine.planner import make_plan
from kit.engine.registry import NoParams, Registry, StepKind
from kit.engine.store import FileRecord, Store, StoredStep
from kit.manifest.types import Manifest
from kit.results.plan import Plan
from kit.results.types import Results


class TrainParams(Struct, frozen=True, forbid_unknown_fields=True):
    """As large as those of a small training."""

    seed: int
    steps: int = 200
    learning_rate: float = 0.1
    dtype: str = "float32"


def _never(context: StepContext, params: Any) -> None:
    raise AssertionError("the grid is only planned and looked up")


REGISTRY = Registry()
REGISTRY.add(StepKind("grid/train", 1, TrainParams, _never, {}, ("tokens.safetensors",)))
REGISTRY.add(StepKind("grid/evaluate", 1, NoParams, _never, {"tokens": "step"}, ("answers.json",)))
REGISTRY.add(StepKind("grid/table", 1, NoParams, _never, {"answers": "steps"}, ("results.json",)))

STEPS: list[dict[str, Any]] = [
    {"id": "train", "kind": "grid/train", "version": 1, "each": ["cell"]},
    {
        "id": "evaluate",
        "kind": "grid/evaluate",
        "version": 1,
        "each": ["cell"],
        "inputs": {"tokens": {"step": "train"}},
    },
    {
        "id": "table",
        "kind": "grid/table",
        "version": 1,
        "inputs": {"answers": {"step": "evaluate"}},
    },
]


class NoPins:
    """A pin store without pins."""

    def path(self, id: str) -> Path:
        raise AssertionError(id)

    def digest(self, id: str) -> str:
        raise AssertionError(id)

    def require(self, id: str) -> Path:
        raise AssertionError(id)


def grid(cells: int) -> Plan:
    """The plan: a training and an evaluation a cell, and one table.

    Args:
        cells: Records of the matrix.
    """
    document = {
        "schema_version": 1,
        "id": "grid",
        "family": "tar",
        "version": "1-A",
        "title": "Grid",
        "summary": "Many cells.",
        "variant": "corrected",
        "documents": [],
        "steps": STEPS,
        "results": "table",
        "axes": {"cell": "replicate"},
        "profiles": {
            "mini": {
                "summary": "s",
                "matrix": {"cell": [{"id": f"cell-{n}", "seed": n} for n in range(cells)]},
                "set": {"train": {"seed": "${cell.seed}"}},
            }
        },
    }
    return make_plan(
        msgspec.convert(document, Manifest),
        "mini",
        pins={},
        digests=NoPins(),
        registry=REGISTRY,
        machine=Machine(versions={"torch": "2.0", "transformers": "5.0"}),
    )


def fill(store: Store, plan: Plan) -> None:
    """Put every step into the store as if it had run."""
    results = Results(schema_version=1, experiment="", version="", profile="", cells=[])
    digests: dict[str, str] = {}
    for one in plan.instances:
        folder = store.path(one.key)
        folder.mkdir(parents=True)
        files = {}
        for name in one.outputs:
            content = msgspec.json.encode(results if name == "results.json" else one.id)
            (folder / name).write_bytes(content)
            files[name] = FileRecord(hashlib.sha256(content).hexdigest(), len(content))
        entry = StoredStep(
            kind=one.kind,
            version=one.version,
            instance=one.id,
            params=one.params,
            input_digests=one.input_digests(digests),
            files=files,
            started="",
            seconds=1.0,
        )
        digests[one.id] = entry.digest
        (folder / "step.json").write_bytes(msgspec.json.encode(entry))
