"""What a model needs while it is fed packed rows: attention, compilation, checkpointing.

:func:`ready` switches all three on for a while and leaves the model as it was.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import torch
from torch.nn.functional import scaled_dot_product_attention
from torch.utils.checkpoint import checkpoint

from kit.lm.model import decoder_layers

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

ATTENTION = "kit-packed"
# What the variable-length kernel (FlashAttention 2 inside torch) can do.
KERNEL_DTYPES = (torch.bfloat16, torch.float16)


def _kernel() -> Callable[..., Any] | None:
    """``varlen_attn``, causal; its signature moved between torch 2.10, 2.11 and 2.13."""
    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError:
        return None
    known = inspect.signature(varlen_attn).parameters
    if "scale" not in known:
        return None
    causal: dict[str, Any] = (
        {"window_size": (-1, 0)} if "window_size" in known else {"is_causal": True}
    )
    # Before the flag existed the kernel took fewer key heads than query heads without being told.
    if "enable_gqa" in known:
        causal["enable_gqa"] = True
    return partial(varlen_attn, **causal)


KERNEL = _kernel()
# Module -> its compiled call; kept so that a second `ready` does not compile again.
_COMPILED: WeakKeyDictionary[torch.nn.Module, Any] = WeakKeyDictionary()


def can_use_kernel(states: Tensor) -> bool:
    """Whether attention over these states can run in the variable-length kernel."""
    return states.is_cuda and states.dtype in KERNEL_DTYPES and KERNEL is not None


def packed_attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    cu_seq_lens_q: Tensor | None = None,
    max_length_q: int = 0,
    **_: Any,
) -> tuple[Tensor, None]:
    """Causal attention inside each example of a packed row; an attention of transformers.

    Args:
        module: The attention module.
        query: [1, H, T, h].
        key: [1, G, T, h], G key heads, a divisor of H.
        value: [1, G, T, h].
        attention_mask: [1, 1, T, T] bool where there are no bounds.
        scaling: Of the scores.
        dropout: Must be 0: the model is frozen and in evaluation mode.
        cu_seq_lens_q: [B + 1] int32, the examples' bounds.
        max_length_q: Tokens of the longest example.

    Returns:
        [1, T, H, h] and no weights.
    """
    assert dropout == 0.0
    if cu_seq_lens_q is None:
        out = scaled_dot_product_attention(
            query, key, value, attn_mask=attention_mask, scale=scaling, enable_gqa=True
        )
        return out.transpose(1, 2).contiguous(), None
    assert KERNEL is not None
    q, k, v = (states.transpose(1, 2)[0] for states in (query, key, value))
    out = KERNEL(q, k, v, cu_seq_lens_q, cu_seq_lens_q, max_length_q, max_length_q, scale=scaling)
    return out[None], None


@contextmanager
def ready(
    model: PreTrainedModel, *, compiled: bool = False, low_memory: bool = False
) -> Iterator[None]:
    """Prepare a model for packed rows; everything is undone at the end.

    Args:
        model: With decoder layers that transformers can checkpoint.
        compiled: Run the layers through ``torch.compile``; with ``low_memory`` their MLPs and norms
            only, because checkpointing stands between a layer and its parts.
        low_memory: Checkpoint every layer.

    Raises:
        ValueError: ``low_memory`` with a model whose layers cannot be checkpointed.
    """
    from transformers import AttentionInterface

    AttentionInterface.register(ATTENTION, packed_attention)
    config = model.config
    before = config._attn_implementation
    config._attn_implementation = ATTENTION
    undo: list[Callable[[], None]] = []
    try:
        if low_memory:
            undo.append(_checkpointing(model))
        if compiled:
            for module in _parts(model) if low_memory else _layers(model):
                undo.append(_compiled(module))
        yield
    finally:
        for action in undo:
            action()
        config._attn_implementation = before


def _layers(model: PreTrainedModel) -> list[torch.nn.Module]:
    return list(decoder_layers(model))


def _parts(model: PreTrainedModel) -> list[torch.nn.Module]:
    """MLPs and norms of all layers."""
    return [
        part
        for layer in _layers(model)
        for name, part in layer.named_children()
        if name == "mlp" or name.endswith("norm")
    ]


def _compiled(module: torch.nn.Module) -> Callable[[], None]:
    """Run a module compiled; one graph serves all lengths and, as they are alike, all layers."""
    if module not in _COMPILED:
        module.compile(dynamic=True)
        _COMPILED[module] = module._compiled_call_impl
    module._compiled_call_impl = _COMPILED[module]

    def undo() -> None:
        module._compiled_call_impl = None

    return undo


def _checkpointing(model: PreTrainedModel) -> Callable[[], None]:
    """Checkpoint the layers of a model in evaluation mode, by the switches that they read.

    transformers checkpoints in training mode only. Just the layers' own flag is set: their parts
    stay in evaluation mode, without dropout (defensive_tokens.md, P9).
    """
    layers = _layers(model)
    if not all(hasattr(type(layer), "gradient_checkpointing") for layer in layers):
        raise ValueError(f"{type(model).__name__} cannot be checkpointed: leave low_memory out")
    for layer in layers:
        vars(layer).update(
            gradient_checkpointing=True,
            _gradient_checkpointing_func=partial(checkpoint, use_reentrant=False),
            training=True,
        )

    def undo() -> None:
        for layer in layers:
            del layer._gradient_checkpointing_func
            vars(layer).update(gradient_checkpointing=False, training=False)

    return undo
