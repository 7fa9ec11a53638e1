"""Affine maps as files, in the layout of the published ones.

A folder with ``affine_transforms.safetensors`` (``layer_{l}.weight`` [d, d] in the layout of
``torch.nn.Linear``, ``layer_{l}.bias`` [d]) and ``metadata.json`` (``layer_indices``,
``hidden_dim``, ``alpha``). ``l`` counts as ``hidden_states`` of transformers does: index l is what
block l - 1 returns (reference page, sections 1.2 and 1.3). In memory maps are keyed by block.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from kit.methods.checkpoint_transfer.affine import AffineMap, FitQuality
from kit.results.plain import read_json

WEIGHTS = "affine_transforms.safetensors"
METADATA = "metadata.json"


def save_maps(
    folder: Path,
    maps: Mapping[int, AffineMap],
    *,
    alpha: float,
    provenance: Mapping[str, str | int | float],
    fit: Mapping[int, FitQuality],
    held_out: Mapping[int, FitQuality],
) -> None:
    """Write maps so that both this kit and the published code can read them.

    Args:
        folder: Made if it does not exist.
        maps: Block -> map.
        alpha: Ridge strength.
        provenance: What they were fitted on: teacher, student, data, their revisions and counts.
        fit: Block -> error on the tokens of the fit.
        held_out: Block -> error on other tokens.

    Raises:
        ValueError: No maps, or maps of several widths.
    """
    from safetensors.torch import save_file

    widths = {tuple(affine.weight.shape) for affine in maps.values()}
    if len(widths) != 1 or len(set(next(iter(widths)))) != 1:
        raise ValueError(f"a file holds square maps of one width, not {sorted(widths)}")
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {}
    for block, affine in maps.items():
        tensors[f"layer_{block + 1}.weight"] = affine.weight.detach().cpu().contiguous()
        tensors[f"layer_{block + 1}.bias"] = affine.bias.detach().cpu().contiguous()
    save_file(tensors, folder / WEIGHTS)
    metadata = {
        "layer_indices": sorted(block + 1 for block in maps),
        "hidden_dim": next(iter(widths))[0],
        "alpha": alpha,
        "provenance": dict(provenance),
        "fit": {str(block + 1): asdict(fit[block]) for block in sorted(fit)},
        "held_out": {str(block + 1): asdict(held_out[block]) for block in sorted(held_out)},
    }
    text = json.dumps(metadata, indent=2, sort_keys=True) + "\n"
    (folder / METADATA).write_text(text, encoding="utf-8")


def load_maps(folder: Path) -> dict[int, AffineMap]:
    """Read maps of this kit, or of a published repository that was fetched.

    Returns:
        Block -> map, float32 on the CPU.

    Raises:
        ValueError: A file is missing or damaged, or the two files disagree.
    """
    from safetensors.torch import load_file

    for name in (WEIGHTS, METADATA):
        if not (folder / name).is_file():
            raise ValueError(f"no {name} in {folder}: not a folder of affine maps")
    layers, width = _declared(folder / METADATA)
    try:
        tensors = load_file(folder / WEIGHTS)
    except Exception as error:
        raise ValueError(
            f"{folder / WEIGHTS} is not a readable safetensors file: {error}"
        ) from None
    maps: dict[int, AffineMap] = {}
    for layer in layers:
        names = (f"layer_{layer}.weight", f"layer_{layer}.bias")
        absent = [name for name in names if name not in tensors]
        if absent:
            raise ValueError(f"{folder / WEIGHTS} has no {absent[0]}, which {METADATA} declares")
        weight, bias = (tensors[name].float() for name in names)
        if weight.shape != (width, width) or bias.shape != (width,):
            raise ValueError(
                f"{folder / WEIGHTS}: layer_{layer} is {list(weight.shape)}, {METADATA} says "
                f"hidden_dim {width}"
            )
        if not bool(weight.isfinite().all() and bias.isfinite().all()):
            raise ValueError(f"{folder / WEIGHTS}: layer_{layer} has numbers that are not finite")
        maps[layer - 1] = AffineMap(weight, bias)
    return maps


def _declared(file: Path) -> tuple[list[int], int]:
    """Layers and width of a metadata file."""
    try:
        metadata = read_json(file, dict[str, Any])
        layers, width = metadata["layer_indices"], metadata["hidden_dim"]
    except (ValueError, LookupError) as error:
        raise ValueError(f"{file} is no description of affine maps ({error})") from None
    whole = isinstance(layers, list) and all(type(layer) is int and layer >= 0 for layer in layers)
    if not whole or type(width) is not int or width < 1 or not layers:
        raise ValueError(f"{file}: layer_indices and hidden_dim must be whole numbers, not empty")
    if len(set(layers)) != len(layers):
        raise ValueError(f"{file} names a layer twice: {layers}")
    return layers, width
