"""Canonical JSON and the keys made from it.

Two runs share a finished step exactly when the canonical bytes of what describes it are equal, so
the form is fixed: sorted keys, no spaces, UTF-8, floats by ``repr``, no NaN or infinity.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any


def canonical_json(value: Any) -> bytes:
    """The one byte string of a JSON value.

    Raises:
        ValueError: NaN, infinity or a lone surrogate, which JSON cannot carry.
        TypeError: Something that is not JSON.
    """
    text = json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )
    return text.encode("utf-8")


def digest(value: Any) -> str:
    """sha256 of the canonical JSON, in hexadecimal."""
    return hashlib.sha256(canonical_json(value)).hexdigest()


def step_key(
    kind: str,
    version: int,
    params: dict[str, Any],
    inputs: dict[str, Any],
    environment: dict[str, Any],
) -> str:
    """The key of a step instance: everything that decides its outputs and nothing else."""
    return digest(
        {
            "kind": kind,
            "version": version,
            "params": params,
            "inputs": inputs,
            "environment": environment,
        }
    )
