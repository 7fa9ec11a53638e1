"""Hyperparameters of prefix training."""

from __future__ import annotations

from dataclasses import dataclass

from kit.train.losses import MICRO_MEAN

PADDED = "padded"
PACKED = "packed"
FORWARDS = (PADDED, PACKED)
FLOAT32 = "float32"
TABLE = "table"
PRECISIONS = (FLOAT32, TABLE)


@dataclass(frozen=True)
class PrefixTraining:
    """Hyperparameters of one run.

    Attributes:
        steps: Optimizer steps of the whole run.
        micro_batch: Examples a micro-batch; what ``micro-mean`` averages over.
        accumulation: Micro-batches a step.
        learning_rate: Peak rate of AdamW. DTP 3.3: 0.1.
        schedule: ``constant``, ``linear`` or ``cosine``.
        warmup: Warm-up steps.
        weight_decay: tiny-adapt note, "Setup": none.
        betas: AdamW's; torch's defaults, as in the follow-up.
        eps: AdamW's.
        normalisation: ``micro-mean`` (published) or ``token-mean``.
        checkpoint_steps: Steps after which a checkpoint is taken; 0 is the start.
        forward_rows: Most rows a forward pass; changes speed and memory, not the loss.
        label_chunk: Most label tokens whose scores exist at once.
        forward: ``padded``, or ``packed`` (:mod:`.packed`): the same loss, computed
            without padding.
        compile: Compile the decoder layers; ``packed`` only.
        low_memory: Checkpoint the decoder layers; ``packed`` only.
        precision: ``float32`` keeps vectors, gradient and Adam's moments in fp32. ``table`` is what
            the follow-up did: the vectors are rows of the model's own embedding table, so all of it
            has the model's dtype, and each micro-batch's gradient is rounded to it before the next
            is added. In bf16 the second moment then cannot decay (defensive_tokens.md, P7).
    """

    steps: int
    micro_batch: int = 4
    accumulation: int = 4
    learning_rate: float = 0.1
    schedule: str = "constant"
    warmup: int = 0
    weight_decay: float = 0.0
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    normalisation: str = MICRO_MEAN
    checkpoint_steps: tuple[int, ...] = ()
    forward_rows: int = 16
    label_chunk: int = 4096
    forward: str = PADDED
    compile: bool = False
    low_memory: bool = False
    precision: str = FLOAT32

    def __post_init__(self) -> None:
        """Refuse settings that would silently do nothing."""
        if self.forward not in FORWARDS:
            raise ValueError(f"unknown forward {self.forward!r}; known: {', '.join(FORWARDS)}")
        if self.precision not in PRECISIONS:
            known = ", ".join(PRECISIONS)
            raise ValueError(f"unknown precision {self.precision!r}; known: {known}")
        if self.precision == TABLE and self.forward_rows < self.micro_batch:
            raise ValueError(
                f"precision 'table' rounds after each micro-batch of {self.micro_batch}, which "
                f"forward_rows={self.forward_rows} would divide"
            )
        if self.forward == PADDED and (self.compile or self.low_memory):
            raise ValueError("compile and low_memory need forward='packed'")

    @property
    def batch(self) -> int:
        """Examples a step."""
        return self.micro_batch * self.accumulation
