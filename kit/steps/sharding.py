"""What steps have in common that shard their work over GPUs: how they are sized and shortened."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

import msgspec
from msgspec import Struct

from kit.engine.registry import Cards, Sized

if TYPE_CHECKING:
    from kit.engine.context import StepContext
    from kit.train.clock import Clock
    from kit.train.engines import EngineFactory
    from kit.train.plan import Attack, GlobalBatches

FEWEST = 64
"""Texts and questions of a set that a shortened rehearsal keeps: a published batch."""
_CHOSEN = (
    "rows", "checkpointing", "weights_stay", "outer_state", "collected", "reference", "snapshot",
)  # fmt: skip
_START_MINUTES = 2.0
"""Of processes, libraries and weights; estimated."""


class Sharded(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a training says of the GPUs that share it."""

    engine: Literal["single-process", "zero-3", "fsdp"] = "single-process"
    """How several GPUs share the work: the whole model on each, or everything sharded, by DeepSpeed
    or by torch."""
    compiled: bool = False
    """Sharded only: decoder layers are compiled."""
    checkpointing: bool = False
    """Sharded only: decoder layers are computed again in the backward pass."""
    weights_stay: bool = False
    """fsdp only: gathered weights stay until the backward pass, for 2 bytes a parameter."""
    communication: Literal["float32", "bfloat16"] = "float32"
    """Sharded only: type in which gradients are summed over GPUs; they are added up over passes and
    held in fp32. Sums in bf16 are faster and round each GPU's share to 8 bits."""


def make_engine(ctx: StepContext, params: Any) -> EngineFactory:
    """What trains, as a kind's parameters choose it."""
    from kit.train.engines import engine_factory

    named = (
        "outer_state", "collected", "compiled", "checkpointing", "weights_stay", "communication",
    )  # fmt: skip
    chosen = {name: getattr(params, name) for name in named if hasattr(params, name)}
    return engine_factory(params.engine, ctx.device, **chosen)


def say_seconds(ctx: StepContext, clock: Clock, step: int) -> None:
    """Where the time since the last call went; said in rehearsals alone, whose point it is."""
    for part, seconds in clock.read().items():
        if ctx.rehearsal:
            ctx.metric(f"seconds of {part}", round(seconds, 4), step)


def solved(
    params: Any,
    models: Mapping[str, Mapping[str, Any]],
    cards: Cards,
    work: GlobalBatches | Attack,
    steps: int,
) -> Sized | None:
    """How a training does with the GPUs; ``None`` where nothing is sharded.

    Args:
        params: Of the kind.
        models: Attributes of its input models, the trained one as ``model``.
        cards: The GPUs.
        work: Its published batches.
        steps: Optimizer steps, or outer steps.

    Raises:
        ValueError: Nothing fits; the sentence says what is missing.
    """
    from kit.train.costs import ModelShape, Setting
    from kit.train.plan import Machine, solve

    declared: Any = models["model"].get("architecture")
    if params.engine == "single-process" or declared is None:
        return None
    wanted = Setting(
        cards.gpus,
        1,
        params.engine,
        compiled=params.compiled,
        communication=params.communication,
    )
    machine = Machine(cards.gpus, cards.gpu_gb, cards.memory_gb)
    known = {field.name for field in msgspec.structs.fields(params)}
    fixed = {n: getattr(params, n) for n in _CHOSEN if n in known and n in cards.kept}
    plan = solve(ModelShape.declared(declared), machine, work, wanted, fixed)
    return Sized(
        params={name: getattr(plan.setting, name) for name in _CHOSEN if name in known},
        gpu_memory_gb=plan.highest,
        memory_gb=plan.host_gib + 32 + 17 * cards.gpus,
        minutes=round(_START_MINUTES + steps * plan.seconds / 60, 1),
        words=f"{plan.words()}; {plan.seconds:g} s a step, computed for H100 or H200",
    )
