"""Times, memory and hardware in words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from kit.manifest.types import Manifest, Profile, Resources, StepSpec
from kit.report.facts import declared_resources, hardware_line, measured_resources
from kit.report.files import read_run
from tests.report.runs import record, write_run

CARD = {"name": "NVIDIA H100"}


@pytest.mark.parametrize(
    ("hardware", "said"),
    [
        ({"cpu": "EPYC", "cores": 16, "memory_gb": 128.0, "gpus": [CARD, CARD, {"name": "T4"}]},
         "2 x NVIDIA H100, 1 x T4, EPYC (16 cores, 128 GB)"),
        ({"cpu": "EPYC", "cores": 1, "gpus": ["card", {}]}, "1 x card, 1 x GPU, EPYC (1 core)"),
        ({"cpu": "EPYC", "memory_gb": 7.5, "gpus": None}, "EPYC (7.5 GB)"),
        ({}, "processor not recorded"),
    ],
)  # fmt: skip
def test_hardware_in_a_line(hardware: dict[str, Any], said: str) -> None:
    assert hardware_line(hardware) == said


def test_what_a_run_took_is_summed_and_its_largest_memory_named(tmp_path: Path) -> None:
    made = record()
    states = iter(["run", "run", "cached"])
    made["steps"] = {
        name: step | {"state": next(states), "seconds": 30.0, "peak_memory_gb": 0.5 + i,
                      "peak_gpu_memory_gb": 20.0 - i}
        for i, (name, step) in enumerate(list(made["steps"].items())[:3])
    }  # fmt: skip
    rows = dict(measured_resources(read_run(write_run(tmp_path, record=made))))
    assert rows == {
        "hardware": "AMD EPYC 9554 (2 cores, 7.8 GB)",
        "wall time of this run": "91 s",
        "steps": "2 run, 1 from the store or not run",
        "time of all steps, one after another": "90 s",
        "largest memory of a step": "2.5 GB",
        "largest GPU memory of a step": "20.0 GB",
    }
    made["steps"] = {}
    few = dict(measured_resources(read_run(write_run(tmp_path, record=made))))
    assert few["steps"] == "0 run, 0 from the store or not run"
    assert not any(name.startswith("largest") for name in few)
    (tmp_path / "record.json").unlink()
    assert measured_resources(read_run(tmp_path)) == []


@pytest.mark.parametrize("gpus", [(0, 0), (0, 4)])
def test_what_steps_are_said_to_need_before_anything_was_run(gpus: tuple[int, int]) -> None:
    steps = [StepSpec(id=id, kind="a/b", version=1) for id in ("x", "y")]
    profile = Profile(
        summary="s",
        resources={
            "x": Resources(gpus=gpus[0], memory_gb=3, minutes=1),
            "y": Resources(gpus=gpus[1], gpu_memory_gb=70, memory_gb=2, minutes=0.5),
            "of another profile": Resources(gpus=8, memory_gb=900),
        },
    )
    manifest = Manifest(
        schema_version=1, id="e", family="f", version="1-A", title="T", summary="S",
        variant="corrected", documents=[], steps=steps, results="x", profiles={"p": profile},
    )  # fmt: skip
    rows = dict(declared_resources(manifest, profile))
    cards = {"GPUs": "4", "memory of each GPU": "70 GB"} if any(gpus) else {"GPUs": "none"}
    said = {"steps with declared needs": "2 steps", "memory": "3 GB", "time, once a step": "90 s"}
    assert rows == said | cards
    ((name, words),) = declared_resources(manifest, Profile(summary="s"))
    assert (name, "not declared" in words) == ("resources", True)
