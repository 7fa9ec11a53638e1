"""What every way of generating has in common: greedy, prompts as token ids, a prefix or none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    from torch import Tensor

FinishReason = Literal["stop", "length"]


@dataclass(frozen=True)
class Generation:
    """One greedy continuation.

    Attributes:
        ids: New token ids, without the stop token.
        finish_reason: ``stop`` when a stop token ended it, ``length`` when the limit did.
    """

    ids: tuple[int, ...]
    finish_reason: FinishReason


class Backend(Protocol):
    """Anything that continues prompts greedily and never produces a prefix slot.

    An engine whose vocabulary was enlarged by the slots must ban them itself: the rows that were
    added to its output matrix are random (pitfall P10).
    """

    @property
    def vocabulary_size(self) -> int:
        """Rows of the model's own embedding matrix; prefix slots are the ids from here on."""

    def generate(
        self,
        prompts: Sequence[Sequence[int]],
        *,
        prefix: Tensor | None,
        max_new_tokens: int,
        stop_ids: Sequence[int],
        banned_ids: Sequence[int] = (),
    ) -> list[Generation]:
        """Continue every prompt.

        Args:
            prompts: Token ids; may contain prefix slots.
            prefix: [n, d] vectors for the slots, or ``None``.
            max_new_tokens: Upper limit; a stop token counts as one.
            stop_ids: Ids that end a continuation.
            banned_ids: More ids that are never produced; those beyond the vocabulary are ignored.

        Returns:
            One generation a prompt, in the order of the prompts.
        """
