"""The loss of one step and its gradient in the prefix; padded here, packed in ``packed``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import torch

from kit.lm.forward import unlike_plain_head
from kit.lm.model import decoder, embedding_matrix
from kit.lm.prefix import embed
from kit.methods.defensive_tokens.prefix_training.config import PACKED, TABLE, PrefixTraining
from kit.methods.defensive_tokens.prefix_training.packed import packed_losses
from kit.train.batching import Batch, Example, collate, forward_groups
from kit.train.losses import (
    TOKEN_MEAN,
    as_they_are,
    predicting_positions,
    token_weights,
    weighted_cross_entropy,
)

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel


def accumulate(
    model: PreTrainedModel,
    prefix: Tensor,
    examples: Sequence[Example],
    config: PrefixTraining,
    *,
    pad_id: int,
) -> float:
    """Add one step's gradient to ``prefix.grad`` and return the step's loss.

    Each example's weight comes from its micro-batch; which examples share a forward pass is chosen
    for speed (see :func:`kit.train.losses.token_weights`), unless each micro-batch is rounded.
    """
    weights = token_weights(
        [example.labels for example in examples],
        micro_batch=config.micro_batch,
        normalisation=config.normalisation,
    )
    parts = []
    size = config.micro_batch if config.precision == TABLE else max(len(examples), 1)
    for first in range(0, len(examples), size):
        rows = slice(first, first + size)
        for loss in _losses(model, prefix, examples[rows], weights[rows], config, pad_id):
            parts.append(_Value(loss))
            loss.backward()  # type: ignore[no-untyped-call]
    return sum(part.get() for part in parts)


def compile_ahead(model: PreTrainedModel, config: PrefixTraining, *, n: int) -> None:
    """Compile what a step compiles, on made-up examples; nothing where nothing is compiled.

    A training does so before its first step, wherever it runs: what is compiled then never depends
    on the first examples.

    Args:
        model: Frozen causal language model.
        config: Of the training.
        n: Vectors of the prefix.
    """
    if not config.compile or config.forward != PACKED:
        return
    rows = embedding_matrix(model)
    kind = rows.dtype if config.precision == TABLE else torch.float32
    prefix = torch.zeros(n, rows.shape[1], device=rows.device, dtype=kind, requires_grad=True)
    slots = range(len(rows), len(rows) + n)
    # As long as the documented ones on average, and no two alike: sizes that happen to be equal
    # would be compiled as a single size.
    examples = [
        Example(f"made-up-{i}", (*slots, *[1] * (280 + 3 * i)), prompt_length=100 + i)
        for i in range(config.batch)
    ]
    accumulate(model, prefix, examples, config, pad_id=0)


def mean_loss(
    model: PreTrainedModel,
    prefix: Tensor,
    examples: Sequence[Example],
    config: PrefixTraining,
    *,
    pad_id: int,
) -> float:
    """Mean loss of a prefix over all label tokens of some examples; nothing is trained.

    Computed by the forward pass of the training, so that the two are comparable.

    Args:
        model: Frozen causal language model.
        prefix: [n, d].
        examples: At least one.
        config: Of the training.
        pad_id: Fills batches.

    Returns:
        Nats a label token.
    """
    counts = [example.labels for example in examples]
    weights = token_weights(counts, micro_batch=1, normalisation=TOKEN_MEAN)
    device = embedding_matrix(model).device
    # A graph is made and dropped: without one, compiled layers would be compiled once more.
    measured = prefix.detach().to(device, torch.float32, copy=True).requires_grad_()
    total = 0.0
    for loss in _losses(model, measured, examples, weights, config, pad_id):
        total += float(loss.detach())
        del loss  # and its graph, before the next one is made
    return total


def _losses(
    model: PreTrainedModel,
    prefix: Tensor,
    examples: Sequence[Example],
    weights: Sequence[float],
    config: PrefixTraining,
    pad_id: int,
) -> Iterator[Tensor]:
    """The weighted loss, one forward pass after the other; a backward pass belongs in between."""
    # An example without labels has counted in its micro-batch and need not be computed.
    kept = [i for i, example in enumerate(examples) if example.labels]
    examples, weights = [examples[i] for i in kept], [weights[i] for i in kept]
    if config.forward == PACKED:
        yield from packed_losses(
            model,
            prefix,
            examples,
            weights,
            rows=config.forward_rows,
            chunk=config.label_chunk,
            compiled=config.compile,
            low_memory=config.low_memory,
        )
        return
    lengths, free = [len(e.ids) for e in examples], config.precision != TABLE
    for group in forward_groups(lengths, config.forward_rows, by_length=free):
        batch = collate([examples[i] for i in group], pad_id, prefix.device)
        share = torch.tensor([weights[i] for i in group], dtype=torch.float32).to(prefix.device)
        yield batch_loss(model, prefix, batch, share, chunk=config.label_chunk)


def batch_loss(
    model: PreTrainedModel, prefix: Tensor, batch: Batch, weights: Tensor, *, chunk: int = 4096
) -> Tensor:
    """Weighted loss of one right-padded batch.

    Only states that predict a label pass through the output layer, where that layer is all that
    stands between them and the scores; else the model's own forward pass is taken.

    Args:
        model: Causal language model.
        prefix: [n, d], requires a gradient.
        batch: B examples.
        weights: [B] float32, of one label token of each row.
        chunk: See :func:`kit.train.losses.weighted_cross_entropy`.

    Returns:
        A float32 scalar.
    """
    # Padding stands right of everything real, where a causal model does not look: leaving the mask
    # out changes no label's score and lets attention take its causal path (test_prefix_tuning).
    inputs = {
        "inputs_embeds": embed(model, batch.ids, prefix),
        "position_ids": batch.position_ids[:1],
        "use_cache": False,
    }
    rows, columns, targets = predicting_positions(batch.labels)
    if unlike_plain_head(model.config) is None:
        states = decoder(model)(**inputs).last_hidden_state[rows, columns]
        head = model.get_output_embeddings()  # type: ignore[no-untyped-call]
    else:
        states, head = model(**inputs).logits[rows, columns], as_they_are
    return weighted_cross_entropy(states, head, targets, weights[rows], chunk=chunk)


class _Value:
    """A scalar on its way to the CPU.

    The loss is known when the forward pass is done. Waiting for that alone, and not for the
    backward pass that is queued behind it, lets the next step be prepared while the GPU works.
    """

    def __init__(self, scalar: Tensor) -> None:
        value = scalar.detach()
        self.event: torch.cuda.Event | None = None
        if value.is_cuda:
            value = torch.empty_like(value, device="cpu", pin_memory=True).copy_(
                value, non_blocking=True
            )
            self.event = torch.cuda.Event()  # type: ignore[no-untyped-call]
            self.event.record()
        self.value = value

    def get(self) -> float:
        """The number, as soon as the GPU has come to it."""
        if self.event is not None:
            self.event.synchronize()
        return float(self.value)
