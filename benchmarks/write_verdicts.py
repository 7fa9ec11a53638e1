"""Write the tables of ``docs/verdicts.md`` from ``benchmarks/verdicts.json``.

python -m benchmarks.write_verdicts
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
PAGE = HERE.parent / "docs" / "verdicts.md"
START, END = "<!-- simulated -->\n", "<!-- end of simulated -->\n"
LABELS = {0.5: "correlated labels", 0.0: "independent labels", -1.0: "counts only"}
VERDICTS = ("REPRODUCED", "PARTIALLY", "NOT REPRODUCED")


def record() -> dict[str, Any]:
    """What :mod:`benchmarks.simulate_verdicts` wrote."""
    values: dict[str, Any] = json.loads((HERE / "verdicts.json").read_text(encoding="utf-8"))
    return values


def percent(*shares: float) -> str:
    """Shares as percentages, one behind the other."""
    return " / ".join(f"{100 * share:.1f}".removesuffix(".0") for share in shares)


def gaps(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterable[str]:
    """A gap-closed claim at a known truth."""
    yield "A gap-closed claim (`at_least 0.85`, 208 items on each of three rates), % of runs:"
    yield ""
    yield "| truth | labels | before: holds / fails | now: holds / fails / undetermined |"
    yield "|---|---|---|---|"
    for old, new in zip(before["gap"], after["gap"], strict=True):
        if new["side"] == "at_least":
            first = percent(*(old.get(word, 0.0) for word in ("holds", "fails")))
            words = ("holds", "fails", "undetermined")
            second = percent(*(new.get(word, 0.0) for word in words))
            yield f"| {new['truth']:.2f} | {LABELS[new['rho']]} | {first} | {second} |"


def runs(name: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterable[str]:
    """Run verdicts of an experiment."""
    yield f"| {name}: truth | {' / '.join(VERDICTS)} | omnibus line exceeded | cells that deviate |"
    yield "|---|---|---|---|"
    for truth, new in after.items():
        sides = [side for side in (before.get(truth), new) if side is not None]
        columns = (
            [percent(*(side["verdicts"].get(word, 0.0) for word in VERDICTS)) for side in sides],
            [percent(side["omnibus"]) for side in sides],
            [percent(deviating(side)) for side in sides],
        )
        yield f"| {truth} | {' | '.join(' → '.join(column) for column in columns)} |"


def deviating(side: Mapping[str, Any]) -> float:
    """Mean over the cells of how often they deviate."""
    cells = side["cells"].values()
    return float(sum(cell["deviates"] for cell in cells) / len(cells))


def detection(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterable[str]:
    """Detection rate of each cell of the miniature attack success."""
    up, down, still = "every ASR cell +8", "every ASR cell -8", "equal"
    yield f"| cell | rate there, % | {still} | {up} | {down} |"
    yield "|---|---|---|---|---|"
    for id, rate in after["rates"].items():
        columns = [
            " → ".join(
                percent(side[truth]["cells"].get(id, {}).get("deviates", 0.0))
                for side in (before, after["mini"])
            )
            for truth in (still, up, down)
        ]
        yield f"| {id} | {rate:.1f} | {' | '.join(columns)} |"


def replications(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterable[str]:
    """True replications of every experiment in miniature."""
    head = "| experiment, truth | REPRODUCED | omnibus line exceeded | cells that deviate |"
    yield f"{head} why not |"
    yield "|---|---|---|---|---|"
    for name, truths in after.items():
        for truth, new in truths.items():
            old = before.get(name, {}).get(truth)
            sides = [side for side in (old, new) if side is not None]
            why = [
                f"`{claim.rpartition(' ')[0]}` open in {percent(share)} %"
                for claim, share in new["why"].items()
                if claim.endswith(" undetermined") and share >= 0.05
            ]
            columns = (
                [percent(side["verdicts"].get("REPRODUCED", 0.0)) for side in sides],
                [percent(side["why"].get("omnibus line exceeded", 0.0)) for side in sides],
                [percent(side["cells_that_deviate"]) for side in sides],
            )
            shown = " | ".join(" → ".join(column) for column in columns)
            yield f"| {name}{truth.removeprefix('equal')} | {shown} | {'; '.join(why)} |"


def many_of(experiments: Mapping[str, Any]) -> str:
    """How many runs each of them was given."""
    sizes = {truth["runs"] for truths in experiments.values() for truth in truths.values()}
    return " or ".join(map(str, sorted(sizes)))


def tables() -> str:
    """All tables."""
    entries = record()
    before, after = entries["before"], entries["after"]
    count, many = after["mini"]["equal"]["runs"], after["gap"][0]["runs"]
    lines = [
        f"{many} runs a line of the first table, {count} of the others ({many} now where both "
        "sides are equal at paper size); before at commit "
        f"{before['commit']}, now at {after['commit']} ({after['date']}).",
        "",
        *gaps(before, after),
        "",
        "Verdicts on whole runs, % of runs, before → now:",
        "",
        *runs("tiny-adapt, paper", before["paper"], after["paper"]),
        "",
        *runs("tiny-adapt, mini", before["mini"], after["mini"]),
        "",
        "Detection rate a cell (`deviates`, % of runs) in miniature, before → now:",
        "",
        *detection(before["mini"], after),
        "",
        f"True replications in miniature, % of {many_of(after['experiments'])} runs each "
        "(before → now where both were drawn):",
        "",
        *replications(before.get("experiments", {}), after["experiments"]),
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Write the page."""
    text = PAGE.read_text(encoding="utf-8")
    head, _, rest = text.partition(START)
    _, _, tail = rest.partition(END)
    PAGE.write_text(f"{head}{START}\n{tables()}\n{END}{tail}", encoding="utf-8")


if __name__ == "__main__":
    main()
