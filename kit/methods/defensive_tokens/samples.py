"""The one record every data source is turned into."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Sample:
    """An instruction-following example.

    Attributes:
        id: Stable across shuffles and sub-setting; self-labels are keyed by it.
        instruction: What the trusted user asks.
        input: The untrusted data; empty when the instruction stands alone.
        output: The reference answer.
    """

    id: str
    instruction: str
    input: str
    output: str
