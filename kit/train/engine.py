"""What a training loop may ask of the machinery that holds weights, gradients and optimizer.

Loops are written against :class:`Engine` alone. They see losses and norms, and never a gradient or
a whole weight: where the model is sharded over GPUs nobody has either. :class:`SingleProcess`
(:mod:`kit.train.single_process`) keeps the whole model in each process.

The loss of a global batch is a sum of shares: every process and micro-batch adds its own, weighted
so that the shares of all of them make the loss. Hence neither the number of processes nor the size
of a micro-batch changes a gradient but by rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import torch

from kit.train.optimizers import Optimizer, OptimizerSpec

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor, nn

    from kit.train.checkpoints import CheckpointFolder

BatchT = TypeVar("BatchT")

TRAINING = "training"
AVERAGED = "averaged"
WEIGHTS = (TRAINING, AVERAGED)
"""Which weights of a schedule-free optimizer: those that gradients are taken at (y), or their
average (x). For every other optimizer the two are the same."""


def checked_weights(weights: str) -> str:
    """The same, if it is one of :data:`WEIGHTS`.

    Raises:
        ValueError: It is not.
    """
    if weights not in WEIGHTS:
        raise ValueError(f"unknown weights {weights!r}; known: {', '.join(WEIGHTS)}")
    return weights


@dataclass(frozen=True)
class Precision:
    """In which types a training computes.

    Attributes:
        compute: ``float32``, or ``bfloat16`` by autocast: matrix products in bf16, losses and
            norms in fp32.
        masters: Type of the trained weights, their gradients and the optimizer's state. With
            ``bfloat16`` an update below 1/256 of a weight is lost; for rows that were run so.
    """

    compute: str = "float32"
    masters: str = "float32"

    def __post_init__(self) -> None:
        """Refuse types that nothing here computes in."""
        for role, name in (("compute", self.compute), ("masters", self.masters)):
            if name not in ("float32", "bfloat16"):
                raise ValueError(f"{role} in {name!r}: float32 or bfloat16")

    @property
    def compute_dtype(self) -> torch.dtype:
        """Of matrix products."""
        return torch.bfloat16 if self.compute == "bfloat16" else torch.float32

    @property
    def masters_dtype(self) -> torch.dtype:
        """Of the trained weights."""
        return torch.bfloat16 if self.masters == "bfloat16" else torch.float32


@dataclass
class Progress:
    """How far a training is, besides weights, optimizer and random generators.

    Attributes:
        step: Optimizer steps done; all that a schedule depends on.
        positions: Of each data stream, by name (``Streams.positions``).
        curves: Measured so far, by name; JSON values.
    """

    step: int = 0
    positions: dict[str, Any] = field(default_factory=dict)
    curves: dict[str, list[Any]] = field(default_factory=dict)


class Snapshot(Protocol):
    """Weights as :meth:`Engine.snapshot` took them; only the same engine can read them."""


class Engine(Protocol):
    """A model in training.

    Attributes:
        model: What a loss function receives. Whole weights are not promised outside of
            :meth:`evaluating`.
        optimizer: The one that :meth:`step` uses now.
        precision: Types, for the record.
        device: Where batches belong.
        rank: Number of this process, from 0.
        world_size: Processes that train together.
    """

    @property
    def model(self) -> nn.Module: ...
    @property
    def optimizer(self) -> Optimizer: ...
    @property
    def precision(self) -> Precision: ...
    @property
    def device(self) -> torch.device: ...
    @property
    def rank(self) -> int: ...
    @property
    def world_size(self) -> int: ...

    def accumulate(
        self,
        loss: Callable[[nn.Module, BatchT], Tensor],
        micro_batches: Sequence[BatchT],
        *,
        scale: float = 1.0,
    ) -> Tensor:
        """Add ``scale`` x the gradient of a global batch's loss to the current gradient.

        Args:
            loss: Called with the model and a micro-batch inside the engine's own forward pass, so
                that it may use any part of the model; returns the micro-batch's share, a scalar.
            micro_batches: This process's, at least one.
            scale: Of the gradient, not of the returned loss.

        Returns:
            The global loss, a detached float32 scalar on the device; nothing waits for it.
        """
        ...

    def clip(self, max_norm: float) -> float:
        """Scale the current gradient down to an L2 norm of ``max_norm``.

        Returns:
            The norm before.
        """
        ...

    def gradient_norm(self) -> float:
        """L2 norm of the current gradient."""
        ...

    def step(self, rate: float | None = None) -> None:
        """Update the weights by the current gradient, which is 0 afterwards.

        Args:
            rate: Learning rate from this step on; ``None`` leaves it.
        """
        ...

    def zero_gradient(self) -> None:
        """Forget the current gradient."""
        ...

    def snapshot(self, device: torch.device | str | None = None) -> Snapshot:
        """A copy of the trained weights, on ``device`` or where they are."""
        ...

    def restore(self, snapshot: Snapshot) -> None:
        """Put the weights back bit for bit, in every form in which a forward pass reads them."""
        ...

    def largest_change(self, since: Snapshot) -> float:
        """Largest absolute difference of a trained weight since a snapshot, in any process."""
        ...

    def inner(self, spec: OptimizerSpec) -> AbstractContextManager[None]:
        """Within, a fresh optimizer steps; afterwards the one before, whose state was not touched.

        The weights stay as the inner steps left them: :meth:`restore` is the caller's.
        """
        ...

    def collect(self, name: str, scale: float = 1.0) -> None:
        """Move ``scale`` x the current gradient into the fp32 accumulator ``name``."""
        ...

    def add_collected(self, name: str) -> None:
        """Add an accumulator to the current gradient, and let it go.

        Raises:
            ValueError: Nothing was collected under that name.
        """
        ...

    def evaluating(self, weights: str = AVERAGED) -> AbstractContextManager[nn.Module]:
        """The model for measuring: evaluation mode, no gradients, in the compute type.

        Afterwards weights, modes and random generators are bit for bit as before.
        """
        ...

    def keep_averaged(self) -> None:
        """Make the average that the optimizer keeps, if it keeps one, the weights for good."""
        ...

    def any_process(self, flag: bool) -> bool:
        """Whether the flag is up in any process; all of them ask together."""
        ...

    def save(self, folder: CheckpointFolder, progress: Progress) -> None:
        """Write everything that a resumed training needs, as one file."""
        ...

    def resume(self, folder: CheckpointFolder) -> Progress | None:
        """Go on from the newest checkpoint that can be trusted; ``None`` if there is none."""
        ...

    def save_model(self, folder: Path, weights: str = AVERAGED) -> None:
        """Write the model in Hugging Face layout (``config.json``, safetensors)."""
        ...
