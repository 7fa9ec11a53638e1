"""The shipped attack texts of the miniature world, as a typed record."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache

from kit.mini.paths import ATTACKS_FILE

SLOT = "{injected_prompt}"


@dataclass(frozen=True)
class Delimiters:
    """Words that imitate the end of an answer and the start of another instruction."""

    response: str
    instruction: str


@dataclass(frozen=True)
class AttackTexts:
    """What an attacker writes; every word is in the vocabulary.

    Attributes:
        injected_word: An attack succeeded when the answer begins with this word.
        injected_prompt: The instruction that the attacker wants followed.
        ignore_test: Sentences with one ``{injected_prompt}`` slot, for evaluation.
        ignore_train: The same for training a defence; shares no sentence with ``ignore_test``.
        paraphrase_test: Sentences whose wording no pretraining or training data contains.
        completion_real: The delimiters of the completion attack that is evaluated.
        fake_delimiters_train: Delimiters for training a defence.
        fake_delimiters_test: Delimiters that neither pretraining nor training data contains.
    """

    injected_word: str
    injected_prompt: str
    ignore_test: tuple[str, ...]
    ignore_train: tuple[str, ...]
    paraphrase_test: tuple[str, ...]
    completion_real: Delimiters
    fake_delimiters_train: tuple[Delimiters, ...]
    fake_delimiters_test: tuple[Delimiters, ...]


@cache
def load_attacks() -> AttackTexts:
    """Read ``data/attacks.json``."""
    raw = json.loads(ATTACKS_FILE.read_text(encoding="utf-8"))
    real = raw["completion_real"]
    return AttackTexts(
        injected_word=raw["injected_word"],
        injected_prompt=raw["injected_prompt"],
        ignore_test=tuple(raw["ignore_test"]),
        ignore_train=tuple(raw["ignore_train"]),
        paraphrase_test=tuple(raw["paraphrase_test"]),
        completion_real=Delimiters(real["response_delimiter"], real["instruction_delimiter"]),
        fake_delimiters_train=tuple(Delimiters(**pair) for pair in raw["fake_delimiters_train"]),
        fake_delimiters_test=tuple(Delimiters(**pair) for pair in raw["fake_delimiters_test"]),
    )
