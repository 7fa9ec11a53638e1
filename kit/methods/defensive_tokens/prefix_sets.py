"""Several prefixes in one file: name -> [n, d]."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from kit.methods.defensive_tokens.released import check_prefix

if TYPE_CHECKING:
    from torch import Tensor


def save_sets(path: str | Path, sets: Mapping[str, Tensor]) -> None:
    """Write named prefixes as float32 safetensors.

    Raises:
        ValueError: A prefix that is not [n, d] of finite numbers.
    """
    import torch
    from safetensors.torch import save_file

    tensors = {
        # Copied, because one tensor under two names is refused by safetensors.
        name: prefix.detach().to("cpu", torch.float32, copy=True).contiguous()
        for name, prefix in sets.items()
    }
    for name, prefix in tensors.items():
        check_prefix(prefix, where=name)  # as written: a float64 may not fit into a float32
    save_file(tensors, str(path))


def load_sets(path: str | Path) -> dict[str, Tensor]:
    """The inverse of :func:`save_sets`, in natural order (``adapt-5`` before ``adapt-25``)."""
    from safetensors.torch import load_file

    tensors: dict[str, Tensor] = load_file(str(path))
    return {name: tensors[name] for name in sorted(tensors, key=_natural)}


def _natural(name: str) -> tuple[str, int]:
    stem, _, last = name.rpartition("-")
    return (stem, int(last)) if last.isdigit() else (name, -1)
