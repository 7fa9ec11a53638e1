"""A frozen Llama's decoder layers, written for packed rows.

The same function as transformers' Llama layers, held to it by tests, with less to do:

* query, key and value are one product, and so are gate and up: the frozen weights are moved next to
  each other in memory once, and the modules keep views of them, so that nothing is stored twice;
* the last layer's output product and MLP see only the states that predict a label;
* one layer is one graph for ``torch.compile``.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, partial
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import torch
from torch.nn.functional import linear, scaled_dot_product_attention, silu
from torch.utils.checkpoint import checkpoint

from kit.train.packed_model import KERNEL, can_use_kernel

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class Layer:
    """The weights of one decoder layer, [out, in] as in ``torch.nn.Linear``.

    Attributes:
        first_norm: [d].
        qkv: [(H + 2 G) h, d].
        out: [d, H h].
        second_norm: [d].
        gate_up: [2 m, d].
        down: [d, m].
    """

    first_norm: Tensor
    qkv: Tensor
    out: Tensor
    second_norm: Tensor
    gate_up: Tensor
    down: Tensor


_LAYERS: WeakKeyDictionary[torch.nn.Module, list[Layer]] = WeakKeyDictionary()


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
    bounds: Tensor,
    longest: int,
    mask: Tensor | None,
    keep: Tensor,
    *,
    compiled: bool = False,
    low_memory: bool = False,
) -> Tensor:
    """Final states of some tokens of a packed row.

    Args:
        model: One that :func:`fits`.
        embeds: [1, T, d].
        position_ids: [1, T] int64.
        bounds: [B + 1] int32, the examples' bounds.
        longest: Tokens of the longest example.
        mask: [1, 1, T, T] bool where the variable-length kernel cannot be used, else ``None``.
        keep: [N] int64, the tokens wanted.
        compiled: Run each layer through ``torch.compile``.
        low_memory: Checkpoint each layer.

    Returns:
        [N, d].
    """
    assert mask is not None or can_use_kernel(embeds)
    body, config = model.model, model.config
    cos, sin = body.rotary_emb(embeds, position_ids=position_ids)
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    run: Callable[..., Tensor] = _compiled_block() if compiled else block
    run = partial(run, cos=cos[0, :, None], sin=sin[0, :, None], bounds=bounds, mask=mask)
    run = partial(run, longest=longest, width=width, eps=config.rms_norm_eps)
    states = embeds[0]
    layers = layers_of(model)
    for number, layer in enumerate(layers):
        rows = keep if number + 1 == len(layers) else None
        if low_memory:
            states = checkpoint(run, states, layer, rows, use_reentrant=False)
        else:
            states = run(states, layer, rows)
    return body.norm(states)  # type: ignore[no-any-return]


def block(
    states: Tensor,
    layer: Layer,
    keep: Tensor | None,
    *,
    cos: Tensor,
    sin: Tensor,
    bounds: Tensor,
    mask: Tensor | None,
    longest: int,
    width: int,
    eps: float,
) -> Tensor:
    """One decoder layer.

    Args:
        states: [T, d].
        layer: Its weights.
        keep: [N] int64, the rows to return, or ``None`` for all.
        cos: [T, 1, h].
        sin: [T, 1, h].
        bounds: See :func:`label_states`.
        mask: See there.
        longest: See there.
        width: h, of a head.
        eps: Of the norms.

    Returns:
        [T, d] or [N, d].
    """
    tokens = states.shape[0]
    heads = layer.out.shape[1] // width
    groups = (layer.qkv.shape[0] // width - heads) // 2
    merged = linear(rms_norm(states, layer.first_norm, eps), layer.qkv)
    merged = merged.view(tokens, heads + 2 * groups, width)
    query, key, value = torch.split(merged, [heads, groups, groups], dim=1)
    query, key, value = rotate(query, cos, sin), rotate(key, cos, sin), value.contiguous()
    if mask is None:
        assert KERNEL is not None
        mixed = KERNEL(query, key, value, bounds, bounds, longest, longest)
    else:
        q, k, v = (states.transpose(0, 1)[None] for states in (query, key, value))
        mixed = scaled_dot_product_attention(q, k, v, attn_mask=mask, enable_gqa=True)
        mixed = mixed[0].transpose(0, 1)
    mixed = mixed.reshape(tokens, heads * width)
    if keep is not None:
        mixed, states = mixed.index_select(0, keep), states.index_select(0, keep)
    states = states + linear(mixed, layer.out)
    gate, up = linear(rms_norm(states, layer.second_norm, eps), layer.gate_up).chunk(2, dim=1)
    return states + linear(silu(gate) * up, layer.down)


def rms_norm(states: Tensor, weight: Tensor, eps: float) -> Tensor:
    """As transformers' LlamaRMSNorm, casts included."""
    wide = states.float()
    wide = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + eps)
    return weight * wide.to(states.dtype)


def rotate(states: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary positions on [T, H, h], the halves paired as in transformers."""
    first, second = states.chunk(2, dim=-1)
    return states * cos + torch.cat((-second, first), dim=-1) * sin


def layers_of(model: PreTrainedModel) -> list[Layer]:
    """The layers' weights; joins those that belong together on the first call.

    And again when the model was moved or cast since, which gives its modules other storage.
    """
    known = _LAYERS.get(model)
    if known is None or not all(
        ours.qkv.data_ptr() == theirs.self_attn.q_proj.weight.data_ptr()
        and ours.gate_up.data_ptr() == theirs.mlp.gate_proj.weight.data_ptr()
        for ours, theirs in zip(known, model.model.layers, strict=True)
    ):
        known = [_join(layer) for layer in model.model.layers]
        _LAYERS[model] = known
    return known


def _join(layer: Any) -> Layer:
    attention, mlp = layer.self_attn, layer.mlp
    return Layer(
        layer.input_layernorm.weight,
        _neighbours([attention.q_proj, attention.k_proj, attention.v_proj]),
        attention.o_proj.weight,
        layer.post_attention_layernorm.weight,
        _neighbours([mlp.gate_proj, mlp.up_proj]),
        mlp.down_proj.weight,
    )


def _neighbours(modules: list[torch.nn.Linear]) -> Tensor:
    """One tensor of several modules' rows; the modules keep views, the old storage is freed."""
    joined = torch.cat([module.weight.detach() for module in modules])
    views = torch.split(joined, [module.out_features for module in modules])
    for module, view in zip(modules, views, strict=True):
        module.weight = torch.nn.Parameter(view, requires_grad=False)
    return joined


@cache
def _compiled_block() -> Callable[..., Tensor]:
    return torch.compile(block, dynamic=True)
