"""Exact-match accuracy, where a reference answer is right (the miniature worlds)."""

from __future__ import annotations

import re
from collections.abc import Sequence


def normalise(answer: str) -> str:
    """Lower case, single spaces, no closing full stop."""
    return re.sub(r"\s+", " ", answer).strip().lower().rstrip(".").rstrip()


def exact_labels(responses: Sequence[str], references: Sequence[str]) -> list[bool]:
    """One label a response: equal to its reference after normalisation.

    Raises:
        ValueError: Different numbers of responses and references.
    """
    if len(responses) != len(references):
        raise ValueError(f"{len(responses)} responses, {len(references)} references")
    pairs = zip(responses, references, strict=True)
    return [normalise(response) == normalise(reference) for response, reference in pairs]
