"""Checkpoints of a prefix training, so that a stopped run goes on where it was.

Each holds the state and the losses of all steps up to it.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

from kit.methods.defensive_tokens.prefix_training.state import PrefixState, start
from kit.train.checkpoints import CheckpointFolder

if TYPE_CHECKING:
    from torch import Tensor

_LOSSES = "losses"


class Checkpoints:
    """States by step in one folder, each with the losses that led to it."""

    def __init__(self, folder: Path) -> None:
        """Use ``folder``, which survives a kill and is emptied when the step succeeds."""
        self._files = CheckpointFolder(folder, keep=None)
        self._losses: dict[int, float] = {}

    @property
    def damaged(self) -> list[str]:
        """Names of the files that :meth:`resume` could not trust and removed."""
        return self._files.damaged

    def resume(self, initial: Tensor, needed: Collection[int] = ()) -> PrefixState:
        """The newest state that can be trusted, or the start from ``initial`` [n, d].

        Args:
            initial: Prefix to start from when there is no state; its shape is that of any state.
            needed: Steps whose prefixes the caller asks for at the end (:meth:`prefixes`). A state
                that lies behind a missing or damaged one of these is of no use.
        """
        newest = start(initial)
        for step in sorted({*self._files.steps(), *needed}):
            state = self._read(step, initial)
            if state is not None:
                newest = state
                continue
            if self._files.path(step).exists():
                self._files.forget(step)
            if step in needed:
                break
        return newest

    def on_step(self, step: int, loss: float) -> None:
        """Remember the loss of a step, counted from 1."""
        self._losses[step] = loss

    def save(self, state: PrefixState) -> None:
        """Write a state with the losses that led to it; it is on the disk when this returns."""
        losses = [self._losses[step] for step in range(1, state.step + 1)]
        self._files.write(state.step, state.tensors(), {_LOSSES: losses})

    def losses(self) -> list[float]:
        """Loss of every step done so far, by this and earlier processes."""
        return [self._losses[step] for step in sorted(self._losses)]

    def prefixes(self) -> dict[int, Tensor]:
        """Step -> prefix [n, d] of every saved state."""
        read = {step: self._files.read(step) for step in self._files.steps()}
        return {step: kept.tensors["prefix"] for step, kept in read.items() if kept is not None}

    def _read(self, step: int, initial: Tensor) -> PrefixState | None:
        """The state of a step, or ``None`` if its file is not there, or not as it was written."""
        kept = self._files.read(step)
        if kept is None or _LOSSES not in kept.values:
            return None
        if kept.tensors["prefix"].shape != initial.shape:
            return None
        self._losses = dict(enumerate(kept.values[_LOSSES], start=1))
        return PrefixState.from_tensors(kept.tensors)
