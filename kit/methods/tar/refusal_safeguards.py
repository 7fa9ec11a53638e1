"""RR and RepNoise trained on pairs, for models whose released checkpoints are not at hand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from kit.methods.tar.baselines.common import RETAIN
from kit.methods.tar.baselines.repnoise import PAIRS, repnoise
from kit.methods.tar.baselines.rr import HARMFUL, rr
from kit.methods.tar.safeguards import train_safeguard
from kit.train.loop import FineTuning
from kit.train.lora import Lora, add_adapter, merge_adapter
from kit.train.optimizers import optimizer_spec
from kit.train.single_process import SingleProcess
from kit.train.streams import Stream, Streams

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from kit.methods.tar.pairs import StoredPair
    from kit.train.batching import Example

RR, REPNOISE = "rr", "repnoise"
METHODS = (RR, REPNOISE)


@dataclass(frozen=True)
class RefusalSafeguard:
    """How a baseline is trained.

    Attributes:
        method: One of :data:`METHODS`.
        steps: Optimizer steps of AdamW, at a constant rate.
        learning_rate: Its rate.
        batch: Pairs, and retain examples, a step.
        seed: Of the orders, the adapter and the noise.
        alpha: Of RR both terms, of RepNoise the ascent.
        beta: Of RepNoise's noise.
        retain_scale: Of a cross-entropy on retain examples beside RepNoise's loss, which has none.
        blocks: Where RR compares harmful states, counted from 0.
        rank: Of RR's adapter, which is merged afterwards; its scale is 1.
    """

    method: str
    steps: int
    learning_rate: float
    batch: int
    seed: int = 0
    alpha: float = 1.0
    beta: float = 0.001
    retain_scale: float = 0.0
    blocks: tuple[int, ...] = ()
    rank: int = 16

    def __post_init__(self) -> None:
        """Refuse a method that there is not."""
        if self.method not in METHODS:
            raise ValueError(f"unknown safeguard {self.method!r}; known: {', '.join(METHODS)}")


@dataclass(frozen=True)
class TrainedSafeguard:
    """A trained baseline.

    Attributes:
        model: Its adapter merged.
        losses: Of each step.
        largest_change: Largest absolute difference of a weight from the original's.
    """

    model: PreTrainedModel
    losses: list[float]
    largest_change: float


def train_refusal_safeguard(
    model: PreTrainedModel,
    reference: PreTrainedModel,
    pairs: Sequence[StoredPair],
    retain: Sequence[Example],
    plan: RefusalSafeguard,
    *,
    pad_id: int,
    rows: int = 64,
) -> TrainedSafeguard:
    """Train a baseline.

    Args:
        model: Changed.
        reference: The original, frozen.
        pairs: Harmful requests; RR takes the rejected answers, RepNoise both.
        retain: What RR stays near on; RepNoise trains on it with a ``retain_scale`` only.
        plan: How.
        pad_id: Fills rows.
        rows: Most rows in a forward pass. RepNoise's loss does not add up over micro-batches: it is
            another below ``batch``.
    """
    harmful = [pair.example("rejected") for pair in pairs]
    terms: Any
    if plan.method == RR:
        trained: Any = add_adapter(model, Lora(plan.rank, alpha=float(plan.rank)), seed=plan.seed)
        terms = rr(reference, steps=plan.steps, alpha=plan.alpha, blocks=plan.blocks)
        streams = Streams(
            Stream(HARMFUL, harmful, plan.batch, seed=plan.seed),
            Stream(RETAIN, retain, plan.batch, seed=plan.seed),
        )
    else:
        trained = model.requires_grad_(True)
        noise = torch.Generator().manual_seed(plan.seed)
        terms = repnoise(
            generator=noise, beta=plan.beta, alpha=plan.alpha, retain_scale=plan.retain_scale
        )
        both = list(zip(harmful, [pair.example("chosen") for pair in pairs], strict=True))
        drawn: list[Stream[Any]] = [Stream(PAIRS, both, plan.batch, seed=plan.seed)]
        if plan.retain_scale:
            drawn.append(Stream(RETAIN, retain, plan.batch, seed=plan.seed))
        streams = Streams(*drawn)
    spec = optimizer_spec("adamw", {"learning_rate": plan.learning_rate, "weight_decay": 0.0})
    done = train_safeguard(
        SingleProcess(trained, spec),
        terms,
        streams,
        FineTuning(steps=plan.steps, highest_loss=float("inf")),
        rows=rows,
        pad_id=pad_id,
    )
    made = (merge_adapter(trained) if plan.method == RR else trained).eval()
    before = dict(reference.named_parameters())
    changes = [float((p.detach() - before[n]).abs().max()) for n, p in made.named_parameters()]
    return TrainedSafeguard(made, done.losses, max(changes))
