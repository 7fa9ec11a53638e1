"""A small TAR experiment whose outer loop is sharded over two processes, one of which is killed.

``python -m tests.steps.killed_rank OUT.json [--gpus] [--engine fsdp]`` writes in which words the
step ended, how many seconds after the kill, and where it went on.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from kit.engine.events import read_events

ROOT = Path(__file__).parents[2]
TIMEOUT = 300
OUTER_STEPS = 60
"""A checkpoint is written every 50."""


def manifest(engine: str, *, gpus: bool) -> dict[str, Any]:
    """A model of a fictional world, TAR on it in two processes, and one attack."""
    training = {
        "seed": 0,
        "preset": "corrected",
        "domain": "bio",
        "adversaries": ["forget"],
        "adversary_share": 0.5,
        "outer_steps": OUTER_STEPS,
        "outer_warmup": 1,
        "inner_steps": 1,
        "every": 1,
        "forget_batch": 2,
        "held_out_batch": 2,
        "retain_batch": 2,
        "width": 0,
        "engine": engine,
    }
    attack = {"optimizer": "adamw", "learning_rate": 1e-3, "weight_decay": 0.0, "batch": 4}
    profile = {
        "summary": "mini",
        "models": {"base": {"step": "pretrain"}, "tar": {"step": "tar"}},
        "matrix": {"seed": [0], "method": [{"id": "tar", "model": "tar"}]},
        "set": {
            "world": {"seed": 0},
            "pretrain": {"seed": 0, "steps": 4, "introduced": 1, "checkpoints": [2], "warmup": 1},
            "tar": training,
            "attack": {"seed": 0, "steps": 2, "measure_every": 1, **attack},
        },
        "resources": {"tar": {"gpus": 2} if gpus else {"processes": 2}},
    }
    world = {"data": {"step": "world"}}
    base = {"model": {"model": "base"}}
    return {
        "schema_version": 1,
        "id": "killed",
        "family": "tar",
        "version": "1-A",
        "title": "killed",
        "summary": "one rank is killed",
        "variant": "as-reported",
        "documents": [{"id": "none", "title": "none", "cite": "none"}],
        "axes": {"seed": "replicate", "method": "setting"},
        "steps": [
            {"id": "world", "kind": "mini/facts-data", "version": 1},
            {"id": "pretrain", "kind": "mini/pretrain", "version": 1, "inputs": world},
            {
                "id": "tar",
                "kind": "tar/train",
                "version": 1,
                "inputs": {**base, "reference": {"model": "base"}, **world},
            },
            {
                "id": "attack",
                "kind": "tampering/attack",
                "version": 1,
                "each": ["method", "seed"],
                "inputs": {"model": {"model": "${method.model}"}, **world},
            },
            {
                "id": "table",
                "kind": "tar/tabulate",
                "version": 2,
                "inputs": {"attacks": {"step": "attack"}},
            },
        ],
        "results": "table",
        "profiles": {"mini": profile},
    }


def start(path: Path, home: Path, *, gpus: bool) -> subprocess.Popen[str]:
    """Begin or resume a run in a process of its own."""
    hidden = {} if gpus else {"CUDA_VISIBLE_DEVICES": "", "DS_ACCELERATOR": "cpu"}
    command = [sys.executable, "-m", "kit.cli.main", "--progress", "plain"]
    return subprocess.Popen(
        [*command, "run", str(path), "--runs-dir", str(home / "runs")],
        cwd=ROOT,
        env={**os.environ, **hidden, "KIT_HOME": str(home), "PYTHONWARNINGS": "ignore"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def ranks(home: Path) -> dict[int, int]:
    """Process ids of the sharded step's processes by rank; they say so themselves."""
    files = home.glob("tmp/*/events/*")
    started = [e for path in files for e in read_events(path) if e["event"] == "rank-started"]
    return {e["rank"]: e["pid"] for e in started}


def kill_a_rank(folder: Path, engine: str, *, gpus: bool) -> dict[str, Any]:
    """Kill process 1 behind the first checkpoint; the run repeats the step from there by itself."""
    path, home = folder / "killed.json", folder / "home"
    path.write_text(json.dumps(manifest(engine, gpus=gpus)), encoding="utf-8")
    child = start(path, home, gpus=gpus)
    deadline = time.monotonic() + TIMEOUT
    while not list(home.glob("scratch/*/checkpoints/*.safetensors")):
        if child.poll() is not None or time.monotonic() > deadline:
            child.kill()
            raise AssertionError("no checkpoint was written: " + child.communicate()[1][-3000:])
        time.sleep(0.02)
    os.kill(ranks(home)[1], signal.SIGKILL)
    killed = datetime.now(UTC)
    out, trouble = child.communicate(timeout=TIMEOUT)
    if child.returncode:
        raise AssertionError(trouble[-3000:])
    events = list(read_events(Path(out.splitlines()[-1]) / "events.jsonl"))
    of_tar = [e for e in events if e.get("step") == "tar"]
    again = next(i for i, e in enumerate(of_tar) if e["event"] == "step-repeated")
    done = [e["done"] for e in of_tar[again:] if e["event"] == "progress"]
    return {
        "engine": engine,
        "gpus": 2 if gpus else 0,
        "message": of_tar[again]["reason"],
        "seconds from the kill to the message": round(
            (datetime.fromisoformat(of_tar[again]["time"]) - killed).total_seconds(), 1
        ),
        "went on with outer step": done[0],
        "ended with outer step": done[-1],
        "exit code": child.returncode,
    }


def main() -> None:
    """Write the record."""
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=Path)
    parser.add_argument("--gpus", action="store_true")
    parser.add_argument("--engine", default="fsdp")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        record = kill_a_rank(Path(folder), chosen.engine, gpus=chosen.gpus)
    chosen.out.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(record))


if __name__ == "__main__":
    main()
