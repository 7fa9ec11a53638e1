"""Before any unlearning: does the target itself still know?

A student that reached its target exactly would compute, from block l on, with the mapped teacher
state. Putting that state there and scoring the model says what perfect transfer would reach. Where
the score stays high (60 % in a tiny model whose unembedding keeps the facts) no coefficient can
bring unlearning below it (mini-tamper page, section 2.1).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch

from kit.lm.hidden import block_outputs
from kit.lm.model import decoder, decoder_layers
from kit.methods.checkpoint_transfer.affine import AffineMap

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@contextmanager
def oracle_patch(
    student: PreTrainedModel, teacher: PreTrainedModel, affine: AffineMap | None, block: int
) -> Iterator[None]:
    """Within, block ``block`` of the student returns the mapped teacher state, whatever it read.

    Any scorer that runs the student on whole sequences works unchanged inside.

    Args:
        student: The model that is scored.
        teacher: Run on the same ids.
        affine: The block's map, or ``None`` for the raw state.
        block: 0-based.

    Raises:
        ValueError: A block that is not there; inside, a forward pass that continues a cache or has
            no ids, because the teacher cannot follow it.
    """
    layers = decoder_layers(student)
    if not 0 <= block < len(layers):
        raise ValueError(f"block {block} of a model with blocks 0 to {len(layers) - 1}")
    states: list[torch.Tensor] = []

    def entering(_module: Any, arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
        ids = arguments[0] if arguments else named.get("input_ids")
        cache = named.get("past_key_values")
        if ids is None or (cache is not None and cache.get_seq_length() > 0):
            raise ValueError("a patched model reads whole sequences of ids, without a cache")
        mask = named.get("attention_mask")
        with torch.no_grad():
            raw = block_outputs(teacher, ids, None if mask is None else mask.bool(), [block])[block]
            mapped = raw if affine is None else affine(raw)
        states[:] = [mapped]

    def returning(_module: Any, _arguments: Any, output: Any) -> Any:
        if isinstance(output, tuple):
            return (states[0].to(output[0].dtype), *output[1:])
        return states[0].to(output.dtype)

    handles = [
        decoder(student).register_forward_pre_hook(entering, with_kwargs=True),
        layers[block].register_forward_hook(returning),
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
