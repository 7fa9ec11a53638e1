"""What stops a step, through the real steps: divergence, and the settings that are offered."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from kit.engine.registry import REGISTRY, StepKind
from kit.errors import EXIT_FAILED
from kit.steps.defensive_tokens import inputs
from kit.steps.defensive_tokens.params import Evaluate, SelfLabel, TrainPrefix
from tests.steps import small

TRAIN = {
    "label": "a",
    "init": "normal",
    "lr": 0.1,
    "schedule": "constant",
    "steps": 1,
    "micro_batch": 1,
    "accumulation": 1,
    "checkpoints": [1],
    "layout": "before-bos",
    "seed": 0,
    "end_truncated": True,
    "label_tokens": "as-text",
}
LABEL = {"max_new_tokens": 1, "empty_data": "no-turn"}
EVALUATE = {
    "layout": "before-bos",
    "attacks": [],
    "max_new_tokens": 1,
    "seed": 0,
    "accuracy": False,
    "refusal_rule": "r",
}
CASES = [
    ("train-prefix", TRAIN, ["forward_rows=8"]),
    ("train-prefix", TRAIN | {"forward_rows": 1}, []),
    ("train-prefix", TRAIN | {"forward": "packed"}, ["low_memory=true", "forward_rows=8"]),
    ("train-prefix", TRAIN | {"forward": "packed", "low_memory": True}, ["forward_rows=8"]),
    ("self-label", LABEL, ["batch_tokens=4096"]),
    ("self-label", LABEL | {"backend": "vllm"}, ["gpu_share=0.8"]),
    ("self-label", LABEL | {"backend": "vllm", "gpu_share": 0.5}, []),
    ("evaluate", EVALUATE, ["batch_tokens=4096"]),
    ("evaluate", EVALUATE | {"backend": "vllm"}, ["gpu_share=0.8"]),
    ("evaluate", EVALUATE | {"batch_tokens": 1024}, []),
]


def kind(name: str) -> StepKind:
    return REGISTRY.get(f"defensive-tokens/{name}")


@pytest.mark.parametrize(("name", "values", "offered"), CASES)
def test_what_lowers_memory(name: str, values: dict[str, Any], offered: list[str]) -> None:
    params = msgspec.convert(values, kind(name).params)
    found = [(one.param, one.value(params)) for one in kind(name).lowers_memory]
    typed = [f"{param}={json.dumps(value)}" for param, value in found if value is not None]
    assert typed == offered


@pytest.mark.parametrize(("name", "values", "offered"), CASES)
def test_each_cure_fits_its_parameter_and_is_used_up_some_day(
    name: str, values: dict[str, Any], offered: list[str]
) -> None:
    for cure in kind(name).lowers_memory:
        params = msgspec.convert(values, kind(name).params)
        for _ in range(20):
            value = cure.value(params)
            if value is None:
                break
            assert value != getattr(params, cure.param)
            changed = msgspec.to_builtins(params) | {cure.param: value}
            params = msgspec.convert(changed, kind(name).params)
        else:
            pytest.fail(f"{cure.param} is offered for ever")


GCG = {
    "attacker": "blind", "layout": "before-bos", "attack": "naive", "filler": ".", "length": 2,
    "steps": 1, "candidates": 1, "top_k": 1, "measure_at": [0, 1], "stop": False, "seed": 0,
    "max_new_tokens": 1,
}  # fmt: skip


@pytest.mark.parametrize(("rows", "fewer"), [(512, 256), (3, 1), (2, 1), (1, None)])
def test_a_search_has_fewer_texts_in_a_pass(rows: int, fewer: int | None) -> None:
    (cure,) = kind("gcg").lowers_memory
    assert repr(cure.value(msgspec.convert(GCG | {"rows": rows}, kind("gcg").params))) == repr(
        fewer
    )


def test_a_steadier_training_has_a_lower_rate() -> None:
    (cure,) = kind("train-prefix").steadies
    assert cure.value(msgspec.convert(TRAIN, TrainPrefix)) == 0.03


@pytest.mark.parametrize("params", [SelfLabel, Evaluate])
def test_the_settings_reach_the_backends(
    params: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A cure that nobody reads would be a lie."""
    from kit.lm import generate, load, vllm_backend
    from tests.steps.contexts import FakeContext, mini_pins

    seen: dict[str, Any] = {}
    monkeypatch.setattr(inputs, "frozen_model", lambda ctx, dtype: None)
    monkeypatch.setattr(
        generate, "TransformersBackend", lambda model, pad, **given: seen.update(given)
    )
    monkeypatch.setattr(vllm_backend, "VllmBackend", lambda *args, **given: seen.update(given))
    monkeypatch.setattr(vllm_backend, "spare_ids", lambda tokenizer, rows, sets: (1,))
    values = LABEL if params is SelfLabel else EVALUATE
    context = FakeContext(tmp_path, tmp_path, mini_pins())
    tokenizer = load.load_tokenizer(context.pin("model").path)
    for change in ({"batch_tokens": 99}, {"backend": "vllm", "gpu_share": 0.25}):
        chosen = msgspec.convert(values | change, params)
        inputs.generation_backend(context, chosen, tokenizer, 0)
    assert seen["max_tokens"] == 99
    assert seen["gpu_share"] == 0.25
    assert seen["gpu_memory_gb"] == context.resources.gpu_memory_gb


@pytest.fixture(scope="module")
def diverged(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The whole small experiment with a learning rate that no float survives."""
    folder = tmp_path_factory.mktemp("diverged")
    changes = {"adapt.lr": 1e30, "adapt.checkpoints": [0, 2, 6]}
    path = small.write(folder, **changes)
    command = [sys.executable, "-m", "kit.cli.main", "--progress", "plain", "run", str(path)]
    done = subprocess.run(
        [*command, "--runs-dir", str(folder / "runs"), "--jobs", "1"],
        capture_output=True,
        text=True,
        env={**os.environ, "KIT_HOME": str(folder / "home"), "OMP_NUM_THREADS": "1"},
        check=False,
    )
    assert done.returncode == EXIT_FAILED, done.stdout + done.stderr
    return folder, done.stderr


def test_a_real_divergence_names_step_batch_and_checkpoint(diverged: tuple[Path, str]) -> None:
    folder, said = diverged
    assert "training diverged: step 0 made the prefix infinite or NaN, by its update alone" in said
    assert re.search(r"\(examples \S+, \S+, \S+, \S+, \.\.\.\); last good checkpoint: step 0", said)
    assert (
        "--set adapt.lr=3e+29 (lower the learning rate: another experiment, its numbers differ)"
        in said
    )
    (kept,) = (folder / "home" / "scratch").glob("*/state-0.safetensors")
    assert f"what it kept is in {kept.parent}" in said


def test_nothing_of_a_diverged_step_is_kept_as_finished(diverged: tuple[Path, str]) -> None:
    kinds = [
        json.loads(path.read_text())["kind"]
        for path in (diverged[0] / "home" / "store").glob("*/*/step.json")
    ]
    assert "defensive-tokens/train-prefix" not in kinds
    assert "defensive-tokens/self-label" in kinds
