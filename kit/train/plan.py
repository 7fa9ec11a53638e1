"""Whether a sharded run fits the GPUs at hand, how its global batches are cut, and how long it is.

Batches are published and never changed; everything else that moves numbers by rounding only is
chosen here: rows in a pass, what is computed again, and what waits in the machine's memory.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from math import ceil
from typing import Any

from kit.train.costs import (
    ADAM,
    GIB,
    SCHEDULE_FREE,
    SCORES,
    ModelShape,
    Setting,
    batch_seconds,
    held,
    moved_seconds,
    passing,
)

_CHOICES = (True, False)
_PLACES = ("resident", "offloaded")
_USABLE = 0.97
"""Of a GPU's memory; the rest is what an allocator cannot hand out in pieces."""


@dataclass(frozen=True)
class Machine:
    """What there is.

    Attributes:
        gpus: Of one host.
        gpu_gib: Memory of each.
        host_gib: The machine's.
    """

    gpus: int
    gpu_gib: float
    host_gib: float


@dataclass(frozen=True)
class GlobalBatches:
    """An outer step of TAR: rows of the published batches, tokens a row, and how many of each.

    Attributes:
        adversary: Rows of an inner step.
        held_out: Of a tamper-resistance pass.
        retain: Of the retain pass.
        width: Tokens a row.
        inner_steps: An outer step.
        tampers: Tamper-resistance passes an outer step.
        held_out_texts: Texts of a row of the held-out batch: two of a pair.
    """

    adversary: int
    held_out: int
    retain: int
    width: int
    inner_steps: int = 64
    tampers: int = 16
    held_out_texts: int = 1


@dataclass(frozen=True)
class Attack:
    """Fine-tuning of all weights.

    Attributes:
        batch: Rows of the published batch.
        width: Tokens a row.
        measured: The whole model is asked questions meanwhile, by every process.
    """

    batch: int
    width: int
    measured: bool = True


@dataclass(frozen=True)
class Plan:
    """How a run is cut.

    Attributes:
        setting: Of the engine.
        passes: Forward passes of a GPU that make up a global batch, by batch.
        peak_gib: By phase, a GPU.
        host_gib: Of the machine, all processes.
        seconds: An outer step, or a step of an attack, on H100 or H200.
    """

    setting: Setting
    passes: dict[str, int] = field(default_factory=dict)
    peak_gib: dict[str, float] = field(default_factory=dict)
    host_gib: float = 0.0
    seconds: float = 0.0

    @property
    def highest(self) -> float:
        """GiB a GPU, of the phase that takes most."""
        return max(self.peak_gib.values())

    def words(self) -> str:
        """The choices in a line."""
        chosen = self.setting
        away = [
            name.replace("_", " ")
            for name in ("outer_state", "collected", "reference")
            if getattr(chosen, name) == "offloaded"
        ]
        parts = [
            f"GPUs: {chosen.gpus}, {chosen.engine}{', compiled' * chosen.compiled}",
            f"{chosen.rows} rows a pass",
            ", ".join(f"passes for {name}: {count}" for name, count in self.passes.items()),
            "layers computed again" if chosen.checkpointing else "nothing computed again",
            f"offloaded: {', '.join(away) or 'nothing'}",
            f"{self.highest:.1f} GiB a GPU ({max(self.peak_gib, key=lambda p: self.peak_gib[p])})",
        ]
        return "; ".join(parts)


def solve(
    shape: ModelShape,
    machine: Machine,
    work: GlobalBatches | Attack,
    wanted: Setting | None = None,
    fixed: Mapping[str, Any] | None = None,
) -> Plan:
    """The fastest plan that fits.

    Args:
        shape: The model.
        machine: GPUs and memory.
        work: An outer loop's batches, or an attack's.
        wanted: Engine, compilation and type of sums; its other fields are chosen.
        fixed: Fields that are not, by name.

    Raises:
        ValueError: A batch that leaves GPUs idle, or nothing that fits; the sentence says what is
            missing.
    """
    if machine.gpus < 1:
        raise ValueError("sharded training needs at least one GPU")
    for name, rows in _batches(work).items():
        if rows < machine.gpus:
            raise ValueError(
                f"the {name.replace('_', '-')} batch of {rows} leaves some of "
                f"{machine.gpus} GPUs idle: use at most {rows}"
            )
    start = replace(wanted or Setting(machine.gpus, 1), gpus=machine.gpus)
    tried = [count(setting, shape, work) for setting in _candidates(start, work, fixed or {})]
    if not tried:
        raise ValueError(f"{start.engine} has no such setting: {dict(fixed or {})}")
    fitting = [
        plan
        for plan in tried
        if plan.highest <= _USABLE * machine.gpu_gib and plan.host_gib <= machine.host_gib
    ]
    if not fitting:
        raise ValueError(_shortage(tried, machine))
    return min(fitting, key=lambda plan: plan.seconds)


def _batches(work: GlobalBatches | Attack) -> dict[str, int]:
    if isinstance(work, Attack):
        return {"training": work.batch}
    return {name: getattr(work, name) for name in ("adversary", "held_out", "retain")}


def _candidates(
    start: Setting, work: GlobalBatches | Attack, fixed: Mapping[str, Any]
) -> Iterator[Setting]:
    """Settings, of equally fast ones the one that moves less away first."""
    rows = fixed.get("rows") or ceil(max(_batches(work).values()) / start.gpus)
    loop = isinstance(work, GlobalBatches)
    places = _PLACES if loop else _PLACES[:1]
    stays = _CHOICES if start.engine == "fsdp" else (False,)
    while True:
        for snapshot, outer, collected, reference, again, stay in itertools.product(
            ("cuda", "cpu") if loop else ("cpu",), places, places, places, (False, True), stays
        ):
            made = replace(
                start,
                rows=rows,
                checkpointing=again,
                weights_stay=stay,
                outer_state=outer,
                collected=collected,
                reference=reference,
                snapshot=snapshot,
            )
            if all(getattr(made, name) == value for name, value in fixed.items()):
                yield made
        if rows == 1 or "rows" in fixed:
            return
        rows = ceil(rows / 2)


def count(setting: Setting, shape: ModelShape, work: GlobalBatches | Attack) -> Plan:
    """Memory and time of a setting.

    Args:
        setting: As it would be run.
        shape: The model.
        work: What is computed with it.
    """
    if isinstance(work, Attack):
        peaks, host, seconds = _attack(setting, shape, work)
    else:
        peaks, host, seconds = _outer_step(setting, shape, work)
    return Plan(
        setting,
        {name: setting.passes(rows) for name, rows in _batches(work).items()},
        {name: round(value / GIB, 2) for name, value in peaks.items()},
        round(host / GIB, 2),
        round(seconds, 2),
    )


def _attack(
    setting: Setting, shape: ModelShape, work: Attack
) -> tuple[dict[str, float], float, float]:
    local = shape.parameters / setting.gpus
    always = held(shape, setting) + ADAM * local
    peaks = {
        "training step": always + passing(shape, setting, setting.tokens(work.batch, work.width)),
        # The whole model, and the scores of texts and those that labels are read from, in bf16.
        "measuring": always + (2 * shape.parameters + 4 * SCORES) * work.measured,
    }
    return peaks, 0.0, batch_seconds(shape, setting, work.batch, work.width)


def _outer_step(
    setting: Setting, shape: ModelShape, work: GlobalBatches
) -> tuple[dict[str, float], float, float]:
    local = shape.parameters / setting.gpus
    always = held(shape, setting) + 2 * shape.parameters * (setting.reference == "resident")
    outer = SCHEDULE_FREE * local * (setting.outer_state == "resident")
    collected = 4 * local * (setting.collected == "resident")
    waiting = outer + 4 * local * (setting.snapshot == "cuda")

    judged = work.width * work.held_out_texts

    def used(batch: int, width: int = work.width) -> float:
        return passing(shape, setting, setting.tokens(batch, width))

    # What the reference model says of every layer, until it is compared.
    states = setting.tokens(work.retain, work.width) * (shape.layers + 1) * shape.hidden * 2
    peaks = {
        "inner step": always + waiting + collected + ADAM * local + used(work.adversary),
        "tamper-resistance pass": always
        + waiting
        + collected
        + ADAM * local
        + used(work.held_out, judged),
        "retain pass": always + outer + collected + used(work.retain) + states,
        # A weight after the other: what an update makes meanwhile is as large as the largest.
        "outer update": always + SCHEDULE_FREE * local + 2 * shape.edge / setting.gpus,
    }
    host = shape.parameters * (
        4 * (setting.snapshot == "cpu")
        + SCHEDULE_FREE * (setting.outer_state == "offloaded")
        + 4 * (setting.collected == "offloaded")
        + 2 * setting.gpus * (setting.reference == "offloaded")
    )
    retained = batch_seconds(shape, setting, work.retain, work.width)
    seconds = (
        work.inner_steps * batch_seconds(shape, setting, work.adversary, work.width)
        + work.tampers * batch_seconds(shape, setting, work.held_out, judged)
        # The reference model's forward pass is a third of a forward and backward pass.
        + retained * 4 / 3
        + moved_seconds(shape, setting, tampers=work.tampers, retain=work.retain)
    )
    return peaks, host, seconds


def _shortage(tried: list[Plan], machine: Machine) -> str:
    least = min(tried, key=lambda plan: plan.highest)
    phase = max(least.peak_gib, key=lambda name: least.peak_gib[name])
    if least.highest > _USABLE * machine.gpu_gib:
        return (
            f"no plan fits {machine.gpus} GPUs of {machine.gpu_gib:g} GiB: with one row a pass and "
            f"everything moved away that can be, the {phase} still takes {least.highest:.1f} GiB "
            "each; use more GPUs"
        )
    fits = [plan for plan in tried if plan.highest <= _USABLE * machine.gpu_gib]
    lightest = min(fits, key=lambda plan: plan.host_gib)
    return (
        f"no plan fits: what {machine.gpus} GPUs of {machine.gpu_gib:g} GiB cannot hold takes "
        f"{lightest.host_gib:.0f} GiB of the machine's memory, which has {machine.host_gib:g}"
    )
