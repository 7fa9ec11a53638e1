"""Training of a prefix (n input vectors) under a frozen language model.

The prefix is a parameter of its own in fp32, with fp32 Adam state, cast to the model's dtype in
each forward pass. Training five rows inside a bf16 embedding table instead loses the second moment
to rounding and needs gradient masks (defensive_tokens.md, P7 and P8); ``precision: table`` has that
arithmetic, for repeating what was reported, and still moves nothing else.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch

from kit.lm.model import embedding_matrix
from kit.methods.defensive_tokens.prefix_training.config import TABLE, PrefixTraining
from kit.methods.defensive_tokens.prefix_training.loss import accumulate
from kit.methods.defensive_tokens.prefix_training.state import PrefixState, make_optimizer, snapshot
from kit.train.batching import Example
from kit.train.errors import TrainingDiverged, divergence
from kit.train.schedules import learning_rate

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel


KEEP_SECONDS = 30.0
"""A killed training loses at most this, and the step under way, however far apart its checkpoints
are."""


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
    kind = embedding_matrix(model).dtype if config.precision == TABLE else torch.float32
    prefix = torch.nn.Parameter(state.prefix.to(device, kind, copy=True))
    optimizer = make_optimizer(prefix, state, config)
    run = PrefixRun(state)
    wanted = set(config.checkpoint_steps)
    norms: list[Tensor] = []
    last_good: int | None = None
    kept = time.monotonic()

    def take_checkpoint(step: int) -> None:
        run.state = snapshot(step, prefix, optimizer)
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
            norms.append(prefix.detach().float().norm(dim=1))
            due = time.monotonic() - kept >= KEEP_SECONDS
            last = step + 1 == config.steps
            look = _looking_is_free(prefix) or step + 1 in wanted or last or due
            if look and not _finite(prefix):
                names = [example.id for example in examples]
                reason = "made the prefix infinite or NaN" + _gradient_too(prefix)
                raise TrainingDiverged(step, names, last_good, reason)
            run.losses.append(loss)
            if on_step is not None:
                on_step(step + 1, loss)
            # A signal may come in the middle of the next update: a copy, left on the device.
            whole = snapshot(step + 1, prefix, optimizer, prefix.device)
            if step + 1 in wanted:
                take_checkpoint(step + 1)
            elif due:
                keep(whole.on_cpu())
    except BaseException as stop:
        if whole is not None and not isinstance(stop, Exception) and _finite(whole.prefix):
            keep(whole.on_cpu())
        raise
    run.state = snapshot(max(state.step, config.steps), prefix, optimizer)
    run.norms = [norm.tolist() for norm in norms]
    return run


def distance(prefix: Tensor, other: Tensor) -> float:
    """How far a prefix [n, d] is from another: the norm of the difference, in float64."""
    return float((prefix.double() - other.double()).norm())


def _gradient_too(prefix: Tensor) -> str:
    """Whether it began in the gradient or in the update."""
    assert prefix.grad is not None
    return ", by its update alone" if bool(prefix.grad.isfinite().all()) else ", by its gradient"


def _looking_is_free(prefix: Tensor) -> bool:
    """On a GPU looking means waiting for it: between checkpoints the next loss shows it."""
    return prefix.device.type == "cpu"


def _finite(prefix: Tensor) -> bool:
    """Whether its norms are: an update of 1e30 is finite, and nothing can come of it."""
    return bool(prefix.detach().float().norm(dim=1).isfinite().all())
