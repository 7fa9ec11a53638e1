"""The two parts of a causal language model that prefixes touch, with their types."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel


def embedding_matrix(model: PreTrainedModel) -> Tensor:
    """The input embedding matrix, [V, d]."""
    return cast("Tensor", model.get_input_embeddings().weight)


def vocabulary_rows(model: PreTrainedModel) -> int:
    """V, the rows of the input embedding matrix; prefix slots are the ids from here on."""
    return int(embedding_matrix(model).shape[0])
