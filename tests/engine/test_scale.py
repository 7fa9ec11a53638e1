"""A grid of ten thousand cells: planned, checked and finished in seconds, in little memory."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import msgspec

from kit.engine.plan import Plan
from kit.engine.results import Results
from kit.engine.store import FileRecord, Store, StoredStep
from tests.engine.conftest import manifest, plan_of

CELLS = 5000

PROGRAM = """
import json, resource, sys, time
from pathlib import Path
from kit.engine.drive import Options
from kit.engine.session import Session, finished
from kit.engine.store import Store
from tests.engine.conftest import ToyPins
from tests.engine.test_scale import grid

home, times = Path(sys.argv[1]), {}
clock = time.monotonic()
plan = grid()
times["plan"], clock = time.monotonic() - clock, time.monotonic()
assert len(finished(plan, Store(home))) == len(plan.instances)
times["check"], clock = time.monotonic() - clock, time.monotonic()
Session(plan, home=home, pins=ToyPins(home), options=Options(runs_dir=home / "runs"), argv=[]).run()
times["run"] = time.monotonic() - clock
times["memory"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2
print(json.dumps(times))
"""


def grid() -> Plan:
    """Two steps a cell and one table."""
    cells = [{"id": f"cell-{n}", "seed": n} for n in range(CELLS)]
    steps = [
        {"id": "make", "kind": "toy/make", "version": 2, "each": ["cell"]},
        {
            "id": "mix",
            "kind": "toy/mix",
            "version": 1,
            "each": ["cell"],
            "inputs": {"data": {"step": "make"}},
        },
        {"id": "table", "kind": "toy/table", "version": 1, "inputs": {"numbers": {"step": "mix"}}},
    ]
    profile = {
        "summary": "s",
        "matrix": {"cell": cells},
        "set": {"make": {"seed": "${cell.seed}"}},
    }
    return plan_of(manifest(steps=steps, profiles={"mini": profile}))


def fill(store: Store, plan: Plan) -> None:
    """Put every step into the store without running it."""
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
            input_digests={
                name: [digests[id] for id in use.instances] for name, use in one.steps.items()
            },
            files=files,
            started="",
            seconds=1.0,
        )
        digests[one.id] = entry.digest
        (folder / "step.json").write_bytes(msgspec.json.encode(entry))


def test_ten_thousand_instances(tmp_path: Path) -> None:
    plan = grid()
    assert len(plan.instances) == 2 * CELLS + 1
    fill(Store(tmp_path), plan)
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tmp_path)],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )
    times = msgspec.json.decode(done.stdout)
    assert times["plan"] < 10, times
    assert times["check"] < 10, times
    assert times["run"] < 10, times
    assert times["memory"] < 1, times  # GB
    print(times)
