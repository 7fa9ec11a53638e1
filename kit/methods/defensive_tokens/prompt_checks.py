"""Did the prompts contain what the experiment is about? Looked at before any score is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from kit.methods.defensive_tokens.attack_texts import AttackTexts
from kit.methods.defensive_tokens.evaluate import Evaluation
from kit.methods.defensive_tokens.prompt_defences import PromptDefence
from kit.methods.defensive_tokens.samples import Sample


@dataclass(frozen=True)
class PromptCheck:
    """One check of one token set, or of several together.

    Attributes:
        id: What was looked for.
        right: Prompts that were as they must be.
        total: Prompts looked at.
    """

    id: str
    right: int
    total: int

    @property
    def passed(self) -> bool:
        """Whether every prompt was right."""
        return self.right == self.total

    @property
    def detail(self) -> str:
        """One sentence."""
        return f"{self.right} of {self.total} prompts: {_MEANING[self.id]}"


_MEANING = {
    "attack-present": "the injected instruction stands in attacked prompts and in no benign one",
    "prefix-in-place": "exactly the prefix slots of the row stand at the front",
    "text-tokenises-alike": "the kept text becomes the searched tokens again",
    "kept-loss-never-rises": "the loss of the kept text never rises",
    "search-moved": "the search kept a better text than it started from, for an item at least",
}


def combine(checks: Sequence[PromptCheck]) -> list[PromptCheck]:
    """The checks of all token sets, added up by id."""
    totals: dict[str, tuple[int, int]] = {}
    for check in checks:
        right, total = totals.get(check.id, (0, 0))
        totals[check.id] = (right + check.right, total + check.total)
    return [PromptCheck(id, right, total) for id, (right, total) in totals.items()]


def check_prompts(
    evaluation: Evaluation, texts: AttackTexts, *, slots: int, vocabulary_size: int
) -> list[PromptCheck]:
    """Attack string in every attacked prompt and in no benign one; prefix slots where they belong.

    Args:
        evaluation: Of one token set.
        texts: The attack strings.
        slots: Prefix length; 0 for a row without prefix.
        vocabulary_size: First slot id.
    """
    injected = texts.injected_prompt.lower()
    attacked = [r for c in evaluation.attacks.values() for r in c.responses]
    benign = evaluation.benign.responses
    hit = sum(injected in response.data.lower() for response in attacked)
    clean = sum(injected not in response.data.lower() for response in benign)
    every = [*attacked, *benign]
    placed = sum(
        slots_in_place(response.prompt_start, slots, vocabulary_size) for response in every
    )
    return [
        PromptCheck("attack-present", hit + clean, len(every)),
        PromptCheck("prefix-in-place", placed, len(every)),
    ]


def turns_changed(
    evaluation: Evaluation, samples: Sequence[Sample], defence: PromptDefence
) -> tuple[int, int]:
    """Attacked data turns that a defence changes, and how many there are."""
    by_id = {sample.id: sample for sample in samples}
    responses = [r for condition in evaluation.attacks.values() for r in condition.responses]
    changed = sum(defence.data(by_id[r.sample_id], r.data) != r.data for r in responses)
    return changed, len(responses)


def slots_in_place(start: Sequence[int], slots: int, vocabulary_size: int) -> bool:
    """Whether the slots stand in order, side by side, with at most a begin token in front."""
    placed = [(position, i) for position, i in enumerate(start) if i >= vocabulary_size]
    first = placed[0][0] if placed else 0
    return first <= 1 and placed == [(first + i, vocabulary_size + i) for i in range(slots)]
