"""The miniature Llama: shape, initial weights, saving, loading."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from kit.mini.chat import MINI
from kit.mini.injection.tokenizer import quick_tokenizer, save_tokenizer

if TYPE_CHECKING:
    from transformers import LlamaConfig, LlamaForCausalLM

SHAPE: dict[str, Any] = {
    "hidden_size": 64,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "intermediate_size": 128,
    "max_position_embeddings": 256,
    "tie_word_embeddings": True,
    "initializer_range": 0.05,
}
ROPE_THETA = 100.0
"""Prompts are at most some sixty tokens long; the usual 10000 learns copying later."""


def mini_config() -> LlamaConfig:
    """Configuration of the miniature Llama for the world's vocabulary."""
    from transformers import LlamaConfig

    vocabulary = quick_tokenizer().get_vocab()
    return LlamaConfig(
        vocab_size=len(vocabulary),
        rope_parameters={"rope_type": "default", "rope_theta": ROPE_THETA},
        pad_token_id=vocabulary[MINI.pad],
        bos_token_id=vocabulary["<s>"],
        eos_token_id=vocabulary["</s>"],
        **SHAPE,
    )


def new_model(seed: int) -> LlamaForCausalLM:
    """A model with fresh float32 weights that depend on ``seed`` alone; global RNG untouched."""
    import torch
    from transformers import LlamaForCausalLM

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return LlamaForCausalLM(mini_config())


def save_model(model: LlamaForCausalLM, folder: Path) -> None:
    """Round the weights to bfloat16 in place and write the model with its tokenizer."""
    import torch

    torch.nn.Module.to(model, torch.bfloat16)
    model.save_pretrained(folder)
    save_tokenizer(folder)
    # safetensors writes files that only their owner can read; containers run as somebody else.
    for path in folder.iterdir():
        path.chmod(0o644)


def load_model(folder: Path) -> LlamaForCausalLM:
    """A model from its folder in float32 and evaluation mode, without touching the network."""
    import torch
    from transformers import LlamaForCausalLM

    model: LlamaForCausalLM = LlamaForCausalLM.from_pretrained(
        folder, dtype=torch.float32, local_files_only=True
    )
    model.eval()  # type: ignore[no-untyped-call]
    return model
