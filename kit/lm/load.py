"""Models, tokenizers and single tensors from local Hugging Face folders.

Folders only: nothing here reaches a hub, executes remote code or opens a pickle (design page,
"Safety").
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from torch import Tensor
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

INDEX_FILE = "model.safetensors.index.json"
SINGLE_FILE = "model.safetensors"
# What the input embedding matrix is called: Llama, Qwen and Falcon3; GPT-2; older Falcon.
EMBEDDING_SUFFIXES = ("embed_tokens.weight", "wte.weight", "word_embeddings.weight")
OUTPUT_NAMES = ("lm_head.weight", "embed_out.weight")


def load_model(
    path: str | Path,
    *,
    dtype: str | torch.dtype = "float32",
    device: str | torch.device = "cpu",
    attention: str = "sdpa",
) -> PreTrainedModel:
    """A frozen causal language model in evaluation mode, loaded straight onto the device.

    Args:
        path: A local folder with ``config.json`` and safetensors weights.
        dtype: ``"float32"``, ``"bfloat16"``, ... or a torch dtype. Never "auto": what a checkpoint
            happens to be stored in must not decide numbers (pitfall P12).
        device: Where the weights go.
        attention: A transformers attention implementation.

    Raises:
        ValueError: Missing folder or file, weights that are not safetensors, unknown dtype.
    """
    import torch
    from transformers import AutoModelForCausalLM

    folder = _model_folder(path)
    for file in sorted(set(weight_files(folder).values())):
        _tensor_names(file)
    if isinstance(dtype, str):
        named = getattr(torch, dtype, None)
        if not isinstance(named, torch.dtype):
            raise ValueError(f"unknown dtype {dtype!r}; write for example 'float32' or 'bfloat16'")
        dtype = named
    placement: dict[str, Any] = {}
    if torch.device(device).type != "cpu":
        placement["device_map"] = {"": device}
    with _without_progress_bars():
        model = AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=dtype,
            attn_implementation=attention,
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
            **placement,
        )
    model.requires_grad_(False)
    return model.eval()  # type: ignore[no-any-return, no-untyped-call]


def load_tokenizer(path: str | Path) -> PreTrainedTokenizerBase:
    """The tokenizer of a local folder.

    Raises:
        ValueError: The folder or its ``tokenizer.json`` is missing.
    """
    from transformers import AutoTokenizer

    folder = Path(path)
    if not (folder / "tokenizer.json").is_file():
        raise ValueError(f"no tokenizer.json in {folder}: a fast tokenizer's folder is needed")
    return AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)


def read_config(path: str | Path) -> dict[str, Any]:
    """The folder's ``config.json`` as plain values."""
    config = json.loads((_model_folder(path) / "config.json").read_text(encoding="utf-8"))
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
    return dict.fromkeys(_tensor_names(single), single)


def _weight_map(index: Path) -> dict[str, str]:
    """Tensor -> file name, of an index whose files stand beside it."""
    try:
        found = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        named = {str(name): str(file) for name, file in found.items()}
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise ValueError(f"{index} is no index of weights ({type(error).__name__})") from None
    for file in named.values():
        if Path(file).name != file:
            raise ValueError(f"{index} names {file!r}, which is not a file beside it")
    return named


def _tensor_names(file: Path) -> list[str]:
    """Names in a safetensors file; its header (length, types, offsets) is checked on the way."""
    from safetensors import safe_open

    try:
        with safe_open(file, framework="pt") as handle:
            return list(handle.keys())
    except Exception as error:
        raise ValueError(f"{file} is not a readable safetensors file: {error}") from error


def read_embeddings(path: str | Path, *, device: str = "cpu") -> Tensor:
    """The input embedding matrix, read from the one shard that holds it, onto a device.

    Returns:
        [V, d], in the dtype it is stored in.

    Raises:
        ValueError: No tensor that looks like an input embedding, or more than one; one that is no
            matrix of floating-point numbers, or has numbers that are not finite.
    """
    from safetensors import safe_open

    files = weight_files(path)
    names = [name for name in files if name.endswith(EMBEDDING_SUFFIXES)]
    if len(names) != 1:
        found = ", ".join(sorted(names)) or "none"
        raise ValueError(f"{path}: expected one input embedding matrix, found {found}")
    _tensor_names(files[names[0]])
    with safe_open(files[names[0]], framework="pt", device=device) as handle:
        matrix: Tensor = handle.get_tensor(names[0])
    if matrix.dim() != 2 or not matrix.is_floating_point():
        shape = list(matrix.shape)
        raise ValueError(f"{path}: {names[0]} is {matrix.dtype} {shape}, not a matrix of numbers")
    rows = range(0, len(matrix), 8192)  # in parts: the intermediate results are as large
    if not all(bool(matrix[at : at + 8192].isfinite().all()) for at in rows):
        raise ValueError(f"{path}: {names[0]} holds numbers that are not finite")
    return matrix


def tied_embeddings(path: str | Path) -> bool:
    """Whether input and output embeddings are one matrix (pitfall P11).

    ``tie_word_embeddings`` in the config decides; where the config is silent, a stored output
    matrix means untied.
    """
    declared = read_config(path).get("tie_word_embeddings")
    if isinstance(declared, bool):
        return declared
    return not any(name in OUTPUT_NAMES for name in weight_files(path))


def require_untied(path: str | Path, why: str) -> None:
    """Refuse a model whose input rows are its output rows too.

    Raises:
        ValueError: The model ties them; ``why`` says why that matters here.
    """
    if tied_embeddings(path):
        raise ValueError(f"{path} ties input and output embeddings: {why}")


@contextmanager
def _without_progress_bars() -> Iterator[None]:
    """Transformers draws one bar a model; what a run prints is the caller's to decide."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()  # type: ignore[no-untyped-call]


def _model_folder(path: str | Path) -> Path:
    folder = Path(path)
    if not folder.is_dir():
        raise ValueError(f"no model folder at {folder}")
    if not (folder / "config.json").is_file():
        raise ValueError(f"no config.json in {folder}: not a Hugging Face model folder")
    return folder
