"""What the plan of a full-parameter attack says about its GPUs follows from the model's shape."""

from __future__ import annotations

import re

import pytest

from kit.lm.standin import read_shape
from kit.manifest.catalog import Catalog

BYTES = 4 + 8 + 4 + 2
"""Of a weight: fp32 master, AdamW's moments, fp32 gradient, bf16 copy."""


@pytest.mark.parametrize("name", ["ct-tamper-short", "ct-lora-versus-full"])
def test_the_plan_says_why_a_gpu_is_not_enough(name):
    manifest = Catalog().manifest(name)
    resources = manifest.profiles["paper"].resources["attack"]
    state = BYTES * read_shape("gpt-neox-6.9b").parameters / 1e9
    note = next(note for note in manifest.notes if "bytes of each" in note)
    said = [int(number) for number in re.findall(r"(\d+) GB", note)]
    assert said == [round(state), 80, round(state / resources.gpus)]
    assert state > 80
    assert state / resources.gpus < resources.gpu_memory_gb < 80
    parameters = manifest.profiles["paper"].set["attack"]
    assert parameters["engine"].value == "fsdp"
    assert parameters["optimizer"].value == "${attack.optimizer}"
    attacks = manifest.profiles["paper"].matrix["attack"]
    assert {attack["optimizer"] for attack in attacks} == {"adamw"}
