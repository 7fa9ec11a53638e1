"""Every published attack text by itself: what an attacker has who can only choose.

The evaluated attacks draw a sentence for each item (:mod:`..attacks`). Here each sentence of their
lists is a text of its own, put into all items alike, so that the best of them can be chosen.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from kit.methods.defensive_tokens.attack_texts import AttackTexts
from kit.methods.defensive_tokens.attacks import AttackStyle, attack_samples
from kit.methods.defensive_tokens.samples import Sample

DRAWN_FROM = {
    "ignore": "ignore_test",
    "ignore_completion": "ignore_test",
    "completion_other": "fake_delimiters_test",
    "paraphrase": "paraphrase_test",
}
"""Attack -> the list of texts that it draws from; other attacks are a single text."""


def published_turns(
    attacks: Sequence[str],
    samples: Sequence[Sample],
    texts: AttackTexts,
    style: AttackStyle,
    *,
    seed: int,
) -> dict[str, list[str]]:
    """The data turns of every text.

    Args:
        attacks: Names of attacks.
        samples: All with input.
        texts: The attack strings.
        style: How they are joined.
        seed: Of attacks that draw something else than a text (how many line breaks, say).

    Returns:
        ``ignore-0``, ``ignore-1``, ... or the attack's name -> a data turn for each sample.

    Raises:
        ValueError: An unknown attack, or an empty list of texts.
    """
    turns: dict[str, list[str]] = {}
    for attack in attacks:
        for name, given in _alone(attack, texts).items():
            made = attack_samples(attack, samples, given, style, seed=seed)
            turns[name] = [attacked.data for attacked in made]
    return turns


def _alone(attack: str, texts: AttackTexts) -> dict[str, AttackTexts]:
    """Name -> the attack strings with a single choice left."""
    field = DRAWN_FROM.get(attack)
    choices: Sequence[Any] = getattr(texts, field) if field else ()
    left: list[dict[str, Any]] = [{field: (choice,)} for choice in choices] if field else []
    if not left:
        return {attack: texts}
    return {f"{attack}-{number}": replace(texts, **only) for number, only in enumerate(left)}
