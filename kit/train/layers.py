"""Decoder layers that are compiled, or computed again in the backward pass."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, cast

import torch
from torch.utils.checkpoint import checkpoint

from kit.lm.model import decoder_layers

if TYPE_CHECKING:
    from torch import nn


def prepare_layers(model: nn.Module, *, compiled: bool, checkpointing: bool) -> None:
    """Change what decoder layers do, inside of what a library hooks onto them.

    Args:
        model: A causal language model of transformers.
        compiled: Each layer is compiled as a whole.
        checkpointing: Layers keep their inputs only, and run again for their backward pass.
    """
    for layer in decoder_layers(cast("Any", model)):
        forward = torch.compile(layer.forward) if compiled else layer.forward
        if checkpointing:
            forward = partial(checkpoint, forward, use_reentrant=False)
        if compiled or checkpointing:
            layer.forward = forward
