"""The lines for many GPUs come out of the plan, and they work."""

from __future__ import annotations

import json
import os
import shlex
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from kit.engine.environment import Machine
from kit.engine.hardware import parse_gpus
from kit.engine.launch import NODES_VARIABLE, Nodes, lines, nodes_here, parse_nodes
from kit.engine.one_step import run_instance
from kit.engine.session import Options
from kit.engine.store import Store
from kit.errors import Preflight, UsageError
from kit.results.plan import Plan
from tests.engine.conftest import ToyPins
from tests.engine.test_batch import shared
from tests.engine.test_record import entry

GPUS = "".join(f"{n}, GPU-{n}, Toy, 9.0, 81559, 580.1\n" for n in range(2))
SMI = f"#!/bin/sh\ncat <<END\n{GPUS}END\n"

HERE = Machine(gpus=parse_gpus(GPUS, None))
"""What the played nvidia-smi shows."""


def script(plan: Plan, how: str, nodes: int | None = None) -> str:
    return lines(plan, plan.instances[0], how, nodes=nodes, file="plan.json")


def test_a_batch_script() -> None:
    text = script(shared(gpus=16, micro_batch=4), "slurm")
    assert text.startswith("#!/bin/bash\n#SBATCH --job-name=kit-train\n")
    for line in ("nodes=2", "ntasks-per-node=1", "gpus-per-node=8", "cpus-per-task=32", "requeue"):
        assert f"#SBATCH --{line}" in text
    assert "# batch 64 = micro-batch 4 x accumulation 1 x 16 GPUs" in text
    assert "srun --kill-on-bad-exit=1 kit step plan.json train --nodes 2 --rendezvous" in text
    for name in ("NCCL_DEBUG", "OMP_NUM_THREADS", "HF_HUB_OFFLINE=1", "TRANSFORMERS_OFFLINE=1"):
        assert name in text
    assert text.index("#SBATCH --requeue") < text.index("set -euo")  # sbatch stops at a command
    assert subprocess.run(["bash", "-n"], input=text, text=True, check=False).returncode == 0


def test_one_node_needs_no_rendezvous() -> None:
    for how in ("slurm", "torchrun"):
        text = script(shared(), how)
        assert "rendezvous" not in text
        assert "kit step plan.json train\n" in text


def test_a_line_for_each_node() -> None:
    text = script(shared(gpus=16, micro_batch=4), "torchrun", nodes=4)
    found = [shlex.split(line) for line in text.splitlines() if line.startswith("kit step")]
    assert [line[line.index("--node-rank") + 1] for line in found] == ["0", "1", "2", "3"]
    assert "--nnodes=4" in text
    assert "--nproc-per-node=4" in text


def test_what_cannot_be_launched() -> None:
    with pytest.raises(UsageError, match="8 GPUs cannot be shared evenly by 3 nodes"):
        script(shared(), "slurm", nodes=3)
    with pytest.raises(UsageError, match="not a step for many GPUs"):
        script(shared(gpus=0, accumulation=8), "slurm")


def test_reading_a_place() -> None:
    assert parse_nodes(2, 1, "node0:29500") == Nodes(count=2, rank=1, host="node0", port=29500)
    for rank, rendezvous in ((None, "a:1"), (2, "a:1"), (0, None), (0, "a"), (0, "a:x"), (0, ":1")):
        with pytest.raises(UsageError) as caught:
            parse_nodes(2, rank, rendezvous)
        assert caught.value.next_step


def test_a_place_reaches_the_ranks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(NODES_VARIABLE, "")
    assert nodes_here() == Nodes()
    Nodes(count=2, rank=1, host="h", port=3).export()
    assert nodes_here() == Nodes(count=2, rank=1, host="h", port=3)


def run_here(plan: Plan, folder: Path, nodes: Nodes | None) -> None:
    home, pins = folder / "home", ToyPins(folder)
    run_instance(plan, "train", home=home, pins=pins, options=Options(), nodes=nodes)


def test_too_few_gpus_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Preflight, match=r"needs 8 GPUs, this machine has"):
        run_here(shared(), tmp_path, None)
    with pytest.raises(Preflight, match=r"needs 4 GPUs, this machine has"):
        run_here(shared(), tmp_path, Nodes(count=2, rank=1, host="h", port=3))
    with pytest.raises(UsageError, match="cannot run on 3 nodes"):
        run_here(shared(), tmp_path, Nodes(count=3, rank=1, host="h", port=3))


def test_two_nodes_do_one_step(tmp_path: Path) -> None:
    """The printed lines, on one machine that plays two nodes of a GPU each; gloo does the sums."""
    pytest.importorskip("torch")
    smi = tmp_path / "bin" / "nvidia-smi"
    smi.parent.mkdir()
    smi.write_text(SMI)
    smi.chmod(0o755)
    plan = shared(gpus=2, accumulation=4, machine=HERE)
    (tmp_path / "plan.json").write_bytes(plan.to_json())
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    text = script(plan, "torchrun", nodes=2).replace("HOST=node0", "HOST=127.0.0.1")
    text = text.replace("29500", str(port))
    text = text.replace("kit step", f"{sys.executable} -m kit.cli.main step")
    both = [line for line in text.splitlines() if " step " in line and "#" not in line]
    common = [line for line in text.splitlines() if line.startswith(("export", "HOST"))]
    environ = {
        **os.environ,
        "PATH": f"{smi.parent}{os.pathsep}{os.environ['PATH']}",
        "KIT_HOME": str(tmp_path / "home"),
        "PYTHONPATH": str(Path(__file__).parents[2]),  # the step module is a test's, not installed
        "GLOO_SOCKET_IFNAME": "lo",
    }
    environ.pop("CUDA_VISIBLE_DEVICES", None)
    started = time.monotonic()
    nodes = [
        subprocess.Popen(
            ["bash", "-ec", "\n".join([*common, line])],
            cwd=tmp_path,
            env=environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for line in reversed(both)  # node 0 last: the other waits
    ]
    told = [node.communicate(timeout=240)[0] for node in nodes]
    assert [node.returncode for node in nodes] == [0, 0], told
    store = Store(tmp_path / "home")
    key = plan.instances[0].key
    found = json.loads((store.path(key) / "number.json").read_text())
    assert found == {"number": 64, "ranks": 1, "node": "0"}  # 8 x 4 of each; ranks 0 and 1
    kept = store.look(key).entry
    assert kept is not None
    assert [canary.passed for canary in kept.canaries] == [True]
    assert not list((tmp_path / "home" / "tmp").iterdir())
    assert time.monotonic() - started < 200


def test_a_node_that_comes_late_finds_it_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kit.engine.hardware._nvidia_smi", lambda: GPUS)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    plan = shared(gpus=4, accumulation=2, machine=HERE)
    store, one = Store(tmp_path / "home"), plan.instances[0]
    with store.lock(one.key), store.workspace(one.key) as workspace:
        (workspace / "out").mkdir()
        (workspace / "out" / "number.json").write_text("{}")
        store.commit(one.key, workspace / "out", lambda *, files: entry(files=files))
    monkeypatch.setenv(NODES_VARIABLE, "")
    run_here(plan, tmp_path, Nodes(count=2, rank=1, host="127.0.0.1", port=9))  # starts nothing
