"""A fine-tuning attack as plain data: everything that moves its numbers, nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate

from kit.train.engine import AVERAGED, WEIGHTS, Precision
from kit.train.lora import Lora
from kit.train.optimizers import OptimizerSpec, ScheduleFreeAdamW
from kit.train.schedules import Schedule

FORGET, RETAIN, OOD = "forget", "retain", "ood"
"""Names of data: what was to be forgotten, what was to be kept, and texts on the forgotten subject
of another kind than the defender had."""
FIRST_SHARE = 0.4
"""Of the steps, before the switch. The notes' appendix F.1 says forget first; the name
"Retain -> Forget", the README and the critique's fork say retain first (docs/methods/tar.md,
differences, row 6). Both orders are here: the share is that of whichever comes first."""


@dataclass(frozen=True)
class Phase:
    """Some of the steps, on one data set.

    Attributes:
        data: Name of the data.
        share: Of the attack's steps.
    """

    data: str
    share: float = 1.0


@dataclass(frozen=True)
class Attack:
    """One attack.

    Attributes:
        name: Unique in its suite.
        optimizer: With the peak learning rate.
        steps: Optimizer steps; the schedule's horizon.
        batch: Examples a step.
        phases: What the steps train on, in order, all with one optimizer.
        schedule: Of the learning rate. Schedule-free AdamW warms up by itself and takes none.
        length: Tokens that examples are cut at; ``None`` leaves them.
        lora: An adapter that is trained instead of the weights.
        clip: Largest norm of a gradient; ``None`` clips nothing.
        seed: Of the order of the data, the adapter's first weights and dropout.
        shuffle: ``False`` gives every seed the same order, as the released TAR loaders did.
        precision: fp32 masters unless said otherwise: with bf16 weights 70 % of them do not move
            at a rate of 2e-5, which looks like resistance (checkpoint-transfer page, 2.9).
        weights: Of a schedule-free optimizer, which weights are measured and kept.
        source: Document and place of the settings.
        reconstruction: The document gives lists of settings, not this combination.
    """

    name: str
    optimizer: OptimizerSpec
    steps: int
    batch: int
    phases: tuple[Phase, ...] = (Phase(FORGET),)
    schedule: Schedule = field(default_factory=Schedule)
    length: int | None = None
    lora: Lora | None = None
    clip: float | None = None
    seed: int = 0
    shuffle: bool = True
    precision: Precision = field(default_factory=Precision)
    weights: str = AVERAGED
    source: str = ""
    reconstruction: bool = False

    def __post_init__(self) -> None:
        """Refuse what cannot be run as written."""
        if self.steps < 1 or self.batch < 1:
            raise ValueError(f"attack {self.name}: {self.steps} steps of {self.batch} examples")
        if self.length is not None and self.length < 2:
            raise ValueError(f"attack {self.name}: nothing is predicted in {self.length} tokens")
        shares = [phase.share for phase in self.phases]
        if not shares or min(shares) <= 0 or abs(sum(shares) - 1) > 1e-9:
            raise ValueError(f"attack {self.name}: shares {shares} of the phases do not sum to 1")
        if self.weights not in WEIGHTS:
            raise ValueError(f"attack {self.name}: unknown weights {self.weights!r}")
        free = isinstance(self.optimizer, ScheduleFreeAdamW)
        if free and self.schedule != Schedule():
            raise ValueError(f"attack {self.name}: a schedule-free optimizer takes no schedule")
        self.schedule.rate(0, peak=self.optimizer.learning_rate, steps=self.steps)

    @property
    def data(self) -> tuple[str, ...]:
        """Names of the data, each once, in order of use."""
        return tuple(dict.fromkeys(phase.data for phase in self.phases))

    def data_of(self, step: int) -> str:
        """Name of the data of a step, counted from 0."""
        if not 0 <= step < self.steps:
            raise ValueError(f"attack {self.name} has no step {step}; it has {self.steps}")
        ends = [round(end * self.steps) for end in accumulate(p.share for p in self.phases)]
        return next(phase.data for phase, end in zip(self.phases, ends, strict=True) if step < end)

    def seeded(self, seed: int) -> Attack:
        """The same attack in another order of the data."""
        return replace(self, seed=seed)


def phases(*data: str, first: float = FIRST_SHARE) -> tuple[Phase, ...]:
    """Phases on one data set, or on two with a switch after the share ``first``.

    Raises:
        ValueError: None, or more than two.
    """
    if len(data) == 1:
        return (Phase(data[0]),)
    if len(data) != 2:
        raise ValueError(f"an attack trains on one or two data sets, not {len(data)}")
    return Phase(data[0], first), Phase(data[1], 1 - first)


def steps_of_epochs(items: int, batch: int, epochs: int) -> int:
    """Optimizer steps of epochs whose last batch may be smaller."""
    return epochs * -(-items // batch)


def scaled(attack: Attack, *, steps: float = 1.0, rate: float = 1.0, batch: int = 0) -> Attack:
    """The attack at another scale: for a miniature model, whose rates are higher.

    Warm-ups and restart periods keep their share of the run.

    Args:
        attack: At full size.
        steps: Factor of all numbers of steps.
        rate: Factor of the learning rate.
        batch: Examples a step; 0 leaves them.
    """

    def few(count: int) -> int:
        return max(1, round(count * steps)) if count else 0

    optimizer = replace(attack.optimizer, learning_rate=attack.optimizer.learning_rate * rate)
    if isinstance(optimizer, ScheduleFreeAdamW):
        optimizer = replace(optimizer, warmup_steps=few(optimizer.warmup_steps))
    plan = attack.schedule
    return replace(
        attack,
        optimizer=optimizer,
        steps=few(attack.steps),
        batch=batch or attack.batch,
        schedule=replace(plan, warmup=few(plan.warmup), period=few(plan.period)),
    )


def by_name(suite: Sequence[Attack], name: str) -> Attack:
    """An attack of a suite.

    Raises:
        ValueError: No attack of that name.
    """
    for attack in suite:
        if attack.name == name:
            return attack
    raise ValueError(f"no attack {name!r}; there are {', '.join(a.name for a in suite)}")
