"""A rehearsal of ct-coefficient-grid at a tiny shape: neither weights nor texts are read."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

MANIFEST = (
    Path(__file__).resolve().parents[2] / "manifests/checkpoint_transfer/ct-coefficient-grid.yaml"
)
SHAPE = {
    "config": {
        "architectures": ["GPTNeoXForCausalLM"],
        "model_type": "gpt_neox",
        "hidden_size": 32,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "intermediate_size": 64,
        "vocab_size": 512,
        "max_position_embeddings": 512,
        "tie_word_embeddings": False,
        "bos_token_id": 0,
        "eos_token_id": 0,
    },
    "tokens": 500,
    "control": {"<|endoftext|>": 0, "<|padding|>": 1},
}
ROWS = ("ret2-rm5-256", "ret2-rm100-512")
QUESTIONS = {"robust": 20, "mmlu": 30, "mmlu_stem": 10}


def tiny(folder: Path) -> Path:
    """Two rows of the published profile, everything scaled down but the way that they are run."""
    manifest = yaml.safe_load(MANIFEST.read_text(encoding="utf-8"))
    profile: dict[str, Any] = manifest["profiles"]["paper"]
    manifest["profiles"] = {"paper": profile}
    steps = [step for step in manifest["steps"] if not step["kind"].startswith("mini/")]
    manifest["steps"] = steps
    for step in steps:
        kept = {}
        for name, source in step["inputs"].items():
            if "mini" not in source.pop("profiles", []):
                kept[name] = source
        step["inputs"] = kept
        step.pop("profiles", None)
    profile["gpu"] = False
    profile.pop("resources")
    profile["models"] |= {"final": {"pin": "tiny-final"}, "early": {"pin": "tiny-early"}}
    profile["matrix"]["run"] = [one for one in profile["matrix"]["run"] if one["id"] in ROWS]
    changes = {
        "texts": {"pairs": 64, "fit": 4, "held_out": 2, "most_tokens": 24},
        "questions": QUESTIONS,
        "maps": {"layers": [1, 2]},
        "targets": {"layers": [1, 2], "pairs": 64, "budget_gb": 0.0002},
        **{f"evaluate{of}": {"scorer": "kit"} for of in ("", "-original", "-checkpoint")},
        "unlearn": {"layers": [1, 2], "examples": 64, "lora_rank": 2, "compiled": False},
    }
    for step, params in changes.items():
        for name, value in params.items():
            profile["set"][step][name] = {"value": value, "source": "unspecified: of this test"}
    pins = [
        {
            "id": id,
            "kind": "unavailable",
            "title": "no model",
            "licence": "CC0-1.0",
            "unavailable": "a shape alone",
            "attributes": {"architecture": json.loads(json.dumps(SHAPE))},
        }
        for id in ("tiny-final", "tiny-early")
    ]
    text = yaml.safe_dump({"schema_version": 1, "pins": pins})
    (folder / "pins.yaml").write_text(text, encoding="utf-8")
    path = folder / "ct-coefficient-grid.yaml"
    path.write_text(yaml.safe_dump(manifest), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def rehearsal(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("rehearsal")
    command = [sys.executable, "-m", "kit.cli.main", "--progress", "plain", "rehearse"]
    arguments = [str(tiny(folder)), "--profile", "paper", "--fraction", "0.5", "--jobs", "1"]
    done = subprocess.run(
        [*command, *arguments, "--runs-dir", str(folder / "runs")],
        capture_output=True,
        text=True,
        env={**os.environ, "KIT_HOME": str(folder / "home")},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return Path(done.stdout.splitlines()[-1])


def test_a_rehearsal_reads_nothing_and_fills_the_table(rehearsal: Path) -> None:
    results = json.loads((rehearsal / "results.json").read_text(encoding="utf-8"))
    cells = {cell["id"]: cell for cell in results["cells"]}
    for row, at in (("ret2-rm5", "256"), ("ret2-rm100", "512")):
        assert cells[f"unlearned/wmdp-robust/{row}@{at}"]["n"] == QUESTIONS["robust"] / 2
        assert cells[f"unlearned/mmlu/{row}@{at}"]["n"] == QUESTIONS["mmlu"] / 2
        assert f"unlearned/cb-loss/{row}@{at}" in cells
    record = json.loads((rehearsal / "record.json").read_text(encoding="utf-8"))
    assert record["rehearsal"] is True


def test_a_share_of_the_steps_is_trained(rehearsal: Path) -> None:
    plan = json.loads((rehearsal / "plan.json").read_text(encoding="utf-8"))
    shares = {
        one["step"]: one["params"]["fraction"]
        for one in plan["instances"]
        if "fraction" in one["params"]
    }
    assert set(shares) == {"unlearn", "evaluate", "evaluate-original", "evaluate-checkpoint"}
    assert set(shares.values()) == {0.5}
