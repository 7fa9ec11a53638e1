"""Hidden states: what a decoder block returns.

There is a single index convention. Block l, counted from 0, means the residual stream that block l
*returns*, before any final norm; -1 means what enters block 0. In transformers' ``hidden_states``
that is entry l + 1, except for the last block, whose entry there has gone through the final norm.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from kit.lm.model import decoder, decoder_layers, inner_model, names_of
from kit.lm.padding import positions

if TYPE_CHECKING:
    import torch
    from torch import Tensor
    from transformers import PreTrainedModel


def block_outputs(
    model: PreTrainedModel, ids: Tensor, mask: Tensor | None, blocks: Sequence[int]
) -> dict[int, Tensor]:
    """Hidden states behind some blocks, in one forward pass that ends with the last of them.

    Neither later blocks nor the output layer are computed. Gradients flow as in the model's own
    forward pass; switch them off around the call where none are wanted.

    Args:
        model: A causal language model of a known architecture.
        ids: [B, T] int64.
        mask: [B, T], true on real tokens, padding on either side; ``None`` without padding.
        blocks: Distinct numbers from -1 to the number of blocks less 1.

    Returns:
        Block -> [B, T, d] in the model's dtype. What stands at padding means nothing.

    Raises:
        ValueError: No blocks, a repeated or unknown block, a mask of another shape, or a model
            whose architecture is not in the table.
    """
    layers = decoder_layers(model)
    wanted = _checked(blocks, len(layers))
    if mask is not None and mask.shape != ids.shape:
        raise ValueError(f"a mask of shape {tuple(mask.shape)} for ids of {tuple(ids.shape)}")
    placed: dict[str, Any] = {}
    if mask is not None and not bool(mask.all()):
        placed = {"attention_mask": mask, "position_ids": positions(mask)}
    states: dict[int, Tensor] = {}
    with _first_blocks(model, max(1, max(wanted) + 1)), _recording(layers, wanted, states):
        decoder(model)(input_ids=ids, use_cache=False, **placed)
    return {block: states[block] for block in blocks}


def _checked(blocks: Sequence[int], count: int) -> set[int]:
    wanted = set(blocks)
    if not wanted:
        raise ValueError("no block was asked for")
    if len(wanted) != len(blocks):
        raise ValueError(f"a block is asked for twice: {list(blocks)}")
    for block in blocks:
        if not -1 <= block < count:
            raise ValueError(f"block {block} of a model with the blocks -1 to {count - 1}")
    return wanted


@contextmanager
def _first_blocks(model: PreTrainedModel, count: int) -> Iterator[None]:
    """The model without the blocks behind the first ``count``, for a while."""
    from torch import nn

    path, _, name = names_of(model).layers.rpartition(".")
    owner = inner_model(model).get_submodule(path)
    whole = getattr(owner, name)
    setattr(owner, name, nn.ModuleList(whole[:count]))
    try:
        yield
    finally:
        setattr(owner, name, whole)


@contextmanager
def _recording(layers: torch.nn.ModuleList, blocks: set[int], states: dict[int, Tensor]) -> Any:
    """Keep what the blocks return in ``states``, for a while."""

    def entering(_module: Any, arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
        states[-1] = arguments[0] if arguments else named["hidden_states"]

    def returning(block: int) -> Any:
        def keep(_module: Any, _arguments: Any, output: Any) -> None:
            states[block] = output[0] if isinstance(output, tuple) else output

        return keep

    handles = []
    try:
        if -1 in blocks:
            handles.append(layers[0].register_forward_pre_hook(entering, with_kwargs=True))
        handles += [layers[b].register_forward_hook(returning(b)) for b in blocks if b >= 0]
        yield
    finally:
        for handle in handles:
            handle.remove()
