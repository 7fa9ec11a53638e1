"""The random generators of a process, as something that can be saved and put back."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch


def random_state() -> dict[str, Any]:
    """State of the generators of python, numpy and torch (this process's GPU too), as JSON values.

    Bytes are written in hexadecimal.
    """
    kind, keys, position, has_gauss, gauss = np.random.get_state(legacy=True)
    state: dict[str, Any] = {
        "python": list(random.getstate()),
        "numpy": [str(kind), np.asarray(keys).tolist(), int(position), int(has_gauss), gauss],
        "torch": _hex(torch.get_rng_state()),
    }
    if torch.cuda.is_available():
        state["cuda"] = _hex(torch.cuda.get_rng_state())
    return state


def set_random_state(state: dict[str, Any]) -> None:
    """The inverse of :func:`random_state`; a state made without a GPU leaves the GPU's alone."""
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))
    kind, keys, position, has_gauss, normal = state["numpy"]
    np.random.set_state((kind, np.array(keys, dtype=np.uint32), position, has_gauss, normal))
    torch.set_rng_state(_bytes(state["torch"]))
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(_bytes(state["cuda"]))


@contextmanager
def kept_random_state() -> Iterator[None]:
    """Whatever is drawn inside, the generators outside go on as if nothing had been."""
    state = random_state()
    try:
        yield
    finally:
        set_random_state(state)


def _hex(tensor: torch.Tensor) -> str:
    return tensor.cpu().numpy().tobytes().hex()


def _bytes(text: str) -> torch.Tensor:
    return torch.frombuffer(bytearray.fromhex(text), dtype=torch.uint8)
