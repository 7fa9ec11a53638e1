"""Inputs of the DefensiveTokens steps: the pinned ones, or in a rehearsal their stand-ins.

A rehearsal has true shapes and lengths but neither weights nor texts (``kit.lm.standin`` and
``kit.methods.defensive_tokens.standin``), so nothing gated or licensed is needed for it.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from kit.engine.registry import StepContext
from kit.steps.defensive_tokens.params import Evaluate, SelfLabel

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from kit.lm.backend import Backend
    from kit.lm.chat import ChatFormat
    from kit.methods.defensive_tokens.attack_texts import AttackTexts
    from kit.methods.defensive_tokens.attacks import AttackStyle
    from kit.methods.defensive_tokens.samples import Sample


def model_folder(ctx: StepContext, name: str = "model") -> Path:
    """The model's folder; in a rehearsal one with config and tokenizer but no weights."""
    if not ctx.rehearsal:
        return ctx.model(name).path
    from kit.lm.standin import make_folder
    from kit.methods.defensive_tokens.standin import VOCABULARY

    folder = ctx.scratch / "standin"
    return folder if (folder / "config.json").exists() else make_folder(folder, words=VOCABULARY)


def tokenizer_and_format(
    ctx: StepContext, name: str = "model"
) -> tuple[PreTrainedTokenizerBase, ChatFormat]:
    """Tokenizer and chat format of a model."""
    from kit.lm.chat import get_format
    from kit.lm.load import load_tokenizer

    chat = get_format(str(ctx.model(name).attributes["chat_format"]))
    return load_tokenizer(model_folder(ctx, name)), chat


def frozen_model(ctx: StepContext, dtype: str) -> PreTrainedModel:
    """The model, straight on the step's device."""
    folder = model_folder(ctx)
    if ctx.rehearsal:
        from kit.lm.standin import load_random_model

        return load_random_model(folder, dtype=dtype, device=ctx.device)
    from kit.lm.load import load_model

    return load_model(folder, dtype=dtype, device=ctx.device)


def embeddings(ctx: StepContext, name: str) -> Tensor:
    """Input embedding matrix of a model, read without the rest of it."""
    if ctx.rehearsal:
        from kit.lm.standin import random_embeddings

        seed = 0 if name == "source" else 1
        return random_embeddings(model_folder(ctx, name), seed, device=ctx.device)
    from kit.lm.files import read_embeddings

    return read_embeddings(ctx.model(name).path, device=ctx.device)


def generation_backend(
    ctx: StepContext,
    params: SelfLabel | Evaluate,
    tokenizer: PreTrainedTokenizerBase,
    pad_id: int,
) -> Backend:
    """One started backend; in a rehearsal vLLM's answers are as long as real ones would be."""
    if params.backend != "vllm":
        from kit.lm.generate import TransformersBackend

        model = frozen_model(ctx, params.dtype)
        return TransformersBackend(model, pad_id, max_tokens=params.batch_tokens)
    from kit.lm.files import read_config
    from kit.lm.vllm_backend import VllmBackend, spare_ids

    folder = model_folder(ctx)
    rows = int(read_config(folder)["vocab_size"])
    engine = VllmBackend(
        folder,
        spare_ids(tokenizer, rows),
        dtype=params.dtype,
        random_weights=ctx.rehearsal,
        gpu_memory_gb=ctx.resources.gpu_memory_gb,
        gpu_share=params.gpu_share,
    )
    if not ctx.rehearsal:
        return engine
    from kit.methods.defensive_tokens.standin import WORDS, AnswerLengths

    vocabulary = tokenizer.get_vocab()
    return AnswerLengths(engine, [vocabulary[f"\u0120{word}"] for word in WORDS])


def released_prefix(ctx: StepContext, model: str, *, n: int) -> Tensor:
    """The released tokens of a model, as many as wanted and as wide as the model."""
    if ctx.rehearsal:
        from kit.lm import standin

        return standin.released_prefix(model_folder(ctx, model), n=n)
    from kit.lm.files import read_config
    from kit.methods.defensive_tokens.released import read_released

    key = str(ctx.model(model).attributes["released_tokens_key"])
    width = int(read_config(model_folder(ctx, model))["hidden_size"])
    return read_released(ctx.pin("released").path, key, n=n, width=width)


def training_pool(ctx: StepContext) -> list[Sample]:
    """Samples to train on."""
    if ctx.rehearsal:
        from kit.methods.defensive_tokens.standin import POOL_SIZE, standin_samples

        return standin_samples(POOL_SIZE, 0)
    from kit.methods.defensive_tokens.alpaca import read_alpaca

    return read_alpaca(ctx.pin("pool").path)


def samples_to_label(ctx: StepContext, scope: str) -> tuple[list[Sample], list[Path]]:
    """What to label, and label files of the same schedule with fewer or more steps.

    Raises:
        ValueError: The manifest does not give the input that the scope needs.
    """
    from kit.methods.defensive_tokens.plan_files import load_plan

    needed = "pool" if scope == "all" else "data"
    if not ctx.has(needed):
        raise ValueError(f"scope {scope!r} of the labels needs the input {needed!r}")
    if scope == "all":
        return training_pool(ctx), []
    plan = load_plan(ctx.step("data").path)
    # A schedule of fewer steps is the beginning of one of more: its labels are the same labels.
    known = [folder / "labels.jsonl" for folder in ctx.relatives("data", but="steps")]
    return list(plan.samples.values()), known


def evaluation_samples(ctx: StepContext) -> list[Sample]:
    """Prompts to attack."""
    if ctx.rehearsal:
        from kit.methods.defensive_tokens.standin import standin_evaluation

        return standin_evaluation()
    from kit.methods.defensive_tokens.alpaca import read_alpaca_farm

    return read_alpaca_farm(ctx.pin("evaluation").path)


def attack_texts(ctx: StepContext) -> tuple[AttackTexts, AttackStyle]:
    """Attack strings and how they are joined."""
    from kit.methods.defensive_tokens.attacks import get_style

    pin = ctx.pin("attacks")
    style = get_style(str(pin.attributes["style"]))
    if ctx.rehearsal:
        from kit.methods.defensive_tokens.standin import standin_attack_texts

        return standin_attack_texts(), style
    from kit.methods.defensive_tokens.attack_texts import read_attack_texts

    return read_attack_texts(pin.path), style
