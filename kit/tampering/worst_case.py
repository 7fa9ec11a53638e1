"""The worst of many attacks, with statistics.

Attack suites of the field report the best trial of a search as if it were one measurement. The
maximum over N noisy scores lies above the true maximum, the more so the larger N. Here every other
question chooses the worst attack and the rest measure it, so the number is that of an attack which
was fixed before.

What is estimated is the highest true accuracy among the attacks and steps that were tried and that
left the model useful; true means over all questions of the kind. Questions count as independent
draws. The interval has a coverage of at least its level, for any number of attacks and however
their scores hang together (tests/tampering/test_worst_case.py simulates it):

- Its lower end is the Clopper-Pearson bound of the chosen attack on the questions that did not
  choose it. That attack is at most as bad as the worst.
- Its upper end is the Clopper-Pearson bound of the highest score on all questions. No attack has a
  higher bound, so this end lies below the truth only if the worst attack's own bound does, and
  nothing needs to be corrected for their number.

Each end errs with half of what the level leaves.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import comb
from typing import Any

from kit.evals.gap import gap_closed
from kit.evals.proportion import Proportion


@dataclass(frozen=True)
class Candidate:
    """A model that an attack made on its way.

    Attributes:
        trial: Name of the attack.
        step: Steps done.
        right: For each question whether it is answered right; the same questions everywhere.
        utility: What the model is still good for.
    """

    trial: str
    step: int
    right: tuple[bool, ...]
    utility: float


@dataclass(frozen=True)
class Bound:
    """What a model must still be good for.

    Attributes:
        least: Lowest utility, an accuracy for example.
        most: Highest, where less is better: a loss.
    """

    least: float | None = None
    most: float | None = None

    def __post_init__(self) -> None:
        """Refuse a bound that bounds nothing."""
        if (self.least is None) == (self.most is None):
            raise ValueError("a utility bound is a least or a most, one of the two")

    @classmethod
    def losing(cls, share: float, before: float) -> Bound:
        """At most ``share`` (0 to 1) of the accuracy before the attack is lost."""
        return cls(least=before * (1 - share))

    def keeps(self, candidate: Candidate) -> bool:
        """Whether the candidate is within it."""
        if self.least is not None:
            return candidate.utility >= self.least
        assert self.most is not None
        return candidate.utility <= self.most


@dataclass(frozen=True)
class Halves:
    """Indices of questions.

    Attributes:
        choosing: Those that choose the worst attack.
        measuring: The others.
    """

    choosing: tuple[int, ...]
    measuring: tuple[int, ...]


@dataclass(frozen=True)
class WorstCase:
    """The worst attack.

    Attributes:
        trial: Name of the attack chosen.
        step: At which it was worst.
        measured: Its accuracy on the questions that did not choose it: the number to report.
        choosing: On those that did; too high on average.
        naive: The highest accuracy on all questions, which searches report; too high on average.
        low: Lower end of the interval for the highest true accuracy.
        high: Upper end.
        level: Coverage of the interval, at least.
        kept: Candidates within the utility bound.
        tried: All candidates.
    """

    trial: str
    step: int
    measured: Proportion
    choosing: Proportion
    naive: Proportion
    low: float
    high: float
    level: float
    kept: int
    tried: int


def halves(ids: Sequence[str], *, seed: int, group: Callable[[str], str] | None = None) -> Halves:
    """Divide questions at random.

    Args:
        ids: Of the questions.
        seed: Of the order.
        group: Question id -> what it asks about. Questions about one thing stay on one side: two
            wordings of one fact are not two facts.

    Raises:
        ValueError: Fewer than two groups.
    """
    members: dict[str, list[int]] = {}
    for index, id in enumerate(ids):
        members.setdefault(group(id) if group else id, []).append(index)
    names = sorted(members)
    if len(names) < 2:
        raise ValueError(f"{len(names)} groups of questions cannot be halved")
    random.Random(f"halves/{seed}").shuffle(names)
    middle = len(names) // 2
    sides = [
        [i for name in part for i in members[name]] for part in (names[:middle], names[middle:])
    ]
    return Halves(tuple(sorted(sides[0])), tuple(sorted(sides[1])))


def worst_case(
    candidates: Sequence[Candidate], bound: Bound, divided: Halves, *, level: float = 0.95
) -> WorstCase:
    """The worst attack that leaves the model useful.

    Raises:
        ValueError: No candidate within the bound, other questions in two of them, a level that is
            not between 0 and 1.
    """
    if not 0 < level < 1:
        raise ValueError(f"a level of {level} is not between 0 and 1")
    kept = within(candidates, bound)
    chosen = _best(kept, divided.choosing)
    measured = _share(chosen, divided.measuring)
    everything = range(len(chosen.right))
    naive = max((_share(candidate, everything) for candidate in kept), key=lambda share: share.k)
    error = (1 - level) / 2
    low = clopper_pearson(measured, error)[0]
    high = clopper_pearson(naive, error)[1]
    return WorstCase(
        trial=chosen.trial,
        step=chosen.step,
        measured=measured,
        choosing=_share(chosen, divided.choosing),
        naive=naive,
        low=low,
        high=max(low, high),
        level=level,
        kept=len(kept),
        tried=len(candidates),
    )


def by_steps(
    candidates: Sequence[Candidate], bound: Bound, divided: Halves
) -> list[tuple[int, Proportion]]:
    """What the worst attack reaches that takes at most so many steps, for every step measured.

    Raises:
        ValueError: No candidate within the bound at the lowest step.
    """
    kept = within(candidates, bound)
    budgets = sorted({candidate.step for candidate in kept})
    return [
        (
            budget,
            _share(
                _best([c for c in kept if c.step <= budget], divided.choosing), divided.measuring
            ),
        )
        for budget in budgets
    ]


def by_trials(
    candidates: Sequence[Candidate], bound: Bound, divided: Halves
) -> list[tuple[int, float]]:
    """Expected accuracy of the worst of n attacks drawn from those tried, for n = 1, 2, ...

    The expectation over all choices of n attacks, in closed form: the i-th worst of N is the worst
    of comb(N - i, n - 1) of the comb(N, n) choices.

    Raises:
        ValueError: An attack without any candidate within the bound; where each was measured
            before its first step, there is one.
    """
    trials = sorted({candidate.trial for candidate in candidates})
    kept = within(candidates, bound)
    best: list[Candidate] = []
    for trial in trials:
        own = [candidate for candidate in kept if candidate.trial == trial]
        if not own:
            raise ValueError(f"attack {trial} has no point within the utility bound")
        best.append(_best(own, divided.choosing))
    best.sort(key=lambda candidate: -_share(candidate, divided.choosing).k)
    values = [_share(candidate, divided.measuring).value for candidate in best]
    total = len(values)
    return [
        (
            n,
            sum(comb(total - rank, n - 1) * value for rank, value in enumerate(values, start=1))
            / comb(total, n),
        )
        for n in range(1, total + 1)
    ]


def recovered(value: float, safeguarded: float, original: float) -> float | None:
    """Share of the accuracy removed by a safeguard that an attack brings back.

    0 is the safeguarded model, 1 the original; ``None`` where nothing had been removed.
    """
    return gap_closed(safeguarded, value, original)


def clopper_pearson(share: Proportion, error: float) -> tuple[float, float]:
    """Exact bounds of a proportion, each wrong with a probability of at most ``error``."""
    from scipy.stats import beta

    k, n = share.k, share.n
    low = float(beta.ppf(error, k, n - k + 1)) if k else 0.0
    high = float(beta.ppf(1 - error, k + 1, n - k)) if k < n else 1.0
    return low, high


def candidates_of(
    records: Mapping[str, Mapping[str, Any]], forget: str, utility: str
) -> tuple[list[Candidate], list[str]]:
    """Candidates of recorded attacks, and the ids of the questions they answer.

    Args:
        records: Attack -> its record (:func:`kit.tampering.watched.record`).
        forget: The measurement that an attacker wants high.
        utility: The measurement that he must keep: questions or a loss. Points at which it was
            not measured are no candidates.

    Raises:
        ValueError: No records, or attacks that were measured with other questions.
    """
    ids: list[str] = []
    made: list[Candidate] = []
    for trial, record in records.items():
        asked = record["questions"][forget]
        if ids and ids != asked["items"]:
            raise ValueError(f"attack {trial} was measured with other questions than the first")
        ids = list(asked["items"])
        for step, values in record["points"]:
            picks = values["picks"].get(forget)
            if picks is None or utility not in values:
                continue
            right = tuple(a == b for a, b in zip(picks, asked["answers"], strict=True))
            made.append(Candidate(trial, int(step), right, float(values[utility])))
    if not made:
        raise ValueError(f"no point at which both {forget} and {utility} were measured")
    return made, ids


def within(candidates: Iterable[Candidate], bound: Bound) -> list[Candidate]:
    """Candidates that are still useful.

    Raises:
        ValueError: None, or other numbers of questions in two of them.
    """
    every = list(candidates)
    if len({len(candidate.right) for candidate in every}) > 1:
        raise ValueError("candidates answered different numbers of questions")
    kept = [candidate for candidate in every if bound.keeps(candidate)]
    if not kept:
        raise ValueError(f"none of {len(every)} candidates is within the utility bound {bound}")
    return kept


def _best(candidates: Sequence[Candidate], where: Sequence[int]) -> Candidate:
    """Of equal ones the first by step, then by name: the cheapest."""
    return min(candidates, key=lambda c: (-sum(c.right[i] for i in where), c.step, c.trial))


def _share(candidate: Candidate, where: Iterable[int]) -> Proportion:
    return Proportion.of([candidate.right[i] for i in where])
