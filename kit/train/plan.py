"""Whether a sharded TAR run fits the GPUs at hand, and how its global batches are cut.

Memory is counted per GPU, in phases; what it takes is written at each term. Constants of a forward
pass were fitted to records in ``benchmarks/`` (H100, 8B, compiled MLPs) and to none of the state.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from math import ceil

GIB = 1024**3
_HIDDEN, _WIDE = 7, 4
"""bf16 vectors that a decoder layer keeps for its backward pass, a token: so many of the model's
width and so many of the MLP's. Fitted to 51.0 and 64.3 GiB at 2,048 and 4,096 tokens a GPU."""
_SCORES = 12
"""Bytes a score of the vocabulary: three fp32 copies, for as many tokens as a chunk has."""
_CONTEXT = 0.7 * GIB
"""CUDA's and NCCL's own memory, which no allocator of ours sees."""


@dataclass(frozen=True)
class ModelShape:
    """What memory depends on.

    Attributes:
        parameters: Of the whole model.
        layers: Decoder layers.
        hidden: Width of the residual stream.
        intermediate: Width of the MLP.
        vocabulary: Rows of the output matrix.
    """

    parameters: int
    layers: int
    hidden: int
    intermediate: int
    vocabulary: int


@dataclass(frozen=True)
class Machine:
    """What there is.

    Attributes:
        gpus: Of one host.
        gpu_gib: Memory of each.
        host_gib: The machine's.
    """

    gpus: int
    gpu_gib: float
    host_gib: float


@dataclass(frozen=True)
class GlobalBatches:
    """Rows of the published batches, and tokens a row."""

    adversary: int
    held_out: int
    retain: int
    width: int


@dataclass(frozen=True)
class Plan:
    """How a run is cut.

    Attributes:
        rows: Most rows in a forward pass of one GPU.
        passes: Forward passes that make up a global batch, by batch.
        checkpointing: Layers are computed again in the backward pass.
        outer_state: ``resident`` or ``offloaded``.
        reference: The frozen model, ``resident`` or ``offloaded``.
        snapshot: ``cuda`` or ``cpu``.
        peak_gib: By phase, a GPU.
        host_gib: Of the machine, all processes.
    """

    rows: int
    passes: dict[str, int]
    checkpointing: bool
    outer_state: str
    reference: str
    snapshot: str
    peak_gib: dict[str, float] = field(default_factory=dict)
    host_gib: float = 0.0

    @property
    def highest(self) -> float:
        """GiB a GPU, of the phase that takes most."""
        return max(self.peak_gib.values())


def solve(
    shape: ModelShape,
    machine: Machine,
    batches: GlobalBatches,
    *,
    bucket: int = 500_000_000,
    live: int = 1_000_000_000,
    chunk: int = 4096,
) -> Plan:
    """The fastest plan that fits.

    Moving state off the GPU costs least, then computing layers again, then more passes: on four
    H200, 64 x 256 tokens took 0.57 s, 0.70 s with layers computed again and 0.86 s in two passes
    (reference figures, 2026-11-21).

    Args:
        shape: The model.
        machine: GPUs and memory.
        batches: Global, as published; they are never changed.
        bucket: Gradient elements reduced at once, fp32.
        live: Gathered weights that exist at once, bf16.
        chunk: Tokens whose scores exist at once.

    Raises:
        ValueError: A batch that leaves GPUs idle, or nothing that fits; the sentence says what is
            missing.
    """
    if machine.gpus < 1:
        raise ValueError("sharded training needs at least one GPU")
    for name in ("adversary", "held_out", "retain"):
        if getattr(batches, name) < machine.gpus:
            raise ValueError(
                f"the {name.replace('_', '-')} batch of {getattr(batches, name)} leaves some of "
                f"{machine.gpus} GPUs idle: use at most {getattr(batches, name)}"
            )
    tried = []
    for plan in _candidates(machine, batches):
        counted = _count(plan, shape, machine, batches, bucket=bucket, live=live, chunk=chunk)
        tried.append(counted)
        if counted.highest <= machine.gpu_gib and counted.host_gib <= machine.host_gib:
            return counted
    raise ValueError(_shortage(tried, machine))


def _candidates(machine: Machine, batches: GlobalBatches) -> Iterator[Plan]:
    largest = ceil(max(batches.adversary, batches.held_out, batches.retain) / machine.gpus)
    places = [
        ("resident", "resident", "cuda"),
        ("resident", "resident", "cpu"),
        ("offloaded", "resident", "cpu"),
        ("offloaded", "offloaded", "cpu"),
    ]
    rows = largest
    while True:
        passes = {
            name: ceil(ceil(getattr(batches, name) / machine.gpus) / rows)
            for name in ("adversary", "held_out", "retain")
        }
        for checkpointing in (False, True):
            for outer_state, reference, snapshot in places:
                yield Plan(rows, passes, checkpointing, outer_state, reference, snapshot)
        if rows == 1:
            return
        rows = ceil(rows / 2)


def _count(
    plan: Plan,
    shape: ModelShape,
    machine: Machine,
    batches: GlobalBatches,
    *,
    bucket: int,
    live: int,
    chunk: int,
) -> Plan:
    """The plan with its memory."""
    local = shape.parameters / machine.gpus

    def tokens(name: str) -> int:
        rows = min(plan.rows, ceil(getattr(batches, name) / machine.gpus))
        return int(rows * batches.width)

    def activations(name: str) -> float:
        layer = 2 * (_HIDDEN * shape.hidden + _WIDE * shape.intermediate)
        kept = (
            2 * shape.layers * shape.hidden + layer
            if plan.checkpointing
            else (shape.layers * layer)
        )
        return tokens(name) * kept + min(tokens(name), chunk) * _SCORES * shape.vocabulary

    # bf16 weights, fp32 masters, fp32 gradient; a bucket, gathered weights.
    always = local * (2 + 4 + 4) + 4 * min(bucket, shape.parameters)
    gathered = 2 * min(live, shape.parameters)
    always += gathered + _CONTEXT
    always += 2 * shape.parameters * (plan.reference == "resident")
    waiting = local * (8 * (plan.outer_state == "resident") + 4 * (plan.snapshot == "cuda"))
    # Both models' states of every layer, and their fp32 differences, a token.
    states = tokens("retain") * (shape.layers + 1) * shape.hidden * (2 + 4 + 4)
    peaks = {
        "inner step": always + waiting + local * (8 + 4) + activations("adversary"),
        "tamper-resistance pass": always + waiting + local * (8 + 4) + activations("held_out"),
        "retain pass": always
        + local * (8 * (plan.outer_state == "resident") + 4)
        + activations("retain")
        + states,
        # The schedule-free update: z and v, and its denominators; nothing is gathered meanwhile.
        "outer update": always - gathered + local * (8 + 4),
    }
    on_host = shape.parameters * (
        4 * (plan.snapshot == "cpu") + 8 * (plan.outer_state == "offloaded")
    ) + machine.gpus * 2 * shape.parameters * (plan.reference == "offloaded")
    return Plan(
        plan.rows,
        plan.passes,
        plan.checkpointing,
        plan.outer_state,
        plan.reference,
        plan.snapshot,
        {name: round(value / GIB, 2) for name, value in peaks.items()},
        round(on_host / GIB, 2),
    )


def _shortage(tried: list[Plan], machine: Machine) -> str:
    least = min(tried, key=lambda plan: plan.highest)
    phase = max(least.peak_gib, key=lambda name: least.peak_gib[name])
    if least.highest > machine.gpu_gib:
        return (
            f"no plan fits {machine.gpus} GPUs of {machine.gpu_gib:g} GiB: with one row a pass and "
            f"everything moved away that can be, the {phase} still takes {least.highest:.1f} GiB "
            "each; use more GPUs"
        )
    return (
        f"no plan fits: what {machine.gpus} GPUs of {machine.gpu_gib:g} GiB cannot hold takes "
        f"{least.host_gib:.0f} GiB of the machine's memory, which has {machine.host_gib:g}"
    )
