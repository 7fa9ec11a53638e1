"""Which of several nodes this process is, for a step whose GPUs are on more than one.

``kit step`` on every node says it (options, or SLURM's variables); it reaches the worker and the
ranks through one environment variable.
"""

from __future__ import annotations

import os

import msgspec
from msgspec import Struct

from kit.errors import UsageError

VARIABLE = "KIT_LAUNCH"


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
        os.environ[VARIABLE] = msgspec.json.encode(self).decode()


def nodes_here() -> Nodes:
    """The place that was exported; one node when none was."""
    text = os.environ.get(VARIABLE)
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
