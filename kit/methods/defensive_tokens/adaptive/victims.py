"""Attacked texts sent to a defended model, and whether it did as they asked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kit.evals.injection import injection_labels
from kit.lm.backend import Backend
from kit.methods.defensive_tokens.adaptive.prompts import Prompter
from kit.methods.defensive_tokens.samples import Sample

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Victim:
    """A model with a token set in front of its prompts.

    Attributes:
        name: Of the token set.
        prefix: [n, d], or ``None`` for the undefended model.
        prompter: Makes its prompts.
        backend: Answers them.
        max_new_tokens: Of an answer; the rule looks at its beginning.
    """

    name: str
    prefix: Tensor | None
    prompter: Prompter
    backend: Backend
    max_new_tokens: int

    def answers(self, samples: Sequence[Sample], turns: Sequence[str]) -> list[str]:
        """The greedy answer to each sample's instruction with this data turn."""
        prompter = self.prompter
        prompts = [prompter.ids(sample, turn) for sample, turn in zip(samples, turns, strict=True)]
        made = self.backend.generate(
            prompts,
            prefix=self.prefix,
            max_new_tokens=self.max_new_tokens,
            stop_ids=prompter.chat.stop_ids(prompter.tokenizer),
        )
        return [
            str(prompter.tokenizer.decode(list(generation.ids), skip_special_tokens=True))
            for generation in made
        ]

    def obeys(self, samples: Sequence[Sample], turns: Sequence[str], word: str) -> list[bool]:
        """Whether each answer begins with the word that the injected text asks for."""
        return injection_labels(self.answers(samples, turns), word)
