"""What every way of running a language model has in common: token ids in, ids or numbers out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol, runtime_checkable

if TYPE_CHECKING:
    from torch import Tensor

FinishReason = Literal["stop", "length"]


@dataclass(frozen=True)
class Generation:
    """A greedy continuation.

    Attributes:
        ids: New token ids, without the stop token.
        finish_reason: ``stop`` when a stop token ended it, ``length`` when the limit did.
    """

    ids: tuple[int, ...]
    finish_reason: FinishReason


@dataclass(frozen=True)
class LogLikelihood:
    """How likely a model finds a continuation.

    Attributes:
        total: Sum of the tokens' log-probabilities, nats.
        tokens: How many tokens were summed.
        greedy: Whether greedy decoding would produce exactly these tokens (``is_greedy`` of
            lm-evaluation-harness).
    """

    total: float
    tokens: int
    greedy: bool


class Backend(Protocol):
    """Anything that continues prompts greedily and scores given continuations.

    A prefix is an optional argument: n vectors for the ids from ``vocabulary_size`` on, which are
    never produced. An engine whose vocabulary was enlarged for them must ban them itself: the rows
    that were added to its output matrix are random (defensive_tokens.md, P10).
    """

    @property
    def vocabulary_size(self) -> int:
        """Rows of the model's own embedding matrix; prefix slots are the ids from here on."""

    def generate(
        self,
        prompts: Sequence[Sequence[int]],
        *,
        max_new_tokens: int,
        stop_ids: Sequence[int],
        banned_ids: Sequence[int] = (),
        prefix: Tensor | None = None,
    ) -> list[Generation]:
        """Continue every prompt.

        Args:
            prompts: Token ids; may contain prefix slots.
            max_new_tokens: Upper limit; a stop token counts as well.
            stop_ids: Ids that end a continuation.
            banned_ids: More ids that are never produced; those beyond the vocabulary are ignored.
            prefix: [n, d] vectors for the slots, or ``None``.

        Returns:
            A generation for each prompt, in the order of the prompts.
        """

    def loglikelihoods(
        self,
        pairs: Sequence[tuple[Sequence[int], Sequence[int]]],
        *,
        prefix: Tensor | None = None,
    ) -> list[LogLikelihood]:
        """Score continuations.

        Args:
            pairs: Token ids of a context and of what follows it, neither empty. The context may
                contain prefix slots.
            prefix: [n, d] vectors for the slots, or ``None``.

        Returns:
            A result for each pair, in the order of the pairs.

        Raises:
            ValueError: An empty context or continuation: nothing predicts the first token of a
                text, which harnesses put an end-of-text token in front of.
        """


@runtime_checkable
class ServesSets(Protocol):
    """A backend that continues prompts of several prefixes side by side.

    The last requests of a batch run nearly alone: of three batches, that is paid once.
    """

    def sets_at_once(self, vectors: int) -> int:
        """How many prefixes of so many vectors it serves side by side, at least one."""

    def generate_sets(
        self,
        sets: Sequence[tuple[Sequence[Sequence[int]], Tensor | None]],
        *,
        max_new_tokens: int,
        stop_ids: Sequence[int],
    ) -> list[list[Generation]]:
        """As :meth:`Backend.generate` of each pair of prompts and prefix, in their order."""


def check_pairs(pairs: Sequence[tuple[Sequence[int], Sequence[int]]], vocabulary_size: int) -> None:
    """Refuse pairs that have no log-likelihood.

    Raises:
        ValueError: An empty context or continuation, or a continuation beyond the vocabulary.
    """
    for number, (context, continuation) in enumerate(pairs):
        if not context:
            raise ValueError(f"pair {number} has an empty context: give a begin or end-of-text id")
        if not continuation:
            raise ValueError(f"pair {number} has an empty continuation")
        if not all(0 <= token < vocabulary_size for token in continuation):
            raise ValueError(f"pair {number} continues with an id that is not in the vocabulary")
