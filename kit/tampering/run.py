"""Run an attack on a model and watch it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch

from kit.tampering.attack import Attack
from kit.tampering.trajectory import Trajectory, joined
from kit.train.batches import MicroBatch, micro_batches
from kit.train.engine import AVERAGED, TRAINING
from kit.train.engines import EngineFactory, engine_factory
from kit.train.errors import TrainingDiverged
from kit.train.loop import FineTuned, FineTuning, finetune
from kit.train.lora import add_adapter, merge_adapter
from kit.train.losses import language_model_loss
from kit.train.randomness import kept_random_state
from kit.train.single_process import SingleProcess
from kit.train.streams import Stream, Streams

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from kit.train.batching import Example
    from kit.train.checkpoints import CheckpointFolder
    from kit.train.clock import Clock
    from kit.train.engine import Engine

Evaluate = Callable[[Any, int], Mapping[str, Any]]
"""Called with the model, ready for measuring, and the steps done; returns JSON values."""


@dataclass
class Attacked:
    """An attacked model and how it got there.

    Attributes:
        model: With the adapter around it, if the attack trained one; its weights are then those
            from before the attack, bit for bit.
        trajectory: What was measured.
        engine: What trained it. Where it shards, the model is whole in its ``evaluating`` only.
    """

    model: PreTrainedModel
    trajectory: Trajectory
    engine: Engine

    @property
    def whole(self) -> bool:
        """Whether this process has all of the model."""
        return isinstance(self.engine, SingleProcess)

    def merged(self) -> PreTrainedModel:
        """The attacked model by itself; an adapter is added to its weights.

        Raises:
            ValueError: A sharded model.
        """
        if not self.whole:
            raise ValueError("a sharded model is whole in no process; save it, or watch it")
        if hasattr(self.model, "get_base_model"):
            self.model = merge_adapter(self.model)  # type: ignore[arg-type]
        return self.model

    def save(self, folder: str | Path, tokenizer: PreTrainedTokenizerBase | None) -> None:
        """Write the attacked model in Hugging Face layout, in process 0; all call this together.

        Raises:
            ValueError: A weight that is not finite, as a diverged attack can leave; a sharded model
                with an adapter, which no process can merge.
        """
        from kit.lm.load import save_model

        if not self.whole:
            if hasattr(self.model, "get_base_model"):
                raise ValueError("an adapter of a sharded model cannot be merged: watch it only")
            self.engine.save_model(Path(folder), TRAINING)
            if self.engine.rank == 0 and tokenizer is not None:
                tokenizer.save_pretrained(folder)
        elif self.engine.rank == 0:
            save_model(self.merged(), tokenizer, folder)


def run_attack(
    model: PreTrainedModel,
    data: Mapping[str, Sequence[Example]],
    attack: Attack,
    *,
    pad_id: int,
    evaluate: Evaluate | None = None,
    at_steps: Sequence[int] = (),
    rows: int = 64,
    folder: CheckpointFolder | None = None,
    on_step: Callable[[int, float], None] | None = None,
    make_engine: EngineFactory | None = None,
    clock: Clock | None = None,
) -> Attacked:
    """Fine-tune ``model`` in place as the attack says.

    A full attack trains every weight, frozen before or not. Generators outside are left as they
    were; measuring changes nothing. What diverges is recorded, and measured a last time if its
    weights are still finite.

    Args:
        model: A causal language model.
        data: Examples by the names that the attack's phases use.
        attack: What to do.
        pad_id: Fills rows.
        evaluate: Measures the model.
        at_steps: After how many steps; 0 is before the attack. Those beyond its end are left out.
        rows: Most rows in a forward pass; bounds memory and changes no loss.
        folder: Of checkpoints; ``None`` saves nothing.
        on_step: Called with the steps done and the last loss.
        make_engine: What trains; the whole model in this process without.
        clock: Gets a mark after each part of a step.

    Raises:
        ValueError: Data that nobody gave, or an example without a label within ``length``.
    """
    streams = attack_streams(data, attack)
    with kept_random_state():
        torch.manual_seed(attack.seed)
        trained = _prepared(model, attack)
        make = make_engine or engine_factory()
        engine = make(trained, attack.optimizer, attack.precision)

        def batches(step: int) -> list[MicroBatch]:
            examples = streams[attack.data_of(step)].take()
            return micro_batches(examples, engine, rows=rows, pad_id=pad_id)

        def measure(measured: nn.Module, step: int) -> Mapping[str, Any]:
            require_finite(measured, step)
            return evaluate(measured, step) if evaluate is not None else {}

        plan = FineTuning(
            steps=attack.steps,
            schedule=attack.schedule,
            clip=attack.clip,
            measure_at=tuple(sorted({s for s in at_steps if 0 <= s <= attack.steps})),
            weights=attack.weights,
        )
        trajectory = Trajectory(attacks=[attack])
        try:
            done = finetune(
                engine,
                _loss,
                batches,
                plan,
                measure=measure,
                streams=streams,
                folder=folder,
                on_step=on_step,
                clock=clock,
            )
        except TrainingDiverged as error:
            done = cast("FineTuned", error.so_far)
            trajectory.diverged = (error.step, error.reason)
            engine.zero_gradient()
            _measure_last(engine, done, evaluate, attack)
        if attack.weights == AVERAGED:
            engine.keep_averaged()
        trained.eval()  # type: ignore[no-untyped-call]
    trajectory.points = done.trajectory
    trajectory.losses, trajectory.rates, trajectory.norms = done.losses, done.rates, done.norms
    trajectory.data = [attack.data_of(step) for step in range(len(done.losses))]
    return Attacked(trained, trajectory, engine)


def run_stages(
    model: PreTrainedModel,
    data: Mapping[str, Sequence[Example]],
    attacks: Sequence[Attack],
    *,
    pad_id: int,
    evaluate: Evaluate | None = None,
    at_steps: Sequence[int] = (),
    rows: int = 64,
) -> Attacked:
    """Attacks in a row, each with a fresh optimizer and schedule: repair, then relearn.

    A safeguard that only broke the model's general ability is undone by texts that have nothing to
    do with the forgotten subject; relearning then starts from a working model. An adapter is merged
    before the next stage begins.

    Args:
        model: Changed in place.
        data: As for :func:`run_attack`.
        attacks: At least one.
        pad_id: Fills rows.
        evaluate: Measures the model.
        at_steps: Counted over all stages.
        rows: As for :func:`run_attack`.

    Raises:
        ValueError: No attacks.
    """
    if not attacks:
        raise ValueError("no attacks to run")
    parts: list[Trajectory] = []
    start = 0
    for attack in attacks:
        steps = [step - start for step in at_steps]
        if parts:
            steps = [step for step in steps if step > 0]
        attacked = run_attack(
            model, data, attack, pad_id=pad_id, evaluate=evaluate, at_steps=steps, rows=rows
        )
        parts.append(attacked.trajectory)
        model, engine = attacked.merged(), attacked.engine
        start += attack.steps
        if attacked.trajectory.diverged is not None:
            break
    return Attacked(model, joined(parts), engine)


def attack_streams(data: Mapping[str, Sequence[Example]], attack: Attack) -> Streams:
    """What the attack draws from: each data set in an order of the seed, cut to its length.

    Raises:
        ValueError: Data that nobody gave, or an example without a label within ``length``.
    """
    missing = [name for name in attack.data if name not in data]
    if missing:
        raise ValueError(
            f"attack {attack.name} trains on {', '.join(missing)}; there is "
            + (", ".join(sorted(data)) or "nothing")
        )
    return Streams(
        *(
            Stream(
                name,
                [_cut(example, attack) for example in data[name]],
                attack.batch,
                seed=attack.seed,
                shuffle=attack.shuffle,
            )
            for name in attack.data
        )
    )


def _cut(example: Example, attack: Attack) -> Example:
    if attack.length is None or len(example.ids) <= attack.length:
        return example
    if example.prompt_length >= attack.length:
        raise ValueError(
            f"attack {attack.name}: example {example.id} has no label in its first "
            f"{attack.length} tokens"
        )
    return replace(example, ids=example.ids[: attack.length])


def _prepared(model: PreTrainedModel, attack: Attack) -> PreTrainedModel:
    if attack.lora is not None:
        adapted: Any = add_adapter(model, attack.lora, seed=attack.seed)
        return adapted  # type: ignore[no-any-return]
    model.requires_grad_(True)
    return model


def _loss(model: nn.Module, batch: MicroBatch) -> Tensor:
    return language_model_loss(model, batch)  # type: ignore[arg-type]


def require_finite(model: nn.Module, step: int) -> None:
    """Say that a training has diverged whose last update left weights that are not finite.

    Raises:
        TrainingDiverged: After ``step`` steps.
    """
    for name, parameter in model.named_parameters():
        if parameter.requires_grad and not bool(torch.isfinite(parameter).all()):
            raise TrainingDiverged(step - 1, (), None, f"left a weight that is not finite ({name})")


def _measure_last(
    engine: Engine, done: FineTuned, evaluate: Evaluate | None, attack: Attack
) -> None:
    """The point at which a diverged attack stopped, where there is a model to measure."""
    step = len(done.losses)
    if evaluate is None or any(at == step for at, _ in done.trajectory):
        return
    with engine.evaluating(attack.weights) as model:
        try:
            require_finite(model, step)
        except TrainingDiverged:
            return
        done.trajectory.append((step, dict(evaluate(model, step))))
