"""Parameters of the step kinds of the family."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct, field

Count = Annotated[int, Meta(ge=1)]
Whole = Annotated[int, Meta(ge=0)]
Positive = Annotated[float, Meta(gt=0)]
State = Literal["block-input", "block-output"]
Share = Annotated[float, Meta(gt=0, le=1)]
Dtype = Literal["float32", "bfloat16"]
Preset = Literal[
    "corrected",
    "v1",
    "v2",
    "v2-muon-bug",
    "v2-muon-repaired",
    "epoch-sweep",
    "epoch-sweep-with-map",
]


class Texts(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Parameters of ``checkpoint-transfer/texts``."""

    seed: Whole
    pairs: Count
    """Of forget and retain text; a training of N pairs takes the first N."""
    fit: Count
    held_out: Count
    most_tokens: Count
    forget_order: Literal["as-they-come", "shuffled"] = "as-they-come"
    repeat: bool = False
    """Take documents again where there are fewer than pairs."""
    forget_set: str = "forget"
    """Of a miniature world: its set of sentences."""
    retain_set: str = "retain"
    forget_fields: list[str] = field(default_factory=lambda: ["text"])
    """Of pinned documents: columns that make up one, joined by blank lines."""
    retain_fields: list[str] = field(default_factory=lambda: ["text"])


class Fit(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Parameters of ``checkpoint-transfer/fit``."""

    layers: list[Whole]
    fit_at: State = "block-input"
    alpha: Annotated[float, Meta(ge=0)] = 0.01
    batch: Count = 4
    dtype: str = "float32"


class Oracle(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Parameters of ``checkpoint-transfer/oracle-patch``."""

    questions: str
    """Name of the set that is to be forgotten."""
    most_known: Annotated[float, Meta(ge=0, le=1)]
    """Share right above which the deepest target itself still knows: the canary fails."""
    batch_tokens: Count = 16384
    dtype: str = "float32"


class Unlearn(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Parameters of ``checkpoint-transfer/unlearn``; see ``Recipe`` for the fields of the run."""

    seed: Whole
    preset: Preset
    retain_coef: Annotated[float, Meta(ge=0)]
    remove_coef: Positive
    layers: list[Whole]
    examples: Count
    micro_batch: Count
    epochs: Count = 1
    global_batch: Count = 32
    fit_at: State = "block-input"
    use_at: State | None = None
    """What the preset says where left out."""
    affine: bool | None = None
    """What the preset says where left out."""
    full_rank: bool = False
    train_embeddings: bool = True
    lora_rank: Count = 16
    lora_alpha: Positive = 16.0
    lora_dropout: Annotated[float, Meta(ge=0, lt=1)] = 0.05
    optimizer: Literal["adamw", "muon"] = "adamw"
    muon_rows: Count | None = None
    """Of the presets that route Muon by rows: their number, scaled to a smaller model."""
    coefficient_schedule: Literal["ramp", "constant", "circuit-breakers"] = "ramp"
    learning_rate: Positive = 1e-3
    weight_decay: Annotated[float, Meta(ge=0)] = 0.01
    clip: Positive = 1.0
    dtype: str = "float32"
    """Of the weights that are not trained."""
    compute: Dtype = "float32"
    save_every: Whole = 0
    """Optimizer steps between checkpoints; there is always one every two minutes."""
    rows: Whole = 0
    """Most texts in a forward pass; bounds memory and changes no loss. 0: a whole micro-batch."""
    compiled: bool = False
    """Compile the layers that are trained: a minute once, and faster steps."""
    fraction: Share = 1.0
    """Of the pairs, for a rehearsal."""


class Targets(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Parameters of ``checkpoint-transfer/targets``: what the rows of a sweep share."""

    layers: list[Whole]
    fit_at: State = "block-input"
    use_at: State = "block-input"
    affine: bool = True
    pairs: Count
    """The first ones."""
    uses: Count
    """How often a pair is read: rows of the sweep times epochs."""
    budget_gb: Positive
    """What is kept fits into this; what saves most computation a byte is kept first."""
    batch: Count = 4
    dtype: Dtype = "float32"
    """Of the models."""
    kept: Dtype = "float32"
    """Of the states."""
    compiled_rows: Whole = 0
    """Most texts in a forward pass of the rows that train compiled: their layers are compiled
    meanwhile, for an adapter of the following shape and the type of computing. 0: nothing is."""
    lora_rank: Count = 16
    lora_alpha: Positive = 16.0
    lora_dropout: Annotated[float, Meta(ge=0, lt=1)] = 0.05
    compute: Dtype = "bfloat16"


class RandomInit(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Parameters of ``checkpoint-transfer/random-init``."""

    seed: Whole


class Questions(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Parameters of ``checkpoint-transfer/questions``: how many of each set there must be."""

    robust: Count
    mmlu: Count
    mmlu_stem: Count
    cloze: Whole = 0
    """0: the sweep has no cloze test."""
    shots: Whole = 0
    """Examples before each question of a second MMLU set, ``mmlu-<shots>-shot``."""


class AttackData(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Parameters of ``checkpoint-transfer/attack-data``."""

    seed: Whole
    documents: Count
    most_tokens: Count
    most_pieces: Count = 1
    text_set: str = "forget-attacker"
    """Of a miniature world: its set of sentences."""
    fields: list[str] = field(default_factory=lambda: ["text"])
    """Of pinned documents: columns that make up one, joined by blank lines."""


class Evaluate(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Parameters of ``checkpoint-transfer/evaluate``."""

    sets: Annotated[list[str], Meta(min_length=1)]
    """Names of sets of questions; each is a metric of the table."""
    scorer: Literal["kit", "lm-eval"] = "kit"
    batch_tokens: Count = 16384
    """Of the kit's scorer."""
    batch: Count = 16
    """Sequences, of lm-evaluation-harness."""
    dtype: str = "float32"
    fraction: Share = 1.0
    """Of the questions, for a rehearsal."""


class Tabulate(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Parameters of ``checkpoint-transfer/tabulate``."""

    losses: Literal["logged", "last-step"]
    checkpoint: str = "baseline"
    """Row of the early checkpoint, where no axis names it."""
    also: list[Literal["trained-percent", "base-moved", "muon-tensors", "one-letter"]] = field(
        default_factory=list
    )
    """Further cells of each unlearned model: how much was trained, tensors that differ with the
    adapters off, tensors that Muon updated, share of the letter picked most."""
    attack_steps: list[Whole] = field(default_factory=list)
    """Steps of an attack that are cells; step 0 and the end always are."""
