"""The lines that start one step of a plan on many GPUs, written from the plan.

``kit run --executor slurm`` does steps of one node by itself. A step that needs more is started by
hand, once, by what these functions print: the same ``kit step`` on every node, which starts
torchrun there. The plan file and KIT_HOME must be on a file system that all nodes share. Which node
a process is on, ``kit step`` says; workers and ranks read it from one environment variable.
"""

from __future__ import annotations

import math
import os
import shlex

import msgspec
from msgspec import Struct

from kit.engine.batch import FIELDS, Split
from kit.engine.process import OFFLINE
from kit.engine.slurm.options import GPU_CPUS, SlurmOptions, request
from kit.errors import UsageError
from kit.plural import plural
from kit.results.plan import Plan, StepInstance

NODES_VARIABLE = "KIT_LAUNCH"
GPUS_PER_NODE = 8
PORT = 29500

_NCCL = (
    ("NCCL_DEBUG", "WARN", "says why NCCL gives up; INFO also says which network it took"),
    ("TORCH_NCCL_ASYNC_ERROR_HANDLING", "1", "a rank that hangs in NCCL ends instead of waiting"),
    ("OMP_NUM_THREADS", str(GPU_CPUS), "torchrun sets 1 otherwise, and says so"),
)
_OFFLINE = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE")
_NETWORK = "# export NCCL_SOCKET_IFNAME=ib0   # where NCCL takes the wrong network: ip -brief addr"


class Nodes(Struct, frozen=True, kw_only=True):
    """A node's place among those of a step."""

    count: int = 1
    rank: int = 0
    """This node's number; node 0 holds the step's lock and commits its outputs."""
    host: str = "127.0.0.1"
    """Address of node 0."""
    port: int = 0

    def export(self) -> None:
        """Let the processes below know."""
        os.environ[NODES_VARIABLE] = msgspec.json.encode(self).decode()


def nodes_here() -> Nodes:
    """The place that was exported; one node when none was."""
    text = os.environ.get(NODES_VARIABLE)
    return msgspec.json.decode(text, type=Nodes) if text else Nodes()


def parse_nodes(count: int, rank: int | None, rendezvous: str | None) -> Nodes:
    """From what was typed.

    Raises:
        UsageError: Something is missing or impossible.
    """
    host, colon, port = (rendezvous or "").rpartition(":")
    if not colon or not host or not port.isdigit() or not 0 < int(port) < 65536:
        raise UsageError(
            "several nodes need --rendezvous HOST:PORT, an address of node 0 that all can reach",
            next_step="kit plan EXP --launch slurm STEP (or torchrun) writes the whole line",
        )
    if rank is None or not 0 <= rank < count:
        raise UsageError(
            f"--node-rank must be from 0 to {count - 1}, a different one on each node",
            next_step="under SLURM, srun sets it (SLURM_NODEID)",
        )
    return Nodes(count=count, rank=rank, host=host, port=int(port))


def lines(
    plan: Plan, instance: StepInstance, how: str, *, nodes: int | None = None, file: str
) -> str:
    """What to type, or submit, to run a step.

    Args:
        plan: The plan.
        instance: One of its instances, for torchrun.
        how: ``slurm`` or ``torchrun``.
        nodes: Nodes to use; by default as few as have eight GPUs each.
        file: Name of the plan file in the commands.

    Raises:
        UsageError: The step is not one for many GPUs, or they cannot be shared by the nodes.
    """
    gpus = instance.resources.gpus
    if instance.launch != "torchrun" or gpus < 1:
        raise UsageError(
            f"{instance.id} is not a step for many GPUs: it has {plural(gpus, 'GPU')}, launch "
            f"{instance.launch!r}",
            next_step="kit run, also with --executor slurm, starts it by itself",
        )
    count = nodes or math.ceil(gpus / GPUS_PER_NODE)
    if gpus % count:
        raise UsageError(
            f"{plural(gpus, 'GPU')} cannot be shared evenly by {plural(count, 'node')}",
            where=instance.id,
            next_step="--nodes N with N dividing the GPUs, or --gpus N with another split",
        )
    head = _head(plan, instance, count)
    return (_slurm if how == "slurm" else _torchrun)(instance, count, file, head)


def _head(plan: Plan, instance: StepInstance, nodes: int) -> list[str]:
    gpus = instance.resources.gpus
    made = [
        f"# {instance.id} of {plan.experiment} ({plan.profile}): {plural(nodes, 'node')} x "
        f"{plural(gpus // nodes, 'GPU')}"
    ]
    if set(FIELDS) <= instance.params.keys():
        split = Split(
            world=gpus,
            micro_batch=instance.params["micro_batch"],
            accumulation=instance.params["accumulation"],
        )
        made.append(f"# batch {split.words()}")
    return made


def _environment() -> list[str]:
    made = [f"export {name}={value}   # {why}" for name, value, why in _NCCL]
    made.append(_NETWORK)
    return [*made, "export " + " ".join(f"{name}={OFFLINE[name]}" for name in _OFFLINE)]


def _step(instance: StepInstance, file: str, *options: str) -> str:
    return " ".join([shlex.join(["kit", "step", file, instance.id]), *options])


def _slurm(instance: StepInstance, nodes: int, file: str, head: list[str]) -> str:
    per_node = instance.resources.gpus // nodes
    wanted = request(instance, SlurmOptions())
    needs = [
        f"job-name={wanted['job_name']}",
        f"nodes={nodes}",
        "ntasks-per-node=1   # torchrun starts the ranks of its node",
        f"gpus-per-node={per_node}",
        f"cpus-per-task={per_node * GPU_CPUS}",
        f"mem={wanted['mem']}",
        f"time={wanted['time']}",
        "requeue",
        "open-mode=append",
        f"output={wanted['job_name']}-%j.log",
    ]
    made = ["#!/bin/bash", *(f"#SBATCH --{need}" for need in needs), *head, "set -euo pipefail"]
    options = ["--nodes", str(nodes), "--rendezvous", '"$MASTER_ADDR:$MASTER_PORT"']
    if nodes > 1:
        made += [
            'MASTER_ADDR=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)',
            "MASTER_PORT=$((20000 + SLURM_JOB_ID % 20000))   # two jobs on one node do not meet",
        ]
    made += _environment()
    line = _step(instance, file, *(options if nodes > 1 else ()))
    return "\n".join([*made, f"srun --kill-on-bad-exit=1 {line}"]) + "\n"


def _torchrun(instance: StepInstance, nodes: int, file: str, head: list[str]) -> str:
    made = [*head, *_environment()]
    if nodes == 1:
        return "\n".join([*made, _step(instance, file)]) + "\n"
    made.append("HOST=node0   # an address of node 0 that all nodes reach")
    for rank in range(nodes):
        options = ["--nodes", str(nodes), "--node-rank", str(rank)]
        options += ["--rendezvous", f'"$HOST:{PORT}"']
        made += [f"# on node {rank}", _step(instance, file, *options)]
    per_node = instance.resources.gpus // nodes
    made.append(
        f"# each of them runs: python -m torch.distributed.run --nnodes={nodes} --node-rank=RANK "
        f"--nproc-per-node={per_node} --master-addr=$HOST --master-port={PORT} ..."
    )
    return "\n".join(made) + "\n"
