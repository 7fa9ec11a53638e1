"""Parameters of the TAR family's step kinds."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct, field

from kit.steps.sharding import Sharded

Count = Annotated[int, Meta(ge=1)]
Natural = Annotated[int, Meta(ge=0)]
Rate = Annotated[float, Meta(gt=0)]


class Safeguard(Sharded, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Parameters of ``tar/safeguard``."""

    method: Literal["random-mapping", "max-entropy", "min-posterior", "llmu", "rmu"]
    seed: Natural
    steps: Count
    learning_rate: Rate
    batch: Count
    optimizer: str = "adamw"
    warmup: Natural = 0
    clip: Rate | None = None
    scale: float = 1.0
    """Of the entropy (max-entropy)."""
    steering: float = 20.0
    """c of RMU."""
    retain_scale: float = 700.0
    """alpha of RMU."""
    block: Natural = 7
    """Block that RMU compares, counted from 0."""
    updated_blocks: list[Natural] = field(default_factory=lambda: [5, 6, 7])
    """Whose MLP output projections RMU trains."""
    forget: list[str] = field(default_factory=lambda: ["forget"])
    retain: list[str] = field(default_factory=lambda: ["retain"])
    length: Count | None = None
    rows: Count = 64
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Of the model as it is loaded; trained weights are fp32."""
    compute: Literal["float32", "bfloat16"] = "float32"


class OuterLoop(Sharded, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A preset of TAR's outer loop, and the settings that differ from it."""

    seed: Natural
    preset: Literal["paper", "released-code", "corrected"]
    outer_steps: Natural | None = None
    outer_learning_rate: Rate | None = None
    outer_warmup: Natural | None = None
    inner_steps: Count | None = None
    every: Count | None = None
    weighting: str | None = None
    tamper_scale: Annotated[float, Meta(ge=0)] | None = None
    adversary_learning_rates: list[Rate] | None = None
    forget_batch: Count | None = None
    held_out_batch: Count | None = None
    retain_batch: Count | None = None
    """These settings, described in docs/methods/tar.md, are the preset's where absent."""
    adversary_share: Annotated[float, Meta(gt=0, lt=1)] = 0.8
    """Of what simulated adversaries train on, where it is divided here; the rest is held out."""
    divide_by: Literal["text", "subject"] = "text"
    redraw: bool = False
    """Divides it anew in every outer step; else once."""
    rows: Count = 64
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Of the models as they are loaded; trained weights are fp32."""
    compute: Literal["float32", "bfloat16"] = "float32"
    outer_state: Literal["resident", "offloaded"] = "resident"
    """Sharded only: where the outer optimizer's state is during an attack."""
    snapshot: Literal["cpu", "cuda"] | None = None
    """Where the weights wait for an attack's end; where they are if absent."""
    collected: Literal["resident", "offloaded"] = "resident"
    """Sharded only: where tamper-resistance gradients wait for an attack's end."""
    reference: Literal["resident", "offloaded"] = "resident"
    """Where the original model is while it is not asked."""


class Train(OuterLoop, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Parameters of ``tar/train``."""

    domain: Literal["bio", "chem", "cyber", "refusal"]
    adversaries: list[str] = field(default_factory=list)
    """Simulated adversaries: forget, retain, retain-then-forget; the preset's where empty."""
    shares: list[Annotated[float, Meta(gt=0)]] = field(default_factory=list)
    """How often each of them is drawn; all alike where empty."""
    inner_retain_batch: Count | None = None
    objective: str | None = None
    """The preset's where absent, like the batch of retain texts in an attack."""
    width: Natural | None = None
    """Columns that batches are padded to; 0 pads to the longest text."""
    held_out: list[str] = field(default_factory=list)
    """Sets divided from the others before; each adversary then trains on the set of its name."""
    forget: list[str] = field(default_factory=lambda: ["forget"])
    retain: list[str] = field(default_factory=lambda: ["retain"])


class Tabulate(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Parameters of ``tar/tabulate``."""

    forget: str = "forget"
    """Measurement that tells whether what was forgotten comes back."""
    steps: list[Count] = field(default_factory=list)
    """Points of the attacks that get cells of their own."""
    over: str = ""
    """Axis over which ``statistic`` of the forget measurement is taken; none where empty."""
    statistic: Literal["mean", "range"] = "mean"


class Data(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Parameters of ``tar/data``."""

    domain: Literal["bio", "chem", "cyber"]
    width: Count = 256
    """Tokens that texts are cut at."""
    published: list[str] = field(default_factory=list)
    """Counts of sets before they are divided, ``name=count``; a canary each. Stand-ins of a
    rehearsal have as many texts."""
