"""Checkpoints of a prefix training on disk, so that a stopped run goes on where it was.

A checkpoint is one file with the state and the losses of all steps up to it, and a hash over both.
It is trusted only whole: after a power cut, a full disk or a flipped bit a training goes on from
the newest checkpoint before the damage, or from its start, and never with other numbers.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

from kit.methods.defensive_tokens.prefix_training.state import PrefixState, start

if TYPE_CHECKING:
    from torch import Tensor

_LOSSES = "losses"
_HASH = "sha256"


class Checkpoints:
    """States by step in one folder, each with the losses that led to it.

    Attributes:
        damaged: Names of the files that :meth:`resume` could not trust and removed.
    """

    def __init__(self, folder: Path) -> None:
        """Use ``folder``, which survives a kill and is emptied when the step succeeds."""
        self.folder = folder
        self.damaged: list[str] = []
        self._losses: dict[int, float] = {}
        folder.mkdir(parents=True, exist_ok=True)

    def resume(self, initial: Tensor, needed: Collection[int] = ()) -> PrefixState:
        """The newest state that can be trusted, or the start from ``initial`` [n, d].

        Args:
            initial: Prefix to start from when there is no state; its shape is that of any state.
            needed: Steps whose prefixes the caller asks for at the end (:meth:`prefixes`). A state
                that lies behind a missing or damaged one of these is of no use.
        """
        newest = start(initial)
        for step in sorted({*self._steps(), *needed}):
            state = self._read(step, initial)
            if state is not None:
                newest = state
                continue
            if self._path(step).exists():
                self.damaged.append(self._path(step).name)
                self._path(step).unlink()
            if step in needed:
                break
        return newest

    def on_step(self, step: int, loss: float) -> None:
        """Remember the loss of a step, counted from 1."""
        self._losses[step] = loss

    def save(self, state: PrefixState) -> None:
        """Write a state with the losses that led to it; it is on the disk when this returns."""
        import torch
        from safetensors.torch import save_file

        losses = [self._losses[step] for step in range(1, state.step + 1)]
        tensors = state.tensors() | {_LOSSES: torch.tensor(losses, dtype=torch.float64)}
        temporary = self.folder / "state.tmp"
        save_file(tensors, str(temporary), metadata={_HASH: _digest(tensors)})
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        temporary.replace(self._path(state.step))
        folder = os.open(self.folder, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def losses(self) -> list[float]:
        """Loss of every step done so far, by this and earlier processes."""
        return [self._losses[step] for step in sorted(self._losses)]

    def prefixes(self) -> dict[int, Tensor]:
        """Step -> prefix [n, d] of every saved state."""
        from safetensors.torch import load_file

        return {step: load_file(str(self._path(step)))["prefix"] for step in sorted(self._steps())}

    def _steps(self) -> list[int]:
        names = [path.stem.partition("-")[2] for path in self.folder.glob("state-*.safetensors")]
        return [int(name) for name in names if name.isdecimal()]

    def _path(self, step: int) -> Path:
        return self.folder / f"state-{step}.safetensors"

    def _read(self, step: int, initial: Tensor) -> PrefixState | None:
        """The state of a step, or ``None`` if its file is not there, or not as it was written."""
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(str(self._path(step)), framework="pt") as file:
                said = (file.metadata() or {}).get(_HASH)
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except (OSError, SafetensorError, ValueError):
            return None
        if said != _digest(tensors) or int(tensors["step"]) != step:
            return None
        if tensors["prefix"].shape != initial.shape:
            return None
        self._losses = dict(enumerate(tensors[_LOSSES].tolist(), start=1))
        return PrefixState.from_tensors(tensors)


def _digest(tensors: dict[str, Tensor]) -> str:
    """sha256 over names, types, shapes and bytes, in the order of the names."""
    found = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].contiguous()
        found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        found.update(tensor.numpy().tobytes())
    return found.hexdigest()
