"""The published pairs of refusal training and its attack, and stand-ins for rehearsals.

Source: TAR reference page, 1.5, 3.2 and 4.4; notes, E.2 and F.2. Texts are fetched, never shipped.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from pathlib import Path

from kit.methods.tar.published import magpie, preferences, toxic_dpo
from kit.methods.tar.published_sets import WORDS
from kit.methods.tar.refusal_data import Preference

MOST_PAIRS = 40_000
"""[CODE] modules/dataloaders.py ``max_data_size``."""
INPUTS = ("hh", "magpie", "toxic-dpo")
SETS = ("rejected", "held-out", "benign", "attack")
"""Answers that simulated adversaries train on; pairs that the loss is measured on; retain data; the
attacker's."""


def published_pairs(
    files: Mapping[str, Sequence[Path]], refusal: str
) -> dict[str, list[Preference]]:
    """The sets of :data:`SETS`.

    Args:
        files: Input -> its files, by the names in :data:`INPUTS`; those of HH whose name has
            ``test`` are its test split.
        refusal: Answer of the held-out pairs that is preferred; the paper replaces by refusals and
            does not print them.

    Raises:
        ValueError: An input or a split without files, or no refusal.
    """
    hh = files.get("hh", ())
    splits = {
        "train": [file for file in hh if "test" not in file.stem],
        "test": [file for file in hh if "test" in file.stem],
        **{name: list(files.get(name, ())) for name in INPUTS[1:]},
    }
    missing = [name for name, paths in splits.items() if not paths]
    if missing or not refusal:
        raise ValueError(f"no files of {missing[0]}" if missing else "no answer that refuses")
    talks = [talk for talk in magpie(splits["magpie"]) if _opens(talk)]
    return {
        "rejected": _numbered("rejected", preferences(splits["train"])[:MOST_PAIRS]),
        "held-out": _numbered(
            "held-out", [(p, refusal, bad) for p, _, bad in preferences(splits["test"])]
        ),
        "benign": _numbered("benign", [(t[0]["content"], t[1]["content"], refusal) for t in talks]),
        # The chosen side of Toxic-DPO is the harmful one.
        "attack": _numbered(
            "attack", [(p, no, yes) for p, yes, no in toxic_dpo(splits["toxic-dpo"])]
        ),
    }


def standin_pairs(published: Mapping[str, int], words: int) -> dict[str, list[Preference]]:
    """Pairs of nonsense with the published counts; others have 512.

    Args:
        published: Counts by name of the set.
        words: Of each prompt and each answer.
    """
    rng = random.Random("stand-in/refusal")

    def text() -> str:
        return " ".join(rng.choices(WORDS, k=words))

    return {
        name: _numbered(name, [(text(), text(), text()) for _ in range(published.get(name, 512))])
        for name in SETS
    }


def _numbered(name: str, rows: Sequence[tuple[str, str, str]]) -> list[Preference]:
    return [Preference(f"{name}-{i:06d}", *row) for i, row in enumerate(rows)]


def _opens(talk: Sequence[Mapping[str, str]]) -> bool:
    """Whether a conversation begins with a question and its answer."""
    return [turn["role"] for turn in talk[:2]] == ["user", "assistant"]
