"""A run directory made up for the tests: ten seeds, two arms, a plan and a record."""

from __future__ import annotations

import random
from hashlib import sha256
from pathlib import Path
from typing import Any

import msgspec
from msgspec import structs

from kit.results.plan import PLAN_VERSION
from kit.results.types import Cell, Curve, Point, Results, SeedValue, Series
from kit.verify.verdict import Verdict
from tests.report.builders import tiny_cells, verdict


def curve(points: list[Point], seed: str = "") -> list[Curve]:
    """A line of a single curve."""
    return [Curve(seed=seed, points=points)]


def results(**changes: Any) -> Results:
    """Results that go with :func:`verdict`: ten seeds, two arms."""
    noise = random.Random(7)
    cells = [
        Cell(
            id=one.id,
            unit=one.unit,
            value=one.value,
            k=one.k,
            n=one.n,
            step="table" if one.id.startswith("loss") else "evaluate[pair=newer-0]",
            seeds=[
                SeedValue(seed=str(s), value=round(one.value + noise.gauss(0, 0.6), 2))
                for s in range(10)
            ]
            if one.value is not None
            else [],
        )
        for one in tiny_cells()
    ]
    steps = (0, 25, 50, 100, 150, 200)
    asr = {
        arm: [
            Curve(
                seed=str(s),
                points=[
                    Point(t, max(0.0, top * 2 ** (-t / half) + noise.gauss(0, 1))) for t in steps
                ],
            )
            for s in range(10)
        ]
        for arm, top, half in (("transferred start", 34, 9), ("random start", 41, 60))
    }
    loss = {
        "adapted": curve(
            [Point(t, 0.05 + 0.024 * 2 ** (-t / 40) + noise.gauss(0, 0.001)) for t in range(200)]
        )
    }
    attack = {
        "tampered": curve([Point(x, 60 - x / 2, 120 - x, 200) for x in range(0, 101, 10)]),
        "safe": curve([Point(x, 25 + 0.02 * x * x / 2) for x in range(0, 101, 10)]),
    }
    fields: dict[str, Any] = {
        "schema_version": 1,
        "experiment": "tiny-adapt",
        "version": "1-A",
        "profile": "mini",
        "cells": cells,
        "series": [
            Series(
                id="asr",
                title="Attack success by checkpoint",
                x_label="gradient steps",
                y_label="attack success (percent)",
                unit="percent",
                lines=asr,
            ),
            Series(
                id="loss",
                title="Training loss",
                x_label="gradient steps",
                y_label="loss",
                unit="loss",
                lines=loss,
            ),
            Series(
                id="tamper",
                title="Tamper curve",
                x_label="attack steps",
                y_label="forget accuracy (percent)",
                unit="percent",
                lines=attack,
            ),
        ],
    }
    return Results(**{**fields, **changes})


def plan() -> dict[str, Any]:
    """``plan.json`` as a plain object."""
    pin = {
        "licence": "Apache-2.0",
        "files": [{"path": "model.safetensors", "sha256": "1c" * 32, "size": 1_800_000}],
    }
    steps = ["align", "transfer", "data", "labels", "adapt", "scratch", "evaluate"]
    instances = [
        {
            "id": f"{step}[pair={pair}]",
            "step": step,
            "kind": f"defensive-tokens/{step}",
            "version": 1,
            "params": {"steps": 200, "lr": 0.1} if step == "adapt" else {},
            "key": f"{i:02x}" * 32,
            "pins": {"source": {"pin": "mini-a", "digest": "0d" * 32}} if step == "align" else {},
            "steps": {}
            if step == "align"
            else {"before": {"instances": [f"{steps[i - 1]}[pair={pair}]"], "many": False}},
            "outputs": [f"{step}.json"],
            "resources": {"minutes": 1.5, "memory_gb": 0.8},
        }
        for pair in ("newer-0", "newer-1")
        for i, step in enumerate(steps)
    ]
    instances.append(
        {
            "id": "table",
            "step": "table",
            "kind": "defensive-tokens/tabulate",
            "version": 1,
            "params": {},
            "steps": {"evaluations": {"instances": ["evaluate[pair=newer-0]"], "many": True}},
            "key": "ee" * 32,
            "outputs": ["results.json"],
            "resources": {"minutes": 0.1},
        }
    )
    return {
        "schema_version": PLAN_VERSION,
        "experiment": "tiny-adapt",
        "version": "1-A",
        "family": "defensive_tokens",
        "variant": "as-reported",
        "profile": "mini",
        "results": "table",
        "overrides": [],
        "notes": [
            "Evaluation and self-labels share prompts, as in the document; see tiny-adapt-heldout."
        ],
        "pins": [
            {
                **pin,
                "id": "mini-a",
                "kind": "package",
                "title": "Miniature model, older",
                "path": "mini/weights/a",
            },
            {
                "id": "llama-3.1-8b-instruct",
                "kind": "hf-model",
                "title": "Llama 3.1 8B Instruct",
                "licence": "Llama 3.1 Community",
                "repo": "meta-llama/Llama-3.1-8B-Instruct",
                "revision": "0e" * 20,
                "gated": True,
                "unconfirmed": "file hashes: the repository is gated",
                "files": [{"path": "model-00001-of-00004.safetensors"}],
            },
            {
                "id": "wmdp-corpus",
                "kind": "unavailable",
                "title": "Private bio corpus",
                "licence": "none",
                "unavailable": "handed out on request only",
            },
        ],
        "environment": {"device": "cpu", "dtype": "float32", "torch": "2.13.0"},
        "instances": instances,
    }


def record() -> dict[str, Any]:
    """``record.json`` as a plain object."""
    planned = plan()
    return {
        "schema_version": 1,
        "kit_version": "0.1.0",
        "experiment": "tiny-adapt",
        "version": "1-A",
        "variant": "as-reported",
        "profile": "mini",
        "rehearsal": False,
        "modified": False,
        "seed": None,
        "overrides": [],
        "notes": planned["notes"],
        "status": "finished",
        "argv": ["/somewhere/bin/kit", "run", "tiny-adapt", "--profile", "mini"],
        "commit": "331a9a8c1d2e3f405162738495a6b7c8d9e0f112",
        "dirty": False,
        "started": "2026-11-21T09:00:00.000Z",
        "ended": "2026-11-21T09:01:31.000Z",
        "seconds": 91.0,
        "python": "3.11.7",
        "platform": "Linux-6.1-x86_64",
        "versions": {"numpy": "2.4.6", "torch": "2.13.0"},
        "hardware": {"cpu": "AMD EPYC 9554", "cores": 2, "memory_gb": 7.8, "gpus": []},
        "environment": planned["environment"],
        "variables": {"TOKENIZERS_PARALLELISM": "false"},
        "options": {"threads": 1},
        "steps": {
            step["id"]: {
                "key": step["key"],
                "state": "cached" if step["id"].startswith("align") else "run",
                "started": "2026-11-21T09:00:01.000Z",
                "seconds": 8.4,
                "peak_memory_gb": 0.61,
                "outputs": {name: {"sha256": "b4" * 32, "size": 4096} for name in step["outputs"]},
            }
            for step in planned["instances"]
        },
    }


def write_run(folder: Path, **parts: Any) -> Path:
    """A run directory; a part given as ``None`` is left out."""
    folder.mkdir(parents=True, exist_ok=True)
    contents: dict[str, Any] = {
        "verdict": verdict(),
        "results": results(),
        "plan": plan(),
        "record": record(),
        **parts,
    }
    table = contents["results"]
    if table is not None and isinstance(contents["verdict"], Verdict):
        digest = sha256(msgspec.json.encode(table)).hexdigest()
        contents["verdict"] = structs.replace(contents["verdict"], results_sha256=digest)
    for name, content in contents.items():
        if content is not None:
            (folder / f"{name}.json").write_bytes(msgspec.json.encode(content))
    return folder
