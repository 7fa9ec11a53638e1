"""A frozen Llama's decoder layers, written for packed rows.

The same function as transformers' Llama layers, held to it by tests, with less to do:

* the tokens that all examples of a row begin with (the prefix, the beginning-of-text token, the
  system header) have the same states in all of them, and are computed once;
* the last layer's output product and MLP see only the states that predict a label;
* the rotation of queries and keys is one kernel, which also turns their gradients back;
* that, what stands before and what stands behind it and the attention is a graph each for
  ``torch.compile``, used for every length and every layer.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch.nn.functional import linear, scaled_dot_product_attention, silu
from torch.utils.checkpoint import checkpoint

from kit.methods.defensive_tokens.prefix_training.packed_model import KERNEL

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel


class Spans(NamedTuple):
    """Who attends to whom: R rows, the first S of which every example begins with.

    The shared rows are a sequence of their own; every example's other rows attend to them and to
    themselves. The kernel wants each sequence's keys in one piece, so shared keys are repeated.
    With S = 0 the first sequence is missing and nothing is repeated.

    Attributes:
        queries: [B + 2] int32, bounds of the sequences among the rows; the first is the shared one.
        keys: [B + 2] int32, bounds of the sequences among the repeated keys.
        gather: [K] int64, the row of each repeated key.
        first: [R] int64, the first key of each row.
        again: [B + 1, S] int64, all keys of the shared rows, sequence by sequence.
    """

    queries: Tensor
    keys: Tensor
    gather: Tensor
    first: Tensor
    again: Tensor


class Rotation(NamedTuple):
    """Rotary positions of R rows, for heads seen as two halves.

    Attributes:
        cos: [R, 1, 2, h/2].
        sin: [R, 1, 2, h/2], with the sign that each half's partner enters with.
        back: [R, 1, 2, h/2], ``sin`` of the opposite angles.
    """

    cos: Tensor
    sin: Tensor
    back: Tensor


class Kernels(NamedTuple):
    """The functions a layer is made of, compiled or plain."""

    project: Callable[..., tuple[Tensor, Tensor, Tensor]]
    turn: Callable[[Tensor, Tensor, Tensor], Tensor]
    feed: Callable[..., Tensor]


class Settings(NamedTuple):
    """What all layers have in common: the head's width h, and the norms' epsilon."""

    width: int
    eps: float


def fits(model: PreTrainedModel) -> bool:
    """Whether a model is a plain frozen Llama: no biases, SiLU, nothing that trains."""
    config = model.config
    return (
        config.model_type == "llama"
        and config.hidden_act == "silu"
        and not config.attention_bias
        and not getattr(config, "mlp_bias", False)
        and not any(parameter.requires_grad for parameter in model.parameters())
    )


def label_states(
    model: PreTrainedModel,
    embeds: Tensor,
    position_ids: Tensor,
    spans: Spans,
    longest: tuple[int, int],
    mask: Tensor | None,
    keep: Tensor,
    *,
    compiled: bool = False,
    low_memory: bool = False,
) -> Tensor:
    """Final states of some rows.

    Args:
        model: One that :func:`fits`.
        embeds: [R, d].
        position_ids: [1, R] int64.
        spans: Who attends to whom, for the variable-length kernel.
        longest: Rows, and keys, of the longest sequence.
        mask: [1, 1, R, R] bool, the same where the kernel cannot be used, else ``None``.
        keep: [N] int64, the rows wanted.
        compiled: Run the layers through ``torch.compile``.
        low_memory: Checkpoint each layer.

    Returns:
        [N, d].
    """
    body, config = model.model, model.config
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    settings = Settings(width, config.rms_norm_eps)
    rotation = rotation_of(*body.rotary_emb(embeds, position_ids=position_ids))
    kernels = _compiled() if compiled else Kernels(project, turn, feed)

    def run(states: Tensor, layer: Any, rows: Tensor | None) -> Tensor:
        query, key, value = kernels.project(states, _attention_weights(layer), settings)
        query, key = (rotate(part, rotation, kernels.turn) for part in (query, key))
        mixed = attend((query, key, value), spans, longest, mask)
        if rows is not None:
            states, mixed = states.index_select(0, rows), mixed.index_select(0, rows)
        return kernels.feed(states, mixed, _mlp_weights(layer), settings)

    states = embeds
    layers = list(body.layers)
    for layer in layers:
        rows = keep if layer is layers[-1] else None
        if low_memory:
            states = checkpoint(run, states, layer, rows, use_reentrant=False)
        else:
            states = run(states, layer, rows)
    return body.norm(states)  # type: ignore[no-any-return]


def project(
    states: Tensor, weights: tuple[Tensor, ...], settings: Settings
) -> tuple[Tensor, Tensor, Tensor]:
    """One layer up to the rotation.

    Args:
        states: [R, d].
        weights: Norm [d], query [H h, d], key [G h, d] and value [G h, d].
        settings: Of the model.

    Returns:
        Query [R, H, h], key [R, G, h] and value [R, G, h].
    """
    norm, *projections = weights
    normed = rms_norm(states, norm, settings.eps)
    query, key, value = (
        linear(normed, weight).view(len(states), -1, settings.width) for weight in projections
    )
    return query, key, value


def attend(
    parts: tuple[Tensor, Tensor, Tensor],
    spans: Spans,
    longest: tuple[int, int],
    mask: Tensor | None,
) -> Tensor:
    """Attention of one layer; never compiled, it is one kernel and the repetition of shared rows.

    Args:
        parts: Query, key and value from :func:`project`.
        spans: See :func:`label_states`.
        longest: See there.
        mask: See there.

    Returns:
        [R, H, h].
    """
    query, key, value = parts
    if mask is None:
        assert KERNEL is not None
        if spans.again.shape[1]:
            key, value = repeat_shared(key, spans), repeat_shared(value, spans)
        # With fewer queries than keys the kernel's causal mask ends at the last key: every query
        # sees the shared keys and its own example up to itself.
        mixed: Tensor = KERNEL(query, key, value, spans.queries, spans.keys, *longest)
    else:
        q, k, v = (x.transpose(0, 1)[None] for x in (query, key, value))
        mixed = scaled_dot_product_attention(q, k, v, attn_mask=mask, enable_gqa=True)
        mixed = mixed[0].transpose(0, 1)
    return mixed


def feed(states: Tensor, mixed: Tensor, weights: tuple[Tensor, ...], settings: Settings) -> Tensor:
    """The rest of one layer: output product, norm and MLP.

    Args:
        states: [R, d], what went into the layer.
        mixed: [R, H, h], from :func:`attend`.
        weights: Output [d, H h], norm [d], gate [m, d], up [m, d] and down [d, m].
        settings: Of the model.

    Returns:
        [R, d].
    """
    out, norm, gate, up, down = weights
    states = states + linear(mixed.reshape(len(states), -1), out)
    normed = rms_norm(states, norm, settings.eps)
    return states + linear(silu(linear(normed, gate)) * linear(normed, up), down)


def rms_norm(states: Tensor, weight: Tensor, eps: float) -> Tensor:
    """As transformers' LlamaRMSNorm, casts included."""
    wide = states.float()
    wide = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + eps)
    return weight * wide.to(states.dtype)


def rotation_of(cos: Tensor, sin: Tensor) -> Rotation:
    """The tables of transformers' rotary embedding, [1, R, h] each with equal halves."""
    cos, sin = (table.reshape(table.shape[1], 1, 2, -1) for table in (cos, sin))
    signed = torch.stack((-sin[:, :, 0], sin[:, :, 1]), dim=2)
    return Rotation(cos.contiguous(), signed, -signed)


def rotate(states: Tensor, rotation: Rotation, by: Callable[..., Tensor]) -> Tensor:
    """Rotary positions on [R, H, h], the halves paired as in transformers.

    Args:
        states: Queries or keys.
        rotation: Of the rows.
        by: :func:`turn`, compiled or plain.
    """
    rotated: Tensor = _Rotated.apply(states, rotation, by)  # type: ignore[no-untyped-call]
    return rotated


def turn(states: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate [R, H, h]; with the opposite angles' ``sin``, rotate back."""
    halves = states.reshape(*states.shape[:2], 2, -1)
    return (halves * cos + halves.flip(2) * sin).reshape(states.shape)


class _Rotated(torch.autograd.Function):
    """A rotation's gradient is the opposite rotation, done by the same kernel.

    Left to the compiler, the rotation and its gradient took three to six times as long.
    """

    @staticmethod
    def forward(ctx: Any, states: Tensor, rotation: Rotation, by: Callable[..., Tensor]) -> Tensor:
        ctx.save_for_backward(rotation.cos, rotation.back)
        ctx.by = by
        rotated: Tensor = by(states, rotation.cos, rotation.sin)
        return rotated

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        return ctx.by(gradients[0], *ctx.saved_tensors), None, None


def repeat_shared(rows: Tensor, spans: Spans) -> Tensor:
    """Keys or values, [R, G, h], with the shared rows repeated: [K, G, h]."""
    repeated: Tensor = _Repeated.apply(rows, spans.gather, spans.first, spans.again)  # type: ignore[no-untyped-call]
    return repeated


class _Repeated(torch.autograd.Function):
    """Keys or values with the shared rows repeated; the gradients of repetitions summed in fp32."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, gather: Tensor, first: Tensor, again: Tensor) -> Tensor:
        ctx.save_for_backward(first, again)
        return rows.index_select(0, gather)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        first, again = ctx.saved_tensors
        (gradient,) = gradients
        rows = gradient.index_select(0, first)
        shared = gradient.index_select(0, again.flatten()).view(*again.shape, *rows.shape[1:])
        rows[: again.shape[1]] = shared.float().sum(dim=0).to(rows.dtype)
        return rows, None, None, None


def _attention_weights(layer: Any) -> tuple[Tensor, ...]:
    attention = layer.self_attn
    return (
        layer.input_layernorm.weight,
        attention.q_proj.weight,
        attention.k_proj.weight,
        attention.v_proj.weight,
    )


def _mlp_weights(layer: Any) -> tuple[Tensor, ...]:
    mlp = layer.mlp
    return (
        layer.self_attn.o_proj.weight,
        layer.post_attention_layernorm.weight,
        mlp.gate_proj.weight,
        mlp.up_proj.weight,
        mlp.down_proj.weight,
    )


@cache
def _compiled() -> Kernels:
    def compiled(part: Callable[..., Any]) -> Callable[..., Any]:
        made: Callable[..., Any] = torch.compile(part, dynamic=True)
        return made

    return Kernels(compiled(project), compiled(turn), compiled(feed))
