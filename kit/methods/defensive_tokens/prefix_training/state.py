"""What a prefix in training consists of: its vectors, Adam's moments and the step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from kit.methods.defensive_tokens.prefix_training.config import PrefixTraining

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class PrefixState:
    """Everything that a resumed run needs, as plain tensors on the CPU.

    Attributes:
        step: Steps done.
        prefix: [n, d] float32.
        exp_avg: [n, d] float32, Adam's first moment.
        exp_avg_sq: [n, d] float32, Adam's second moment.
    """

    step: int
    prefix: Tensor
    exp_avg: Tensor
    exp_avg_sq: Tensor

    def tensors(self) -> dict[str, Tensor]:
        """The state as named tensors, ready for safetensors."""
        return {
            "step": torch.tensor(self.step, dtype=torch.int64),
            "prefix": self.prefix,
            "exp_avg": self.exp_avg,
            "exp_avg_sq": self.exp_avg_sq,
        }

    def on_cpu(self) -> PrefixState:
        """The same state with its tensors in the machine's memory."""
        moved = (tensor.to("cpu") for tensor in (self.prefix, self.exp_avg, self.exp_avg_sq))
        return PrefixState(self.step, *moved)

    @classmethod
    def from_tensors(cls, tensors: dict[str, Tensor]) -> PrefixState:
        """The inverse of :meth:`tensors`."""
        return cls(
            step=int(tensors["step"]),
            prefix=tensors["prefix"],
            exp_avg=tensors["exp_avg"],
            exp_avg_sq=tensors["exp_avg_sq"],
        )


def start(prefix: Tensor) -> PrefixState:
    """The state of a run that has not begun, from an initial prefix [n, d]."""
    first = prefix.detach().to("cpu", torch.float32).clone()
    return PrefixState(0, first, torch.zeros_like(first), torch.zeros_like(first))


def make_optimizer(
    prefix: torch.nn.Parameter, state: PrefixState, config: PrefixTraining
) -> torch.optim.AdamW:
    optimizer = torch.optim.AdamW(
        [prefix],
        lr=config.learning_rate,
        betas=config.betas,
        eps=config.eps,
        weight_decay=config.weight_decay,
    )
    if state.step:
        optimizer.state[prefix] = {
            "step": torch.tensor(float(state.step)),
            "exp_avg": state.exp_avg.to(prefix.device, prefix.dtype, copy=True),
            "exp_avg_sq": state.exp_avg_sq.to(prefix.device, prefix.dtype, copy=True),
        }
    return optimizer


def snapshot(
    step: int,
    prefix: torch.nn.Parameter,
    optimizer: torch.optim.AdamW,
    device: torch.device | str = "cpu",
) -> PrefixState:
    adam = optimizer.state.get(prefix, {})
    zeros = torch.zeros_like(prefix)

    def copy(tensor: Tensor) -> Tensor:
        return tensor.detach().to(device, torch.float32, copy=True)

    return PrefixState(
        step,
        copy(prefix),
        copy(adam.get("exp_avg", zeros)),
        copy(adam.get("exp_avg_sq", zeros)),
    )
