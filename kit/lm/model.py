"""The parts of a causal language model, with their types.

All functions take a model of transformers or the same model with peft's adapters inside.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from kit.lm.architectures import Architecture, architecture

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import PreTrainedModel


def embedding_matrix(model: PreTrainedModel) -> Tensor:
    """The input embedding matrix, [V, d]."""
    return cast("Tensor", model.get_input_embeddings().weight)


def vocabulary_rows(model: PreTrainedModel) -> int:
    """V, the rows of the input embedding matrix; prefix slots are the ids from here on."""
    return int(embedding_matrix(model).shape[0])


def output_matrix(model: PreTrainedModel) -> Tensor:
    """The output matrix, [V, d]; the very tensor of the input embeddings where they are tied."""
    return cast("Tensor", model.get_output_embeddings().weight)  # type: ignore[no-untyped-call]


def output_rows(model: PreTrainedModel) -> int:
    """Rows of the output matrix: how many tokens have a score."""
    return int(output_matrix(model).shape[0])


def is_tied(model: PreTrainedModel) -> bool:
    """Whether input and output embeddings are one tensor."""
    return output_matrix(model) is embedding_matrix(model)


def inner_model(model: PreTrainedModel) -> PreTrainedModel:
    """The model of transformers itself, whatever peft has put around it."""
    unwrap = getattr(model, "get_base_model", None)
    return model if unwrap is None else cast("PreTrainedModel", unwrap())


def names_of(model: PreTrainedModel) -> Architecture:
    """The names of the model's parts.

    Raises:
        ValueError: Its type is not in the table of architectures.
    """
    return architecture(str(inner_model(model).config.model_type))


def decoder(model: PreTrainedModel) -> nn.Module:
    """The model without its output layer: token ids to hidden states."""
    return inner_model(model).base_model


def decoder_layers(model: PreTrainedModel) -> nn.ModuleList:
    """The decoder blocks in order.

    Raises:
        ValueError: Its type is not in the table of architectures.
    """
    return cast("nn.ModuleList", inner_model(model).get_submodule(names_of(model).layers))


def final_norm(model: PreTrainedModel) -> nn.Module:
    """The norm between the last block and the output layer.

    Raises:
        ValueError: Its type is not in the table of architectures.
    """
    return inner_model(model).get_submodule(names_of(model).norm)
