"""What several steps of the family read."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from kit.engine.context import StepContext
from kit.engine.registry import ModelInput
from kit.steps import common
from kit.steps.common import pinned_files

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedTokenizerBase

    from kit.evals.sets import StoredQuestion
    from kit.methods.checkpoint_transfer.affine import AffineMap


def tokenizer_of(ctx: StepContext, model: ModelInput) -> PreTrainedTokenizerBase:
    """The model's tokenizer; in a rehearsal one that knows the words of the stand-in texts."""
    if not ctx.rehearsal:
        return common.tokenizer_of(ctx, model)
    from kit.methods.checkpoint_transfer.standin import WORDS

    return common.tokenizer_of(ctx, model, words=WORDS)


def encoder(tokenizer: PreTrainedTokenizerBase) -> Callable[[str], list[int]]:
    """Text to token ids, without control tokens."""

    def encode(text: str) -> list[int]:
        ids: Any = tokenizer.encode(text, add_special_tokens=False)
        return list(ids)

    return encode


def pad_of(tokenizer: PreTrainedTokenizerBase) -> int:
    """The id that fills batches; the end of a text where there is none, as in the published code.

    Raises:
        ValueError: Neither.
    """
    for id in (tokenizer.pad_token_id, tokenizer.eos_token_id):
        if isinstance(id, int):
            return id
    raise ValueError("the tokenizer has neither a pad token nor an end-of-text token")


def padded(
    rows: list[list[int]], size: int, pad_id: int, device: str
) -> list[tuple[Tensor, Tensor]]:
    """Batches of ids [B, T] and mask [B, T]."""
    from kit.methods.checkpoint_transfer.pairs import Pairs

    pairs = Pairs(rows, rows, pad_id, device)
    starts = range(0, len(rows), size)
    return [pairs.batch("forget", range(s, min(s + size, len(rows)))) for s in starts]


def questions_of(ctx: StepContext, name: str) -> list[StoredQuestion]:
    """A set of questions, of a miniature world or of the published sets.

    Raises:
        ValueError: The manifest gives neither or both.
    """
    from kit.evals.sets import read_questions

    given = [input for input in ("questions", "published") if ctx.has(input)]
    if len(given) != 1:
        raise ValueError("give the questions of a world or the published ones, not both")
    return read_questions(ctx.step(given[0]).path, name)


def documents_of(
    ctx: StepContext, pin: str, fields: list[str], *, number: int, words: int
) -> list[str]:
    """Documents of a pinned data set; in a rehearsal stand-ins of the longest length.

    Args:
        ctx: Of the step.
        pin: Name of the input.
        fields: Columns that make up a document.
        number: Stand-ins to make.
        words: Of each stand-in.
    """
    if ctx.rehearsal:
        from kit.methods.checkpoint_transfer.standin import standin_documents

        return standin_documents(number, words, pin)
    from kit.methods.checkpoint_transfer.texts import read_documents

    return read_documents(pinned_files(ctx.pin(pin).path), fields)


def maps_of(ctx: StepContext) -> dict[int, AffineMap] | None:
    """Affine maps by block: fitted by a step, or published ones by pin; ``None`` without either.

    Raises:
        ValueError: The manifest gives both, or files that hold no maps.
    """
    from kit.methods.checkpoint_transfer.affine_files import load_maps

    if ctx.has("maps") and ctx.has("published_maps"):
        raise ValueError("give fitted maps or published ones, not both")
    if ctx.has("published_maps"):
        return load_maps(ctx.pin("published_maps").path)
    return load_maps(ctx.step("maps").path / "maps") if ctx.has("maps") else None
