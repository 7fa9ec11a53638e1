"""Training of a prefix (n input vectors) under a frozen language model.

The prefix is a parameter of its own in fp32, with fp32 Adam state, cast to the model's dtype in
each forward pass. Training five rows inside a bf16 embedding table instead loses the second moment
to rounding and needs gradient masks (pitfalls P7 and P8).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch

from kit.lm.model import embedding_matrix
from kit.lm.prefix import embed
from kit.train.batching import Batch, Example, collate, forward_groups
from kit.train.errors import TrainingDiverged, divergence
from kit.train.losses import (
    MICRO_MEAN,
    predicting_positions,
    token_weights,
    weighted_cross_entropy,
)
from kit.train.packed import accumulate_packed
from kit.train.schedules import learning_rate

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel


PADDED = "padded"
PACKED = "packed"
FORWARDS = (PADDED, PACKED)

KEEP_SECONDS = 30.0
"""A killed training loses at most this, and the step under way, however far apart its checkpoints
are."""


@dataclass(frozen=True)
class PrefixTraining:
    """Hyperparameters of one run.

    Attributes:
        steps: Optimizer steps of the whole run.
        micro_batch: Examples a micro-batch; what ``micro-mean`` averages over.
        accumulation: Micro-batches a step.
        learning_rate: Peak rate of AdamW. DTP 3.3: 0.1.
        schedule: ``constant``, ``linear`` or ``cosine``.
        warmup: Warm-up steps.
        weight_decay: tiny-adapt note, "Setup": none.
        betas: AdamW's; torch's defaults, as in the follow-up.
        eps: AdamW's.
        normalisation: ``micro-mean`` (published) or ``token-mean``.
        checkpoint_steps: Steps after which a checkpoint is taken; 0 is the start.
        forward_rows: Most rows a forward pass; changes speed and memory, not the loss.
        label_chunk: Most label tokens whose scores exist at once.
        forward: ``padded``, or ``packed`` (:mod:`kit.train.packed`): the same loss, computed
            without padding.
        compile: Compile the decoder layers; ``packed`` only.
        low_memory: Checkpoint the decoder layers; ``packed`` only.
    """

    steps: int
    micro_batch: int = 4
    accumulation: int = 4
    learning_rate: float = 0.1
    schedule: str = "constant"
    warmup: int = 0
    weight_decay: float = 0.0
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    normalisation: str = MICRO_MEAN
    checkpoint_steps: tuple[int, ...] = ()
    forward_rows: int = 16
    label_chunk: int = 4096
    forward: str = PADDED
    compile: bool = False
    low_memory: bool = False

    def __post_init__(self) -> None:
        """Refuse settings that would silently do nothing."""
        if self.forward not in FORWARDS:
            raise ValueError(f"unknown forward {self.forward!r}; known: {', '.join(FORWARDS)}")
        if self.forward == PADDED and (self.compile or self.low_memory):
            raise ValueError("compile and low_memory need forward='packed'")

    @property
    def batch(self) -> int:
        """Examples a step."""
        return self.micro_batch * self.accumulation


@dataclass(frozen=True)
class PrefixState:
    """Everything that a resumed run needs, as plain tensors on the CPU.

    Attributes:
        step: Steps done.
        prefix: [n, d] float32.
        exp_avg: [n, d] float32, Adam's first moment.
        exp_avg_sq: [n, d] float32, Adam's second moment.
    """

    step: int
    prefix: Tensor
    exp_avg: Tensor
    exp_avg_sq: Tensor

    def tensors(self) -> dict[str, Tensor]:
        """The state as named tensors, ready for safetensors."""
        return {
            "step": torch.tensor(self.step, dtype=torch.int64),
            "prefix": self.prefix,
            "exp_avg": self.exp_avg,
            "exp_avg_sq": self.exp_avg_sq,
        }

    def on_cpu(self) -> PrefixState:
        """The same state with its tensors in the machine's memory."""
        moved = (one.to("cpu") for one in (self.prefix, self.exp_avg, self.exp_avg_sq))
        return PrefixState(self.step, *moved)

    @classmethod
    def from_tensors(cls, tensors: dict[str, Tensor]) -> PrefixState:
        """The inverse of :meth:`tensors`."""
        return cls(
            step=int(tensors["step"]),
            prefix=tensors["prefix"],
            exp_avg=tensors["exp_avg"],
            exp_avg_sq=tensors["exp_avg_sq"],
        )


@dataclass
class PrefixRun:
    """What training returns.

    Attributes:
        state: The final state; ``state.prefix`` is the trained prefix.
        losses: Loss of each step done in this call.
        norms: L2 norm of each vector after each of those steps.
        checkpoints: Step -> prefix [n, d] float32.
    """

    state: PrefixState
    losses: list[float] = field(default_factory=list)
    norms: list[list[float]] = field(default_factory=list)
    checkpoints: dict[int, Tensor] = field(default_factory=dict)


def start(prefix: Tensor) -> PrefixState:
    """The state of a run that has not begun, from an initial prefix [n, d]."""
    first = prefix.detach().to("cpu", torch.float32).clone()
    return PrefixState(0, first, torch.zeros_like(first), torch.zeros_like(first))


def train_prefix(
    model: PreTrainedModel,
    state: PrefixState,
    step_examples: Callable[[int], Sequence[Example]],
    config: PrefixTraining,
    *,
    pad_id: int,
    on_checkpoint: Callable[[PrefixState], None] | None = None,
    on_step: Callable[[int, float], None] | None = None,
) -> PrefixRun:
    """Train from ``state.step`` to ``config.steps``.

    Stopping after a checkpoint and going on from its state gives the same bits as one run, on the
    same machine with the same thread count. When the process is told to stop in the middle (an
    exception that is no ``Exception``), the state after the last whole step goes to
    ``on_checkpoint`` too, and so does one every :data:`KEEP_SECONDS`.

    Args:
        model: Frozen causal language model (no parameter requires a gradient).
        state: :func:`start`, or a state that ``on_checkpoint`` received earlier.
        step_examples: The examples of step i, counted from 0; ``config.batch`` of them.
        config: Hyperparameters.
        pad_id: Fills batches; never attended to and never a label.
        on_checkpoint: Called with the state at every checkpoint step, and with others (above).
        on_step: Called with the step's number, counted from 1, and its loss.

    Raises:
        TrainingDiverged: The loss is not finite or beyond all reason, or an update made the
            prefix so.
        ValueError: A model that is not frozen, or a step with the wrong number of examples.
    """
    if any(parameter.requires_grad for parameter in model.parameters()):
        raise ValueError("freeze the model first: prefix training must move nothing else")
    device = embedding_matrix(model).device
    prefix = torch.nn.Parameter(state.prefix.to(device, torch.float32, copy=True))
    optimizer = _optimizer(prefix, state, config)
    run = PrefixRun(state)
    wanted = set(config.checkpoint_steps)
    norms: list[Tensor] = []
    last_good: int | None = None
    kept = time.monotonic()

    def take_checkpoint(step: int) -> None:
        run.state = _snapshot(step, prefix, optimizer)
        run.checkpoints[step] = run.state.prefix
        keep(run.state)

    def keep(state: PrefixState) -> None:
        nonlocal last_good, kept
        last_good, kept = state.step, time.monotonic()
        if on_checkpoint is not None:
            on_checkpoint(state)

    if state.step in wanted:
        take_checkpoint(state.step)
    whole: PrefixState | None = None
    try:
        for step in range(state.step, config.steps):
            examples = step_examples(step)
            if len(examples) != config.batch:
                raise ValueError(f"step {step} has {len(examples)} examples, not {config.batch}")
            optimizer.zero_grad(set_to_none=True)
            loss = accumulate(model, prefix, examples, config, pad_id=pad_id)
            reason = divergence(loss)
            if reason:
                names = [example.id for example in examples]
                raise TrainingDiverged(step, names, last_good, reason)
            optimizer.param_groups[0]["lr"] = learning_rate(
                step,
                peak=config.learning_rate,
                steps=config.steps,
                schedule=config.schedule,
                warmup=config.warmup,
            )
            optimizer.step()
            norms.append(prefix.detach().norm(dim=1))
            due = time.monotonic() - kept >= KEEP_SECONDS
            last = step + 1 == config.steps
            # On a GPU looking means waiting for it: between checkpoints the next loss shows it.
            free = prefix.device.type == "cpu"
            if (free or step + 1 in wanted or last or due) and not _finite(prefix):
                names = [example.id for example in examples]
                reason = "made the prefix infinite or NaN" + _gradient_too(prefix)
                raise TrainingDiverged(step, names, last_good, reason)
            run.losses.append(loss)
            if on_step is not None:
                on_step(step + 1, loss)
            # A signal may come in the middle of the next update: a copy, left on the device.
            whole = _snapshot(step + 1, prefix, optimizer, prefix.device)
            if step + 1 in wanted:
                take_checkpoint(step + 1)
            elif due:
                keep(whole.on_cpu())
    except BaseException as stop:
        if whole is not None and not isinstance(stop, Exception) and _finite(whole.prefix):
            keep(whole.on_cpu())
        raise
    run.state = _snapshot(max(state.step, config.steps), prefix, optimizer)
    run.norms = [norm.tolist() for norm in norms]
    return run


def _gradient_too(prefix: Tensor) -> str:
    """Whether it began in the gradient or in the update."""
    assert prefix.grad is not None
    return ", by its update alone" if bool(prefix.grad.isfinite().all()) else ", by its gradient"


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
    for speed (see :func:`kit.train.losses.token_weights`).
    """
    weights = token_weights(
        [example.labels for example in examples],
        micro_batch=config.micro_batch,
        normalisation=config.normalisation,
    )
    if config.forward == PACKED:
        return accumulate_packed(
            model,
            prefix,
            examples,
            weights,
            rows=config.forward_rows,
            chunk=config.label_chunk,
            compiled=config.compile,
            low_memory=config.low_memory,
        )
    device = prefix.device
    total = 0.0
    for group in forward_groups([len(e.ids) for e in examples], config.forward_rows):
        batch = collate([examples[i] for i in group], pad_id, device)
        share = torch.tensor([weights[i] for i in group], dtype=torch.float32, device=device)
        loss = batch_loss(model, prefix, batch, share, chunk=config.label_chunk)
        loss.backward()  # type: ignore[no-untyped-call]
        total += float(loss.detach())
    return total


def batch_loss(
    model: PreTrainedModel, prefix: Tensor, batch: Batch, weights: Tensor, *, chunk: int = 4096
) -> Tensor:
    """Weighted loss of one right-padded batch.

    Only states that predict a label pass through the output layer.

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
    hidden = model.model(
        inputs_embeds=embed(model, batch.ids, prefix),
        position_ids=batch.position_ids[:1],
        use_cache=False,
    ).last_hidden_state
    rows, columns, targets = predicting_positions(batch.labels)
    return weighted_cross_entropy(
        hidden[rows, columns], model.lm_head, targets, weights[rows], chunk=chunk
    )


def _finite(prefix: Tensor) -> bool:
    """Whether its norms are: an update of 1e30 is finite, and nothing can come of it."""
    return bool(prefix.detach().norm(dim=1).isfinite().all())


def _optimizer(
    prefix: torch.nn.Parameter, state: PrefixState, config: PrefixTraining
) -> torch.optim.AdamW:
    optimizer = torch.optim.AdamW(
        [prefix],
        lr=config.learning_rate,
        betas=config.betas,
        eps=config.eps,
        weight_decay=config.weight_decay,
    )
    if state.step:
        optimizer.state[prefix] = {
            "step": torch.tensor(float(state.step)),
            "exp_avg": state.exp_avg.to(prefix.device, copy=True),
            "exp_avg_sq": state.exp_avg_sq.to(prefix.device, copy=True),
        }
    return optimizer


def _snapshot(
    step: int,
    prefix: torch.nn.Parameter,
    optimizer: torch.optim.AdamW,
    device: torch.device | str = "cpu",
) -> PrefixState:
    adam = optimizer.state.get(prefix, {})
    zeros = torch.zeros_like(prefix)

    def copy(tensor: Tensor) -> Tensor:
        return tensor.detach().to(device, torch.float32, copy=True)

    return PrefixState(
        step,
        copy(prefix),
        copy(adam.get("exp_avg", zeros)),
        copy(adam.get("exp_avg_sq", zeros)),
    )
