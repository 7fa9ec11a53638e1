"""Parameters of the DefensiveTokens step kinds."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct, field

KNOWN_DEFENCES = ("undefended", "reminder", "sandwich", "native")
Backend = Literal["transformers", "vllm"]
Dtype = Literal["float32", "bfloat16"]
BatchTokens = Annotated[int, Meta(ge=1)]
"""Most prompt tokens that transformers has in a batch, padding included."""
GpuShare = Annotated[float, Meta(gt=0, le=1)]
"""Share of the GPU's memory that vLLM takes for weights, keys and values."""


class Align(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Parameters of ``defensive-tokens/align``."""

    center: bool = False
    scale: bool = False
    row_weights: Literal["equal", "unit-length"] = "equal"
    """``unit-length`` fits rows scaled to length 1, as is customary for word embeddings."""


class Transfer(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Parameters of ``defensive-tokens/transfer``."""

    tokens: int
    seed: int
    """Of the random controls."""
    sets: list[Literal["procrustes", "copy", "norm-rescaled", "rotation", "random-norm"]]
    """Which rows go on to the evaluation."""


class TrainingData(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Parameters of ``defensive-tokens/training-data``."""

    builder: Literal["as-reported", "proper", "struq"]
    """``struq`` is the text of StruQ's public code, ``proper`` the kit's own after its description;
    both hold the test's sentences and delimiters out."""
    steps: int
    batch: int
    seed: int
    order: Literal["frozen-stream", "data-loader"] = "frozen-stream"
    """Of consumption: the kit's own, or what torch's shuffling DataLoader yields under this seed
    (the order of the follow-up's training)."""
    heldout: Annotated[int, Meta(ge=0)] = 0
    """Items that no step consumes, labelled like the others, on which a checkpoint is chosen."""


class SelfLabel(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Parameters of ``defensive-tokens/self-label``."""

    max_new_tokens: int
    empty_data: Literal["empty-turn", "no-turn"]
    scope: Literal["consumed", "all"] = "consumed"
    """``consumed`` labels what the schedule consumes, ``all`` the whole pool: the labels then do
    not depend on the schedule."""
    layout: str = "before-bos"
    """Of the prompts without a prefix: whether the labelling engine added a second begin token."""
    backend: Backend = "transformers"
    dtype: Dtype = "float32"
    batch_tokens: BatchTokens = 16384
    gpu_share: GpuShare = 0.9


class TrainPrefix(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Parameters of ``defensive-tokens/train-prefix``."""

    label: str
    """Names the token sets: ``<label>-<step>``."""
    init: Literal["transferred", "normal", "vocabulary"]
    lr: float
    schedule: Literal["constant", "linear", "cosine"]
    steps: int
    micro_batch: int
    """Examples whose label tokens are averaged together; how many are computed at a time is
    ``forward_rows``."""
    accumulation: int
    checkpoints: list[int]
    layout: str
    seed: int
    end_truncated: bool
    label_tokens: Literal["as-text", "as-generated"]
    warmup: Annotated[int, Meta(ge=0)] = 0
    """Steps of linear rise in front of the schedule."""
    max_length: Annotated[int, Meta(ge=2)] = 2048
    """Ids kept of a prompt with its label, prefix slots included."""
    tokens: int = 5
    dtype: Dtype = "float32"
    forward: Literal["padded", "packed"] = "padded"
    """``packed`` computes the same loss without padding (``prefix_training.packed``)."""
    compile: bool = False
    low_memory: bool = False
    precision: Literal["float32", "table"] = "float32"
    """Of vectors, gradient and Adam's moments; ``table``: rows of the model's own embedding table,
    as the follow-up trained them."""
    forward_rows: Annotated[int, Meta(ge=1)] = 16
    """Most examples a forward pass: memory and speed, not the loss."""


class Evaluate(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Parameters of ``defensive-tokens/evaluate``."""

    layout: str
    attacks: list[str]
    max_new_tokens: int
    seed: int
    accuracy: bool
    refusal_rule: str
    defences: list[str] = field(default_factory=lambda: ["undefended", "native"])
    """undefended, reminder, sandwich, native (the released tokens, or those of the input of this
    name), or one of your own: NAME=text
    with {data} in it, or NAME=module:function, a function of data and instruction."""
    reminder: str = ""
    sandwich: str = ""
    output_rows: bool = False
    """Also measure how often a prefix vector would be the answer's first token, were the vectors
    rows of the model's tied table (``output_rows``). Beside vLLM's engine the model is loaded once
    more for it."""
    tokens: int = 5
    backend: Backend = "transformers"
    dtype: Dtype = "float32"
    batch_tokens: BatchTokens = 16384
    gpu_share: GpuShare = 0.9

    def __post_init__(self) -> None:
        """Refuse what is neither a defence of the kit nor written as one of somebody's own."""
        own = [written for written in self.defences if written not in KNOWN_DEFENCES]
        if not own:
            return
        from kit.methods.defensive_tokens.prompt_defences import own_defence

        try:
            for written in own:
                own_defence(written)
        except ValueError as error:
            raise ValueError(f"{error}; the kit has {', '.join(KNOWN_DEFENCES)}") from None


class Tabulate(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Parameters of ``defensive-tokens/tabulate``."""

    native: str
    loss_window: int
    loss_divisor: Annotated[float, Meta(gt=0)] | None = None
    """What a document's log divides the mean loss by: ``loss-first-printed`` is comparable with its
    numbers, ``loss-first`` is in nats a token."""
    published_full: float | None = None
    refusal_rule: str = "as-reported"
    utility_sets: list[str] = field(default_factory=list)
    """Rows whose WinRate a document reports; without a judge they are ``not-run``."""
    utility_not_run: str = "no judge"
    utility: dict[str, float] = field(default_factory=dict)
    """WinRates in percent that a user's own judge gave: ``<group>/<token set>`` -> number."""


class Gcg(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Parameters of ``defensive-tokens/gcg``."""

    attacker: Literal["blind", "aware"]
    """``blind`` searches on the undefended model and sends the texts to every token set; ``aware``
    searches on each token set with its prefix."""
    layout: str
    attack: str
    """The published attack whose text stands in front of the searched tokens."""
    filler: str
    """First word of every searched position; a token of its own wherever it stands."""
    length: Annotated[int, Meta(ge=1)]
    """Tokens searched."""
    steps: Annotated[int, Meta(ge=1)]
    candidates: Annotated[int, Meta(ge=1)]
    """Texts tried a step."""
    top_k: Annotated[int, Meta(ge=1)]
    """Replacements of each position that may be drawn."""
    measure_at: list[int]
    """Steps whose kept texts are sent; 0 is the start, the last is the last."""
    stop: bool
    """An item's search ends when a text sent works on the attacker's own model."""
    seed: int
    max_new_tokens: Annotated[int, Meta(ge=1)]
    items: Annotated[int, Meta(ge=1)] | None = None
    """The first so many; all where absent."""
    trained: list[str] = field(default_factory=list)
    """Token sets of the input ``trained`` that are attacked."""
    tokens: int = 5
    together: Annotated[int, Meta(ge=1)] = 1
    """Items searched side by side: memory and speed."""
    rows: Annotated[int, Meta(ge=1)] = 512
    """Most texts in a forward pass: memory and speed."""
    dtype: Dtype = "float32"
    batch_tokens: BatchTokens = 16384


class PublishedTexts(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Parameters of ``defensive-tokens/published-texts``."""

    layout: str
    attacks: list[str]
    """Each sentence or pair of delimiters that they draw from is a text of its own."""
    max_new_tokens: Annotated[int, Meta(ge=1)]
    seed: int
    """Of attacks that draw something else (how many line breaks)."""
    trained: list[str] = field(default_factory=list)
    """Token sets of the input ``trained`` that are attacked."""
    tokens: int = 5
    backend: Backend = "transformers"
    dtype: Dtype = "float32"
    batch_tokens: BatchTokens = 16384
    gpu_share: GpuShare = 0.9


class AttackTable(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Parameters of ``defensive-tokens/attack-table``."""

    level: Annotated[float, Meta(gt=0, lt=1)] = 0.95
    """Coverage of the interval for the best text's true rate, at least."""
    seed: Annotated[int, Meta(ge=0)] = 0
    """Of the halving of the items."""
