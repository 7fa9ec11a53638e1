"""Checkpoints of a prefix training on disk, so that a killed run goes on where it was."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

from kit.train.prefix_tuning import PrefixState, start

if TYPE_CHECKING:
    from torch import Tensor

_LOSSES = "losses.jsonl"


class Checkpoints:
    """States by step in one folder, and the losses of all steps up to the newest state.

    Losses are flushed before the state they lead to, so a kill between the two leaves losses of
    steps that will be done again; the later ones then count.
    """

    def __init__(self, folder: Path) -> None:
        """Use ``folder``, which survives a kill and is emptied when the step succeeds."""
        self.folder = folder
        self._losses: dict[int, float] = {}
        self._unwritten: dict[int, float] = {}
        folder.mkdir(parents=True, exist_ok=True)

    def resume(self, initial: Tensor) -> PrefixState:
        """The newest whole state, or the start from ``initial`` [n, d]."""
        from safetensors.torch import load_file

        newest = max(self._steps(), default=None)
        if newest is None:
            return start(initial)
        self._losses = {s: loss for s, loss in self._read_losses() if s <= newest}
        return PrefixState.from_tensors(load_file(str(self._path(newest))))

    def on_step(self, step: int, loss: float) -> None:
        """Remember the loss of a step, counted from 1."""
        self._losses[step] = self._unwritten[step] = loss

    def save(self, state: PrefixState) -> None:
        """Write the losses so far, then the state; both reach the disk before this returns."""
        from safetensors.torch import save_file

        with (self.folder / _LOSSES).open("a", encoding="utf-8") as file:
            file.writelines(f"{json.dumps([s, loss])}\n" for s, loss in self._unwritten.items())
            file.flush()
            os.fsync(file.fileno())
        self._unwritten.clear()
        temporary = self.folder / "state.tmp"
        save_file(state.tensors(), str(temporary))
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        temporary.replace(self._path(state.step))

    def losses(self) -> list[float]:
        """Loss of every step done so far, by this and earlier processes."""
        return [self._losses[step] for step in sorted(self._losses)]

    def prefixes(self) -> dict[int, Tensor]:
        """Step -> prefix [n, d] of every saved state."""
        from safetensors.torch import load_file

        return {step: load_file(str(self._path(step)))["prefix"] for step in sorted(self._steps())}

    def _steps(self) -> list[int]:
        return [int(p.stem.split("-")[1]) for p in self.folder.glob("state-*.safetensors")]

    def _path(self, step: int) -> Path:
        return self.folder / f"state-{step}.safetensors"

    def _read_losses(self) -> list[tuple[int, float]]:
        path = self.folder / _LOSSES
        if not path.is_file():
            return []
        rows = []
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                step, loss = json.loads(line)
            except ValueError:  # the torn last line of a killed process
                continue
            rows.append((int(step), float(loss)))
        return rows
