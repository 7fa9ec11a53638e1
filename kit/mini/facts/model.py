"""The model of this world: its shape, first weights, tokenizer."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from kit.mini.facts.vocabulary import SPECIALS, UNKNOWN, words
from kit.mini.tokenizer import word_tokenizer

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerFast

LLAMA, GPT_NEOX = "llama", "gpt-neox"
ARCHITECTURES = (LLAMA, GPT_NEOX)
INITIAL_STD = 0.05
"""Of the weights inside the blocks. The usual 0.02 learns later, 0.09 never well."""


@dataclass(frozen=True)
class Shape:
    """Size and kind of a model; the default has 714,368 parameters.

    Attributes:
        architecture: ``llama`` or ``gpt-neox`` (parallel attention and MLP, biases, LayerNorm).
        width: Of the residual stream.
        layers: Number of blocks.
        heads: Attention heads of a block.
        feed_forward: Width inside the MLP.
    """

    architecture: str = LLAMA
    width: int = 128
    layers: int = 4
    heads: int = 4
    feed_forward: int = 256

    def __post_init__(self) -> None:
        """Refuse a shape that no model has."""
        if self.architecture not in ARCHITECTURES:
            raise ValueError(
                f"unknown architecture {self.architecture!r}; known: {', '.join(ARCHITECTURES)}"
            )
        if min(self.width, self.layers, self.heads, self.feed_forward) < 1:
            raise ValueError(f"every size of a model is at least 1: {self}")
        if self.width % (2 * self.heads):
            raise ValueError(f"{self.heads} heads of even width do not fit a width of {self.width}")


@cache
def vocabulary() -> dict[str, int]:
    """Word or control token -> id."""
    return {word: index for index, word in enumerate([*words(), *SPECIALS])}


def build_tokenizer() -> PreTrainedTokenizerFast:
    """The world's tokenizer; it adds no token by itself."""
    return word_tokenizer(words(), UNKNOWN, SPECIALS)


def config(shape: Shape) -> PretrainedConfig:
    """The configuration of a shape, for this vocabulary; embeddings are not tied."""
    from transformers import GPTNeoXConfig, LlamaConfig

    ids = vocabulary()
    common: dict[str, Any] = {
        "vocab_size": len(ids),
        "hidden_size": shape.width,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "intermediate_size": shape.feed_forward,
        "max_position_embeddings": 64,
        "initializer_range": INITIAL_STD,
        "tie_word_embeddings": False,
        "pad_token_id": ids["<pad>"],
        "bos_token_id": ids["<s>"],
        "eos_token_id": ids["</s>"],
    }
    if shape.architecture == GPT_NEOX:
        return GPTNeoXConfig(**common)
    return LlamaConfig(num_key_value_heads=shape.heads, **common)


def new_model(shape: Shape, seed: int) -> PreTrainedModel:
    """A model with fresh float32 weights; what is trained requires a gradient.

    Input and output embeddings are random and frozen. A tiny model would store facts in them: then
    the state of a model that never saw a fact, read by the output embeddings of one that did,
    answers six questions in ten, and unlearning that restores such states cannot go further
    (docs/mini-world.md).

    Args:
        shape: Size and architecture.
        seed: Decides the weights alone; the global random state is not touched.
    """
    import torch
    from transformers import AutoModelForCausalLM

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model: Any = AutoModelForCausalLM.from_config(config(shape))  # type: ignore[no-untyped-call]
        for embeddings in (model.get_input_embeddings(), model.get_output_embeddings()):
            torch.nn.init.normal_(embeddings.weight, std=shape.width**-0.5)
            embeddings.weight.requires_grad_(False)
    trained: PreTrainedModel = model
    return trained
