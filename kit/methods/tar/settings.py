"""Everything that decides what a TAR run computes, each difference of paper and code by name."""

from __future__ import annotations

import math
from dataclasses import dataclass

from kit.methods.tar.adversaries import SWITCH, AdversaryType
from kit.methods.tar.dpo import BETA
from kit.methods.tar.losses import INCLUDED, PADDING
from kit.methods.tar.representations import DISTANCES, NORM
from kit.methods.tar.weighting import EXPONENTIAL, RATE, inner_weights

ENTROPY = "entropy"
DPO = "dpo"
NEGATIVE_CROSS_ENTROPY = "negative-cross-entropy"
CLAMPED_CROSS_ENTROPY = "clamped-negative-cross-entropy"
INVERSE_CROSS_ENTROPY = "inverse-cross-entropy"
OBJECTIVES = (
    ENTROPY,
    DPO,
    NEGATIVE_CROSS_ENTROPY,
    CLAMPED_CROSS_ENTROPY,
    INVERSE_CROSS_ENTROPY,
)
"""The tamper-resistance loss. The clamped negative cross-entropy makes the loop MLAC-AR, the
inverse cross-entropy SOPHON-AR."""

HIDDEN_STATES = "hidden-states"
BLOCK_OUTPUTS = "block-outputs"
LAYERS = (HIDDEN_STATES, BLOCK_OUTPUTS)
"""Which states the representation losses see. ``hidden-states``: what transformers returns and the
released code uses, the embeddings, every block but the last, and the last block behind the final
norm (33 at Llama-3-8B). ``block-outputs``: the residual stream behind every block (32), which is
how the paper describes it."""

AVERAGED = "x"
TRAINED = "y"
SAVED = (TRAINED, AVERAGED)
"""Schedule-free keeps y, where gradients are taken, and the average x, which is meant for use."""


@dataclass(frozen=True)
class TarSettings:
    """Settings of the outer loop; ``presets`` has the published ones with their sources.

    Attributes:
        adversaries: Who may attack in the inner loop.
        adversary_learning_rates: Drawn uniformly.
        outer_steps: N.
        outer_learning_rate: Of the schedule-free AdamW.
        outer_warmup: Its linear warm-up, steps.
        forget_batch: Examples of an inner step on forget data.
        inner_retain_batch: Examples of an inner step on retain data.
        held_out_batch: Examples of the batch that the tamper-resistance loss is measured on.
        retain_batch: Examples of the retain loss.
        objective: One of ``OBJECTIVES``.
        inner_steps: K.
        every: Gap between tamper-resistance gradients.
        adversaries_a_step: Simulated attacks in an outer step.
        tamper_scale: lambda_TR.
        retain_scale: lambda_retain.
        weighting: How inner steps weigh, a scheme of ``weighting``.
        weighting_rate: Of the exponential scheme.
        lowest_tamper_loss: Weighted sum of tamper-resistance losses below which their gradient is
            dropped for that outer step; minus infinity is ``--unbounded``.
        distance: ``norm`` or ``squared-norm`` in the representation term.
        representation_scale: Coefficient of that term beside the language-model loss.
        layers: One of ``LAYERS``.
        entropy_padding: ``included`` or ``masked``.
        representation_padding: Likewise, in the representation term.
        beta: Of DPO.
        inner_optimizers: Drawn uniformly; made fresh for every inner loop.
        inner_weight_decay: Of the inner AdamW.
        switch: Beta distribution of the retain-then-forget turn.
        saved_weights: ``y`` or ``x``.
        shuffle_adversary: Whether the adversaries' data are shuffled.
        shuffle_held_out: Whether the held-out data are.
        shuffle_retain: Whether the retain data are.
        held_out_split: ``own`` (never seen by an adversary) or ``adversary`` (the same data).
        retain_split: ``train`` or ``test`` of the retain data.
        special_token_labels: ``masked`` or ``kept`` in chat data.
        width: Columns that every batch is padded to; none pads to the longest example.
        recovery_steps: Supervised steps on retain data after the loop.
    """

    adversaries: tuple[AdversaryType, ...]
    adversary_learning_rates: tuple[float, ...]
    outer_steps: int
    outer_learning_rate: float
    outer_warmup: int
    forget_batch: int
    inner_retain_batch: int
    held_out_batch: int
    retain_batch: int
    objective: str = ENTROPY
    inner_steps: int = 64
    every: int = 4
    adversaries_a_step: int = 1
    tamper_scale: float = 4.0
    retain_scale: float = 1.0
    weighting: str = EXPONENTIAL
    weighting_rate: float = RATE
    lowest_tamper_loss: float = -math.inf
    distance: str = NORM
    representation_scale: float = 1.0
    layers: str = HIDDEN_STATES
    entropy_padding: str = INCLUDED
    representation_padding: str = INCLUDED
    beta: float = BETA
    inner_optimizers: tuple[str, ...] = ("adamw",)
    inner_weight_decay: float = 0.01
    switch: tuple[float, float] = SWITCH
    saved_weights: str = TRAINED
    shuffle_adversary: bool = True
    shuffle_held_out: bool = True
    shuffle_retain: bool = True
    held_out_split: str = "own"
    retain_split: str = "train"
    special_token_labels: str = "masked"
    width: int | None = None
    recovery_steps: int = 0

    def __post_init__(self) -> None:
        """Refuse what no run can follow.

        Raises:
            ValueError: Naming the setting and what it may be.
        """
        named = {
            "objective": (self.objective, OBJECTIVES),
            "distance": (self.distance, DISTANCES),
            "layers": (self.layers, LAYERS),
            "entropy_padding": (self.entropy_padding, PADDING),
            "representation_padding": (self.representation_padding, PADDING),
            "saved_weights": (self.saved_weights, SAVED),
            "held_out_split": (self.held_out_split, ("own", "adversary")),
            "retain_split": (self.retain_split, ("train", "test")),
            "special_token_labels": (self.special_token_labels, ("masked", "kept")),
        }
        for name, (value, known) in named.items():
            if value not in known:
                raise ValueError(f"{name} is {value!r}; known: {', '.join(known)}")
        for name in (
            "outer_steps",
            "adversaries_a_step",
            "forget_batch",
            "inner_retain_batch",
            "held_out_batch",
            "retain_batch",
        ):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; at least 1 is needed")
        if not self.adversaries or not self.adversary_learning_rates or not self.inner_optimizers:
            raise ValueError("TAR needs an adversary, a learning rate and an optimizer for it")
        if not all(math.isfinite(r) and r > 0 for r in self.adversary_learning_rates):
            raise ValueError(f"adversary learning rates {self.adversary_learning_rates}")
        self.weights()

    def weights(self) -> dict[int, float]:
        """Inner step to coefficient of its tamper-resistance loss, shared among the adversaries."""
        return inner_weights(
            self.inner_steps,
            self.every,
            self.tamper_scale / self.adversaries_a_step,
            scheme=self.weighting,
            rate=self.weighting_rate,
        )
