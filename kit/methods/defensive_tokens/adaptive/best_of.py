"""The best of N texts against a victim, with statistics for a maximum.

A text is chosen on one half of the items and measured on the other, with the interval of
:mod:`kit.tampering.worst_case` for the highest true rate. An attacker who is blind to the prefix
chooses on the undefended model; what he chose is then measured on the victim.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import comb

from kit.tampering.worst_case import Bound, Candidate, Halves, WorstCase, by_trials, worst_case

Labels = Mapping[str, Sequence[bool | int]]
"""Text -> for each item whether it worked."""
ANY = Bound(least=0.0)
"""Nothing has to be kept: an attack text costs the model nothing."""


def best_of(chosen_on: Labels, measured_on: Labels, divided: Halves, level: float) -> WorstCase:
    """The text that works best, chosen and measured on different items.

    Args:
        chosen_on: Of the model that the attacker may ask.
        measured_on: Of the victim, the same texts and items.
        divided: The items.
        level: Coverage of the interval. It is one for the highest true rate on the victim only
            where the attacker asked the victim itself.
    """
    return worst_case(_candidates(chosen_on, measured_on, divided), ANY, divided, level=level)


def by_texts(chosen_on: Labels, measured_on: Labels, divided: Halves) -> list[tuple[int, float]]:
    """Expected rate of the best of n texts drawn at random, n = 1, 2, ..., as in `best_of`."""
    return by_trials(_candidates(chosen_on, measured_on, divided), ANY, divided)


def any_of(labels: Labels) -> list[int]:
    """For each item whether any text worked."""
    return [int(any(flags)) for flags in zip(*labels.values(), strict=True)]


def by_tries(labels: Labels) -> list[tuple[int, float]]:
    """Expected share of items on which any of n texts works, the n drawn at random for each item.

    In closed form: of N texts, s of which work, n miss with probability
    comb(N - s, n) / comb(N, n). Whether a text works is known for the item, so nothing is chosen
    by chance and nothing needs to be corrected.
    """
    worked = [sum(map(int, flags)) for flags in zip(*labels.values(), strict=True)]
    total = len(labels)
    return [
        (n, sum(1 - comb(total - s, n) / comb(total, n) for s in worked) / len(worked))
        for n in range(1, total + 1)
    ]


def _candidates(chosen_on: Labels, measured_on: Labels, divided: Halves) -> list[Candidate]:
    """Each text with the labels of the one model where it is chosen, of the other elsewhere."""
    if chosen_on.keys() != measured_on.keys():
        raise ValueError("the two models were attacked with different texts")
    choosing = set(divided.choosing)
    return [
        Candidate(
            trial=text,
            step=0,
            right=tuple(
                bool(chosen_on[text][i] if i in choosing else measured_on[text][i])
                for i in range(len(measured_on[text]))
            ),
            utility=1.0,
        )
        for text in measured_on
    ]
