"""Decoder layers that are compiled for training."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch

from kit.lm.model import decoder_layers

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@contextmanager
def compiled_layers(model: PreTrainedModel) -> Iterator[None]:
    """Within, layers run compiled where gradients are wanted.

    A layer's ``forward`` is compiled, not its call: hooks on layers, by which hidden states are
    read, stay outside. One graph serves all layers and both losses; texts of another length
    than the first get a second that serves all lengths. What would need more is left
    as it is: passes without gradients, the first layer, whose input asks for none, and layers of
    which nothing is trained.

    Args:
        model: Of transformers, with or without adapters.
    """
    layers = [
        layer
        for layer in list(decoder_layers(model))[1:]
        if any(parameter.requires_grad for parameter in layer.parameters())
    ]
    for layer in layers:
        layer.forward = _where_trained(layer.forward)
    try:
        yield
    finally:
        for layer in layers:
            del layer.forward


def _where_trained(plain: Callable[..., Any]) -> Callable[..., Any]:
    fast = torch.compile(plain)

    def forward(*args: Any, **named: Any) -> Any:
        if not torch.is_grad_enabled():
            return plain(*args, **named)
        # Whether an argument is left out or given as None would be two graphs.
        return fast(*args, **{name: value for name, value in named.items() if value is not None})

    return forward
