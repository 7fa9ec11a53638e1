"""What runs beside what on one machine, and which GPUs it sees."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kit.engine import hardware
from kit.engine.job import Job
from kit.engine.local import LocalExecutor, WorkerProcess
from kit.engine.store import Store
from kit.manifest.types import Resources
from kit.results.plan import Plan, StepInstance
from tests.engine.conftest import manifest, plan_of

SMI = """\
0, GPU-aaaa, NVIDIA H100 80GB HBM3, 9.0, 81559, 580.1
1, GPU-bbbb, NVIDIA H100 80GB HBM3, 9.0, 81559, 580.1
"""


def instance(name: str, **needs: Any) -> StepInstance:
    return StepInstance(
        id=name,
        step=name,
        kind="toy/make",
        version=2,
        params={},
        resources=Resources(**needs),
        key=name,
    )


def executor(
    tmp_path: Path, *running: StepInstance, jobs: int = 2, memory_gb: float = 8.0
) -> LocalExecutor:
    """An executor that believes these instances are running; no process is started."""
    made = LocalExecutor(jobs=jobs, memory_gb=memory_gb, gpus=["0", "1"], logs=tmp_path)
    for number, one in enumerate(running):
        worker = object.__new__(WorkerProcess)
        worker.job = Job(instance=one, home="", log="")
        made._busy[number] = worker
        made._free_gpus = made._free_gpus[one.resources.gpus :]
    return made


def test_as_many_cpu_steps_as_jobs(tmp_path: Path) -> None:
    step = instance("x", memory_gb=1)
    assert executor(tmp_path).fits(step)
    assert executor(tmp_path, step).fits(step)
    assert not executor(tmp_path, step, step).fits(step)


def test_memory_limits(tmp_path: Path) -> None:
    large = instance("large", memory_gb=5)
    assert executor(tmp_path, instance("small", memory_gb=2)).fits(large)
    assert not executor(tmp_path, large).fits(large)


def test_a_step_too_large_runs_alone(tmp_path: Path) -> None:
    huge = instance("huge", memory_gb=100)
    assert executor(tmp_path).fits(huge)
    assert not executor(tmp_path, instance("small", memory_gb=1)).fits(huge)


def test_gpus_limit_gpu_steps_and_jobs_do_not(tmp_path: Path) -> None:
    one, two = instance("one", gpus=1), instance("two", gpus=2)
    cpu = instance("cpu")
    assert executor(tmp_path, one, cpu, cpu).fits(one)
    assert not executor(tmp_path, one).fits(two)
    assert not executor(tmp_path, two).fits(one)
    assert executor(tmp_path, two, jobs=1).fits(cpu)


@pytest.fixture
def two_gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """nvidia-smi of a machine with two GPUs."""
    monkeypatch.setattr(hardware, "_nvidia_smi", lambda: SMI)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


def looking(steps: list[str], gpus: int) -> Plan:
    """Steps that write down what they see."""
    specs: list[dict[str, Any]] = [
        {
            "id": name,
            "kind": "toy/pinned",
            "version": 1,
            "inputs": {"source": {"pin": "words"}},
        }
        for name in steps
    ]
    profile = {
        "summary": "s",
        "resources": {name: {"gpus": gpus, "minutes": n + 1} for n, name in enumerate(steps)},
    }
    specs += [
        {"id": "mix", "kind": "toy/mix", "version": 1, "inputs": {"data": {"step": steps[0]}}},
        {"id": "table", "kind": "toy/table", "version": 1, "inputs": {"numbers": {"step": "mix"}}},
    ]
    made = manifest(steps=specs, profiles={"mini": profile})
    return plan_of(made, rehearsal=True)


def seen(tmp_path: Path, plan: Plan, step: str) -> dict[str, Any]:
    path = Store(tmp_path / "home").path(plan.by_id[step].key) / "data.txt"
    return json.loads(path.read_text())  # type: ignore[no-any-return]


def test_a_gpu_step_sees_its_gpus_alone(
    two_gpus: None,
    run_toy: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)  # whoever runs the tests may have set it
    plan = looking(["a"], gpus=2)
    run_toy(plan)
    found = seen(tmp_path, plan, "a")
    assert found["gpus"] == "0,1"
    assert found["threads"] is None  # GPU steps keep the libraries' own choice


def test_gpu_steps_get_a_fresh_process_and_cpu_steps_share(
    two_gpus: None, run_toy: Callable[..., Path], tmp_path: Path
) -> None:
    gpu_plan, pids = looking(["a"], gpus=1), []
    other = looking(["b"], gpus=1)
    for plan, step in ((gpu_plan, "a"), (other, "b")):
        run_toy(plan)
        pids.append(seen(tmp_path, plan, step)["pid"])
        assert seen(tmp_path, plan, step)["gpus"] in ("0", "1")
    logs = sorted(path.name for path in (tmp_path / "runs").glob("*/logs/worker-*.log"))
    assert logs == []  # empty logs are removed
