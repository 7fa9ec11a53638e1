"""Scores by the model's own forward pass, and what a shorter way would leave out.

Some architectures do more between embedding and scores than "blocks, norm, output matrix": they
scale or cap the scores, or let attention see a window only. Code that calls the output layer itself
or brings its own attention mask is then wrong without a word (losses were off by 0.17 on Mistral,
0.5 on Gemma 2, 0.9 on Granite, 3.7 on Cohere). So everything in ``lm`` calls the model, and whoever
must take a shorter way asks :func:`unlike_plain_head` or :func:`unlike_plain_attention` first.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

import torch

from kit.lm.model import inner_model

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PretrainedConfig, PreTrainedModel

# Types whose classes were compared with the short way (tests/lm/test_forward.py).
PLAIN_HEAD = ("llama", "mistral", "qwen2", "qwen3", "gpt_neox", "gpt2", "falcon")
# Of these, the types without positions or biases outside the rotary embedding.
PLAIN_ATTENTION = ("llama", "mistral", "qwen2", "qwen3", "gpt_neox")
_SCORE_CHANGES = ("final_logit_softcapping", "logits_scaling", "logit_scale")


def last_scores(model: PreTrainedModel, count: int, **inputs: Any) -> Tensor:
    """Scores of the last columns of a batch, by the model's own forward pass.

    Args:
        model: A causal language model.
        count: Columns, from the right.
        inputs: Arguments of the model's ``forward``.

    Returns:
        [B, count, V] in the dtype that the model gives.
    """
    if "logits_to_keep" in inspect.signature(inner_model(model).forward).parameters:
        # As a tensor, because the copy that it makes is multiplied like a plain matrix.
        batch = inputs["inputs_embeds" if "inputs_embeds" in inputs else "input_ids"]
        inputs["logits_to_keep"] = torch.arange(
            batch.shape[1] - count, batch.shape[1], device=batch.device
        )
    return model(**inputs).logits[:, -count:]  # type: ignore[no-any-return]


def unlike_plain_head(config: PretrainedConfig) -> str | None:
    """Why scores are not simply the output matrix times the normed states of the decoder.

    ``None`` means that ``head(decoder(...).last_hidden_state)`` equals ``model(...).logits``, where
    the two come from ``model.get_output_embeddings()`` and :func:`kit.lm.model.decoder`.

    Returns:
        A sentence for an error message, or ``None``.
    """
    for name in _SCORE_CHANGES:
        value = getattr(config, name, None)
        if value not in (None, 1.0):
            return f"models of type {config.model_type!r} change their scores ({name}: {value})"
    if config.model_type not in PLAIN_HEAD:
        return f"models of type {config.model_type!r} were not compared with the plain output layer"
    return None


def unlike_plain_attention(config: PretrainedConfig) -> str | None:
    """Why a packed row with its own mask and position ids would not equal separate rows.

    ``None`` means: every token sees all tokens before it that the mask lets through, and the
    position ids are all that attention knows of positions.

    Returns:
        A sentence for an error message, or ``None``.
    """
    windows = getattr(config, "layer_types", None) or ()
    if any(kind != "full_attention" for kind in windows) or slides(config):
        size = getattr(config, "sliding_window", None)
        return f"its attention sees a window of {size} tokens only"
    cap = getattr(config, "attn_logit_softcapping", None)
    if cap is not None:
        return f"its attention caps its scores (attn_logit_softcapping: {cap})"
    if config.model_type not in PLAIN_ATTENTION:
        return f"the attention of models of type {config.model_type!r} was not compared"
    return None


def slides(config: PretrainedConfig) -> bool:
    """Whether a window is declared and not switched off."""
    declared = getattr(config, "sliding_window", None) is not None
    return declared and bool(getattr(config, "use_sliding_window", True))
