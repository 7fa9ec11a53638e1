"""One pass of a model, with the states that the losses want."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kit.lm.model import decoder, decoder_layers
from kit.methods.tar.scores import Head
from kit.methods.tar.settings import BLOCK_OUTPUTS, LAYERS

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

    from kit.train.batching import Batch


@dataclass(frozen=True)
class Pass:
    """What a forward pass left.

    Attributes:
        states: [B, T, d] in front of the language-model head, behind the final norm.
        head: The language-model head.
        layers: [B, T, d] a layer, where asked for.
    """

    states: Tensor
    head: Head
    layers: tuple[Tensor, ...] = ()


def forward(model: PreTrainedModel, batch: Batch, *, layers: str | None = None) -> Pass:
    """Run the decoder without its head, so that scores can be computed in chunks.

    Args:
        model: A causal language model of transformers.
        batch: Its masks and positions are passed on.
        layers: ``hidden-states``, ``block-outputs`` or none.

    Raises:
        ValueError: Unknown name.
    """
    if layers is not None and layers not in LAYERS:
        raise ValueError(f"unknown layers {layers!r}; known: {', '.join(LAYERS)}")
    last_block: list[Tensor] = []

    def keep(_module: Any, _inputs: Any, output: Any) -> None:
        last_block.append(output[0] if isinstance(output, tuple) else output)

    hook = (
        decoder_layers(model)[-1].register_forward_hook(keep) if layers == BLOCK_OUTPUTS else None
    )
    try:
        out = decoder(model)(
            input_ids=batch.ids,
            attention_mask=batch.attention_mask,
            position_ids=batch.position_ids,
            output_hidden_states=layers is not None,
            use_cache=False,
        )
    finally:
        if hook is not None:
            hook.remove()
    states = tuple(out.hidden_states) if layers is not None else ()
    if layers == BLOCK_OUTPUTS:
        # transformers puts the embeddings first and the final norm behind the last block.
        states = (*states[1:-1], last_block[0])
    head = model.get_output_embeddings()  # type: ignore[no-untyped-call]
    return Pass(states=out.last_hidden_state, head=head, layers=states)
