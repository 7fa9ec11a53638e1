"""What the parts of a causal language model are called, by architecture.

Modules are reached by the names of the model classes in transformers, tensors by the names in the
files, which for GPT-NeoX are not the same: its classes say ``lm_head`` and its files
``embed_out``.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Architecture:
    """The names of one model type.

    Attributes:
        embedding: Names that the input embedding matrix can have in a file.
        head: Name of the output matrix in a file; absent there when it is tied to the input.
        layers: Path of the list of decoder blocks below the causal language model.
        norm: Path of the norm behind the last block.
    """

    embedding: tuple[str, ...]
    head: str
    layers: str
    norm: str


_LLAMA = Architecture(
    embedding=("model.embed_tokens.weight",),
    head="lm_head.weight",
    layers="model.layers",
    norm="model.norm",
)
_GPT_NEOX = Architecture(
    embedding=("gpt_neox.embed_in.weight",),
    head="embed_out.weight",
    layers="gpt_neox.layers",
    norm="gpt_neox.final_layer_norm",
)
# The files of the first GPT-2 leave the name of the outer module out.
_GPT2 = Architecture(
    embedding=("transformer.wte.weight", "wte.weight"),
    head="lm_head.weight",
    layers="transformer.h",
    norm="transformer.ln_f",
)
_FALCON = Architecture(
    embedding=("transformer.word_embeddings.weight",),
    head="lm_head.weight",
    layers="transformer.h",
    norm="transformer.ln_f",
)

# Falcon 3 is of type "llama"; "falcon" is the older architecture.
ARCHITECTURES: dict[str, Architecture] = {
    "llama": _LLAMA,
    "mistral": _LLAMA,
    "qwen2": _LLAMA,
    "qwen3": _LLAMA,
    "gemma2": _LLAMA,
    "granite": _LLAMA,
    "cohere": _LLAMA,
    "gpt_neox": _GPT_NEOX,
    "gpt2": _GPT2,
    "falcon": _FALCON,
}


def architecture(model_type: str) -> Architecture:
    """The names of a model type (``model_type`` of its ``config.json``).

    Raises:
        ValueError: A type that the table lacks; the message lists the known types.
    """
    try:
        return ARCHITECTURES[model_type]
    except KeyError:
        raise ValueError(
            f"the parts of a model of type {model_type!r} are not known by name; known types: "
            f"{', '.join(ARCHITECTURES)} (kit/lm/architectures.py)"
        ) from None
