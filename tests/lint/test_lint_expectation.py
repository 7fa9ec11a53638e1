"""Lint over expectations: numbers that cannot be, tolerances and claims that say too little."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from kit.errors import Many
from kit.lint import lint_expectation
from kit.lint.core import Finding
from kit.manifest.catalog import Catalog
from kit.manifest.load import read_expectation
from tests.lint.test_lint_manifest import change

FILE = Path("expected_results/defensive_tokens/demo.paper.yaml")
BINOMIAL = '{kind: binomial, margin: "5", source: author, reason: as chosen by the note}'
DERIVED = "derived: {formula: gap_closed, cells: [up/undefended, up/adapted, up/full]}"
ADAPTED = '    value: "1.9"\n    unit: percent\n    n: 208\n'


def lint(repo: Path) -> list[Finding]:
    catalog = Catalog(repo)
    loaded = catalog.load_expectation("demo", "paper")
    assert loaded is not None
    return lint_expectation(loaded, catalog)


def test_an_expectation_beside_its_manifest_belongs_to_that(repo: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    text = (repo / FILE).read_text()
    manifest = (repo / "manifests" / "defensive_tokens" / "demo.yaml").read_text()
    (mine / "own.yaml").write_text(manifest.replace("id: demo\n", "id: own\n", 1))
    expected = mine / "own.paper.expected.yaml"

    def said(file: Path) -> list[str]:
        hits = lint_expectation(read_expectation(file), Catalog(repo))
        return [hit.message for hit in hits if hit.rule == "experiment"]

    expected.write_text(text.replace("experiment: demo\n", "experiment: own\n", 1))
    assert said(expected) == []
    plain = mine / "own.paper.yaml"
    plain.write_text(expected.read_text())
    assert said(plain) == ["there is no experiment 'own'"], "in the repository there is none"
    (mine / "own.yaml").unlink()
    assert said(expected) == ["there is no experiment 'own'"]


def test_the_demo_is_clean_but_for_what_nobody_measured(repo: Path) -> None:
    (finding,) = lint(repo)
    assert (finding.rule, finding.level) == ("rests-on-unmeasured", "info")


@pytest.mark.parametrize(
    ("old", "new", "rule", "said"),
    [
        ("id: up/full", "id: up/undefended", "duplicate-id", "a second cell"),
        ("id: order", "id: adapted-is-low", "duplicate-id", "a second claim"),
        ("experiment: demo", "experiment: dmeo", "experiment", "no experiment 'dmeo'"),
        ("experiment: demo", "experiment: demo-corrected", "experiment", "the file is named"),
        ("profile: paper", "profile: mini", "experiment", "the file is named"),
        ("version: 1-A", "version: 2-A", "experiment", "they are not comparable"),
        (ADAPTED, "    unit: percent\n    n: 208\n", "value", "is reported but has no value"),
        (
            "    status: running",
            f"    status: running\n    tolerance: {BINOMIAL}",
            "value",
            "no final number to compare with",
        ),
        (ADAPTED, '    value: "1.9"\n    unit: percent\n', "n", "is a percent without n"),
        (
            ADAPTED + "    direction: lower_is_better\n",
            ADAPTED,
            "direction",
            "'up/adapted' is a percent without direction",
        ),
        ("source: author, reason: follows", "reason: follows", "margin-source", "without a source"),
        ('value: "1.9"', 'value: "101.9"', "impossible", "101.9 is no percent (0 to 100)"),
        ('value: "1.9"', 'value: "-1.9"', "impossible", "is no percent"),
        (ADAPTED, ADAPTED + "    k: 209\n", "impossible", "209 of 208 items"),
        (
            ADAPTED,
            '    value: "1.9"\n    unit: percent\n    k: 4\n',
            "impossible",
            "has k but no n",
        ),
        ('value: "1.9"', 'value: "1.8"', "grim", "no count of 208 items gives 1.8 (3/208 = 1.442"),
        (ADAPTED, ADAPTED + "    k: 5\n", "grim", "5/208 is 2.404, not 1.9"),
        ('value: "0.979"', 'value: "0.97"', "derived", "not 0.97"),
        ("up/adapted, up/full]}\n    tol", "up/adaptd, up/full]}\n    tol", "derived", "no cell"),
        ("[up/undefended, up/adapted, up/full]}\n", "[up/full]}\n", "derived", "takes 3 cells"),
        ("unit: ratio", "unit: percent", "derived", "not 0.979"),
        (
            "formula: gap_closed, cells: [up/undefended, up/adapted, up/full]",
            "formula: difference, cells: [up/adapted, up/full]",
            "derived",
            "of cells in percent",
        ),
        (f"    tolerance: {BINOMIAL}\n", "", "no-tolerance", "has no tolerance"),
        (BINOMIAL, "{kind: binomial, reason: because}", "tolerance-fields", "needs 'margin'"),
        (
            BINOMIAL,
            '{kind: exact, margin: "1", reason: because}',
            "tolerance-fields",
            "ignores 'mar",
        ),
        (
            BINOMIAL,
            '{kind: bound, bound: "1", reason: because}',
            "tolerance-fields",
            "needs 'side'",
        ),
        (
            BINOMIAL,
            '{kind: flip, margin: "1", flip_rate: "2", reason: because}',
            "tolerance-fields",
            "a flip rate is a fraction",
        ),
        (
            BINOMIAL,
            '{kind: absolute, margin: "-1", reason: because}',
            "tolerance-fields",
            "negative",
        ),
        (
            BINOMIAL,
            '{kind: relative, margin: "1", floor: "1", reason: because}',
            "tolerance-fits",
            "'relative' is forbidden for a percent",
        ),
        (
            BINOMIAL,
            '{kind: trajectory, margin: "1", reason: because}',
            "tolerance-fits",
            "a series",
        ),
        (BINOMIAL, '{kind: paired, margin: "1", reason: because}', "tolerance-fits", "no per-item"),
        (
            '{kind: absolute, margin: "0.05"',
            '{kind: flip, flip_rate: "0.02", margin: "0.05"',
            "tolerance-fits",
            "needs a proportion with n",
        ),
        (
            "reason: as chosen by the note",
            "reason: TODO",
            "margin-reason",
            "no reason for a margin",
        ),
        ("reason: as chosen by the note", "reason: '---'", "margin-reason", "no reason"),
        (ADAPTED, ADAPTED + '    series: [["1", "2"]]\n', "tolerance-fits", "has a series"),
        (ADAPTED, ADAPTED + '    series: [["1", "2"], ["1", "3"]]\n', "series-points", "not rise"),
        (ADAPTED, ADAPTED + '    series: [["1"]]\n', "series-points", "a point is [x, y]"),
        (
            "    cells: [up/adapted]",
            "    cells: [up/adpated]",
            "claim-cells",
            "no cell 'up/adpated'",
        ),
        (
            "    cells: [up/adapted]",
            "    cells: [up/adapted, up/gap-closed]",
            "claim-cells",
            "compares percent, ratio",
        ),
        ("    cells: [up/adapted]\n", "", "claim-fields", "threshold needs cells"),
        ('    value: "5"\n', "", "claim-fields", "threshold needs 'value'"),
        ("    side: at_most\n", "", "claim-fields", "threshold needs 'side'"),
        (
            "cells: [up/full, up/adapted, up/undefended]",
            "cells: [up/full]",
            "claim-fields",
            "order needs at least two cells",
        ),
        ("kind: order", "kind: within", "claim-fields", "within needs exactly two cells, not 3"),
        ("kind: order", "kind: within", "claim-fields", "within needs a margin above zero"),
        ("kind: order", "kind: ratio", "claim-fields", "ratio needs 'value'"),
        ("kind: order", "kind: direction", "claim-fields", "direction needs pairs"),
        ("kind: order", "kind: direction", "claim-fields", "ignores 'cells'"),
        ("kind: order", 'kind: order\n    value: "3"', "claim-fields", "order ignores 'value'"),
        (
            "kind: order",
            "kind: order\n    pairs: [[up/full, up/adapted]]",
            "claim-fields",
            "'pairs'",
        ),
        ("kind: order", "kind: order\n    at_least_pairs: 1", "claim-fields", "'at_least_pairs'"),
        ("kind: order", 'kind: order\n    margin: "-1"', "claim-fields", "a negative margin"),
        ("kind: order", 'kind: order\n    margin: "1"', "claim-margin-reason", "without a reason"),
        ("primary: true", "primary: false", "primary-claims", "0 primary claims"),
        ("{2} undefended", "{3} undefended", "claim-words", "{3} is no cell"),
        ('    tested: "adapted, ASR is {0}"\n', "", "claim-words", "does not say what is tested"),
        ("claims:\n", "main: nobody\nclaims:\n", "claim-words", "no claim 'nobody'"),
        ("claims:\n", 'caveats: ["see {x}"]\nclaims:\n', "claim-words", "no claim 'x'"),
    ],
)
def test_a_fault_is_found(repo: Path, old: str, new: str, rule: str, said: str) -> None:
    change(repo, FILE, (old, new))
    found = lint(repo)
    hits = [f for f in found if f.rule == rule and said in f.message]
    assert hits, [finding.render() for finding in found]
    assert re.search(r"demo\.paper\.yaml:[1-9][0-9]*:[1-9][0-9]*$", hits[0].where)


FAULTS = (
    ('value: "1.9"', 'value: "1.8"'),
    ('value: "0.979"', 'value: "0.97"'),
    (
        "    n: 208\n    direction: lower_is_better\n    place: note, table 1\n    tol",
        "    place: p\n    tol",
    ),
    (", source: author, reason: follows", ", reason: follows"),
    ("    cells: [up/adapted]", "    cells: [up/adpated]"),
)


def test_everything_that_is_wrong_is_said_at_once_with_its_place(
    repo: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Five faults of five kinds in one file: one run of `kit validate` names all."""
    from kit.cli.main import run as kit

    change(repo, FILE, *FAULTS)
    assert kit(["validate", str(FILE)]) == 4
    said = capsys.readouterr()
    hits = re.findall(r"demo\.paper\.yaml(:\d+:\d+): error: .*\[([a-z-]+)\]", said.out)
    found = {rule: place for place, rule in hits}
    assert found.keys() >= {"grim", "derived", "n", "margin-source", "claim-cells"}, said.out
    lines = (repo / FILE).read_text().splitlines()
    for rule, text in (("grim", '"1.8"'), ("derived", '"0.97"'), ("claim-cells", "up/adpated")):
        line, column = map(int, found[rule][1:].split(":"))
        assert lines[line - 1][column - 1 :].startswith(text)


def test_before_the_first_reference_runs_there_is_one_warning(repo: Path) -> None:
    text = (repo / FILE).read_text()
    for value in ('"0.5"', '"1.9"', '"0.979"'):
        text = text.replace(f"status: reported\n    value: {value}", "status: reference")
    (repo / FILE).write_text(text)
    (hit,) = [f for f in lint(repo) if f.rule == "reference-runs"]
    assert hit.level == "warning"
    assert "3 cells with nothing to compare with" in hit.message
    assert hit.next_step == "kit reference demo RUN..."


def test_a_reference_forgotten_among_others(repo: Path) -> None:
    (repo / FILE).with_name("r.jsonl").write_text('{"id": "up/undefended", "value": 1.9}\n')
    change(
        repo,
        FILE,
        ("cells:", "record: r.jsonl\ncells:"),
        ("status: quoted", "status: reference"),
        ("status: reported", "status: reference"),
    )
    (hit,) = [f for f in lint(repo) if f.rule == "reference-runs"]
    assert hit.level == "error"
    assert "'up/full' is a reference without its runs" in hit.message


@pytest.mark.parametrize("whole", [True, False], ids=["a run without seeds", "seeds"])
def test_labels_that_the_reference_kept_and_nobody_asks_for(repo: Path, whole: bool) -> None:
    """A run that comes without them would otherwise lack nothing."""
    kept = '"labels": "labels.jsonl#x"'
    measured = f"{kept}" if whole else f'"seeds": [{{"seed": "0", "value": 1.9, {kept}}}]'
    (repo / FILE).with_name("r.jsonl").write_text(
        f'{{"id": "up/full", "value": 1.9, {measured}}}\n{{"id": "up/adapted", "value": 1.9}}\n'
    )
    change(repo, FILE, ("cells:", "record: r.jsonl\ncells:"))
    (hit,) = [f for f in lint(repo) if f.rule == "labelled"]
    assert "'up/full': the reference runs kept labels" in hit.message
    change(repo, FILE, ("  - id: up/full\n", "  - id: up/full\n    labelled: true\n"))
    assert not [f for f in lint(repo) if f.rule == "labelled"]


def test_direction_claims(repo: Path) -> None:
    pairs = "kind: direction\n    side: at_most\n    pairs: [[up/undefended, up/full], [up/full]]"
    change(
        repo,
        FILE,
        ("kind: order", pairs + "\n    at_least_pairs: 3"),
        ("    cells: [up/full, up/adapted, up/undefended]\n", ""),
    )
    said = [f.message for f in lint(repo) if f.rule == "claim-fields"]
    assert any("a pair is [before, after]" in text for text in said)
    assert any("at_least_pairs is 3, there are 2 pairs" in text for text in said)


def test_more_than_fifteen_primary_claims(repo: Path) -> None:
    text = (repo / FILE).read_text()
    claim = text[text.index("  - id: adapted-is-low") : text.index("  - id: order")]
    more = "".join(claim.replace("adapted-is-low", f"copy-{i}") for i in range(15))
    (repo / FILE).write_text(text + more)
    assert any(f.rule == "primary-claims" and "16" in f.message for f in lint(repo))


@pytest.mark.parametrize(
    ("old", "new", "rule"),
    [('value: "1.9"', 'value: "1.8"', "grim"), ('value: "0.979"', 'value: "0.97"', "derived")],
)
def test_a_note_that_names_the_rule_makes_it_a_warning(
    repo: Path, old: str, new: str, rule: str
) -> None:
    change(repo, FILE, (old, f'{new}\n    note: "{rule}: printed so in table 1"'))
    (hit,) = [f for f in lint(repo) if f.rule == rule and new.split('"')[1] in f.message]
    assert hit.level == "warning"
    assert "printed so in table 1" in hit.message


def test_another_note_does_not_waive(repo: Path) -> None:
    change(repo, FILE, ('value: "1.9"', 'value: "1.8"\n    note: "as in table 1"'))
    assert any(f.rule == "grim" and f.level == "error" for f in lint(repo))


def test_a_percentage_that_is_no_share_of_items(repo: Path) -> None:
    change(
        repo, FILE, (ADAPTED, '    value: "33.5"\n    unit: percent\n    note: "n: a residual"\n')
    )
    (hit,) = [f for f in lint(repo) if f.rule == "n"]
    assert hit.level == "info"


def test_times_in_different_units_are_compared_in_seconds(repo: Path) -> None:
    cells = """
  - {id: full, status: reported, value: "16", unit: minutes, place: p, tolerance: TOL}
  - {id: tiny, status: reported, value: "60", unit: seconds, place: p, tolerance: TOL}
  - id: speed-up
    status: reported
    value: "16"
    unit: ratio
    place: p
    tolerance: TOL
    derived: {formula: ratio, cells: [full, tiny]}
claims:"""
    tolerance = '{kind: absolute, margin: "1", reason: because}'
    change(repo, FILE, ("\nclaims:", cells.replace("TOL", tolerance)))
    assert [f for f in lint(repo) if f.rule == "derived"] == []
    change(repo, FILE, ('value: "16"\n    unit: ratio', 'value: "14"\n    unit: ratio'))
    assert [f for f in lint(repo) if f.rule == "derived"] != []


def test_a_divisor_that_may_be_zero_is_said_not_judged(repo: Path) -> None:
    change(repo, FILE, ('value: "69.2"', 'value: "0.5"'))
    (hit,) = [f for f in lint(repo) if f.rule == "derived"]
    assert hit.level == "info"
    assert "the divisor of gap_closed may be zero" in hit.message


@pytest.mark.parametrize(
    ("changes", "rule", "said"),
    [
        # A ratio of a percentage and seconds is no number that anybody can check.
        (
            [("unit: percent\n    n: 208", "unit: seconds")],
            "derived",
            "is a ratio of cells in percent, seconds",
        ),
        ([("    kind: order\n", '    kind: order\n    value: "5"\n')], "", "value"),
        ([("    kind: order\n", "    kind: order\n    side: at_most\n")], "", "side"),
        ([("    kind: threshold\n", '    kind: threshold\n    margin: "2"\n')], "", "margin"),
    ],
)
def test_fields_that_would_say_nothing(
    repo: Path, changes: list[tuple[str, str]], rule: str, said: str
) -> None:
    change(repo, FILE, *changes)
    found = [one for one in lint(repo) if one.level == "error"]
    assert any(said in one.message and (not rule or one.rule == rule) for one in found), found


def test_an_experiment_without_the_profile(repo: Path) -> None:
    manifest = repo / "manifests/defensive_tokens/demo.yaml"
    text = manifest.read_text()
    start, end = text.index("  paper:\n"), text.index("notes:\n")
    manifest.write_text(text[:start] + text[end:])
    assert any("has no profile 'paper'" in one.message for one in lint(repo))


def test_an_experiment_that_cannot_be_read_is_reported_elsewhere(repo: Path) -> None:
    (repo / "manifests/defensive_tokens/demo.yaml").write_text("{")
    assert not any("no experiment" in one.message for one in lint(repo))


@pytest.mark.parametrize("number", ["1e999", "1e-999", "1e999999999", "9" * 5000, "0." + "1" * 99])
def test_a_number_of_absurd_size_is_not_even_read(repo: Path, number: str) -> None:
    """Kept exactly, ``1e999999999`` would fill the memory; the schema refuses it at its place."""
    change(repo, FILE, ('value: "0.979"', f'value: "{number}"'))
    with pytest.raises(Many) as caught:
        lint(repo)
    (error,) = caught.value.errors
    assert "of a reasonable size" in error.what
    assert re.search(r"demo\.paper\.yaml:\d+:\d+$", error.where)
