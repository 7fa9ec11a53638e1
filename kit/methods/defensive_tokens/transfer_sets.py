"""The transferred prefix together with every control, by name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import fmean
from typing import TYPE_CHECKING, Any

from kit.methods.defensive_tokens.geometry import geometry
from kit.methods.defensive_tokens.procrustes import Alignment
from kit.methods.defensive_tokens.transfer import (
    direct_copy,
    norm_rescaled,
    random_like_norm,
    random_rotation_like,
    transfer,
)

if TYPE_CHECKING:
    from torch import Tensor


SETS = ("procrustes", "copy", "norm-rescaled", "rotation", "random-norm")


def transfer_sets(
    prefix: Tensor, native: Tensor, alignment: Alignment, *, seed: int, names: Sequence[str] = SETS
) -> dict[str, Tensor]:
    """Token sets made from a source prefix [n, d] without training.

    ``procrustes``, ``copy`` and ``norm-rescaled`` are the documents' rows; ``rotation`` (a random
    rotation as far from the identity as the fitted one) and ``random-norm`` (random directions of
    equal norm) are the controls that the documents lack. What is not asked for is not computed: a
    random rotation of 4,096 coordinates is half a teraflop.

    Args:
        prefix: [n, d], the source model's.
        native: [n, d], the target model's own, for ``norm-rescaled`` only.
        alignment: Of source to target.
        seed: Of the two random controls, each with a stream of its own.
        names: Of the sets to make.

    Raises:
        ValueError: An unknown name.
    """
    carried = transfer(prefix, alignment)
    make: dict[str, Callable[[], Tensor]] = {
        "procrustes": lambda: carried,
        "copy": lambda: direct_copy(prefix, native.shape[1]),
        "norm-rescaled": lambda: norm_rescaled(carried, native),
        "rotation": lambda: _rotated(prefix, random_rotation_like(alignment.matrix, seed)),
        "random-norm": lambda: random_like_norm(carried, seed),
    }
    unknown = set(names) - make.keys()
    if unknown:
        raise ValueError(f"no transferred set {sorted(unknown)[0]!r}: {', '.join(SETS)}")
    return {name: make[name]() for name in names}


def _rotated(prefix: Tensor, rotation: Tensor) -> Tensor:
    return (prefix.to(rotation.dtype) @ rotation).to(prefix.dtype)


def transfer_geometry(
    prefix: Tensor, native: Tensor, sets: dict[str, Tensor]
) -> dict[str, dict[str, Any]]:
    """Norms of each set, its mean cosine with the target's own prefix and with the source's.

    ``cosine_source`` of ``procrustes`` is cos(T_s, T_s W): 1 says that the map is a plain copy.
    """
    table = {}
    for name, tokens in {**sets, "native": native, "source": prefix}.items():
        facts = geometry(tokens, native)
        moved = geometry(tokens, prefix)
        table[name] = {
            "norm_mean": fmean(facts.norms),
            "norm_min": min(facts.norms),
            "norm_max": max(facts.norms),
            "norm_l1_mean": fmean(facts.l1_norms),
            "norm_l1_max": max(facts.l1_norms),
            "cosine_native": fmean(facts.cosines),
            "cosine_source": fmean(moved.cosines),
        }
    return table
