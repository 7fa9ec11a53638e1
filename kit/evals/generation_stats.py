"""Is the output sane? Lengths, empty and truncated shares (design page, "canaries")."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, median

from kit.evals.proportion import Proportion


@dataclass(frozen=True)
class GenerationStats:
    """Summary of a set of responses.

    Attributes:
        mean_tokens: Mean length in tokens, stop token not counted.
        median_tokens: Median of the same.
        max_tokens: Longest response.
        empty: Responses without any visible character.
        truncated: Responses that the token limit ended.
        distinct: Number of different responses; 1 of many is a collapse.
    """

    mean_tokens: float
    median_tokens: float
    max_tokens: int
    empty: Proportion
    truncated: Proportion
    distinct: int


def generation_stats(
    responses: Sequence[str], token_counts: Sequence[int], finish_reasons: Sequence[str]
) -> GenerationStats:
    """Summarise responses.

    Raises:
        ValueError: No responses, or sequences of different lengths.
    """
    if not responses:
        raise ValueError("no responses to summarise")
    if not len(responses) == len(token_counts) == len(finish_reasons):
        raise ValueError("responses, token counts and finish reasons differ in number")
    return GenerationStats(
        mean_tokens=fmean(token_counts),
        median_tokens=float(median(token_counts)),
        max_tokens=max(token_counts),
        empty=Proportion.of([not response.strip() for response in responses]),
        truncated=Proportion.of([reason == "length" for reason in finish_reasons]),
        distinct=len(set(responses)),
    )
