"""Inputs of the DefensiveTokens steps: the pinned ones, or in a rehearsal their stand-ins.

A rehearsal has true shapes and lengths but neither weights nor texts (:mod:`kit.steps.common` and
``kit.methods.defensive_tokens.standin``), so nothing gated or licensed is needed for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kit.engine.context import StepContext
from kit.errors import InvalidInput
from kit.steps import common
from kit.steps.defensive_tokens.files import SETS
from kit.steps.defensive_tokens.params import Evaluate, PublishedTexts, SelfLabel

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from kit.lm.backend import Backend
    from kit.lm.chat import ChatFormat
    from kit.methods.defensive_tokens.attack_texts import AttackTexts
    from kit.methods.defensive_tokens.attacks import AttackStyle
    from kit.methods.defensive_tokens.samples import Sample

GENERATION = ("device", "dtype", "torch", "transformers", "vllm", "batch_invariant")
"""What may move a number where text is generated."""


SETS_AT_ONCE = 4
"""Token sets that vLLM serves side by side: each needs five unused ids, and each id is banned in
every request, which costs time as well."""


def tokenizer(ctx: StepContext, name: str = "model") -> PreTrainedTokenizerBase:
    """The model's tokenizer; a stand-in's knows the words of the data."""
    return common.tokenizer_of(ctx, ctx.model(name), words=_words(ctx))


def model_folder(ctx: StepContext, name: str = "model") -> Path:
    """The model's folder; in a rehearsal its stand-in's, which knows the words of the data."""
    return common.model_folder(ctx, ctx.model(name), words=_words(ctx))


def tokenizer_and_format(
    ctx: StepContext, name: str = "model"
) -> tuple[PreTrainedTokenizerBase, ChatFormat]:
    """Tokenizer and chat format of a model."""
    return common.tokenizer_and_format(ctx, ctx.model(name), words=_words(ctx))


def frozen_model(ctx: StepContext, dtype: str) -> PreTrainedModel:
    """The model, straight on the step's device."""
    return common.load_model(ctx, ctx.model("model"), dtype)


def embeddings(ctx: StepContext, name: str) -> Tensor:
    """Input embedding matrix of a model, read without the rest of it."""
    return common.input_embeddings(ctx, ctx.model(name), seed=0 if name == "source" else 1)


def generation_backend(
    ctx: StepContext,
    params: SelfLabel | Evaluate | PublishedTexts,
    tokenizer: PreTrainedTokenizerBase,
    pad_id: int,
) -> Backend:
    """A started backend; in a rehearsal its answers are as long as real ones would be."""
    model = ctx.model("model")
    vllm = params.backend == "vllm"
    backend: Backend
    if vllm:
        backend = common.vllm_backend(
            ctx,
            model,
            dtype=params.dtype,
            gpu_share=params.gpu_share,
            prefix_of=tokenizer,
            sets=SETS_AT_ONCE if isinstance(params, Evaluate) else 1,
            # The attacks on an item begin alike; labelled samples have little in common.
            prefix_caching=isinstance(params, Evaluate),
            model_beside=isinstance(params, Evaluate) and params.output_rows,
            words=_words(ctx),
        )
    else:
        backend = common.transformers_backend(
            ctx, model, dtype=params.dtype, pad_id=pad_id, batch_tokens=params.batch_tokens
        )
    if not ctx.rehearsal:
        return backend
    from kit.methods.defensive_tokens.standin import WORDS, AnswerLengths

    vocabulary = tokenizer.get_vocab()
    words = [vocabulary[f"\u0120{word}"] for word in WORDS]
    return AnswerLengths(backend, words, cut=not vllm)


def engine(
    ctx: StepContext, params: SelfLabel | Evaluate
) -> tuple[PreTrainedTokenizerBase, ChatFormat, Backend]:
    """Tokenizer, chat format and started backend, made ahead or now."""
    made: tuple[PreTrainedTokenizerBase, ChatFormat, Backend]
    made = ctx.made("engine", lambda: _engine(ctx, params))
    return made


def engine_ahead(ctx: StepContext, params: SelfLabel | Evaluate) -> dict[str, Any]:
    """What :func:`engine` gives (:attr:`kit.engine.registry.StepKind.ahead`)."""
    return {"engine": _engine(ctx, params)}


def _engine(
    ctx: StepContext, params: SelfLabel | Evaluate
) -> tuple[PreTrainedTokenizerBase, ChatFormat, Backend]:
    tokenizer, chat = tokenizer_and_format(ctx)
    return tokenizer, chat, generation_backend(ctx, params, tokenizer, chat.pad_id(tokenizer))


def full_prefix(ctx: StepContext, name: str, *, n: int, trained: str) -> Tensor:
    """A model's own tokens: what a training of the kit made, or else the released ones.

    Args:
        ctx: Of the step.
        name: Of the model input.
        n: How many are wanted; they are as wide as the model.
        trained: Name of the input that is such a training.

    Raises:
        InvalidInput: No training is given and none were released, or the training kept several
            checkpoints.
    """
    from kit.lm.files import read_config

    width = int(read_config(model_folder(ctx, name))["hidden_size"])
    if ctx.has(trained):
        from kit.methods.defensive_tokens.prefix_sets import load_sets
        from kit.methods.defensive_tokens.released import check_prefix

        sets = load_sets(ctx.step(trained).path / SETS)
        if len(sets) != 1:
            raise InvalidInput(
                f"input {trained!r} has {len(sets)} token sets, and which is meant is not said: "
                + ", ".join(sets),
                next_step="keep a single checkpoint of that training",
            )
        (prefix,) = sets.values()
        check_prefix(prefix, n=n, width=width, where=f"input {trained!r}")
        return prefix
    if ctx.rehearsal:
        from kit.methods.defensive_tokens.standin import released_prefix

        return released_prefix(width, n=n)
    from kit.methods.defensive_tokens.released import read_released

    model = ctx.model(name)
    if "released_tokens_key" not in model.attributes or not ctx.has("released"):
        raise InvalidInput(
            f"no tokens were released for the model {model.id}, as far as its pin says",
            next_step="leave 'native' out of the defences; give the input 'released' and the "
            f"attribute `released_tokens_key`; or train them and give the step as {trained!r}",
        )
    key = str(model.attributes["released_tokens_key"])
    return read_released(ctx.pin("released").path, key, n=n, width=width)


def _words(ctx: StepContext) -> Sequence[str]:
    if not ctx.rehearsal:
        return ()
    from kit.methods.defensive_tokens.standin import VOCABULARY

    return VOCABULARY


def training_pool(ctx: StepContext) -> list[Sample]:
    """Samples to train on, in the order of the pin's rows.

    Raises:
        ValueError: The pin says how many records it has, and has others: every index of a schedule
            would mean another sample.
    """
    if ctx.rehearsal:
        from kit.methods.defensive_tokens.standin import POOL_SIZE, standin_samples

        return standin_samples(POOL_SIZE, 0)
    from kit.methods.defensive_tokens.alpaca import read_alpaca

    pin = ctx.pin("pool")
    samples = read_alpaca(pin.path)
    said = pin.attributes.get("records")
    if said is not None and said != len(samples):
        raise ValueError(f"{pin.id} has {len(samples):,} records; its pin says {said:,}")
    return samples


def reference_answers(ctx: StepContext) -> dict[str, str]:
    """Instruction -> answer of another data set, for the baits of ``struq``; empty without it.

    Of several rows with one instruction the last counts, as in StruQ's code.
    """
    if ctx.rehearsal or not ctx.has("references"):
        return {}
    from kit.methods.defensive_tokens.alpaca import read_alpaca

    return {row.instruction: row.output for row in read_alpaca(ctx.pin("references").path)}


def samples_to_label(ctx: StepContext, scope: str) -> list[Sample]:
    """What to label: every sample, or those that the training schedule consumes.

    Raises:
        ValueError: The manifest does not give the input that the scope needs.
    """
    from kit.methods.defensive_tokens.plan_files import load_plan

    needed = "pool" if scope == "all" else "data"
    if not ctx.has(needed):
        raise ValueError(f"scope {scope!r} of the labels needs the input {needed!r}")
    if scope == "all":
        return training_pool(ctx)
    return list(load_plan(ctx.step("data").path).samples.values())


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
    if "style" not in pin.attributes:
        raise InvalidInput(
            f"the pin {pin.id} declares no style",
            next_step="add `style: paper` (or mini) to its attributes",
        )
    style = get_style(str(pin.attributes["style"]))
    if ctx.rehearsal:
        from kit.methods.defensive_tokens.standin import standin_attack_texts

        return standin_attack_texts(), style
    from kit.methods.defensive_tokens.attack_texts import read_attack_texts

    return read_attack_texts(pin.path), style
