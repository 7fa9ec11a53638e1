"""Steps that shard their work, sized anew for the GPUs that there are."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import msgspec
from msgspec import Struct

from kit.engine.environment import Machine
from kit.engine.hardware import memory_gb
from kit.engine.registry import Attributes, Cards, StepKind
from kit.errors import Preflight
from kit.manifest.types import Resources

USUAL_GPU_GB = 79.0
"""What a card of "80 GB" reports; taken where nobody says and no GPU is here."""


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
    ) -> tuple[Struct, Resources, str]:
        """Parameters, resources and what to tell the reader; as they are where nothing is asked.

        Args:
            kind: The step kind.
            params: Its parameters.
            resources: Its needs as declared.
            models: Attributes of its input models.
            where: Step instance, for messages.

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
