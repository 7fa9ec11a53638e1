"""Every setting of one unlearning run, and what they amount to.

Layers are counted as the log counts them: layer l of the published list. Which state that is
(what enters block l, or what block l returns) was one thing when the maps were fitted and, in the
second version of the code, another when they were used (reference page, section 1.3); both are
settings here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from kit.methods.checkpoint_transfer.counting import (
    COEFFICIENT_SCHEDULES,
    GLOBAL_BATCH,
    RAMP,
    StepCount,
    count_steps,
)
from kit.methods.checkpoint_transfer.losses import RETAIN_LOSSES
from kit.train.loop import GO_ON, STOP
from kit.train.routing import HIDDEN_LAYERS, check_routing

LAYERS = (5, 10, 15, 20, 25, 30)
"""The published layers (seed log, line 11; reference page, section 1.4)."""
BLOCK_INPUT, BLOCK_OUTPUT = "block-input", "block-output"
STATES = (BLOCK_INPUT, BLOCK_OUTPUT)


@dataclass(frozen=True)
class Recipe:
    """One unlearning run. The values here are those of ``corrected``.

    Attributes:
        retain_coef: Coefficient of the retain loss at the end of its ramp.
        remove_coef: Coefficient of the remove loss at the start.
        layers: Layers whose states are pulled.
        fit_at: Which state of layer l the affine map was fitted on.
        use_at: Which state of layer l is pulled to the mapped teacher state.
        affine: Whether there is a map; without, the raw teacher state is the target.
        retain_loss: One of :data:`kit.methods.checkpoint_transfer.losses.RETAIN_LOSSES`.
        coefficient_schedule: One of
            :data:`kit.methods.checkpoint_transfer.counting.COEFFICIENT_SCHEDULES`.
        examples: Pairs of an epoch.
        micro_batch: Pairs of one process at a time.
        world: Processes.
        epochs: Passes.
        global_batch: Pairs of one optimizer step over all processes.
        all_reduce: Whether processes average their gradients. Without, the first process is
            trained on its own share alone, and is the one that is saved.
        full_rank: Train all weights; else LoRA.
        train_embeddings: Of full rank: whether the matrices of the vocabulary are trained too, as
            in the published runs. A miniature model keeps them as they were in its pretraining.
        lora_rank: Of LoRA.
        lora_alpha: Of LoRA; updates are scaled by alpha / rank.
        lora_dropout: Of LoRA, during training.
        optimizer: ``adamw`` or ``muon``.
        muon_routing: Which tensors Muon updates, a rule of :mod:`kit.train.routing`; the others
            go to AdamW.
        learning_rate: Peak; linear decay to 0 over the run.
        warmup: Optimizer steps of linear rise.
        weight_decay: Decoupled.
        clip: Largest norm of the gradient.
        on_divergence: ``stop`` with a message, or ``go-on``: the run is marked and, if its weights
            are finite, evaluated.
    """

    retain_coef: float
    remove_coef: float
    layers: tuple[int, ...] = LAYERS
    fit_at: str = BLOCK_INPUT
    use_at: str = BLOCK_INPUT
    affine: bool = True
    retain_loss: str = "kl"
    coefficient_schedule: str = RAMP
    examples: int = 1024
    micro_batch: int = 4
    world: int = 1
    epochs: int = 1
    global_batch: int = GLOBAL_BATCH
    all_reduce: bool = True
    full_rank: bool = False
    train_embeddings: bool = True
    lora_rank: int = 16
    lora_alpha: float = 16.0
    lora_dropout: float = 0.05
    optimizer: str = "adamw"
    muon_routing: str = HIDDEN_LAYERS
    learning_rate: float = 1e-3
    warmup: int = 0
    weight_decay: float = 0.01
    clip: float = 1.0
    on_divergence: str = STOP

    def __post_init__(self) -> None:
        """Refuse what is no recipe, in a sentence."""
        _one_of("fit_at", self.fit_at, STATES)
        _one_of("use_at", self.use_at, STATES)
        _one_of("retain_loss", self.retain_loss, RETAIN_LOSSES)
        _one_of("coefficient_schedule", self.coefficient_schedule, COEFFICIENT_SCHEDULES)
        check_routing(self.muon_routing)
        _one_of("optimizer", self.optimizer, ("adamw", "muon"))
        _one_of("on_divergence", self.on_divergence, (STOP, GO_ON))
        for name in ("affine", "all_reduce", "full_rank", "train_embeddings"):
            if type(getattr(self, name)) is not bool:
                raise ValueError(f"{name} is {getattr(self, name)!r}; write true or false")
        if not self.layers or list(self.layers) != sorted(set(self.layers)) or self.layers[0] < 0:
            raise ValueError(f"layers {self.layers}: name each once, in rising order, from 0")
        if self.retain_coef < 0 or self.remove_coef <= 0:
            raise ValueError("a retain coefficient is not negative, a remove coefficient above 0")
        if not self.full_rank and self.lora_rank < 1:
            raise ValueError(f"a LoRA rank of {self.lora_rank}; for all weights set full_rank")
        if self.learning_rate <= 0:
            raise ValueError(f"a learning rate of {self.learning_rate}")
        count_steps(
            self.examples,
            self.micro_batch,
            self.world,
            epochs=self.epochs,
            global_batch=self.global_batch,
        )

    @property
    def blocks(self) -> tuple[int, ...]:
        """The blocks (0-based; -1 is what enters block 0) whose returned states are pulled."""
        shift = self.use_at == BLOCK_INPUT
        return tuple(layer - shift for layer in self.layers)

    @property
    def map_of(self) -> dict[int, int]:
        """Pulled block -> the block on whose states its map was fitted."""
        shift = self.fit_at == BLOCK_INPUT
        fitted = (layer - shift for layer in self.layers)
        return dict(zip(self.blocks, fitted, strict=True))

    @property
    def lora_blocks(self) -> range:
        """Blocks that get adapters: the first to the deepest layer (reference page, 1.9)."""
        return range(self.layers[-1] + 1)

    @property
    def steps(self) -> StepCount:
        """How long the run is."""
        return count_steps(
            self.examples,
            self.micro_batch,
            self.world,
            epochs=self.epochs,
            global_batch=self.global_batch,
        )

    @property
    def effective_batch(self) -> int:
        """Pairs that decide one optimizer step of the model that is saved."""
        return self.global_batch if self.all_reduce else self.global_batch // self.world

    @property
    def lora_scale(self) -> float:
        """What the adapters' product is multiplied with."""
        return self.lora_alpha / self.lora_rank


def parse_bool(value: Any) -> bool:
    """Read a switch; ``bool("False")``, which the published scripts use, would be true.

    Args:
        value: A bool, or ``"true"`` / ``"false"`` in any case.

    Raises:
        ValueError: Anything else.
    """
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.strip().lower() in ("true", "false"):
        return value.strip().lower() == "true"
    raise ValueError(f"{value!r} is no switch; write true or false")


def _one_of(name: str, value: str, known: Sequence[str]) -> None:
    if value not in known:
        raise ValueError(f"unknown {name} {value!r}; known: {', '.join(known)}")
