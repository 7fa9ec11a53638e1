"""Prefixes on disk: the released JSON, and safetensors of our own."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from kit.results.plain import read_json

if TYPE_CHECKING:
    from torch import Tensor

TENSOR = "prefix"


def read_released(
    path: str | Path, model_id: str, *, n: int = 5, width: int | None = None
) -> Tensor:
    """The released vectors of one model from ``defensivetokens.json``.

    Args:
        path: A JSON object: model id -> n lists of d numbers.
        model_id: For example ``meta-llama/Llama-3.1-8B-Instruct``.
        n: Vectors wanted; more in the file are an error too, nothing is cut silently.
        width: The model's hidden size, checked when given.

    Returns:
        [n, d] float32.

    Raises:
        ValueError: Not such a file, unknown model, wrong number or width, values not finite.
    """
    try:
        table = read_json(path, dict[str, Any])
    except ValueError as error:
        raise ValueError(f"cannot read released tokens (model id -> vectors): {error}") from None
    if model_id not in table:
        raise ValueError(f"{path} has no tokens for {model_id!r}; it has: {', '.join(table)}")
    rows = table[model_id]
    where = f"{path}, {model_id}"
    if not isinstance(rows, list) or not all(isinstance(row, list) for row in rows):
        raise ValueError(f"{where}: expected a list of vectors")
    lengths = sorted({len(row) for row in rows})
    if len(lengths) > 1:
        raise ValueError(f"{where}: vectors of different widths {lengths}")
    if not all(isinstance(v, int | float) and math.isfinite(v) for row in rows for v in row):
        raise ValueError(f"{where}: a value is not a finite number")
    prefix = torch.tensor(rows, dtype=torch.float32)
    check_prefix(prefix, n=n, width=width, where=where)
    return prefix


def check_prefix(
    prefix: Tensor, *, n: int | None = None, width: int | None = None, where: str = "prefix"
) -> None:
    """Refuse a prefix that is not n finite vectors of the model's width.

    Raises:
        ValueError: It says what was found and what was wanted.
    """
    if prefix.ndim != 2 or 0 in prefix.shape:
        raise ValueError(f"{where}: shape {tuple(prefix.shape)} is not [n, d]")
    if n is not None and prefix.shape[0] != n:
        raise ValueError(f"{where}: {prefix.shape[0]} vectors, {n} wanted")
    if width is not None and prefix.shape[1] != width:
        raise ValueError(f"{where}: vectors of width {prefix.shape[1]}, the model has {width}")
    if not bool(torch.isfinite(prefix).all()):
        raise ValueError(f"{where}: contains values that are not finite")


def save_prefix(path: str | Path, prefix: Tensor, metadata: dict[str, str] | None = None) -> None:
    """Write [n, d] as float32 safetensors with text metadata (layout, source, step, ...)."""
    from safetensors.torch import save_file

    check_prefix(prefix, where=str(path))
    tensor = prefix.detach().to("cpu", torch.float32).contiguous()
    save_file({TENSOR: tensor}, path, metadata=metadata or {})


def load_prefix(
    path: str | Path, *, n: int | None = None, width: int | None = None
) -> tuple[Tensor, dict[str, str]]:
    """The inverse of :func:`save_prefix`: [n, d] float32 and the metadata.

    Raises:
        ValueError: Not such a file, or a prefix that :func:`check_prefix` refuses.
    """
    from safetensors import safe_open

    try:
        with safe_open(path, framework="pt") as handle:
            if TENSOR not in handle.keys():  # noqa: SIM118 - not a mapping
                raise ValueError(f"no tensor named {TENSOR!r}")
            prefix = handle.get_tensor(TENSOR)
            metadata = dict(handle.metadata() or {})
    except Exception as error:
        raise ValueError(f"cannot read a prefix from {path}: {error}") from error
    check_prefix(prefix, n=n, width=width, where=str(path))
    return prefix.to(torch.float32), metadata
