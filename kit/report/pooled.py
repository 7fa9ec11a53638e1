"""Reproductions add up: the log as a page, and what its entries say together, claim by claim.

Runs of one experiment, version, profile and code are put together (:data:`RULE`). The environment
class is the group of a random-effects model, and entries of the same seeds share their error.
Spread is estimated by Paule and Mandel 1982, in statsmodels; p values add by Stouffer's sum.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

from kit.manifest.printed import factor
from kit.plural import plural
from kit.report.files import needing
from kit.report.log import FOLDER, CellEntry, ClaimEntry, Entry, entries
from kit.report.markdown import escape, table
from kit.verify.numbers import rounded, show_p, some

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Vector = NDArray[np.float64]

RULE = """\
Entries are put together claim by claim within one experiment, version, profile and code; miniature
and full size never are. A changed or incomplete run, a table from elsewhere, and other code than
that of most entries are listed above and not pooled. An entry weighs by its own uncertainty and by
its environment class (device, types, library versions): classes are the groups of a random-effects
model, so that where classes differ many entries of one do not outvote another. The same seeds again
in a class are a repeat and count once. The same seeds in another class make nothing more certain
about other seeds: their errors are added as if equal. I\u00b2 is the share of the spread that
chance within the entries does not explain. A claim is *contested* where an entry (a repeat too)
says that it holds and another that it fails, or where outcomes differ and the numbers differ beyond
chance (p below 0.01, shared by the claim's numbers). Units are compared first."""
DISAGREE = 0.01
"""p of homogeneity below which estimates of one number differ beyond chance."""
_LEVEL = 1.959964
"""Half-width of a 95 % interval in standard errors."""


@dataclass(frozen=True)
class Listed:
    """An entry of the log and how it counts.

    Attributes:
        number: By which the page names it.
        entry: What was added.
        apart: Why it is not pooled; empty where it is.
        repeats: It is not, because its seeds are in another entry.
    """

    number: int
    entry: Entry
    apart: str = ""
    repeats: bool = False

    @property
    def group(self) -> tuple[str, str, str]:
        """What is never mixed."""
        return self.entry.experiment, self.entry.version, self.entry.profile

    @property
    def setting(self) -> str:
        """Its environment class in words."""
        plain = ("device", "gpu_arch", "dtype")
        known = self.entry.environment
        words = [known[name] for name in plain if name in known]
        words += [f"{name} {value}" for name, value in known.items() if name not in plain]
        return ", ".join(words) or "any"


def standing(log: Sequence[Entry]) -> list[Listed]:
    """Every entry, in the order of the log, with why it is not pooled where it is not."""
    numbered = list(enumerate(log, start=1))
    entered: list[Listed] = []
    for _, members in groupby(numbered, key=lambda item: Listed(*item).group):
        entered += _one_group(list(members))
    return entered


def _one_group(members: Sequence[tuple[int, Entry]]) -> Iterator[Listed]:
    first = {number: _changed(entry) for number, entry in members}
    codes = [entry.code for number, entry in members if not first[number]]
    # Where several codes have equally many entries, it is the newest.
    usual = max(reversed(codes), key=codes.count, default={})
    earlier: list[Listed] = []
    for number, entry in members:
        why, repeats = first[number], False
        if not why and entry.code != usual:
            kinds = [kind for kind in entry.code if entry.code[kind] != usual.get(kind)]
            why = f"other code than most entries: {some(kinds or list(usual))}"
        for other in earlier if not why else ():
            if entry.seeds == other.entry.seeds:
                repeats = entry.environment == other.entry.environment
                why = f"repeats entry {other.number}" if repeats else why
            elif set(entry.seeds) & set(other.entry.seeds):
                why, repeats = f"shares some seeds with entry {other.number}", True
            if why:
                break
        made = Listed(number, entry, why, repeats)
        earlier += [] if why else [made]
        yield made


def _changed(entry: Entry) -> str:
    if entry.brought:
        return "a table measured elsewhere"
    if entry.changes:
        return f"changed: {'; '.join(entry.changes)}"
    return "" if entry.code else "does not say which code made it"


@dataclass(frozen=True)
class Combined:
    """Several estimates of one number.

    Attributes:
        value: Random-effects mean.
        error: Its standard error.
        p: Of homogeneity; 1 for a single estimate.
        i_squared: Share of the spread that chance within the entries does not explain, 0 to 1.
        weights: Of each environment class; they add up to 1.
    """

    value: float
    error: float
    p: float
    i_squared: float
    weights: dict[str, float]


def combine(
    values: Sequence[float],
    errors: Sequence[float],
    classes: Sequence[str],
    seeds: Sequence[tuple[int, ...]],
) -> Combined:
    """Estimates with standard errors, put together by environment class.

    Args:
        values: One an entry.
        errors: Standard errors, all above 0.
        classes: Environment class of each.
        seeds: Seeds of each; estimates of the same seeds are taken as wholly correlated.

    Raises:
        ValueError: None, or an error that is not above 0.
    """
    import numpy as np
    from scipy.stats import chi2

    if not values or min(errors) <= 0:
        raise ValueError("estimates need standard errors above 0")
    y, variance = np.array(values, float), np.array(errors, float) ** 2
    weight, groups = np.zeros_like(y), list(dict.fromkeys(classes))
    of = np.array([groups.index(name) for name in classes])
    for group in range(len(groups)):
        inside = of == group
        weight[inside], between = _random_effects(y[inside], variance[inside])
        variance[inside] += between
    member = np.eye(len(groups))[of]
    shares, between = _random_effects((weight * y) @ member, (weight**2 * variance) @ member)
    weight *= shares[of]
    spread = weight * np.sqrt(variance)
    same = [[other == own for other in seeds] for own in dict.fromkeys(seeds)]
    total = float(((np.array(same) @ spread) ** 2).sum() + between * (shares**2).sum())
    within = 1 / np.array(errors, float) ** 2
    q = float(within @ (y - within @ y / within.sum()) ** 2)
    free = len(values) - 1
    return Combined(
        value=float(weight @ y),
        error=total**0.5,
        p=float(chi2.sf(q, free)) if free else 1.0,
        i_squared=max(0.0, (q - free) / q) if q else 0.0,
        weights=dict(zip(groups, shares.tolist(), strict=True)),
    )


def _random_effects(y: Vector, variance: Vector) -> tuple[Vector, float]:
    """Weights that add up to 1, and the variance between the estimates."""
    import numpy as np

    with needing("pooling"):
        from statsmodels.stats.meta_analysis import combine_effects
    if len(y) == 1:
        return np.ones(1), 0.0
    with np.errstate(divide="ignore", invalid="ignore"):  # its I² of equal estimates
        effects = combine_effects(y, variance, method_re="pm")
    return effects.weights_rel_re, float(effects.tau2)


@dataclass(frozen=True)
class PooledClaim:
    """A primary claim over the entries of a group.

    Attributes:
        id: Of the claim.
        outcomes: Outcome -> number of pooled entries.
        p: That it holds, over all seeds; None where no entry had noise to test against.
        estimates: Cell, unit and what the entries give together.
        units: Sentences on cells that entries measured in units that do not compare.
        contested: Entries disagree beyond chance.
        otherwise: Outcomes that only repeats have.
    """

    id: str
    outcomes: Counter[str]
    p: float | None
    estimates: list[tuple[str, str, Combined]]
    units: list[str]
    contested: bool
    otherwise: list[str]


def pool(members: Sequence[Listed]) -> list[PooledClaim]:
    """Every primary claim of the entries of one group; repeats have a say in what is contested."""
    known = [
        (claim, item) for item in members if not item.apart or item.repeats
        for claim in item.entry.claims
    ]  # fmt: skip
    ids = dict.fromkeys(claim.id for claim, _ in known)
    return [_pool(id, [(claim, item) for claim, item in known if claim.id == id]) for id in ids]


def _pool(id: str, known: Sequence[tuple[ClaimEntry, Listed]]) -> PooledClaim:
    pooled = [(claim, item) for claim, item in known if not item.apart]
    outcomes = Counter(claim.outcome for claim, _ in pooled)
    every = {claim.outcome for claim, _ in known}
    estimates: list[tuple[str, str, Combined]] = []
    units = []
    for cell in dict.fromkeys(cell.id for claim, _ in pooled for cell in claim.cells):
        measured = [(c, item) for claim, item in pooled for c in claim.cells if c.id == cell]
        if any(factor(c.unit, measured[0][0].unit) is None for c, _ in measured):
            units.append(f"{escape(cell)}: units do not compare")
        else:
            estimates += _estimate(measured)
    apart = any(together.p < DISAGREE / len(estimates) for _, _, together in estimates)
    return PooledClaim(
        id=id,
        outcomes=outcomes,
        p=_p(pooled),
        estimates=estimates,
        units=units,
        contested={"holds", "fails"} <= every or (apart and len(outcomes) > 1),
        otherwise=sorted(every - outcomes.keys()),
    )


def _p(pooled: Sequence[tuple[ClaimEntry, Listed]]) -> float | None:
    """Stouffer's sum over seeds; of the same seeds the largest p stands."""
    from scipy.stats import combine_pvalues

    largest: dict[tuple[int, ...], float] = {}
    for claim, item in pooled:
        if claim.p is not None:
            seeds = tuple(item.entry.seeds)
            # A p of 0 or 1 would silence all others.
            largest[seeds] = max(largest.get(seeds, 1e-12), min(claim.p, 1 - 1e-12))
    return float(combine_pvalues([*largest.values()], "stouffer").pvalue) if largest else None


def _estimate(measured: Sequence[tuple[CellEntry, Listed]]) -> Iterator[tuple[str, str, Combined]]:
    first = measured[0][0]
    rows = []
    for cell, item in measured:
        times = float(factor(cell.unit, first.unit) or 1)
        if cell.low is not None and cell.high is not None and cell.high > cell.low:
            error = times * (cell.high - cell.low) / 2 / _LEVEL
            rows.append((times * cell.value, error, item.setting, tuple(item.entry.seeds)))
    if rows:
        yield first.id, first.unit, combine(*zip(*rows, strict=True))


def page(folder: Path) -> str:
    """The log and what it says together, as Markdown."""
    entered = standing(entries(folder))
    return f"{log_markdown(entered)}\n## Together\n\n{pooled_markdown(entered)}"


def log_block(root: Path) -> str:
    """The log of a repository, for ``kit docs``."""
    return log_markdown(standing(entries(root / FOLDER)))


def pooled_block(root: Path) -> str:
    """The pooled claims of a repository's log, for ``kit docs``."""
    return pooled_markdown(standing(entries(root / FOLDER)))


def log_markdown(entered: Sequence[Listed]) -> str:
    """A line an entry."""
    if not entered:
        return "Nobody has added a reproduction yet: `kit log add RUN`.\n"
    rows = [_row(item, item.entry) for item in entered]
    head = ["", "Experiment", "Profile", "Verdict", "Primary claims", "Pooled"]
    head += ["Day", "Hardware", "Kit", "By"]
    return "\n".join(table(head, rows)).rstrip() + "\n"


def _row(item: Listed, entry: Entry) -> list[str]:
    held = sum(claim.outcome == "holds" for claim in entry.claims)
    return [
        str(item.number),
        f"{escape(entry.experiment)} {escape(entry.version)}",
        f"{escape(entry.profile)}{f', {escape(entry.variant)}' if entry.variant else ''}",
        f"**{entry.verdict}**",
        f"{held} of {len(entry.claims)} hold" if entry.claims else "none",
        f"no: {escape(item.apart)}" if item.apart else "yes",
        escape(entry.date),
        escape(entry.hardware),
        escape(entry.kit_version) + (f" ({escape(entry.commit[:8])})" if entry.commit else ""),
        escape(entry.name) if entry.name else "\u2014",
    ]


def pooled_markdown(entered: Sequence[Listed]) -> str:
    """How entries are put together, and a line a claim of every group that has some."""
    rows = []
    for (experiment, version, profile), group in groupby(entered, key=lambda item: item.group):
        members = list(group)
        numbers = ", ".join(str(item.number) for item in members if not item.apart)
        for claim in pool(members):
            rows.append(
                [
                    f"{escape(experiment)} {escape(version)}, {escape(profile)}",
                    escape(claim.id),
                    numbers,
                    _says(claim),
                    "; ".join([*map(_number, claim.estimates), *claim.units]),
                ]
            )
    head = ["Experiment", "Claim", "Entries", "Outcomes", "Together"]
    lines = table(head, rows) if rows else ["No entry can be pooled yet."]
    return f"{RULE}\n\n" + "\n".join(lines).rstrip() + "\n"


def _says(claim: PooledClaim) -> str:
    several = {"holds": "hold", "fails": "fail"}
    counts = sorted(claim.outcomes.items())
    says = ", ".join(plural(count, word, several.get(word, word)) for word, count in counts)
    says += "".join(f"; a repeat: {word}" for word in claim.otherwise)
    p = f" ({escape(show_p(claim.p))})" if claim.p is not None else ""
    return f"**contested**: {says}{p}" if claim.contested else says + p


def _number(estimate: tuple[str, str, Combined]) -> str:
    cell, unit, together = estimate
    half = _LEVEL * together.error
    value, width = (rounded(number, half, unit) for number in (together.value, half))
    text = f"{escape(cell)} {value} \u00b1 {width} {escape(unit)}"
    notes = [f"I\u00b2 {together.i_squared:.0%}"] if together.p < 1 else []
    if len(together.weights) > 1:
        notes += [f"{escape(name)} weighs {part:.0%}" for name, part in together.weights.items()]
    return text + (f" ({'; '.join(notes)})" if notes else "")
