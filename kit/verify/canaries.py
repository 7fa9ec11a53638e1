"""Built-in checks looked at before any number: was the thing that was meant really measured?

Steps bring their own canaries in ``results.json``; these need nothing but the table and its
labels. A failed canary makes its cells ``invalid``, which outranks every number.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from fractions import Fraction
from itertools import combinations

from kit.manifest.expectation_types import Expectation
from kit.plural import plural
from kit.results.ids import Statistic, row_of, statistic_of
from kit.results.labels import Labels, LabelSource
from kit.results.types import Cell, Results
from kit.verify.measurement import measure
from kit.verify.numbers import show
from kit.verify.verdict import CanaryReport

MIXED = 3
"""A label vector tells two seeds apart when each label occurs at least this often."""
COLLAPSED = 0.9
"""Share of one letter from which multiple-choice answers count as collapsed."""
LIMITS = {
    Statistic.EMPTY: ("at_most", Fraction("0.5")),
    Statistic.TRUNCATED: ("at_most", Fraction("0.5")),
    Statistic.REFUSED: ("at_most", Fraction("0.99")),
    Statistic.MEAN_TOKENS: ("at_least", Fraction(2)),
}
"""Statistic -> side and limit beyond which generations are not generations."""


def from_steps(results: Results, cells: Sequence[str]) -> list[CanaryReport]:
    """The canaries of the steps, with the cells each failed one makes invalid.

    A failed one whose prefixes fit no cell at all, listed or not, is taken for one without: an
    alarm must not go unheard because of a slip in a name.
    """
    known = {*cells, *(cell.id for cell in results.cells)}

    def spoiled(prefixes: Sequence[str]) -> list[str]:
        return covered(prefixes if covered(prefixes, known) else (), cells)

    return [
        CanaryReport(
            id=canary.id,
            passed=canary.passed,
            detail=canary.detail,
            source="step",
            step=canary.step,
            cells=[] if canary.passed else spoiled(canary.cells),
        )
        for canary in results.canaries
    ]


def covered(prefixes: Sequence[str], cells: Iterable[str]) -> list[str]:
    """Cells below any of the prefixes; all when there are none."""
    return [id for id in cells if not prefixes or any(id.startswith(p) for p in prefixes)]


def built_in(expected: Expectation, results: Results, labels: LabelSource) -> list[CanaryReport]:
    """Duplicate seeds, letter collapse, generation statistics; one report a check that applied."""
    listed = [cell.id for cell in expected.cells]
    return [
        *duplicate_seeds(results, labels),
        *letter_collapse(results, labels),
        *generation_statistics(expected, results, listed),
    ]


def _report(
    id: str, passed: bool, detail: str, cells: Iterable[str] = (), step: str = ""
) -> CanaryReport:
    invalid = [] if passed else sorted(set(cells))
    return CanaryReport(
        id=id, passed=passed, detail=detail, source="built-in", step=step, cells=invalid
    )


def duplicate_seeds(results: Results, labels: LabelSource) -> list[CanaryReport]:
    """Identical label vectors from different seeds (MLPerf's seed checker, on outcomes).

    Only mixed vectors speak: 0 of 208 twice is no evidence. Where other cells show that the two
    seeds do differ, at a flip rate f, an identical vector is an alarm when ``(1 - f)^n`` times the
    number of comparisons is below 0.001; two seeds that differ nowhere are taken for copies. Where
    a cell's outcome depends on the item alone, so that seeds that do differ elsewhere nearly agree
    in it, that smaller flip rate counts. A vector that a third seed gives in
    another row of the table (the last part of the cell id) is decided by the items: there "refused"
    is what every second question asks for, and no copy of anything. A cell in which the replicates
    within a replicate all agree, in each of several (``1000/1`` and ``1000/2``, ``1001/1`` and
    ``1001/2``), was measured before they part: a model before its attacks.
    """
    pairs: dict[tuple[str, str], list[tuple[str, float, int]]] = defaultdict(list)
    seen: dict[tuple[int, ...], set[tuple[str, str]]] = defaultdict(set)
    vector_of: dict[tuple[str, str], tuple[int, ...]] = {}
    common: set[str] = set()
    for cell in results.cells:
        vectors = [
            (seed.seed, labels.get(seed.labels)) for seed in cell.seeds if seed.labels is not None
        ]
        for seed, line in vectors:
            vector = vector_of[cell.id, seed] = tuple(int(label) for label in line.labels)
            seen[vector].add((row_of(cell.id), seed))
        if _before_they_part(vectors):
            common.add(cell.id)
        for (seed_a, first), (seed_b, second) in combinations(vectors, 2):
            if first.n == second.n and min(first.k, first.n - first.k) >= MIXED:
                flips = sum(x != y for x, y in zip(first.labels, second.labels, strict=True))
                pairs[seed_a, seed_b].append((cell.id, flips / first.n, first.n))
    if not pairs:
        return []
    compared = sum(len(rates) for rates in pairs.values())
    by_cell: dict[str, list[float]] = defaultdict(list)
    for rates in pairs.values():
        if any(rate > 0 for _, rate, _ in rates):  # copies do not say how rarely items flip
            for id, rate, _ in rates:
                by_cell[id].append(rate)
    alarms: list[tuple[str, str, str]] = []
    for (seed_a, seed_b), rates in pairs.items():
        others = [rate for _, rate, _ in rates if rate > 0]
        usual = sum(others) / len(others) if others else 1.0
        within = others and seed_a.rpartition("/")[0] == seed_b.rpartition("/")[0]
        for id, rate, n in rates:
            if within and id in common:
                continue
            here = by_cell[id] if len(by_cell[id]) > 1 else [usual]
            expected_rate = min(usual, sum(here) / len(here))
            if rate == 0 and (1 - expected_rate) ** n * compared < 1e-3:
                others_too = seen[vector_of[id, seed_a]]
                if all(row == row_of(id) or seed in (seed_a, seed_b) for row, seed in others_too):
                    alarms.append((seed_a, seed_b, id))
    if not alarms:
        differ = sum(rate > 0 for rates in pairs.values() for _, rate, _ in rates)
        return [_report("duplicate-seed", True, f"{differ} of {compared} pairs of seeds differ")]
    seed_a, seed_b, id = alarms[0]
    detail = f"seeds {seed_a} and {seed_b} have identical labels in {id}"
    if len(alarms) > 1:
        detail += f" and {len(alarms) - 1} more"
    return [_report("duplicate-seed", False, detail, (id for _, _, id in alarms))]


def _before_they_part(vectors: Sequence[tuple[str, Labels]]) -> bool:
    """Whether replicates within a replicate agree in each of several, which differ themselves."""
    within: dict[str, set[tuple[int, ...]]] = defaultdict(set)
    members: Counter[str] = Counter()
    for seed, line in vectors:
        outer = seed.rpartition("/")[0]
        within[outer].add(tuple(int(label) for label in line.labels))
        members[outer] += 1
    different = {next(iter(vectors_of)) for vectors_of in within.values() if len(vectors_of) == 1}
    return min(members.values(), default=0) > 1 < len(within) == len(different)


def letter_collapse(results: Results, labels: LabelSource) -> list[CanaryReport]:
    """Nearly always the same letter: the accuracy is that letter's frequency and nothing else."""
    reports, checked = [], 0
    for cell in results.cells:
        for reference in _references(cell):
            line = labels.get(reference)
            if not line.choices:
                continue
            checked += 1
            detail = _collapse(line)
            if detail:
                reports.append(_report("letter-collapse", False, f"{cell.id}: {detail}", [cell.id]))
    if checked and not reports:
        sets = plural(checked, "set of answers uses", "sets of answers use")
        return [_report("letter-collapse", True, f"{sets} several letters")]
    return reports


def _collapse(line: Labels) -> str:
    letter, count = Counter(line.choices).most_common(1)[0]
    share = count / len(line.choices)
    right = Counter(line.answers).get(letter, 0) / len(line.answers) if line.answers else 0.0
    if share < COLLAPSED or right >= COLLAPSED:
        return ""
    detail = f"{100 * share:.1f} % of the answers are {letter!r}"
    if line.answers:
        detail += (
            f"; accuracy {100 * line.k / line.n:.1f} %, always {letter!r} would give "
            f"{100 * right:.1f} %"
        )
    return detail


def _references(cell: Cell) -> list[str]:
    references = [seed.labels for seed in cell.seeds] if cell.seeds else [cell.labels]
    return [reference for reference in references if reference is not None]


def generation_statistics(
    expected: Expectation, results: Results, listed: Sequence[str]
) -> list[CanaryReport]:
    """Empty, truncated, refused or hardly any text: a rate over it means something else.

    Looks at the cells of :class:`kit.results.ids.Statistic`, ``stats/<prefix>/<name>`` (or
    ``<prefix>/<name>``), at the worst of their seeds; a ``bound`` in the expectation replaces the
    limit.
    Failing makes the cells below ``<prefix>/`` invalid, and with the prefix ``<group>/<set>`` all
    cells ``<group>/.../<set>``.
    """
    bounds = {
        cell.id: cell.tolerance
        for cell in expected.cells
        if cell.tolerance is not None and cell.tolerance.kind == "bound"
    }
    reports = []
    for cell in results.cells:
        about = statistic_of(cell.id)
        if about is None or cell.not_run is not None:
            continue
        prefix, name = about
        side, limit = LIMITS[name]
        unit = "number" if name is Statistic.MEAN_TOKENS else "fraction"
        own = bounds.get(cell.id)
        if own is not None and own.bound is not None and own.side is not None:
            side, limit, unit = own.side, Fraction(own.bound), cell.unit
        measured = measure(cell, unit if unit != "number" else cell.unit, "results", None)
        values = [seed.value for seed in measured.seeds]
        if not values and measured.value is not None:
            values = [measured.value]
        if not values:
            continue
        value = max(values) if side == "at_most" else min(values)
        passed = value <= limit if side == "at_most" else value >= limit
        words = "at most" if side == "at_most" else "at least"
        detail = f"{cell.id} is {show(value)}, {words} {show(limit)} is sane"
        below = [id for id in listed if _concerns(prefix, id)]
        reports.append(_report(f"generation-{name}", passed, detail, below))
    return reports


def _concerns(prefix: str, id: str) -> bool:
    group, slash, last = prefix.rpartition("/")
    crosswise = bool(slash) and id.startswith(f"{group}/") and id.endswith(f"/{last}")
    return id.startswith(f"{prefix}/") or crosswise
