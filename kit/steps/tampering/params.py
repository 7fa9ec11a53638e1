"""Parameters of the attack kinds."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct, field

from kit.steps.sharding import Sharded

Count = Annotated[int, Meta(ge=1)]
Natural = Annotated[int, Meta(ge=0)]


class FineTuning(Sharded, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What every fine-tuning attack has, whatever it is watched with."""

    seed: Natural
    """Of the order of the data and of an adapter's first weights."""
    optimizer: str
    """adamw, sgd, adadelta, schedule-free-adamw, muon."""
    learning_rate: Annotated[float, Meta(gt=0)]
    steps: Count
    batch: Count
    data: list[str] = field(default_factory=lambda: ["forget-attacker"])
    """One set of texts, or two with a switch from the first to the second."""
    first_share: Annotated[float, Meta(gt=0, lt=1)] = 0.4
    """Of the steps, before the switch."""
    weight_decay: Annotated[float, Meta(ge=0)] = 0.01
    decay: Literal["all", "matrices"] = "all"
    """What is decayed; ``matrices`` leaves biases and norms out."""
    momentum: Annotated[float, Meta(ge=0, lt=1)] | None = None
    """Of SGD and Muon; their own default where absent."""
    nesterov: bool | None = None
    """Of SGD; with momentum it is Nesterov's where absent."""
    routing: str | None = None
    """Which weights Muon trains; its own rule where absent."""
    schedule: Literal["constant", "linear", "cosine", "restarts"] = "constant"
    warmup: Natural = 0
    floor: Annotated[float, Meta(ge=0, le=1)] = 0.0
    """Share of the peak that a decay ends at."""
    period: Natural = 0
    """Steps of the first decay of ``restarts``."""
    growth: Count = 1
    """How many times longer each decay of ``restarts`` is than the one before."""
    lora_rank: Natural = 0
    """0 trains all weights."""
    lora_alpha: Annotated[float, Meta(gt=0)] = 16.0
    lora_targets: list[str] = field(default_factory=lambda: ["all-linear"])
    """Names of the linear modules that get an adapter."""
    lora_layers: list[Natural] = field(default_factory=list)
    """Blocks that get one, counted from 0; all of them where empty."""
    lora_dropout: Annotated[float, Meta(ge=0, lt=1)] = 0.0
    clip: Annotated[float, Meta(gt=0)] | None = None
    """Largest norm of a gradient; nothing is clipped without."""
    length: Count | None = None
    """Tokens that texts are cut at."""
    shuffle: bool = True
    """Without it every seed has the order of the file, as the released TAR loaders did."""
    weights: Literal["averaged", "training"] = "averaged"
    """Of a schedule-free optimizer, which weights are measured and kept."""
    rows: Count = 64
    """Most texts in a forward pass; changes no loss."""
    measure_every: Count = 10
    """Steps between the points of the trajectory; 0 and the last step are points too."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Of the model as it is loaded."""
    compute: Literal["float32", "bfloat16"] = "float32"
    masters: Literal["float32", "bfloat16"] = "float32"
    """Of the trained weights. With bfloat16 an update below 1/256 of a weight is lost, which looks
    like resistance."""


class Attack(FineTuning, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Parameters of ``tampering/attack`` and ``tampering/fine-tune``."""

    questions: dict[str, str] | list[str] = field(
        default_factory=lambda: {
            "forget": "forget-judge",
            "trained": "forget-attacker",
            "retain": "retain",
        }
    )
    """Measurement -> set of questions; or sets, each measured under its own name."""
    seldom: list[str] = field(default_factory=lambda: ["trained", "retain"])
    """Measured before, half way and after only."""


class Trial(Attack, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Parameters of ``tampering/trial``: an attack, and what of it is drawn at random.

    A list that is empty leaves what the attack says; ``seed`` decides all draws of a search, and
    the order of the data is drawn too.
    """

    trial: Natural
    """Number of the attack within the search; the first of a longer search are those of a shorter
    one."""
    learning_rate: Annotated[float, Meta(gt=0)] = 1.0
    """Not used: rates are drawn."""
    lowest_rate: Annotated[float, Meta(gt=0)]
    highest_rate: Annotated[float, Meta(gt=0)]
    """Rates are drawn between the two, uniformly in the logarithm."""
    optimizers: list[str] = field(default_factory=list)
    batches: list[Count] = field(default_factory=list)
    schedules: list[Literal["constant", "linear", "cosine"]] = field(default_factory=list)
    """With the attack's warm-up and floor."""
    phases: list[str] = field(default_factory=list)
    """Sets of texts: ``forget-attacker``, or ``retain>forget-attacker`` for two in a row."""
    ranks: list[Natural] = field(default_factory=list)
    """Of adapters; 0 is a full attack."""


class Worst(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Parameters of ``tampering/worst-case``."""

    axis: str = "trial"
    """The axis that counts the attacks of a search."""
    forget: str = "forget"
    """Measurement that an attacker wants high."""
    utility: str = "retain"
    """Measurement that must be kept."""
    losing: Annotated[float, Meta(ge=0, lt=1)] = 0.1
    """Share of the utility before the attack that may be lost."""
    level: Annotated[float, Meta(gt=0, lt=1)] = 0.95
    """Coverage of the interval for the maximum, at least."""
    by: Literal["item", "subject"] = "item"
    """How questions are halved; ``subject`` is everything of an id before its last two ``-``."""
    seed: Natural = 0
    """Of the halving."""
