"""L1 norms of saved prefixes, which DTP, Table 2, reports beside the vocabulary's."""

from __future__ import annotations

from pathlib import Path
from statistics import fmean


def l1_norms(path: Path) -> dict[str, tuple[float, float]]:
    """Token set -> mean and largest L1 norm of its vectors, in float64; no file, no sets."""
    from safetensors import safe_open

    if not path.exists():
        return {}
    norms = {}
    with safe_open(str(path), framework="np") as handle:
        for name in handle.keys():  # noqa: SIM118 - not a mapping
            sums = abs(handle.get_tensor(name).astype("float64")).sum(axis=1).tolist()
            norms[name] = (fmean(sums), max(sums))
    return norms
