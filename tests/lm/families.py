"""Tiny randomly initialised models of many architectures, with the features that bite."""

from __future__ import annotations

from typing import Any

import torch
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, PreTrainedModel

from kit.lm.load import default_attention

VOCABULARY = 64
LAYERS = 3
WINDOW = 8
_SHAPE: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 4,
    "max_position_embeddings": 128,
    "initializer_range": 0.1,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
    "tie_word_embeddings": False,
}
_GROUPED = _SHAPE | {"num_key_value_heads": 2}
# The attributes beside the shape are those that a forward pass of our own would have to repeat.
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", _GROUPED),
    # Falcon 3: heads wider than the model's width divided by their number.
    "falcon3": ("llama", _GROUPED | {"head_dim": 16, "rope_theta": 1000042}),
    "llama-tied": ("llama", _GROUPED | {"tie_word_embeddings": True}),
    "qwen2": ("qwen2", _GROUPED),
    "qwen2-window": (
        "qwen2",
        _GROUPED | {"use_sliding_window": True, "sliding_window": WINDOW, "max_window_layers": 1},
    ),
    "qwen3": ("qwen3", _GROUPED | {"head_dim": 8}),
    "mistral": ("mistral", _GROUPED | {"sliding_window": None}),
    "mistral-window": ("mistral", _GROUPED | {"sliding_window": WINDOW}),
    "gemma2": (
        "gemma2",
        _GROUPED
        | {
            "head_dim": 8,
            "sliding_window": WINDOW,
            "attn_logit_softcapping": 5.0,
            "final_logit_softcapping": 3.0,
            "tie_word_embeddings": True,
        },
    ),
    "granite": (
        "granite",
        _GROUPED
        | {
            "logits_scaling": 4.0,
            "embedding_multiplier": 3.0,
            "attention_multiplier": 0.2,
            "residual_multiplier": 0.5,
        },
    ),
    "cohere": ("cohere", _GROUPED | {"logit_scale": 0.0625, "tie_word_embeddings": True}),
    "gpt_neox": ("gpt_neox", _SHAPE),
    "gpt2": (
        "gpt2",
        {
            "vocab_size": VOCABULARY,
            "n_embd": 32,
            "n_layer": LAYERS,
            "n_head": 4,
            "n_positions": 128,
            "initializer_range": 0.1,
            "bos_token_id": 1,
            "eos_token_id": 2,
        },
    ),
    "falcon": (
        "falcon",
        {
            "vocab_size": VOCABULARY,
            "hidden_size": 32,
            "num_hidden_layers": LAYERS,
            "num_attention_heads": 4,
            "initializer_range": 0.1,
            "bos_token_id": 1,
            "eos_token_id": 2,
        },
    ),
}


def tiny(name: str, *, seed: int = 0, **changes: Any) -> PreTrainedModel:
    """A frozen model in evaluation mode; every norm and bias is random too, so that none hides."""
    model_type, values = FAMILIES[name]
    config = CONFIG_MAPPING[model_type](**{**values, **changes})
    torch.manual_seed(seed)
    attention = default_attention(config)
    model = AutoModelForCausalLM.from_config(config, attn_implementation=attention).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(torch.randn_like(parameter) * 0.1)
    return model.requires_grad_(False)
