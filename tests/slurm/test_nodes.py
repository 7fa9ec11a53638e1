"""GPU requests, and the printed batch script, on a real SLURM of two nodes.

The GPUs are device files that SLURM counts; a script plays nvidia-smi, and gloo does the sums.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from kit.engine import hardware
from kit.engine.environment import this_machine
from kit.engine.launch import lines
from kit.engine.session import Options, Session
from kit.engine.slurm.options import SlurmOptions
from kit.engine.store import Store
from kit.errors import Preflight, StepFailed
from kit.results.plan import Plan
from tests.engine.conftest import ToyPins
from tests.engine.test_batch import shared
from tests.engine.test_launch import GPUS, HERE
from tests.slurm.cluster import Cluster

pytestmark = pytest.mark.slurm
QUICK = SlurmOptions(gather=0.1, refresh=0.3, grace=4.0)


@pytest.fixture(autouse=True)
def _gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both nodes have GPUs as nvidia-smi tells it; SLURM says which of them a job may see."""
    smi = tmp_path / "bin" / "nvidia-smi"
    smi.parent.mkdir()
    smi.write_text(f"#!/bin/sh\ncat <<END\n{GPUS}END\n")
    smi.chmod(0o755)
    monkeypatch.setenv("PATH", f"{smi.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("KIT_STEPS_MODULES", "tests.engine.toy")
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


def session(plan: Plan, folder: Path) -> Session:
    options = Options(runs_dir=folder / "runs", slurm=QUICK)
    return Session(
        plan, home=folder / "home", pins=ToyPins(folder), options=options, argv=["kit", "run"]
    )


def number(plan: Plan, folder: Path) -> dict[str, object]:
    path = Store(folder / "home").path(plan.instances[0].key) / "number.json"
    return json.loads(path.read_text())  # type: ignore[no-any-return]


def planned(monkeypatch: pytest.MonkeyPatch, arch: str, **how: int) -> Plan:
    """A plan as a login node makes it, which is told what GPUs the jobs will have."""
    monkeypatch.setattr(hardware, "_nvidia_smi", lambda: "")
    monkeypatch.setenv("KIT_GPU_ARCH", arch)
    return shared(machine=this_machine(), **how)


def test_a_gpu_step_gets_what_it_asked_for(
    two_nodes: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = planned(monkeypatch, "sm_90", gpus=1, accumulation=8)
    with pytest.raises(StepFailed, match="left no results"):
        session(plan, tmp_path).run()  # the toy step makes no table; the step itself is done
    assert number(plan, tmp_path)["number"] == 64


def test_the_printed_script_runs_on_two_nodes(
    two_nodes: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KIT_HOME", str(tmp_path / "home"))
    plan = shared(gpus=2, accumulation=4, machine=HERE)
    (tmp_path / "plan.json").write_bytes(plan.to_json())
    text = lines(plan, plan.instances[0], "slurm", nodes=2, file=str(tmp_path / "plan.json"))
    text = text.replace("kit step", f"{sys.executable} -m kit.cli.main step")
    # The names of these nodes are known to SLURM alone.
    text = text.replace('"$MASTER_ADDR:', '"127.0.0.1:')
    (tmp_path / "job.sh").write_text(text)
    log = tmp_path / "job.log"
    two_nodes.command("sbatch", "--wait", f"--output={log}", str(tmp_path / "job.sh"))
    told = log.read_text()
    assert number(plan, tmp_path) == {"number": 64, "ranks": 1, "node": "0"}, told
    assert "[run] finished" in told
    assert not list((tmp_path / "home" / "tmp").iterdir())


def test_a_node_with_other_gpus_refuses(
    two_nodes: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = planned(monkeypatch, "sm_80", gpus=1, accumulation=8)
    with pytest.raises(Preflight) as told:
        session(plan, tmp_path).run()
    assert "gpu_arch sm_80 (here sm_90)" in told.value.what
    assert "gpu.constraint" in told.value.next_step
