"""Was the searched attack what it claims to be? Looked at before any rate is."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from kit.methods.defensive_tokens.adaptive.attack import Searched
from kit.methods.defensive_tokens.adaptive.victims import Victim
from kit.methods.defensive_tokens.attack_texts import AttackTexts
from kit.methods.defensive_tokens.prompt_checks import PromptCheck, slots_in_place


def check_search(
    own: Victim, searched: Sequence[Searched], texts: AttackTexts
) -> list[PromptCheck]:
    """Checks of every kept text, and of the search that made it.

    Args:
        own: The attacker's model.
        searched: Its items.
        texts: The attack strings.
    """
    prompter = own.prompter
    injected, size = texts.injected_prompt.lower(), prompter.vocabulary_size
    written = [(item.prompt, kept.suffix) for item in searched for kept in item.kept]
    present = sum(injected in prompter.data(*pair).lower() for pair in written)
    alike = sum(prompter.can_be_written(*pair) for pair in written)
    starts = [item.prompt.before[: max(8, prompter.slots + 3)] for item in searched]
    placed = sum(slots_in_place(start, prompter.slots, size) for start in starts)
    falling = sum(all(b.loss <= a.loss for a, b in pairwise(item.kept)) for item in searched)
    moved = sum(item.kept[-1].loss < item.kept[0].loss for item in searched)
    return [
        PromptCheck("attack-present", present, len(written)),
        PromptCheck("text-tokenises-alike", alike, len(written)),
        PromptCheck("prefix-in-place", placed, len(searched)),
        PromptCheck("kept-loss-never-rises", falling, len(searched)),
        PromptCheck("search-moved", min(moved, 1), 1),
    ]
