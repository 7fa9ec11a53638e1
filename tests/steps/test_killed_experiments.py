"""Every experiment, killed at ten random points and resumed: the same tables as undisturbed.

The plans are the shipped manifests' own, at full length, with two entries of each matrix axis.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from kit.engine.events import read_events
from kit.errors import EXIT_INTERRUPTED, EXIT_OK
from kit.manifest.load import parse
from tests.steps import small

ROOT = Path(__file__).parents[2]
MANIFESTS = sorted((ROOT / "manifests" / "defensive_tokens").glob("*.yaml"))
KILLS = 10
TIMEOUT = 900

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]


def cut(path: Path, folder: Path) -> Path:
    """The manifest with the first and the last entry of each axis of its mini profile."""
    document: dict[str, Any] = parse(path).root.plain()
    matrix = document["profiles"]["mini"]["matrix"]
    for axis, values in matrix.items():
        matrix[axis] = [values[0], values[-1]]
    target = folder / f"{document['id']}.json"
    target.write_text(json.dumps(document), encoding="utf-8")
    return target


def start(manifest: Path, home: Path) -> subprocess.Popen[str]:
    """Begin (or resume) a run in a process of its own."""
    command = [sys.executable, "-m", "kit.cli.main", "--progress", "plain", "run", str(manifest)]
    return subprocess.Popen(
        [*command, "--runs-dir", str(home / "runs"), "--jobs", "2"],
        cwd=ROOT,
        env={**os.environ, "KIT_HOME": str(home), "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )


def newest(home: Path) -> list[dict[str, Any]]:
    """Events of the last run, without those that only say what was there already."""
    logs = sorted(home.glob("runs/*/events.jsonl"), key=lambda path: path.stat().st_mtime_ns)
    found = read_events(logs[-1]) if logs else iter(())
    return [one for one in found if one["event"] != "step-cached"]


def tables(folder: Path) -> tuple[bytes, ...]:
    names = ("results.json", "labels.jsonl")
    return tuple((folder / name).read_bytes() for name in names if (folder / name).exists())


def finish(manifest: Path, home: Path) -> Path:
    child = start(manifest, home)
    out, _ = child.communicate(timeout=TIMEOUT)
    assert child.returncode == EXIT_OK
    return Path(out.splitlines()[-1])


def wait_for(child: subprocess.Popen[str], home: Path, events: int, known: int) -> bool:
    """Wait for so many events of this run; ``False`` if it ended before."""
    deadline = time.monotonic() + TIMEOUT
    while child.poll() is None:
        assert time.monotonic() < deadline
        if len(list(home.glob("runs/*"))) > known and len(newest(home)) >= events:
            return True
        time.sleep(0.02)
    return False


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.stem)
def test_killed_ten_times(path: Path, tmp_path: Path) -> None:
    manifest = cut(path, tmp_path)
    undisturbed = finish(manifest, tmp_path / "undisturbed")
    events = len(newest(tmp_path / "undisturbed"))
    chance = random.Random(path.stem)
    kills, rounds, where = 0, 0, []
    while kills < KILLS:  # a round that ends before its last kill is followed by a fresh one
        home = tmp_path / f"round-{rounds}"
        rounds += 1
        child = start(manifest, home)
        known = 0
        while kills < KILLS and wait_for(child, home, chance.randint(1, events // 5), known):
            time.sleep(chance.uniform(0.0, 0.2))
            child.kill()
            child.communicate(timeout=TIMEOUT)
            kills += child.returncode == -signal.SIGKILL
            seen = newest(home)  # none where it was killed between its log and the first line
            where.append(f"{seen[-1]['event']} {seen[-1].get('step', '')}" if seen else "begin")
            known = len(list(home.glob("runs/*")))
            child = start(manifest, home)
        out, _ = child.communicate(timeout=TIMEOUT)
        assert child.returncode == EXIT_OK
        assert tables(Path(out.splitlines()[-1])) == tables(undisturbed), where
        assert not list((home / "tmp").iterdir())
        assert not list((home / "scratch").glob("*"))
        shutil.rmtree(home)
    print(f"{path.stem}: {events} events undisturbed, {kills} kills in {rounds} round(s): {where}")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_in_training_leaves_a_checkpoint(tmp_path: Path, number: signal.Signals) -> None:
    """None is due before the last step; the signal makes one, and the run goes on from there."""
    changes = {"data.steps": 120, "adapt.steps": 120, "adapt.checkpoints": [120]}
    manifest = small.write(tmp_path, **changes)
    undisturbed = finish(manifest, tmp_path / "undisturbed")
    home = tmp_path / "home"
    child = start(manifest, home)

    def steps_done() -> list[int]:
        return [
            one["at"]
            for one in newest(home)
            if one["event"] == "metric" and one["step"].startswith("adapt")
        ]

    deadline = time.monotonic() + TIMEOUT
    while max(steps_done(), default=0) < 20:
        assert child.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    child.send_signal(number)
    child.communicate(timeout=TIMEOUT)
    assert child.returncode == EXIT_INTERRUPTED
    (kept,) = home.glob("scratch/*/state-*.safetensors")
    step = int(kept.stem.partition("-")[2])
    assert step >= max(steps_done()) - 1
    again = finish(manifest, home)
    assert min(steps_done()) == step + 1, "not one step is done twice"
    assert tables(again) == tables(undisturbed)
