"""What the steps of all families do with a model input: load it, or in a rehearsal stand in for it.

A rehearsal has true shapes but no weights: a pinned model is replaced by random weights in the
shape that its pin declares (``architecture``), so nothing gated is needed. A model that an earlier
step of the rehearsal made is there, and is loaded like any other.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from msgspec import Struct

from kit.engine.context import StepContext
from kit.engine.registry import ModelInput
from kit.errors import InvalidInput

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from kit.lm.chat import ChatFormat
    from kit.lm.generate import TransformersBackend
    from kit.lm.vllm_backend import VllmBackend

Made = TypeVar("Made")
FORMATS = ("kit.methods.defensive_tokens.chat", "kit.mini.chat")
"""Modules that register a chat format when they are imported. A step module of your own registers
its format itself, with ``kit.lm.formats.register_format``."""


BYTES = {"float32": 4, "bfloat16": 2}
"""Of a parameter."""
LIBRARIES = ("torch", "transformers.models.auto.modeling_auto", "transformers.generation.utils")
COMPILER = ("torch._dynamo.backends.inductor", "torch._inductor.compile_fx")


def model_imports(params: Any) -> tuple[str, ...]:
    """What a step that runs a model imports, by its parameters (:attr:`StepKind.imports`)."""
    if getattr(params, "backend", "") == "vllm":
        return ("kit.lm.vllm_modules",)
    compiles = getattr(params, "compile", False) or getattr(params, "compiled", False)
    return LIBRARIES + COMPILER * bool(compiles)


def same_named(params: Struct, settings: type[Any]) -> dict[str, Any]:
    """The parameters that a method's settings (a dataclass) have under the same name.

    Those left open (``None``) are left to the settings' own defaults.
    """
    names = [field.name for field in fields(settings) if hasattr(params, field.name)]
    given = {name: getattr(params, name) for name in names}
    return {n: tuple(v) if isinstance(v, list) else v for n, v in given.items() if v is not None}


def finished(ctx: StepContext, name: str, made: Callable[..., Made], file: str = "") -> list[Made]:
    """The steps of a list input as a family's method takes them; none where it is not given.

    Args:
        ctx: Of the step.
        name: Of the input.
        made: Takes instance, path of the outputs (or of ``file`` among them), and axes.
        file: The one output that is read.
    """
    steps = ctx.steps(name) if ctx.has(name) else []
    return [made(step.instance, step.path / file, step.axes) for step in steps]


def stands_in(ctx: StepContext, model: ModelInput) -> bool:
    """Whether the model has to be replaced: a rehearsal fetches nothing."""
    return ctx.rehearsal and model.pinned


@contextmanager
def _usable(model: ModelInput) -> Iterator[None]:
    """A folder that is no such model is wrong input, not a step that failed on its way."""
    try:
        yield
    except ValueError as error:
        raise InvalidInput(
            f"the model {model.id} cannot be used: {error}",
            next_step="bring a whole folder of this architecture, or fetch the pin again",
        ) from error


def model_folder(ctx: StepContext, model: ModelInput, *, words: Sequence[str] = ()) -> Path:
    """The model's folder; for a stand-in with config and tokenizer but no weights.

    Args:
        ctx: Of the step.
        model: The input.
        words: Words that a stand-in's tokenizer knows as a token each.

    Raises:
        InvalidInput: A rehearsal, and the pin declares no architecture.
    """
    if not stands_in(ctx, model):
        return model.path
    from kit.lm.standin import make_folder, read_shape

    declared: Any = model.attributes.get("architecture")
    if declared is None:
        raise InvalidInput(
            f"the pin {model.id} declares no architecture, so nothing can stand in for it",
            next_step="add `architecture: NAME` to its attributes; the names are in kit/lm/shapes",
        )
    wanted = hashlib.sha256(json.dumps([declared, list(words)]).encode()).hexdigest()[:12]
    folder = ctx.scratch / f"standin-{wanted}"
    # The tokenizer's settings are written last.
    if (folder / "tokenizer_config.json").exists():
        return folder
    return make_folder(folder, read_shape(declared), words=words)


def tokenizer_of(
    ctx: StepContext, model: ModelInput, *, words: Sequence[str] = ()
) -> PreTrainedTokenizerBase:
    """The tokenizer of a model.

    Raises:
        InvalidInput: Its folder has none.
    """
    from kit.lm.load import load_tokenizer

    with _usable(model):
        return load_tokenizer(model_folder(ctx, model, words=words))


def tokenizer_and_format(
    ctx: StepContext, model: ModelInput, *, words: Sequence[str] = ()
) -> tuple[PreTrainedTokenizerBase, ChatFormat]:
    """Tokenizer and chat format of a model.

    Raises:
        InvalidInput: The model declares no chat format.
        ValueError: It declares an unknown or a broken one.
    """
    from kit.lm.formats import declared_format

    for module in FORMATS:
        import_module(module)
    declared: Any = model.attributes.get("chat_format")
    if declared is None:
        raise InvalidInput(
            f"the model {model.id} declares no chat format",
            next_step="add `chat_format` to the attributes of its pin",
        )
    tokenizer = tokenizer_of(ctx, model, words=words)
    return tokenizer, declared_format(_plain(declared), tokenizer)


def load_model(
    ctx: StepContext, model: ModelInput, dtype: str, *, trainable: bool = False
) -> PreTrainedModel:
    """The model, straight on the step's device."""
    if stands_in(ctx, model):
        from kit.lm.standin import load_random_model

        folder = model_folder(ctx, model)
        return load_random_model(folder, dtype=dtype, device=ctx.device, trainable=trainable)
    from kit.lm.load import load_model, tied_weights

    with _usable(model):
        loaded = load_model(model.path, dtype=dtype, device=ctx.device, trainable=trainable)
    for names in tied_weights(loaded):
        ctx.note(f"model {model.id}: {' and '.join(names)} are a single matrix, stored once")
    return loaded


def input_embeddings(ctx: StepContext, model: ModelInput, *, seed: int = 0) -> Tensor:
    """Input embedding matrix of a model, read without the rest of it.

    Args:
        ctx: Of the step.
        model: The input.
        seed: Of a stand-in: those of two seeds resemble each other.
    """
    if stands_in(ctx, model):
        from kit.lm.standin import random_embeddings

        return random_embeddings(model_folder(ctx, model), seed, device=ctx.device)
    from kit.lm.files import read_embeddings

    with _usable(model):
        return read_embeddings(model.path, device=ctx.device)


def transformers_backend(
    ctx: StepContext, model: ModelInput, *, dtype: str, pad_id: int, batch_tokens: int
) -> TransformersBackend:
    """The model behind the backend interface, in this process.

    A batch has at least room for 128 prompts; more where ``batch_tokens`` is large.
    """
    from kit.lm.generate import TransformersBackend

    rows = max(128, batch_tokens // 128)
    loaded = load_model(ctx, model, dtype)
    return TransformersBackend(loaded, pad_id, max_batch=rows, max_tokens=batch_tokens)


def vllm_backend(
    ctx: StepContext,
    model: ModelInput,
    *,
    dtype: str,
    gpu_share: float,
    prefix_of: PreTrainedTokenizerBase | None = None,
    sets: int = 1,
    prefix_caching: bool = False,
    model_beside: bool = False,
    words: Sequence[str] = (),
) -> VllmBackend:
    """A started vLLM engine, within the GPU memory that the plan gives the step.

    Args:
        ctx: Of the step.
        model: The input.
        dtype: Of weights and arithmetic.
        gpu_share: Most of the GPU's memory that the engine takes, as a share.
        prefix_of: The model's tokenizer, where prefixes are to be served.
        sets: Prefixes of five vectors that are served side by side, where the vocabulary has the
            unused ids for so many.
        prefix_caching: Prompts that begin alike share the keys and values of their beginnings.
        model_beside: Leave room for the weights a second time, for the step to load itself.
        words: See :func:`model_folder`.
    """
    from kit.lm.files import read_config
    from kit.lm.vllm_backend import VllmBackend, spare_ids

    folder = model_folder(ctx, model, words=words)
    rows = int(read_config(folder)["vocab_size"])
    parameters: Any = model.attributes.get("parameters")
    weights = None if parameters is None else parameters * BYTES[dtype] / 2**30
    planned = ctx.resources.gpu_memory_gb
    return VllmBackend(
        folder,
        () if prefix_of is None else spare_ids(prefix_of, rows, sets=sets),
        dtype=dtype,
        random_weights=stands_in(ctx, model),
        gpu_memory_gb=planned - weights if model_beside and planned and weights else planned,
        gpu_share=gpu_share,
        weights_gb=weights,
        prefix_caching=prefix_caching,
    )


def _plain(declared: Any) -> str | Mapping[str, Any]:
    return declared if isinstance(declared, Mapping) else str(declared)


def pinned_files(folder: Path) -> list[Path]:
    """Documents of a pinned data set, in the order of their names."""
    kinds = (".parquet", ".jsonl", ".json")
    return sorted(path for path in folder.rglob("*") if path.suffix in kinds)
