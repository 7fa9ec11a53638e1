"""Parts of a report that are there or not: of every choice both sides."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from kit.errors import InvalidInput
from kit.manifest.expectation_types import Claim, Figure
from kit.manifest.pin_types import Pin, PinnedFile
from kit.report import appendix, claims, declared, details, markdown
from kit.report.content import content, notes, rehearsal, seeds, variant_of
from kit.report.crate import export_crate
from kit.report.declared import _measured, _setting, _span, _square
from kit.report.exchange import export_hub
from kit.report.figures import curves
from kit.report.figures.grid import Square
from kit.report.files import Run, read_run
from kit.report.html import _printable
from kit.report.session import write_report
from kit.results.types import Curve, Point, SeedValue, Series
from kit.verify.outcome import NOT_WHOLE
from kit.verify.verdict import CanaryReport
from tests.report.builders import cell, claim, verdict
from tests.report.runs import plan, record, write_run
from tests.report.test_appendix import manifest
from tests.report.test_crate import graph
from tests.verify.builders import expectation, expected_cell, reference, share


def run_of(folder: Path, **parts: Any) -> Run:
    return read_run(write_run(folder / "run", **parts))


def test_primary_claims_come_first_in_an_appendix(tmp_path: Path) -> None:
    made = [
        claim("a", primary=False, sentence="S-a", tested="T-a"),
        claim("b", sentence="S-b", tested="", detail="D-b", p=None),
        claim("c", primary=False, sentence="S-c", tested="", detail="D-c"),
    ]
    text = appendix.of_run(run_of(tmp_path, verdict=verdict(claims=made)))
    assert [text.index(f"S-{id}") for id in "bac"] == sorted(text.index(f"S-{id}") for id in "abc")
    for said in ("| T-a | holds, p", "| D-b | holds |", "| D-c | holds, p"):
        assert said in text
    listed = [
        Claim(id=id, kind="order", sentence=f"S-{id}", place="x", primary=id == "b", cells=["t/x"])
        for id in "abc"
    ]
    text = appendix.of_experiment(manifest(), "mini", expectation([], listed), [])
    assert [text.index(f"S-{id}") for id in "bac"] == sorted(text.index(f"S-{id}") for id in "abc")
    assert text.count("| primary |") == 1
    assert text.count("| further |") == 2


@pytest.mark.parametrize(
    ("recorded", "said"),
    [
        ({**record(), "commit": "abc123"}, "- commit: abc123"),
        ({**record(), "commit": None}, "- commit: not recorded"),
        (None, "- commit: not recorded"),
    ],
)
def test_an_appendix_names_the_commit_or_that_there_is_none(
    tmp_path: Path, recorded: Any, said: str
) -> None:
    text = appendix.of_run(run_of(tmp_path, record=recorded))
    assert f"{said}\n" in text
    assert ("this run was started with" in text) == (recorded is not None)


@pytest.mark.parametrize("headline", ["", "REPRODUCED, all of it"])
def test_an_appendix_says_the_verdict_in_its_own_words(tmp_path: Path, headline: str) -> None:
    text = appendix.of_run(run_of(tmp_path, verdict=verdict(headline=headline)))
    assert f"- verdict of this run: {headline or 'PARTIALLY'}\n" in text
    assert "- variant: as-reported\n" in text
    bare = appendix.of_run(run_of(tmp_path / "b", plan=None))
    assert "- variant: not recorded\n" in bare


@pytest.mark.parametrize("more", [0, 1, 2])
def test_what_an_appendix_leaves_out_is_counted(more: int) -> None:
    pins = [
        Pin(id=f"p{i}", kind="file", title=f"Pin {i}", licence="MIT")
        for i in range(appendix.MOST_INPUTS + more)
    ]
    unusual = [f"Note {i}." for i in range(appendix.MOST_UNUSUAL + more)]
    text = appendix._page(
        title="t", summary="", about=[("a", "b")], claims=[], head=["h"], resources=[],
        commands=[], pins=pins, unusual=unusual, not_covered=[f"Point {i}." for i in range(
            appendix.MOST_UNUSUAL + more)],
    )  # fmt: skip
    assert text.count("\n- Pin ") == appendix.MOST_INPUTS
    for word in ("further input", "further note", "further point"):
        plural = "s" if more > 1 else ""
        assert (f"- {more} {word}{plural} in " in text) == (more > 0)
        assert (word in text) == (more > 0)


@pytest.mark.parametrize(
    ("sizes", "said"),
    [([10, 20], "MIT, 30 B"), ([10, None], "MIT"), ([None], "MIT"), ([], "MIT"), ([0], "MIT, 0 B")],
)
def test_the_size_of_an_input_is_said_where_it_is_known(sizes: list[int | None], said: str) -> None:
    files = [PinnedFile(path=str(i), size=size) for i, size in enumerate(sizes)]
    pin = Pin(id="p", kind="file", title="Pin", licence="MIT", files=files)
    assert appendix._pin(pin) == f"- Pin: {said}"


@pytest.mark.parametrize(
    ("reasons", "whole"),
    [([], True), ([f"{NOT_WHOLE} x"], False), (["other", f"{NOT_WHOLE} x"], False),
     (["other"], True)],
)  # fmt: skip
def test_a_run_that_is_not_whole_says_so_first(reasons: list[str], whole: bool) -> None:
    made = claims.banner(verdict(reasons=reasons), variant="", rehearsal=False, seeds=0)
    assert (made.meaning == claims.MEANING["PARTIALLY"]) == whole
    assert made.meaning.startswith("Something that a whole run has") != whole


@pytest.mark.parametrize(
    ("fields", "rehearsed", "marked"),
    [
        ({}, False, []),
        ({}, True, ["rehearsal"]),
        ({"verdict": "REHEARSED"}, False, ["rehearsal"]),
        ({"modified": True}, False, ["modified"]),
        ({"not_run_here": True}, False, ["not run here"]),
        ({"exit_code": 4}, False, ["invalid"]),
        ({"exit_code": 5}, False, []),
    ],
)
def test_what_qualifies_a_verdict(
    fields: dict[str, Any], rehearsed: bool, marked: list[str]
) -> None:
    assert [mark for mark, _ in claims.marks(verdict(**fields), rehearsed)] == marked


@pytest.mark.parametrize(
    ("held", "open_", "shown", "left"),
    [(claims.MOST_CLAIMS, 0, claims.MOST_CLAIMS, 0), (claims.MOST_CLAIMS + 1, 0,
      claims.MOST_CLAIMS, 1), (2, claims.MOST_CLAIMS + 2, claims.MOST_CLAIMS + 2, 2),
     (1, 1, 2, 0)],
)  # fmt: skip
def test_what_does_not_hold_is_always_on_the_first_screen(
    held: int, open_: int, shown: int, left: int
) -> None:
    made = [claim(f"h{i}") for i in range(held)]
    made += [claim(f"o{i}", outcome="undetermined") for i in range(open_)]
    rows = claims.claim_rows(verdict(claims=[*made, claim("further", primary=False)]), {})
    first, more = claims.brief(rows)
    assert (len(first), more) == (shown, left)
    assert [row.said.id[0] for row in first[:open_]] == ["o"] * open_


@pytest.mark.parametrize(("most", "more"), [(1, 1), (2, 0), (3, 0)])
def test_cells_of_a_claim_are_counted_beyond_the_most(most: int, more: int) -> None:
    (row,) = claims.claim_rows(verdict(claims=[claim("a")]), {"asr/baseline": "c0"}, most)
    assert (len(row.cells), row.more_cells) == (2 - more, more)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"p": 0.02, "p_holm": None, "tested": "T"}, "paired seeds, p = 0.020"),
        ({"p": 0.02, "p_holm": 0.04, "tested": "T"}, "paired seeds, p = 0.040 (Holm)"),
        ({"p": None, "p_holm": None, "tested": "T"}, "paired seeds"),
        ({"p": 0.02, "p_holm": None, "tested": ""}, "p = 0.020"),
        ({"p": None, "p_holm": None, "tested": ""}, ""),
    ],
)
def test_how_a_claim_was_decided(fields: dict[str, Any], said: str) -> None:
    assert claims.evidence(claim("a", **fields)) == said


def test_checks_are_counted_by_whether_they_passed(tmp_path: Path) -> None:
    canaries = [
        CanaryReport(id=f"c{i}", passed=i == 0, source="step", step="s", detail="d")
        for i in range(3)
    ]
    made = content(run_of(tmp_path, verdict=verdict(canaries=canaries)), figures=False)
    assert (made["passed_checks"], made["failed_checks"]) == (1, 2)


def test_of_the_figures_that_an_expectation_asks_for_the_first_is_the_story(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = run_of(tmp_path)
    for pictures, story, rest in (
        ([], None, []), (["a"], "a", []), (["a", "b", "c"], "a", ["b", "c"]),
    ):  # fmt: skip
        monkeypatch.setattr("kit.report.content.declared", lambda *_, made=pictures: made)
        monkeypatch.setattr("kit.report.content.gallery.forests", lambda *_: ([], ""))
        monkeypatch.setattr("kit.report.content.gallery.curves", lambda *_: ([], ""))
        monkeypatch.setattr("kit.report.content.gallery.calibration_picture", lambda *_: (None, ""))
        made = content(run)
        assert (made["story"], made["declared"]) == (story, rest)


def test_a_run_says_what_it_was_from_its_plan_its_record_or_its_manifest(tmp_path: Path) -> None:
    for i, (planned, recorded, rehearsed) in enumerate(
        ((False, False, False), (True, False, True), (False, True, True), (None, True, True),
         (None, None, False), (True, None, True))
    ):  # fmt: skip
        run = run_of(
            tmp_path / str(i),
            plan=None if planned is None else {**plan(), "rehearsal": planned},
            record=None if recorded is None else {**record(), "rehearsal": recorded},
        )
        assert rehearsal(run) == rehearsed
        has = "as-reported" if planned is not None else "corrected"
        assert variant_of(run, manifest()) == has
        assert variant_of(run, None) == ("as-reported" if planned is not None else "")
    made = run_of(
        tmp_path / "n", plan={**plan(), "notes": ["a", "b"]}, verdict=verdict(notes=["b", "c"])
    )
    assert notes(made, None) == ["a", "b", "c"]
    assert notes(made, manifest()) == ["a", "b", "It warns about a missing file.", "c"]
    assert seeds(run_of(tmp_path / "s", verdict=verdict(cells=[cell("a/b", seeds=2)]))) == 2
    assert seeds(run_of(tmp_path / "t", verdict=verdict(cells=[]))) == 0


@pytest.mark.parametrize(
    ("recorded", "said"),
    [(record(), True), ({**record(), "argv": []}, False), (None, False)],
)
def test_the_command_of_a_run_is_said_where_it_is_known(
    tmp_path: Path, recorded: Any, said: bool
) -> None:
    whole = details.run_commands(run_of(tmp_path, record=recorded))
    assert (whole[0][0] == "this run was started with") == said
    assert len(whole) == 3 + said
    text = appendix.of_run(run_of(tmp_path / "b", record=recorded))
    assert ("this run was started with" in text) == said


@pytest.mark.parametrize(
    ("tree", "rows"),
    [
        ({"a_b": 1, "c": None, "d": ""}, [("a b", "1")]),
        ({"a": {"b": True, "c": False}}, [("a: b", "yes"), ("a: c", "no")]),
        ({"a": []}, [("a", "none")]),
        ({"a": [1, 2]}, [("a", "1, 2")]),
        ({"a": [{"b": 1}, 2]}, [("a 1: b", "1"), ("a 2: ", "2")]),
        ({"a": 0}, [("a", "0")]),
    ],
)
def test_a_tree_is_a_table(tree: dict[str, Any], rows: list[tuple[str, str]]) -> None:
    assert details.flat(tree) == rows


def test_a_table_in_short_says_how_many_cells_it_leaves_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from kit.report import tables

    (made,) = tables.tables(verdict(cells=[cell(f"t/{i}") for i in range(4)]), {}, {})
    for left_out, most, left in ((0, 4, 0), (0, 3, 1), (2, 4, 2), (2, 1, 5)):
        made.left_out = left_out
        monkeypatch.setattr(markdown, "MOST_ROWS", most)
        text = "\n".join(markdown._table(made))
        assert text.count("\n| ") == 2 - 1 + min(4, most)
        assert (f"{left} further cell" in text) == bool(left)
        assert ("further cell" in text) == bool(left)


def test_a_line_is_named_by_its_title_or_its_id() -> None:
    from kit.report import tables

    cells = [cell("t/a", title="Titled"), cell("t/b", title="")]
    (made,) = tables.tables(verdict(cells=cells), {}, {})
    text = "\n".join(markdown._table(made))
    assert "| Titled |" in text
    assert "| b |" in text
    assert "| a |" not in text


@pytest.mark.parametrize(
    ("published", "verdicts", "count", "words"),
    [
        ("", ["match"], 1, []),
        ("(1)", ["match"], 1, ["Small:"]),
        ("", ["deviates"], 1, ["Framed:"]),
        ("", ["match", "inconclusive"], 2, ["Framed:"]),
        ("", ["match"], 2, ["1 of them are drawn."]),
    ],
)
def test_a_caption_of_a_grid_says_what_is_in_it(
    published: str, verdicts: list[str], count: int, words: list[str]
) -> None:
    squares = [
        Square(row=0, column=i, text="1", verdict=word, published=published if i == 0 else "")
        for i, word in enumerate(verdicts)
    ]
    said = declared._grid_caption("percent", (0.0, 100.0), squares, count)
    assert said.startswith(
        f"{count} cell{'s' if count > 1 else ''} (percent). Shaded from 0 to 100"
    )
    every = ("Small:", "Framed:", "of them are drawn.")
    assert [word for word in every if word in said] == [word.removeprefix("1 ") for word in words]


@pytest.mark.parametrize("published", [False, True])
@pytest.mark.parametrize(("size", "wide"), [(declared.HALF, False), (declared.WHOLE, True)])
def test_a_caption_of_a_trade_off_says_what_is_in_it(
    monkeypatch: pytest.MonkeyPatch, published: bool, size: tuple[float, float], wide: bool
) -> None:
    monkeypatch.setattr(declared, "drawn", lambda *_: "<svg/>")
    monkeypatch.setattr(declared, "MOST_POINTS", 2)
    cells = [share(f"t/{metric}/{row}", 3, 10) for metric in ("a", "b") for row in ("x", "y", "z")]
    measured = {of.id: declared.measure(of, "percent", "x", None, []) for of in cells}
    both = [f"t/{metric}/x" for metric in ("a", "b")] if published else []
    expected = {id: expected_cell(id, "4.8", status="reported") for id in both}
    numbers = declared.Numbers(measured, expected, {})
    figure = Figure(kind="trade-off", title="T", cells=["t/a/*", "t/b/*"])
    made = declared._trade_off("f", figure, numbers, None, size)
    assert made.wide == wide
    assert made.caption.startswith("2 settings; lines are")
    assert ("Hollow marks" in made.caption) == published
    assert "Grey" not in made.caption
    assert "The first 2 of 3 are drawn." in made.caption
    monkeypatch.setattr(declared, "MOST_POINTS", 3)
    assert "are drawn" not in declared._trade_off("f", figure, numbers, None, size).caption


@pytest.mark.parametrize(("columns", "wide"), [(declared.MAX_BESIDE, False),
                                              (declared.MAX_BESIDE + 1, True)])  # fmt: skip
def test_a_grid_of_many_columns_is_wide(
    monkeypatch: pytest.MonkeyPatch, columns: int, wide: bool
) -> None:
    monkeypatch.setattr(declared, "drawn", lambda *_: "<svg/>")
    cells = [share(f"t/a/x@{i}", 3, 10) for i in range(columns)]
    measured = {of.id: declared.measure(of, "percent", "x", None, []) for of in cells}
    figure = Figure(kind="grid", title="T", cells=["t/a/*@*"])
    assert declared._grid("f", figure, declared.Numbers(measured, {}, {})).wide == wide


def line_of_points(count: int, seed: str = "0", start: int = 0) -> Curve:
    return Curve(seed=seed, points=[Point(float(start + x), 1.0) for x in range(count)])


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ({"a": [line_of_points(3)]}, []),
        ({"a": [line_of_points(3, "0"), line_of_points(3, "1")]}, ["means over 2 seeds"]),
        ({"a": [line_of_points(3, str(i)) for i in range(4)],
          "b": [line_of_points(3, str(i)) for i in range(2)], "c": [line_of_points(3)]},
         ["means over 2 to 4 seeds"]),
        ({"a": [line_of_points(3, "0"), line_of_points(4, "1")]},
         ["means over 2 seeds", "Points that not every seed"]),
        ({"a": [line_of_points(3, "0/1"), line_of_points(4, "0/2")]},
         ["means over 2 replicates", "Points that not every replicate"]),
        ({"a": [line_of_points(curves.MOST_POINTS)]}, []),
        ({"a": [line_of_points(curves.MOST_POINTS + 1)]}, ["Long lines are thinned to"]),
        ({f"l{i}": [line_of_points(2)] for i in range(curves.MOST_LINES)}, []),
        ({f"l{i}": [line_of_points(2)] for i in range(curves.MOST_LINES + 1)},
         [f"The first {curves.MOST_LINES} of {curves.MOST_LINES + 1} lines"]),
    ],
)  # fmt: skip
def test_a_caption_of_curves_says_how_they_were_made(
    lines: dict[str, list[Curve]], said: list[str]
) -> None:
    made = Series(id="s", title="S", x_label="x", y_label="y", unit="loss", lines=lines)
    remarks = curves.remarks_on(made)
    assert len(remarks) == len(said)
    assert all(words in remark for words, remark in zip(said, remarks, strict=True))


@pytest.mark.parametrize(("most", "left"), [(2, 1), (3, 0), (4, 0)])
def test_tables_that_are_left_out_are_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most: int, left: int
) -> None:
    monkeypatch.setattr(markdown, "MOST_TABLES", most)
    made = verdict(cells=[cell(f"t{i}/a") for i in range(3)])
    text = markdown.render_markdown(run_of(tmp_path, verdict=made))
    assert text.count("### t") == 3 - left
    assert ("1 further table in verdict.json." in text) == bool(left)
    assert ("further table" in text) == bool(left)


def test_only_what_was_measured_and_has_a_better_side_goes_to_the_hub(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = SimpleNamespace(repo="o/data", revision="r")
    monkeypatch.setattr("kit.report.exchange._datasets", lambda run, cell: [data])
    made = verdict(
        cells=[
            cell("asr/baseline", value=3.5),
            cell("asr/step-25", value=None),
            cell("asr/step-50", direction="none"),
        ]
    )
    out = tmp_path / "out.yaml"
    assert export_hub(run_of(tmp_path, verdict=made), out, url="https://example.org") == 1
    assert "asr/baseline" in out.read_text()
    assert "asr/step" not in out.read_text()
    none = verdict(cells=made.cells[1:])
    with pytest.raises(InvalidInput, match="no cell of this run was measured on a dataset"):
        export_hub(run_of(tmp_path / "n", verdict=none), out, url="https://example.org")


def test_a_step_of_a_crate_began_when_it_says_or_with_the_run(tmp_path: Path) -> None:
    happened = record()
    happened["started"] = "2026-11-21T08:00:00+00:00"
    first, second = [*happened["steps"]][:2]
    happened["steps"][first]["started"] = "2026-11-21T09:00:00+00:00"
    happened["steps"][second]["started"] = ""
    run = run_of(tmp_path, record=happened)
    items = graph(export_crate(run, tmp_path / "out.zip")).values()
    steps = [item for item in items if item["@id"].startswith("#step-")]
    started = {item["name"].split(" (")[0]: item["startTime"] for item in steps}
    assert started[first].startswith("2026-11-21T09")
    assert started[second].startswith("2026-11-21T08")


def test_a_setting_is_drawn_where_both_of_its_numbers_are() -> None:
    known = share("t/a", 3, 10), share("t/b", 5, 10)
    numbers = declared.Numbers(
        {each.id: declared.measure(each, "percent", "x", None, []) for each in known}, {}, {}
    )
    both = _setting("s", "t/a", "t/b", numbers)
    assert both.measured is not None
    assert [spot.value for spot in both.measured] == [30.0, 50.0]
    for across, upward in (("t/a", "t/none"), ("t/none", "t/b"), ("t/none", "t/none")):
        assert _setting("s", across, upward, numbers).measured is None
    assert _measured(None) is None
    assert _span([]) == (0.0, 0.0)
    assert _span([3.0, -1.0, 2.0]) == (-1.0, 3.0)


def test_a_square_says_the_least_of_what_was_never_reached() -> None:
    seeds = [
        SeedValue(seed="0", value=30.0, beyond=True),
        SeedValue(seed="1", value=20.0, beyond=True),
        SeedValue(seed="2", value=10.0),
    ]
    never = SimpleNamespace(value=None, censored=True, seeds=seeds, unit="steps")
    numbers = declared.Numbers({"t/a": never}, {}, {})  # type: ignore[dict-item]
    square = _square(1, 2, "t/a", numbers, (0.0, 1.0))
    assert (square.text, square.shade, square.row, square.column) == ("> 20", 1.0, 1, 2)
    empty = _square(0, 0, "t/b", numbers, (0.0, 1.0))
    assert (empty.text, empty.shade, empty.published) == ("not measured", None, "")


@pytest.mark.parametrize(
    ("expected", "said"),
    [
        (expected_cell("t/a", "4.80", status="reported"), "(4.80)"),
        (expected_cell("t/a", None, status="running"), "(running)"),
        (expected_cell("t/a", None, status="unreported"), ""),
        (expected_cell("t/a", None, status="reference", reference=reference(["4", "6"])), "(5)"),
    ],
)
def test_a_square_says_what_was_expected(expected: Any, said: str) -> None:
    numbers = declared.Numbers({}, {"t/a": expected}, {})
    assert _square(0, 0, "t/a", numbers, (0.0, 1.0)).published == said


@pytest.mark.parametrize(
    ("value", "span", "shade"),
    [(30.0, (0.0, 100.0), 0.3), (30.0, (20.0, 40.0), 0.5), (30.0, (30.0, 30.0), 0.5),
     (30.0, (30.0, 40.0), 0.0), (30.0, (10.0, 30.0), 1.0)],
)  # fmt: skip
def test_a_shade_is_the_share_of_the_span(
    value: float, span: tuple[float, float], shade: float
) -> None:
    measured = declared.measure(share("t/a", int(value), 100), "percent", "x", None, [])
    numbers = declared.Numbers({"t/a": measured}, {}, {})
    assert _square(0, 0, "t/a", numbers, span).shade == pytest.approx(shade)


def test_markup_of_the_kit_is_not_touched_and_all_other_text_is() -> None:
    markup = type("Markup", (str,), {"__html__": lambda self: self})("<b>1 %\u200b</b>")
    assert _printable(markup) is markup
    assert _printable("1 %\u200b") == "1\u00a0%\u27e8U+200B\u27e9"
    assert _printable(3) == "3"


def test_a_report_is_written_into_its_run_or_where_it_is_wanted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kit.report.html.render", lambda *_, **__: "page")
    folder = write_run(tmp_path / "run")
    assert write_report(folder) == folder / "report.html"
    assert write_report(folder, tmp_path / "x.html") == tmp_path / "x.html"
    assert [path.read_text() for path in (folder / "report.html", tmp_path / "x.html")] == [
        "page", "page",
    ]  # fmt: skip
