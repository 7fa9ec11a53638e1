"""Lint over what is asked of trajectories, with the place of every finding."""

from __future__ import annotations

from pathlib import Path

import pytest

from kit.errors import KitError
from tests.lint.test_lint_expectation import FILE, lint
from tests.lint.test_lint_manifest import change

END = "    place: note, table 2\n"
CURVE = """\
  - id: up/attacked
    status: reported
    unit: percent
    n: 208
    direction: higher_is_better
    place: note, figure 3
    series: [["0", "25.0"], ["100", "60.1"]]
    tolerance: {kind: trajectory, margin: "5", source: author, reason: as read off the figure}
"""
TOP = """\
  - id: up/attacked:max
    status: reported
    value: "60.1"
    unit: percent
    n: 208
    direction: lower_is_better
    place: note, section 4
    tolerance: {kind: seeds, margin: "5", source: author, reason: as chosen by the note}
"""
LATE = """\
  - id: up/attacked:first-above:50
    status: reported
    value: "100"
    unit: count
    place: note, section 4
    tolerance: {kind: seeds, margin: "50", source: author, reason: one evaluation apart}
"""


def with_curve(repo: Path, *changes: tuple[str, str], more: str = CURVE + TOP + LATE) -> None:
    for old, new in changes:
        assert old in more or old.startswith("    cells:")
        more = more.replace(old, new, 1)
    change(repo, FILE, (END, END + more))


def test_a_curve_and_its_answers_are_clean(repo: Path) -> None:
    with_curve(repo)
    change(repo, FILE, ("    cells: [up/adapted]", "    cells: [up/adapted, up/attacked:end]"))
    assert {finding.rule for finding in lint(repo)} == {"rests-on-unmeasured"}


@pytest.mark.parametrize(
    ("old", "new", "rule", "said", "place"),
    [
        ("unit: count", "unit: number", "trajectory-question", "is a count, not a number",
         "unit: number"),
        ("first-above:50", "first-above:150", "trajectory-question", "no percent crosses 150",
         "up/attacked:first-above:150"),
        ('value: "60.1"\n', 'value: "60.1"\n    runs: 3\n', "trajectory-question",
         "which only a series has", "runs: 3"),
        ("kind: seeds", "kind: binomial", "tolerance-fits", "compares items of one point",
         "kind: binomial"),
        ("up/attacked:max", "up/full:max", "trajectory-question", "nothing to ask of it",
         "up/full:max"),
        ('value: "60.1"\n', 'series: [["0", "1"]]\n', "trajectory-question", "and no curve",
         'series: [["0", "1"]]'),
    ],
)  # fmt: skip
def test_each_rule_names_the_line(
    repo: Path, old: str, new: str, rule: str, said: str, place: str
) -> None:
    with_curve(repo, (old, new))
    hits = [finding for finding in lint(repo) if finding.rule == rule and said in finding.message]
    assert hits, [finding.render() for finding in lint(repo)]
    line, column = map(int, hits[0].where.split(":")[-2:])
    at = (repo / FILE).read_text().splitlines()[line - 1]
    key, _, value = place.partition(": ")
    assert at[column - 1 :].startswith((place, value or key)), (at, column)


def test_a_claim_asks_a_curve_and_does_not_compare_it(repo: Path) -> None:
    with_curve(repo)
    change(repo, FILE, ("    cells: [up/adapted]", "    cells: [up/attacked]"))
    (hit,) = [finding for finding in lint(repo) if finding.rule == "claim-cells"]
    assert "is a curve" in hit.message
    assert "up/attacked:end" in hit.next_step


def test_a_claim_that_asks_what_is_not_listed(repo: Path) -> None:
    with_curve(repo)
    change(repo, FILE, ("    cells: [up/adapted]", "    cells: [up/atacked:max]"))
    (hit,) = [finding for finding in lint(repo) if finding.rule == "claim-cells"]
    assert "there is no cell 'up/atacked'" in hit.message
    assert "up/attacked" in hit.next_step


def test_units_of_what_a_claim_asks(repo: Path) -> None:
    with_curve(repo)
    asked = "    cells: [up/adapted, up/attacked:first-above:50, up/attacked:area]"
    change(repo, FILE, ("    cells: [up/adapted]", asked))
    (hit,) = [finding for finding in lint(repo) if finding.rule == "claim-cells"]
    assert hit.message.endswith("compares count, number, percent")


@pytest.mark.parametrize("question", ["mean", "max:1", "first-above", "first-above:high", ""])
def test_a_question_that_there_is_not_is_refused_by_the_schema(repo: Path, question: str) -> None:
    with_curve(repo, ("up/attacked:max", f"up/attacked:{question}"))
    with pytest.raises(KitError) as caught:
        lint(repo)
    (problem,) = getattr(caught.value, "errors", [caught.value])
    assert f"{FILE.name}:" in str(problem.where)


FIGURES = """\
figures:
  - kind: grid
    title: attack by defence
    cells: ["*/attacked@*"]
  - kind: trade-off
    title: two against each other
    cells: ["up/*", "up/*:max"]
    published: {cells: "big/*/x", upward: "big/*/y"}
"""


@pytest.mark.parametrize(
    ("old", "new", "said", "place"),
    [
        ('"*/attacked@*"', '"up/*"', "one * for its rows and one for its columns, not 1", "["),
        ('["*/attacked@*"]', '["*/*", "*/*"]', "grid needs 1 of these, not 2", "["),
        ('"up/*", "up/*:max"', '"up/*"', "trade-off needs 2 of these, not 1", "["),
        ('"up/*", "up/*:max"', '"up/*", "up/*/*"', "the same number of *", "["),
        ('"up/*", "up/*:max"', '"up/full", "up/adapted"', "at least one", "["),
        (
            'upward: "big/*/y"',
            'upward: "big/*/*"',
            "published points need the same number of *",
            "[",
        ),
        (', upward: "big/*/y"', "", "say what is drawn upwards", "["),
        ("*/attacked@*", "*/x@*", "no listed cell matches '*/x@*'", '"*/x@*"'),
    ],
)
def test_figures_need_patterns_that_fit(
    repo: Path, old: str, new: str, said: str, place: str
) -> None:
    with_curve(repo, ("up/attacked:max", "up/attacked@sgd:max"))
    assert old in FIGURES
    text = FIGURES.replace(old, new, 1)
    with_figures = (repo / FILE).read_text() + text
    (repo / FILE).write_text(with_figures)
    hits = [finding for finding in lint(repo) if finding.rule == "figures"]
    assert [hit for hit in hits if said in hit.message], hits
    line, column = map(int, hits[0].where.split(":")[-2:])
    assert with_figures.splitlines()[line - 1][column - 1 :].startswith(place)


def test_figures_that_fit_are_clean(repo: Path) -> None:
    with_curve(repo, ("up/attacked:max", "up/attacked@sgd:max"))
    (repo / FILE).write_text((repo / FILE).read_text() + FIGURES)
    assert "figures" not in {finding.rule for finding in lint(repo)}
