"""Which parameters go to which optimizer, by name and written down.

Muon is for the matrices of hidden layers; embeddings, the output layer, norms and biases stay with
AdamW. The rule reads module names, because a rule by shape goes wrong: the one in the
checkpoint-transfer runs meant to leave embeddings out and left out the fused attention and first
MLP matrices too (reference page 1.11). That rule and its first correction are kept by name for the
rows that were run with them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch.nn import Parameter

HIDDEN_LAYERS = "hidden-layers"
BELOW_10000_ROWS = "below-10000-rows"
BELOW_50000_ROWS = "below-50000-rows"
_BELOW = re.compile(r"below-([1-9]\d*)-rows")

# The stack of blocks: Llama, Qwen, Mistral and GPT-NeoX call it `layers`, GPT-2 and Falcon `h`.
_IN_A_BLOCK = re.compile(r"(^|\.)(layers|h|blocks)\.\d+\.")


@dataclass(frozen=True)
class Group:
    """What went to one torch optimizer.

    Attributes:
        names: Parameters.
        values: Numbers in them together.
    """

    names: tuple[str, ...]
    values: int


@dataclass(frozen=True)
class Census:
    """Which parameters went to which torch optimizer.

    Attributes:
        groups: By optimizer.
    """

    groups: Mapping[str, Group]

    @property
    def parts(self) -> tuple[str, ...]:
        """The optimizers that were given something."""
        return tuple(self.groups)

    @property
    def counts(self) -> dict[str, int]:
        """Tensors by optimizer."""
        return {part: len(group.names) for part, group in self.groups.items()}

    def names(self, part: str) -> tuple[str, ...]:
        """Parameters of an optimizer, in the model's order."""
        return self.groups[part].names


def route(parameters: Mapping[str, Parameter], optimizer: str, routing: str | None) -> Census:
    """Divide parameters between ``optimizer`` and AdamW.

    Args:
        parameters: By name.
        optimizer: Takes all parameters if there is no routing, else those that the rule names.
        routing: ``hidden-layers``, ``below-N-rows`` (N scaled down where a miniature repeats the
            fault), or ``None``.

    Raises:
        ValueError: Unknown rule, or a rule that names nothing.
    """
    if routing is None:
        return Census({optimizer: _group(parameters, list(parameters))})
    check_routing(routing)
    chosen = [name for name, p in parameters.items() if _matches(routing, name, p)]
    if not chosen:
        raise ValueError(
            f"the rule {routing} gives {optimizer} none of {len(parameters)} parameters"
        )
    rest = [name for name in parameters if name not in set(chosen)]
    groups = {optimizer: _group(parameters, chosen)}
    if rest:
        groups["adamw"] = _group(parameters, rest)
    return Census(groups)


def check_routing(routing: str) -> None:
    """Refuse a rule that is not known.

    Raises:
        ValueError: Neither ``hidden-layers`` nor ``below-N-rows``.
    """
    if routing != HIDDEN_LAYERS and not _BELOW.fullmatch(routing):
        known = f"{HIDDEN_LAYERS}, below-N-rows"
        raise ValueError(f"unknown routing {routing!r}; known: {known}")


def _matches(routing: str, name: str, parameter: Parameter) -> bool:
    below = _BELOW.fullmatch(routing)
    if below is None:
        return parameter.ndim == 2 and _IN_A_BLOCK.search(name) is not None
    return parameter.ndim >= 2 and parameter.shape[0] < int(below[1])


def _group(parameters: Mapping[str, Parameter], names: list[str]) -> Group:
    return Group(tuple(names), sum(parameters[name].numel() for name in names))
