"""Memory and seconds of sharded training, by engine; what :mod:`kit.train.plan` chooses by.

Memory is counted per GPU, term by term. Constants of forward passes and of speed were fitted to
records in ``benchmarks/`` on H100 and H200, none of the state was; the tests hold the whole against
those records.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil
from typing import Any

GIB = 1024**3
SCHEDULE_FREE = ADAM = 8
"""Bytes a parameter of an optimizer's state: two fp32 tensors."""
CHUNK = 4096
"""Tokens whose scores exist at once."""
SCORES = 1 << 28
"""Scores (positions times vocabulary) that exist at once where the loss of texts is measured."""
_HIDDEN, _WIDE, _WIDE_COMPILED = 7, 4, 3
"""bf16 vectors that a decoder layer keeps for its backward pass, a token: so many of the model's
width and so many of the MLP's. A compiled layer keeps a vector less."""
_SCORES = 12
"""Bytes a score of the vocabulary: three fp32 copies, for as many tokens as a chunk has."""
_CONTEXT = 0.7 * GIB
"""CUDA's and NCCL's own memory, which no allocator of ours sees."""
_BUCKET, _LIVE = 500_000_000, 1_000_000_000
"""ZeRO-3: gradient elements reduced at once, fp32; gathered weights that exist at once, bf16."""
_SPEED = {
    ("zero-3", False): (0.0131, 700e12),
    ("fsdp", False): (0.0083, 600e12),
    ("fsdp", True): (0.0009, 473e12),
}
"""(engine, compiled) -> seconds a layer that a pass takes however few its tokens are, operations a
second beyond them: 4x H100 for ZeRO-3 with whole layers gathered, 2x H200 for the others."""
_NVLINK, _BUS, _BUS_BOTH_WAYS = 300e9, 18e9, 50e9
"""Bytes a second a GPU: between GPUs, from page-locked memory while a pass waits for it, and of
copies that go both ways."""


@dataclass(frozen=True)
class ModelShape:
    """What memory and time depend on.

    Attributes:
        parameters: Of the whole model.
        layers: Decoder layers.
        hidden: Width of the residual stream.
        intermediate: Width of the MLP.
        vocabulary: Rows of the output matrix.
    """

    parameters: int
    layers: int
    hidden: int
    intermediate: int
    vocabulary: int

    @classmethod
    def declared(cls, architecture: str | Mapping[str, Any]) -> ModelShape:
        """The shape that a pin declares.

        Args:
            architecture: As :func:`kit.lm.standin.read_shape` takes it.

        Raises:
            ValueError: Unknown, or without its number of parameters.
        """
        from kit.lm.standin import read_shape

        shape = read_shape(architecture)
        if shape.parameters is None:
            raise ValueError("the architecture does not say how many parameters it has")
        names = ("num_hidden_layers", "hidden_size", "intermediate_size", "vocab_size")
        return cls(shape.parameters, *(int(shape.config[name]) for name in names))

    @property
    def edge(self) -> int:
        """Parameters of what stands around the layers: two matrices of the vocabulary."""
        return 2 * self.vocabulary * self.hidden

    @property
    def products(self) -> int:
        """Parameters that every token is multiplied with."""
        return self.parameters - self.vocabulary * self.hidden


@dataclass(frozen=True)
class Setting:
    """How a model is trained.

    Attributes:
        gpus: That share it.
        rows: Most rows in a forward pass of one GPU.
        engine: ``zero-3`` or ``fsdp``.
        compiled: Layers are compiled.
        checkpointing: Layers are computed again in the backward pass.
        weights_stay: fsdp: gathered weights stay until the backward pass.
        communication: Type in which gradients are summed.
        outer_state: ``resident`` or ``offloaded``, of the outer optimizer during an attack.
        collected: Likewise, of gradients that are kept for later.
        reference: Likewise, of the frozen model.
        snapshot: ``cuda`` or ``cpu``.
    """

    gpus: int
    rows: int
    engine: str = "zero-3"
    compiled: bool = False
    checkpointing: bool = False
    weights_stay: bool = False
    communication: str = "float32"
    outer_state: str = "resident"
    collected: str = "resident"
    reference: str = "resident"
    snapshot: str = "cuda"

    def passes(self, batch: int) -> int:
        """Forward passes of a GPU that make up a global batch."""
        return ceil(ceil(batch / self.gpus) / self.rows)

    def tokens(self, batch: int, width: int) -> int:
        """Of the largest pass."""
        return min(self.rows, ceil(batch / self.gpus)) * width


def held(shape: ModelShape, setting: Setting) -> float:
    """Bytes that a GPU has throughout: masters, gradient, what the engine needs of its own."""
    local = shape.parameters / setting.gpus
    if setting.engine == "zero-3":
        low = 2 * local + 4 * min(_BUCKET, shape.parameters)
        return 8 * local + low + _CONTEXT
    return 8 * local + _CONTEXT


def passing(shape: ModelShape, setting: Setting, tokens: int) -> float:
    """Bytes of a forward and backward pass beside :func:`held`.

    Args:
        shape: The model.
        setting: The engine's.
        tokens: Of the pass, a GPU.
    """
    wide = _WIDE_COMPILED if setting.compiled else _WIDE
    layer = tokens * 2 * (_HIDDEN * shape.hidden + wide * shape.intermediate)
    inputs = tokens * 2 * shape.layers * shape.hidden
    activations = inputs + layer if setting.checkpointing else shape.layers * layer
    scores = min(tokens, CHUNK) * _SCORES * shape.vocabulary
    if setting.engine == "zero-3":
        return 2 * min(_LIVE, shape.parameters) + activations + scores
    whole_layer = (shape.parameters - shape.edge) / shape.layers
    gathered = shape.parameters if setting.weights_stay else shape.edge + 2 * whole_layer
    # At the end of the backward pass what stands around the layers is reduced in one go: its whole
    # gradient in the type of the sum, the reduced piece, and of one matrix the bf16 gradient.
    each = (4 if setting.communication == "float32" else 2) + 4 / setting.gpus + 1
    return max(2 * gathered + activations + scores, each * shape.edge)


def pass_seconds(shape: ModelShape, setting: Setting, tokens: int) -> float:
    """Seconds of a forward and backward pass and its share of the update, on H100 or H200.

    Args:
        shape: The model.
        setting: The engine's.
        tokens: Of the pass, a GPU.
    """
    known = (setting.engine, setting.compiled)
    layer, speed = _SPEED.get(known, _SPEED[setting.engine, False])
    again = 4 / 3 if setting.checkpointing else 1.0
    seconds = layer * shape.layers + again * 6 * shape.products * tokens / speed
    if setting.engine == "fsdp" and not setting.weights_stay:
        seconds += 2 * shape.parameters / _NVLINK
    return seconds


def batch_seconds(shape: ModelShape, setting: Setting, batch: int, width: int) -> float:
    """Seconds of a global batch.

    Args:
        shape: The model.
        setting: The engine's.
        batch: Rows.
        width: Tokens a row.
    """
    whole, rest = divmod(ceil(batch / setting.gpus), setting.rows)
    full = whole * pass_seconds(shape, setting, setting.rows * width)
    return full + (pass_seconds(shape, setting, rest * width) if rest else 0.0)


def moved_seconds(shape: ModelShape, setting: Setting, *, tampers: int, retain: int) -> float:
    """Seconds of an outer step in which weights, state and gradients are moved, not computed.

    Args:
        shape: The model.
        setting: What is offloaded.
        tampers: Tamper-resistance passes whose gradients are collected.
        retain: Rows of the retain batch, each of whose passes asks the reference model.
    """
    local = shape.parameters / setting.gpus
    seconds = 0.0
    if setting.snapshot == "cpu":
        seconds += 2 * 4 * local / _BUS_BOTH_WAYS
    if setting.outer_state == "offloaded":
        seconds += 2 * SCHEDULE_FREE * local / _BUS_BOTH_WAYS
    if setting.collected == "offloaded":
        seconds += tampers * 2 * 4 * local / _BUS_BOTH_WAYS
    if setting.reference == "offloaded":
        seconds += setting.passes(retain) * 2 * shape.parameters / _BUS
    return seconds
