"""Did the prompts contain what the experiment is about? Looked at before any score is."""

from __future__ import annotations

from dataclasses import dataclass

from kit.methods.defensive_tokens.attack_texts import AttackTexts
from kit.methods.defensive_tokens.evaluate import Evaluation


@dataclass(frozen=True)
class PromptCheck:
    """One check and what it saw."""

    id: str
    passed: bool
    detail: str


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
    hit = sum(injected in response.data.lower() for response in attacked)
    stray = sum(injected in response.data.lower() for response in evaluation.benign.responses)
    every = [*attacked, *evaluation.benign.responses]
    wanted = list(range(vocabulary_size, vocabulary_size + slots))
    placed = sum(
        [i for i in response.prompt_start if i >= vocabulary_size] == wanted for response in every
    )
    return [
        PromptCheck(
            "attack-present",
            hit == len(attacked) and stray == 0,
            f"the injected instruction is in {hit} of {len(attacked)} attacked prompts"
            f" and in {stray} benign ones",
        ),
        PromptCheck(
            "prefix-in-place",
            placed == len(every),
            f"{slots} prefix slots stand at the front of {placed} of {len(every)} prompts",
        ),
    ]
