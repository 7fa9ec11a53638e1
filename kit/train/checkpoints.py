"""Checkpoints on disk that are trusted only whole.

A checkpoint is one safetensors file with tensors, JSON values and a hash over both. After a power
cut, a full disk or a flipped bit a training goes on from the newest file that is as it was written,
and never with other numbers.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

_HASH = "sha256"
_VALUES = "values"


@dataclass(frozen=True)
class Checkpoint:
    """What a file held.

    Attributes:
        step: Optimizer steps done.
        tensors: On the CPU.
        values: JSON values.
    """

    step: int
    tensors: dict[str, Tensor]
    values: dict[str, Any]

    def under(self, prefix: str) -> dict[str, Tensor]:
        """Tensors whose name begins so, by the rest of their names."""
        named = self.tensors.items()
        return {n.removeprefix(prefix): t for n, t in named if n.startswith(prefix)}


class CheckpointFolder:
    """Checkpoints by step in one folder, which survives a kill.

    Attributes:
        folder: Where the files are.
        keep: How many of the newest files stay; all of them if ``None``. Two, so that there is
            one to go back to when the newest is damaged.
        damaged: Names of the files that could not be trusted and were removed.
    """

    def __init__(self, folder: Path, *, keep: int | None = 2) -> None:
        """Use ``folder``; it is made if it is not there.

        Raises:
            ValueError: ``keep`` below 1.
        """
        if keep is not None and keep < 1:
            raise ValueError(f"a folder that keeps {keep} checkpoints keeps nothing to resume from")
        self.folder = folder
        self.keep = keep
        self.damaged: list[str] = []
        folder.mkdir(parents=True, exist_ok=True)

    def steps(self) -> list[int]:
        """Steps for which there is a file, whole or not, ascending."""
        names = [path.stem.partition("-")[2] for path in self.folder.glob("state-*.safetensors")]
        return sorted(int(name) for name in names if name.isdecimal())

    def path(self, step: int) -> Path:
        """File of a step."""
        return self.folder / f"state-{step}.safetensors"

    def write(
        self, step: int, tensors: Mapping[str, Tensor], values: Mapping[str, Any] | None = None
    ) -> None:
        """Write a checkpoint; it is on the disk when this returns."""
        write_checkpoint(self.path(step), Checkpoint(step, dict(tensors), dict(values or {})))
        if self.keep is not None:
            for old in self.steps()[: -self.keep]:
                self.path(old).unlink(missing_ok=True)

    def read(self, step: int) -> Checkpoint | None:
        """The checkpoint of a step, or ``None`` if it is not there, or not as it was written."""
        checkpoint = read_checkpoint(self.path(step))
        return checkpoint if checkpoint is not None and checkpoint.step == step else None

    def newest(self, *, remove: bool = True) -> Checkpoint | None:
        """The newest checkpoint that can be trusted; newer files are remembered as damaged.

        Args:
            remove: Remove the damaged files. Where several processes read, only one should.
        """
        for step in reversed(self.steps()):
            checkpoint = self.read(step)
            if checkpoint is not None:
                return checkpoint
            self.forget(step, remove=remove)
        return None

    def forget(self, step: int, *, remove: bool = True) -> None:
        """Note a file as damaged and remove it."""
        self.damaged.append(self.path(step).name)
        if remove:
            self.path(step).unlink(missing_ok=True)


def write_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Write a file under a temporary name, wait for the disk, then rename it."""
    from safetensors.torch import save_file

    tensors = {
        name: tensor.detach().to("cpu").contiguous() for name, tensor in checkpoint.tensors.items()
    }
    values = json.dumps({"step": checkpoint.step, **checkpoint.values}, sort_keys=True)
    temporary = path.with_name("state.tmp")  # what a kill left is overwritten by the next
    save_file(tensors, str(temporary), metadata={_HASH: _digest(tensors, values), _VALUES: values})
    with temporary.open("rb") as written:
        os.fsync(written.fileno())
    temporary.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def read_checkpoint(path: Path) -> Checkpoint | None:
    """What a file holds, or ``None`` if it is not there, or not as it was written."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError, ValueError):
        return None
    text = metadata.get(_VALUES, "")
    if metadata.get(_HASH) != _digest(tensors, text):
        return None
    values = json.loads(text)
    return Checkpoint(values.pop("step"), tensors, values)


def _digest(tensors: Mapping[str, Tensor], values: str) -> str:
    """sha256 over the values, then names, types, shapes and bytes in the order of the names."""
    import torch

    digest = hashlib.sha256(values.encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"\n{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        # As bytes, because numpy knows no bfloat16.
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
