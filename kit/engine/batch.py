"""The arithmetic of a batch over GPUs: micro-batch x accumulation x world = published batch.

A published batch is what the optimizer sees in one step. How it is cut up (samples a GPU at once,
passes before a step, GPUs) is the reader's affair as long as the product stays, and it is part of
the environment class, because the order of sums changes with it.

A step kind takes part by its parameters: ``global_batch`` (published), ``micro_batch`` (samples a
GPU at once; the most that fits where the split has to be solved) and ``accumulation`` (0: solve).
A kind that shards its work has rules of its own (``sized``), which are asked where GPUs are named.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
from msgspec import Struct

from kit.engine.environment import Machine
from kit.engine.hardware import memory_gb
from kit.engine.registry import Attributes, Cards, StepKind
from kit.errors import InvalidInput, Preflight
from kit.manifest.types import Resources
from kit.plural import plural

FIELDS = ("global_batch", "micro_batch", "accumulation")
USUAL_GPU_GB = 79.0
"""What a card of "80 GB" reports; taken where nobody says and no GPU is here."""


class Split(Struct, frozen=True, kw_only=True):
    """How a batch is cut up."""

    world: int
    """GPUs, over all nodes."""
    micro_batch: int
    """Samples a GPU at once."""
    accumulation: int
    """Backward passes before an optimizer step."""

    @property
    def global_batch(self) -> int:
        """Samples an optimizer step."""
        return self.world * self.micro_batch * self.accumulation

    def words(self) -> str:
        """For people."""
        return (
            f"{self.global_batch} = micro-batch {self.micro_batch} x accumulation "
            f"{self.accumulation} x {plural(self.world, 'GPU')}"
        )


def solve(global_batch: int, *, world: int, largest_micro: int, where: str = "") -> Split:
    """The split with the largest micro-batch that fits, so with the fewest passes.

    Args:
        global_batch: The published batch.
        world: GPUs.
        largest_micro: Samples that fit on one GPU at once.
        where: For messages.

    Raises:
        InvalidInput: A number below one.
        Preflight: The batch cannot be shared evenly by so many GPUs.
    """
    for name, value in (
        ("global_batch", global_batch), ("GPUs", world), ("micro_batch", largest_micro),
    ):  # fmt: skip
        if value < 1:
            raise InvalidInput(f"{name} must be at least 1, it is {value}", where=where)
    share, rest = divmod(global_batch, world)
    if rest:
        raise Preflight(
            f"a batch of {global_batch} cannot be shared evenly by {world} GPUs",
            where=where,
            why="micro-batch x accumulation x GPUs must be the published batch; another batch is "
            "another experiment",
            next_step="GPUs that divide it: "
            + ", ".join(str(n) for n in range(1, world + 1) if global_batch % n == 0)
            + " (--gpus N)",
        )
    micro = max(n for n in range(1, min(share, largest_micro) + 1) if share % n == 0)
    return Split(world=world, micro_batch=micro, accumulation=share // micro)


def shares(kind: StepKind, resources: Resources) -> bool:
    """Whether a step shares a batch among as many GPUs as it gets."""
    declared = set(FIELDS) <= set(kind.params.__struct_fields__)
    return declared and kind.launch == "torchrun" and resources.gpus > 0


def fit(
    kind: StepKind,
    params: Struct,
    resources: Resources,
    *,
    gpus: int | None = None,
    where: str,
) -> tuple[Struct, Resources, str]:
    """Parameters, resources and what to tell the reader, for the GPUs that there are.

    Kinds without ``global_batch`` come back as they are.

    Args:
        kind: The step kind.
        params: Its parameters.
        resources: Its needs as declared, with the GPUs of the published setting.
        gpus: GPUs to use instead, for steps that share their work among several.
        where: Step instance, for messages.

    Raises:
        InvalidInput: The manifest's own numbers do not multiply to the published batch.
        Preflight: The batch cannot be shared evenly by the GPUs.
    """
    if not set(FIELDS) <= set(kind.params.__struct_fields__):
        return params, resources, ""
    batch, micro, passes = (int(getattr(params, name)) for name in FIELDS)
    declared = resources.world
    world = gpus if gpus is not None and shares(kind, resources) else declared
    if passes and world == declared:
        written = Split(world=world, micro_batch=micro, accumulation=passes)
        if written.global_batch != batch:
            better = solve(batch, world=world, largest_micro=max(1, micro), where=where)
            raise InvalidInput(
                f"micro-batch {micro} x accumulation {passes} x {plural(world, 'GPU')} = "
                f"{written.global_batch}, the published batch is {batch}",
                where=where,
                next_step=f"{better.words()}: --set {where.partition('[')[0]}.micro_batch="
                f"{better.micro_batch} --set {where.partition('[')[0]}.accumulation="
                f"{better.accumulation}",
            )
        return params, resources, ""
    split = solve(batch, world=world, largest_micro=micro, where=where)
    chosen: dict[str, Any] = {
        "micro_batch": split.micro_batch,
        "accumulation": split.accumulation,
    }
    params = msgspec.structs.replace(params, **chosen)
    if world == declared:
        return params, resources, ""
    resources = msgspec.structs.replace(
        resources, gpus=world, minutes=resources.minutes * declared / world
    )
    note = (
        f"{where.partition('[')[0]}: {plural(world, 'GPU')} instead of {declared}; batch "
        f"{split.words()}. Another environment class; the planned memory a GPU is that of the "
        "published setting."
    )
    return params, resources, note


def share_of(count: int, fraction: float, fewest: int = 1) -> int:
    """A share of a count for a shortened rehearsal, rounded up; never more than there are."""
    return min(count, max(fewest, math.ceil(fraction * count)))


@dataclass(frozen=True)
class GpusToUse:
    """What the user, or the machine of a rehearsal, says of GPUs.

    Attributes:
        gpus: How many, instead of those that a profile declares.
        gpu_gb: Memory of each, instead of this machine's.
        machine: What is here.
    """

    gpus: int | None
    gpu_gb: float | None
    machine: Machine

    def size(
        self,
        kind: StepKind,
        params: Struct,
        resources: Resources,
        models: Mapping[str, Attributes],
        where: str,
        kept: frozenset[str] = frozenset(),
    ) -> tuple[Struct, Resources, str]:
        """Parameters, resources and what to tell the reader; as they are where nothing is asked.

        Args:
            kind: The step kind.
            params: Its parameters.
            resources: Its needs as declared.
            models: Attributes of its input models.
            where: Step instance, for messages.
            kept: Parameters that the user chose, which stay.

        Raises:
            Preflight: It does not fit; the sentence says what is missing.
        """
        asked = self.gpus is not None or self.gpu_gb is not None
        if kind.sized is None or not asked or not resources.gpus:
            return params, resources, ""
        here = [gpu.memory_gb for gpu in self.machine.gpus if gpu.memory_gb]
        cards = Cards(
            self.gpus or resources.gpus,
            self.gpu_gb or min(here, default=USUAL_GPU_GB),
            memory_gb() if here and self.gpu_gb is None else math.inf,
            kept,
        )
        try:
            sized = kind.sized(params, models, cards)
        except ValueError as error:
            raise Preflight(
                str(error),
                where=where,
                why="the published batches are kept; rows in a pass, what is computed again and "
                "what waits in the machine's memory were all tried",
                next_step="--gpus N --gpu-memory GB says what another machine would do",
            ) from error
        if sized is None:
            return params, resources, ""
        params = msgspec.structs.replace(params, **dict(sized.params))
        resources = msgspec.structs.replace(
            resources,
            gpus=cards.gpus,
            gpu_memory_gb=math.ceil(sized.gpu_memory_gb),
            memory_gb=math.ceil(sized.memory_gb),
            minutes=resources.minutes if sized.minutes is None else sized.minutes,
        )
        return params, resources, f"{where.partition('[')[0]}: {sized.words}"
