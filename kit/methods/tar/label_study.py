"""What training with a "rejected" label does to a response (the end of the notes).

Three ways to tell a model that it should not answer some requests: fine-tuning on the label in
place of the answer, fine-tuning on the answer with the label behind it, and DPO, which prefers a
refusal to the answer. Benign requests keep their answers. Each trains all weights, or an adapter,
which can be switched off again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from kit.methods.tar.batches import pair_batches
from kit.methods.tar.dpo import BETA, dpo_loss
from kit.methods.tar.objectives import preference_margins, reference_log_probs
from kit.methods.tar.pairs import StoredPair, with_reference
from kit.train.batches import micro_batches
from kit.train.batching import collate
from kit.train.loop import FineTuned, FineTuning, finetune
from kit.train.lora import Lora, add_adapter
from kit.train.losses import language_model_loss
from kit.train.optimizers import optimizer_spec
from kit.train.single_process import SingleProcess
from kit.train.streams import Stream, Streams

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

    from kit.methods.tar.batches import CountedPairs

SFT, DPO = "sft", "dpo"
OBJECTIVES = (SFT, DPO)
BEFORE, AFTER, OFF = "before", "after", "off"
"""States of the model: before the training, after it, and with its adapter switched off."""

Measure = Callable[[Any], Mapping[str, Any]]


@dataclass(frozen=True)
class LabelTraining:
    """How a model is trained.

    Attributes:
        objective: ``sft`` on the chosen answers, or ``dpo`` on both.
        steps: Optimizer steps of AdamW, at a constant rate.
        learning_rate: Its rate.
        batch: Requests a step, half of them benign.
        rank: Of an adapter, whose scale is 1; 0 trains all weights.
        beta: Of DPO.
        seed: Of the orders and the adapter.
    """

    objective: str
    steps: int
    learning_rate: float
    batch: int
    rank: int = 0
    beta: float = BETA
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what cannot be run."""
        if self.objective not in OBJECTIVES:
            raise ValueError(
                f"unknown objective {self.objective!r}; known: {', '.join(OBJECTIVES)}"
            )
        if self.batch < 2 or self.batch % 2:
            raise ValueError(f"half of a batch of {self.batch} is to be benign")


def train_with_label(
    model: PreTrainedModel,
    reference: PreTrainedModel,
    labelled: Sequence[StoredPair],
    benign: Sequence[StoredPair],
    plan: LabelTraining,
    measure: Measure,
    *,
    pad_id: int,
    rows: int = 64,
) -> tuple[dict[str, Mapping[str, Any]], FineTuned]:
    """Train in place, and measure in every state that there is.

    Args:
        model: Trained.
        reference: The same model, frozen; of DPO.
        labelled: Requests whose chosen answer is the label, the labelled answer or a refusal.
        benign: Requests whose chosen answer is an answer.
        plan: How.
        measure: Called with the model in evaluation mode; returns JSON values.
        pad_id: Fills rows.
        rows: Most rows in a forward pass.

    Returns:
        What was measured by state (``off`` with an adapter only), and the losses.
    """
    trained: Any = model
    measured = {BEFORE: measure(trained.eval())}
    if plan.rank:
        trained = add_adapter(model, Lora(plan.rank, alpha=float(plan.rank)), seed=plan.seed)
    else:
        model.requires_grad_(True)
    spec = optimizer_spec("adamw", {"learning_rate": plan.learning_rate, "weight_decay": 0.0})
    engine = SingleProcess(trained, spec)
    sets: dict[str, Sequence[Any]] = {"labelled": labelled, "benign": benign}
    if plan.objective == DPO:
        sets = {
            name: with_reference(items, reference, rows=rows, pad_id=pad_id)
            for name, items in sets.items()
        }
    else:
        sets = {name: [pair.example("chosen") for pair in items] for name, items in sets.items()}
    half = plan.batch // 2
    streams = Streams(*(Stream(n, items, half, seed=plan.seed) for n, items in sets.items()))

    def batches(_step: int) -> list[Any]:
        drawn = [item for name in sets for item in streams[name].take()]
        if plan.objective == DPO:
            return list(pair_batches(drawn, engine, rows=rows, pad_id=pad_id))
        return list(micro_batches(drawn, engine, rows=rows, pad_id=pad_id))

    def preference(policy: Any, part: CountedPairs) -> Tensor:
        margin = preference_margins(policy, part.pairs)
        return part.row_share * dpo_loss(margin, beta=plan.beta)

    def likelihood(policy: Any, part: Any) -> Tensor:
        return language_model_loss(policy, part)

    done = finetune(
        engine,
        preference if plan.objective == DPO else likelihood,
        batches,
        FineTuning(steps=plan.steps),
        streams=streams,
    )
    trained.eval()
    measured[AFTER] = measure(trained)
    if plan.rank:
        with trained.disable_adapter():
            measured[OFF] = measure(trained)
    return measured, done


@torch.no_grad()
def answer_log_probs(
    model: PreTrainedModel, pairs: Sequence[StoredPair], *, rows: int, pad_id: int
) -> list[float]:
    """Log-probability of each rejected answer given its request, nats.

    Args:
        model: In evaluation mode.
        pairs: In any order.
        rows: Most answers in a forward pass.
        pad_id: Fills rows.
    """
    examples = [pair.example("rejected") for pair in pairs]
    log_probs: list[float] = []
    for start in range(0, len(examples), rows):
        batch = collate(examples[start : start + rows], pad_id, model.device)
        log_probs += reference_log_probs(model, batch).tolist()
    return log_probs
