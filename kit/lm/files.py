"""What stands in a local Hugging Face model folder, read without making a model.

Folders only: nothing here reaches a hub, executes remote code or opens a pickle (design page,
"Safety").
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kit.lm.architectures import architecture
from kit.results.plain import read_json

if TYPE_CHECKING:
    from torch import Tensor

INDEX_FILE = "model.safetensors.index.json"
SINGLE_FILE = "model.safetensors"


def model_folder(path: str | Path) -> Path:
    """The folder itself.

    Raises:
        ValueError: No such folder, or no ``config.json`` in it.
    """
    folder = Path(path)
    if not folder.is_dir():
        raise ValueError(f"no model folder at {folder}")
    if not (folder / "config.json").is_file():
        raise ValueError(f"no config.json in {folder}: not a Hugging Face model folder")
    return folder


def read_config(path: str | Path) -> dict[str, Any]:
    """The folder's ``config.json`` as plain values.

    Raises:
        ValueError: No such file, or it is not a JSON object.
    """
    file = model_folder(path) / "config.json"
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{file} is not JSON ({type(error).__name__})") from None
    if not isinstance(config, dict):
        raise ValueError(f"{path}: config.json is not a JSON object")
    return config


def weight_files(path: str | Path) -> dict[str, Path]:
    """Which safetensors file holds which tensor: tensor name -> file.

    Raises:
        ValueError: No safetensors weights, a damaged one, or one named by the index is missing.
    """
    folder = Path(path)
    index = folder / INDEX_FILE
    if index.is_file():
        files = {name: folder / file for name, file in _weight_map(index).items()}
        for file in sorted(set(files.values())):
            if not file.is_file():
                raise ValueError(f"{index} names {file.name}, which is missing; fetch it again")
        return files
    single = folder / SINGLE_FILE
    if not single.is_file():
        others = sorted(p.name for p in folder.glob("*.bin")) + sorted(
            p.name for p in folder.glob("*.pth")
        )
        hint = f" ({others[0]} is not read: only safetensors are)" if others else ""
        raise ValueError(f"no {INDEX_FILE} or {SINGLE_FILE} in {folder}{hint}")
    return dict.fromkeys(tensor_shapes(single), single)


@dataclass(frozen=True)
class _Index:
    weight_map: dict[str, str]


def _weight_map(index: Path) -> dict[str, str]:
    """Tensor -> file name, of an index whose files stand beside it."""
    try:
        named = read_json(index, _Index).weight_map
    except ValueError as error:
        raise ValueError(f"{index} is no index of weights: {error}") from None
    for file in named.values():
        if Path(file).name != file or len(file) > 255:
            raise ValueError(f"{index} names {file!r:.80}, which is not a file beside it")
    return named


def tensor_shapes(file: Path) -> dict[str, tuple[int, ...]]:
    """Names and shapes in a safetensors file; its header (length, types, offsets) is checked.

    Raises:
        ValueError: Not a whole safetensors file.
    """
    from safetensors import safe_open

    try:
        with safe_open(file, framework="pt") as handle:
            return {n: tuple(handle.get_slice(n).get_shape()) for n in handle.keys()}  # noqa: SIM118
    except Exception as error:
        raise ValueError(f"{file} is not a readable safetensors file: {error}") from error


def read_embeddings(path: str | Path, *, device: str = "cpu") -> Tensor:
    """The input embedding matrix, read from the file that holds it, onto a device.

    Returns:
        [V, d], in the dtype it is stored in.

    Raises:
        ValueError: No tensor of the name that the architecture gives it; one that is no matrix of
            floating-point numbers, or has numbers that are not finite.
    """
    names = architecture(str(read_config(path).get("model_type"))).embedding
    return _read_matrix(path, names, device)


def read_output_embeddings(path: str | Path, *, device: str = "cpu") -> Tensor:
    """The output matrix; where it is tied to the input embeddings, those.

    Returns:
        [V, d], in the dtype it is stored in.

    Raises:
        ValueError: As :func:`read_embeddings`.
    """
    if tied_embeddings(path):
        return read_embeddings(path, device=device)
    return _read_matrix(path, (_head_name(path),), device)


def tied_embeddings(path: str | Path) -> bool:
    """Whether input and output embeddings are the same matrix (defensive_tokens.md, P11).

    ``tie_word_embeddings`` in the config decides; where the config is silent, a stored output
    matrix means untied.
    """
    declared = read_config(path).get("tie_word_embeddings")
    if isinstance(declared, bool):
        return declared
    return _head_name(path) not in weight_files(path)


def require_untied(path: str | Path, why: str) -> None:
    """Refuse a model whose input rows are its output rows too.

    Raises:
        ValueError: The model ties them; ``why`` says why that matters here.
    """
    if tied_embeddings(path):
        raise ValueError(f"{path} ties input and output embeddings: {why}")


def _head_name(path: str | Path) -> str:
    return architecture(str(read_config(path).get("model_type"))).head


def _read_matrix(path: str | Path, names: tuple[str, ...], device: str) -> Tensor:
    from safetensors import safe_open

    files = weight_files(path)
    present = [name for name in names if name in files]
    if len(present) != 1:
        there = " and ".join(present) or f"{len(files)} others"
        raise ValueError(f"{path}: {' or '.join(names)} is wanted, the files hold {there}")
    name = present[0]
    tensor_shapes(files[name])
    with safe_open(files[name], framework="pt", device=device) as handle:
        if name not in handle.keys():  # noqa: SIM118
            raise ValueError(f"{files[name]} lacks {name}, which the index says it holds")
        matrix: Tensor = handle.get_tensor(name)
    if matrix.dim() != 2 or not matrix.is_floating_point():
        shape = list(matrix.shape)
        raise ValueError(f"{path}: {name} is {matrix.dtype} {shape}, not a matrix of numbers")
    low, high = matrix.aminmax()
    if not bool(low.isfinite() & high.isfinite()):
        raise ValueError(f"{path}: {name} holds numbers that are not finite")
    return matrix
