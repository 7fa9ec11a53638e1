"""A rehearsal of the profile ``small`` at a tiny tied Qwen2: the whole chain."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file

from kit.results.plan import Plan
from tests.steps.test_kinds import CATALOG, plan

MANIFEST = Path(__file__).resolve().parents[2] / "manifests/defensive_tokens/tiny-adapt.yaml"
EXPERIMENTS = (
    "full-dt",
    "dt-baselines",
    "procrustes-transfer",
    "tiny-adapt",
    "tiny-adapt-heldout",
)
CONTROL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
TOKENS = 1400
FULL = {"steps": 2, "micro_batch": 2, "accumulation": 2, "checkpoints": [2]}
CHANGES: dict[str, dict[str, Any]] = {
    "full-data": {"steps": 2, "batch": 4},
    "source-labels": {"max_new_tokens": 4},
    "native-labels": {"max_new_tokens": 4},
    "source-train": {**FULL, "warmup": 1, "dtype": "float32"},
    "native-train": {**FULL, "warmup": 1, "dtype": "float32"},
    "data": {"steps": 2, "batch": 4},
    "labels": {"max_new_tokens": 4},
    "adapt": {**FULL, "dtype": "float32", "checkpoints": [0, 2]},  # 0: what it starts from
    "evaluate": {"max_new_tokens": 2},
}


def shape(*further: str) -> dict[str, Any]:
    """A Qwen2 of two layers with tied embeddings; the newer one has further control tokens."""
    control = {name: TOKENS + i for i, name in enumerate((*CONTROL, *further))}
    config = {
        "architectures": ["Qwen2ForCausalLM"],
        "model_type": "qwen2",
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "intermediate_size": 48,
        "vocab_size": TOKENS + 64,
        "max_position_embeddings": 8192,
        "tie_word_embeddings": True,
        "bos_token_id": TOKENS,
        "eos_token_id": TOKENS + 2,
    }
    return {"config": config, "tokens": TOKENS + len(control), "control": control}


def tiny(folder: Path) -> Path:
    """The profile as it stands in the repository, at another shape and with fewer steps."""
    manifest = yaml.safe_load(MANIFEST.read_text(encoding="utf-8"))
    profile: dict[str, Any] = manifest["profiles"]["small"]
    manifest["profiles"] = {"small": profile}
    kept = []
    for step in manifest["steps"]:
        if "small" in step.pop("profiles", ["small"]):
            given = step["inputs"].items()
            step["inputs"] = {
                name: source
                for name, source in given
                if "small" in source.pop("profiles", ["small"])
            }
            kept.append(step)
    manifest["steps"] = kept
    profile["gpu"] = False
    profile.pop("resources")
    profile["matrix"]["pair"][0] |= {"source": "tiny-older", "target": "tiny-newer"}
    for step, params in CHANGES.items():
        for name, value in params.items():
            profile["set"][step][name] = {"value": value, "source": "unspecified: of this test"}
    formats = {"tiny-older": "qwen2", "tiny-newer": "qwen2.5"}
    shapes = {"tiny-older": shape(), "tiny-newer": shape("<|object_ref_start|>", "<|fim_pad|>")}
    pins = [
        {
            "id": id,
            "kind": "unavailable",
            "title": "no model",
            "licence": "CC0-1.0",
            "unavailable": "a shape alone",
            "attributes": {
                "architecture": shapes[id],
                "chat_format": f"{formats[id]}-defensive-tokens",
            },
        }
        for id in formats
    ]
    text = json.dumps({"schema_version": 1, "pins": pins})
    (folder / "pins.yaml").write_text(text, encoding="utf-8")
    path = folder / "tiny-adapt.yaml"
    path.write_text(json.dumps(manifest), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def rehearsed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run directory."""
    folder = tmp_path_factory.mktemp("small")
    command = [sys.executable, "-m", "kit.cli.main", "--progress", "plain", "rehearse"]
    how = ["--profile", "small", "--runs-dir", str(folder / "runs"), "--jobs", "1"]
    done = subprocess.run(
        [*command, str(tiny(folder)), *how],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "KIT_HOME": str(folder / "home")},
    )
    assert done.returncode == 0, done.stderr
    return Path(done.stdout.splitlines()[-1])


def test_the_whole_chain_runs_and_every_mechanism_acted(rehearsed: Path) -> None:
    results = json.loads((rehearsed / "results.json").read_text())
    value = {cell["id"]: cell["value"] for cell in results["cells"]}
    for row in ("undefended", "native", "procrustes", "adapt-0", "adapt-2"):
        assert f"qwen2-to-qwen25/asr-max/{row}" in value
    assert value["qwen2-to-qwen25/trained-parameters/adapt"] == 5 * 32
    assert value["qwen2-to-qwen25/alignment/rows"] == TOKENS + 64
    for row in ("native", "procrustes", "adapt-2"):
        assert 0 <= value[f"qwen2-to-qwen25/emits-prefix/{row}"] <= 100
        assert 0 < value[f"qwen2-to-qwen25/prefix-mass/{row}"] <= 100
    assert "qwen2-to-qwen25/emits-prefix/undefended" not in value
    assert all(canary["passed"] for canary in results["canaries"])


def test_what_is_carried_over_was_trained_on_the_older_model(rehearsed: Path) -> None:
    """The transferred rows are the trained ones times the map, and adapting starts from them."""
    made = json.loads((rehearsed / "record.json").read_text())["steps"]
    store = rehearsed.parents[1] / "home" / "store"

    def output(step: str, file: str) -> dict[str, torch.Tensor]:
        key = next(one["key"] for id, one in made.items() if id.partition("[")[0] == step)
        (path,) = [path for path in store.rglob(file) if key in path.parts]
        return load_file(path)

    (source,) = output("source-train", "prefixes.safetensors").values()
    matrix = output("align", "alignment.safetensors")["matrix"]
    carried = output("transfer", "prefixes.safetensors")["procrustes"]
    adapted = output("adapt", "prefixes.safetensors")
    assert torch.allclose(carried, (source.double() @ matrix).float(), atol=1e-5)
    assert torch.equal(adapted["adapt-0"], carried)
    assert not torch.equal(adapted["adapt-2"], carried)


@pytest.fixture(scope="module")
def plans(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Plan]:
    """Experiment -> its plan at ``small``."""
    folder = tmp_path_factory.mktemp("plans")
    return {name: plan(name, "small", folder)[1] for name in EXPERIMENTS}


def test_the_chain_fits_an_ordinary_gpu_and_the_page_says_how_long_it_takes(
    plans: dict[str, Plan],
) -> None:
    """Every finished step is in the store once, whichever experiment asks for it."""
    once = {one.key: one.resources for made in plans.values() for one in made.instances}
    assert max(need.gpu_memory_gb for need in once.values()) <= 8
    assert max(need.gpus for need in once.values()) == 1
    minutes = round(sum(need.minutes for need in once.values()))
    page = (CATALOG.root / "docs" / "full-size.md").read_text(encoding="utf-8")
    assert f"{minutes} minutes by the plan" in page


def test_trainings_are_shared_between_the_experiments(plans: dict[str, Plan]) -> None:
    def trainings(name: str) -> set[str]:
        return {
            one.key
            for one in plans[name].instances
            if one.kind.endswith("/train-prefix") and one.params["label"] == "full"
        }

    assert len(trainings("full-dt")) == 2
    assert all(trainings(name) == trainings("full-dt") for name in EXPERIMENTS)


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_the_same_attacks_as_at_full_size(experiment: str) -> None:
    profiles = CATALOG.manifest(experiment).profiles
    asked = [profiles[name].set["evaluate"]["attacks"].value for name in ("small", "paper")]
    assert asked[0] == asked[1]
    assert {"ignore", "completion", "ignore_completion"} <= set(asked[0])


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_ungated_models_and_no_engine_beyond_transformers(experiment: str) -> None:
    profile = CATALOG.manifest(experiment).profiles["small"]
    assert profile.gpu
    assert profile.compares == "published"
    models = {"qwen2-0.5b-instruct", "qwen2.5-0.5b-instruct"}
    named = {str(v) for p in profile.matrix.values() for one in p for v in dict(one).values()}
    assert models <= named
    used = [pin for pin in CATALOG.pins(experiment).pins if pin.id in models]
    assert len(used) == len(models)
    for pin in used:
        assert not pin.gated
        assert all(file.sha256 and file.size for file in pin.files)
    backends = {s["backend"].value for s in profile.set.values() if "backend" in s}
    assert backends == {"transformers"}
