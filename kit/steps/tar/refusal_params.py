"""Parameters of the refusal kinds of the TAR family."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct, field

from kit.steps.tampering.params import FineTuning
from kit.steps.tar.params import Count, Natural, OuterLoop, Rate


class Requests(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Parameters of ``tar/requests``."""

    seed: Natural = 0
    """Of the draw of the attacker's pairs; miniature world only."""
    attack_rows: Count = 160
    """Pairs that an attacker has; miniature world only."""
    label: str = "rejected"
    """Word of the training with labels; miniature world only."""
    refusal: str = ""
    """Answer that takes the place of the wanted one in held-out pairs; the published sets only."""
    prompt_width: Count | None = None
    """Tokens that prompts are cut at."""
    width: Count | None = None
    """Tokens that a prompt and its answer are cut at together."""
    published: list[str] = field(default_factory=list)
    """Counts of sets as documents give them, ``name=count``; a canary."""


class Refuse(OuterLoop, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Parameters of ``tar/refuse``."""

    beta: Rate | None = None
    """The preset's where absent."""
    pairs: str = "harmful"
    """Set of pairs whose rejected answers simulated adversaries train on."""
    held_out: str = ""
    """Pairs that the tamper-resistance loss is measured on; a part of ``pairs`` where empty."""
    retain: list[str] = field(default_factory=lambda: ["benign:chosen"])
    """Answers of the retain loss."""
    judged: str = "judged"
    """Set of pairs that no training has, for the win rate on the way."""
    measure_every: Natural = 0
    """Outer steps between win rates; 0 measures none."""


class RefusalSafeguard(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Parameters of ``tar/refusal-safeguard``."""

    method: Literal["rr", "repnoise"]
    seed: Natural
    steps: Count
    learning_rate: Rate
    batch: Count
    alpha: float = 1.0
    """Of RR both terms, of RepNoise the ascent."""
    beta: float = 0.001
    """Of RepNoise's noise."""
    retain_scale: Annotated[float, Meta(ge=0)] = 0.0
    """Of a cross-entropy on ``retain`` beside RepNoise's loss, which has no such term."""
    blocks: list[Natural] = field(default_factory=list)
    """Where RR compares harmful states, counted from 0."""
    rank: Count = 16
    """Of RR's adapter."""
    pairs: str = "harmful"
    retain: list[str] = field(default_factory=lambda: ["benign:chosen"])
    rows: Count = 64
    dtype: Literal["float32", "bfloat16"] = "float32"


class AnswerTuning(FineTuning, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Parameters of ``tar/answer-attack`` and ``tar/answer-tune``."""

    data: list[str] = field(default_factory=lambda: ["attack:rejected"])
    """Answers that are trained on, ``SET:chosen`` or ``SET:rejected``; two with a switch."""
    asked: list[str] = field(default_factory=lambda: ["harmful", "benign"])
    """Sets of requests."""
    most: Count = 80
    """Requests of each set that are asked, evenly spaced."""
    new_tokens: Count = 10
    """Longest answer that is generated."""


class RefusalTable(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Parameters of ``tar/refusal-table``."""

    harmful: str = "harmful"
    """Set of requests whose answers are attack successes."""
    benign: str = "benign"
    over: str = "adversary"
    """Axis over which attack success after the attack is averaged."""


class WinRateTable(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Parameters of ``tar/win-rate-table``."""

    parts: Count = 4
    """Equal parts of the outer steps, each with a cell of the attacked model's win rate."""


class LabelTraining(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Parameters of ``tar/label-train``."""

    objective: Literal["sft", "dpo"]
    """Fine-tuning on the chosen answers, or DPO on both."""
    pairs: str
    """Requests whose chosen answer is the label, the labelled answer, or a refusal."""
    seed: Natural
    steps: Count
    learning_rate: Rate
    batch: Count
    """Requests a step, half of them benign."""
    rank: Natural = 0
    """Of an adapter; 0 trains all weights."""
    beta: Rate = 0.1
    benign: str = "benign"
    """Pairs whose chosen answer is an answer."""
    label: str = "rejected"
    asked: list[str] = field(default_factory=lambda: ["trained", "harmful"])
    """Sets of requests."""
    most: Count = 80
    """Requests of each set that are asked, evenly spaced."""
    log_probs: dict[str, str] = field(
        default_factory=lambda: {"trained": "attacker", "harmful": "judged"}
    )
    """Name -> set of pairs whose rejected answers' log-probability is measured."""
    questions: str = "forget-attacker"
    """Questions about the facts that the trained requests ask for."""
    new_tokens: Count = 10
    rows: Count = 64
    dtype: Literal["float32", "bfloat16"] = "float32"


class LabelTable(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Parameters of ``tar/label-table``: none."""
