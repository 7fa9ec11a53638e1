"""Models and tokenizers from local Hugging Face folders, and back into them.

Loading compares the files with the architecture both ways: a weight that the files lack would be
made up at random by transformers, with a warning that nobody reads, and a weight that the
architecture lacks would be dropped.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kit.lm.architectures import ARCHITECTURES
from kit.lm.files import model_folder, tensor_shapes, weight_files
from kit.lm.model import is_tied

if TYPE_CHECKING:
    import torch
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

MOST_NAMED = 3
"""Weights that an error message names; the rest are counted."""
SHARD_SIZE = "5GB"


def load_model(
    path: str | Path,
    *,
    dtype: str | torch.dtype = "float32",
    device: str | torch.device = "cpu",
    attention: str | None = None,
    trainable: bool = False,
) -> PreTrainedModel:
    """A causal language model in evaluation mode, loaded straight onto the device.

    Args:
        path: A local folder with ``config.json`` and safetensors weights.
        dtype: ``"float32"``, ``"bfloat16"``, ... or a torch dtype. Never "auto": what a checkpoint
            happens to be stored in must not decide numbers (defensive_tokens.md, P12).
        device: Where the weights go.
        attention: A transformers attention implementation; ``None`` is "sdpa", or "eager" for an
            architecture that has no "sdpa" (Gemma 2).
        trainable: Whether the weights ask for gradients. The model is in evaluation mode either
            way: whoever trains it switches dropout on.

    Raises:
        ValueError: Missing folder or file, weights that are not safetensors, unknown dtype; a
            weight that the files lack or that the architecture has no use for, except tied
            weights and buffers that the architecture declares; a shape that does not fit; a number
            that is not finite.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    folder = model_folder(path)
    shapes: dict[str, tuple[int, ...]] = {}
    for file in sorted(set(weight_files(folder).values())):
        shapes |= tensor_shapes(file)
    kind = torch_dtype(dtype)
    config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    _check_sizes(folder, config, shapes)
    placement: dict[str, Any] = {}
    if torch.device(device).type != "cpu":
        placement["device_map"] = {"": _numbered(device)}
    with _quiet():
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            folder,
            config=config,
            dtype=kind,
            attn_implementation=attention or default_attention(config),
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # reported below, with all others
            **placement,
        )
    model: PreTrainedModel = loaded[0]
    _check_loaded(folder, model, loaded[1])
    require_finite(model, folder)
    model.requires_grad_(trainable)
    return model.eval()  # type: ignore[no-untyped-call,no-any-return]


def default_attention(config: PretrainedConfig) -> str:
    """The attention implementation that an architecture is loaded with unless another is named.

    Raises:
        ValueError: The configuration is not that of a causal language model.
    """
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING

    try:
        known: Any = MODEL_FOR_CAUSAL_LM_MAPPING[type(config)]
    except KeyError:
        raise ValueError(f"{config.model_type!r} is no type of causal language model") from None
    return "sdpa" if known._supports_sdpa else "eager"


def load_tokenizer(path: str | Path) -> PreTrainedTokenizerBase:
    """The tokenizer that ``tokenizer.json`` describes, and nothing else decides.

    Not through ``AutoTokenizer``: that takes the class of the model's type, which puts its own
    normaliser and splitting in place of the file's (measured for type qwen2) and so makes other
    ids of the same text.

    Raises:
        ValueError: The folder or its ``tokenizer.json`` is missing.
    """
    from transformers import PreTrainedTokenizerFast

    folder = Path(path)
    if not (folder / "tokenizer.json").is_file():
        raise ValueError(f"no tokenizer.json in {folder}: a fast tokenizer's folder is needed")
    tokenizer: PreTrainedTokenizerBase = PreTrainedTokenizerFast.from_pretrained(
        folder, local_files_only=True
    )
    return tokenizer


def save_model(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase | None, folder: str | Path
) -> None:
    """Write a model with its tokenizer; the same weights give the same bytes.

    Weights keep their dtype. Tied weights are stored once. Files can be read by everybody: a
    container runs as somebody else.

    Args:
        model: Of transformers; peft's adapters are merged by the caller first.
        tokenizer: Left out where ``None``.
        folder: Made if it does not exist.

    Raises:
        ValueError: The model still has adapters around it, or a number that is not finite.
    """
    if hasattr(model, "get_base_model"):
        raise ValueError("merge the adapters into the model before it is saved")
    require_finite(model, "the model to be saved")
    target = Path(folder)
    with _quiet():
        model.save_pretrained(target, max_shard_size=SHARD_SIZE)
    if tokenizer is not None:
        tokenizer.save_pretrained(target)
    for path in target.iterdir():
        path.chmod(0o644)


def require_finite(model: PreTrainedModel, where: str | Path) -> None:
    """Refuse a model that holds NaN or infinity in a weight or a buffer.

    Raises:
        ValueError: With the first such tensor's name; ``where`` says whose it is.
    """
    import torch

    named = [
        (name, tensor)
        for name, tensor in (*model.named_parameters(), *model.named_buffers())
        if tensor.is_floating_point() and tensor.numel()
    ]
    # The least and greatest number carry NaN and infinity, and no copy is made on the way.
    ends = [torch.stack(tensor.detach().aminmax()).float() for _, tensor in named]
    flags = torch.stack([end.isfinite().all() for end in ends]).tolist() if ends else []
    broken = [name for (name, _), finite in zip(named, flags, strict=True) if not finite]
    if broken:
        raise ValueError(f"{where}: {_some(broken)} holds numbers that are not finite")


def tied_weights(model: PreTrainedModel) -> list[list[str]]:
    """Names of parameters that are the very same tensor; each group in order of its names."""
    names: dict[int, list[str]] = {}
    for name, tensor in model.named_parameters(remove_duplicate=False):
        names.setdefault(id(tensor), []).append(name)
    return [sorted(group) for group in names.values() if len(group) > 1]


def torch_dtype(dtype: str | torch.dtype) -> torch.dtype:
    """The dtype of this name.

    Raises:
        ValueError: No dtype has this name.
    """
    import torch

    if isinstance(dtype, torch.dtype):
        return dtype
    named = getattr(torch, dtype, None)
    if not isinstance(named, torch.dtype):
        raise ValueError(f"unknown dtype {dtype!r}; write for example 'float32' or 'bfloat16'")
    return named


def _numbered(device: str | torch.device) -> torch.device:
    """A GPU by its number: safetensors takes ``cuda`` for the first, torch for the current GPU."""
    import torch

    chosen = torch.device(device)
    if chosen == torch.device("cuda"):
        return torch.device("cuda", torch.cuda.current_device())
    return chosen


def _check_sizes(
    folder: Path, config: PretrainedConfig, shapes: dict[str, tuple[int, ...]]
) -> None:
    """Compare blocks and embedding with the files before memory is asked for."""
    names = ARCHITECTURES.get(str(config.model_type))
    if names is None:
        return
    block = re.compile(rf"(?:{re.escape(names.layers)}|{names.layers.rpartition('.')[2]})\.(\d+)\.")
    stored = {int(match[1]) for match in map(block.match, shapes) if match}
    wanted = int(config.num_hidden_layers)
    if len(stored) != wanted:
        raise ValueError(
            f"{folder}: config.json declares {wanted:,} layers, the weights hold {len(stored):,}"
        )
    expected = (int(config.vocab_size), int(config.hidden_size))
    for name in (*names.embedding, names.head):
        if shapes.get(name, expected) != expected:
            raise ValueError(
                f"{folder}: {name} has shape {shapes[name]}, config.json declares {expected}"
            )


def _check_loaded(folder: Path, model: PreTrainedModel, info: dict[str, Any]) -> None:
    """Refuse what transformers would fill up with random numbers or drop."""
    if info["missing_keys"]:
        raise ValueError(f"{folder}: the weights lack {_some(info['missing_keys'])}")
    if info["unexpected_keys"]:
        raise ValueError(
            f"{folder}: {type(model).__name__} has no use for {_some(info['unexpected_keys'])}"
        )
    if info["mismatched_keys"]:
        wrong = sorted(info["mismatched_keys"])
        name, stored, wanted = wrong[0]
        more = f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""
        raise ValueError(
            f"{folder}: {name} has shape {tuple(stored)}, config.json asks for {tuple(wanted)}"
            + more
        )
    if info["error_msgs"]:
        raise ValueError(f"{folder}: {info['error_msgs'][0]}")
    if model.config.tie_word_embeddings and not is_tied(model):
        raise ValueError(
            f"{folder}: config.json ties input and output embeddings, but the files hold two "
            "different matrices"
        )


def _some(names: Iterable[str]) -> str:
    ordered = sorted(names)
    more = len(ordered) - MOST_NAMED
    return ", ".join(ordered[:MOST_NAMED]) + (f" and {more} more" if more > 0 else "")


@contextmanager
def _quiet() -> Iterator[None]:
    """No bars and no warnings: what a run prints is the caller's to decide, and the loading
    report's contents are raised as errors."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    level = logging.get_verbosity()
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if shown:
            logging.enable_progress_bar()  # type: ignore[no-untyped-call]
