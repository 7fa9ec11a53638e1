"""An alignment on disk, and its facts in plain numbers."""

from __future__ import annotations

import json
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from kit.methods.defensive_tokens.procrustes import Alignment

_TENSORS = ("matrix", "singular_values")


def describe(alignment: Alignment) -> dict[str, Any]:
    """The diagnostics without the tensors; the spectrum as five quantiles."""
    values = alignment.singular_values
    facts = {k: v for k, v in _plain(alignment).items() if k not in _TENSORS}
    quantiles = [float(values[round(q * (len(values) - 1))]) for q in (0, 0.25, 0.5, 0.75, 1)]
    return facts | {
        "singular_values": quantiles,
        "smallest_singular_value": float(values[-1]),
        "sum_of_singular_values": float(values.sum()),
    }


def save_alignment(path: str | Path, alignment: Alignment) -> None:
    """Write matrix and spectrum as float64 safetensors, the scalars as its metadata."""
    from safetensors.torch import save_file

    scalars = {k: v for k, v in _plain(alignment).items() if k not in _TENSORS}
    tensors = {name: getattr(alignment, name).contiguous() for name in _TENSORS}
    save_file(tensors, str(path), metadata={"alignment": json.dumps(scalars)})


def load_alignment(path: str | Path) -> Alignment:
    """The inverse of :func:`save_alignment`."""
    from safetensors import safe_open

    with safe_open(str(path), framework="pt") as handle:
        scalars = json.loads((handle.metadata() or {})["alignment"])
        tensors = {name: handle.get_tensor(name) for name in _TENSORS}
    return Alignment(**tensors, **scalars)


def _plain(alignment: Alignment) -> dict[str, Any]:
    known = {field.name for field in fields(alignment)}
    return {k: v for k, v in asdict(alignment).items() if k in known}
