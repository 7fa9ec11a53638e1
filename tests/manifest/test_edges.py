"""Both sides of every limit of a document, and the place of what is beyond."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import pytest

from kit.errors import InvalidInput, Many
from kit.manifest import expand, load, text, yaml_nodes
from kit.manifest.derived import in_unit
from kit.manifest.expand import count, fits, ids
from kit.manifest.load import load_expectation, read_manifest
from kit.manifest.matrix import LARGEST_SEED, seed_fault
from kit.manifest.printed import MAX_EXPONENT, Printed, counts, factor, nearest_shares
from kit.manifest.source import MOST_PROBLEMS, Node, Problems
from kit.manifest.yaml_nodes import MAX_CHARACTERS, MAX_DIGITS, parse_yaml, resolve


def noted(document: str) -> list[tuple[str, str, str]]:
    """Line:column, sentence and remedy of every problem of a text."""
    problems = Problems("x")
    parse_yaml(document, problems)
    return [(e.where.removeprefix("x:"), e.what, e.next_step) for e in problems.sorted()]


@pytest.mark.parametrize(
    ("largest", "beyond"),
    [
        ("1e{}", "1e{}"),
        ("1e-{}", "1e-{}"),
        ("1.{:0>{}}", "1.{:0>{}}"),
    ],
)
def test_an_exponent_has_its_limit(largest: str, beyond: str) -> None:
    fill = (lambda n: (0, n)) if ":0>" in largest else (lambda n: (n,))
    Printed.parse(largest.format(*fill(MAX_EXPONENT)))
    with pytest.raises(ValueError, match="reasonable size"):
        Printed.parse(beyond.format(*fill(MAX_EXPONENT + 1)))


def test_a_long_whole_number_is_large_too() -> None:
    assert Printed.parse("9" * (MAX_EXPONENT + 1)).half == Fraction(1, 2)
    with pytest.raises(ValueError, match="reasonable size"):
        Printed.parse("9" * (MAX_EXPONENT + 2))


@pytest.mark.parametrize(
    ("source", "target", "times"),
    [
        ("loss", "loss", Fraction(1)),
        ("fraction", "percent", Fraction(100)),
        ("percent", "fraction", Fraction(1, 100)),
        ("minutes", "seconds", Fraction(60)),
        ("seconds", "minutes", Fraction(1, 60)),
        ("percent", "seconds", None),
        ("loss", "percent", None),
        ("percent", "loss", None),
        ("loss", "norm", None),
    ],
)
def test_units_that_turn_into_each_other(source: str, target: str, times: Fraction | None) -> None:
    assert factor(source, target) == times


def test_a_scaled_number_keeps_a_width_above_zero() -> None:
    scaled = Printed.parse("2.0").scaled(-100)
    assert (scaled.low, scaled.high) == (Fraction(-205), Fraction(-195))


@pytest.mark.parametrize(
    ("printed", "n", "near"),
    [("0.0", 4, [0, 1]), ("25.0", 4, [1, 2]), ("100.0", 4, [4]), ("-5", 4, [0]), ("-30", 4, []),
     ("125", 4, []), ("60", 1, [0, 1])],
)  # fmt: skip
def test_counts_beside_a_number(printed: str, n: int, near: list[int]) -> None:
    shares = nearest_shares(Printed.parse(printed), n)
    assert shares == [(k, Fraction(100 * k, n)) for k in near]
    assert nearest_shares(Printed.parse("0.30"), 10, 1)[0] == (3, Fraction(3, 10))
    assert list(counts(Printed.parse("0"), 1)) == [0]
    with pytest.raises(ValueError, match="at least 1"):
        counts(Printed.parse("0"), 0)


def test_a_result_stands_in_the_unit_of_its_cell() -> None:
    half, full = Printed.parse("0.50"), Printed.parse("100")
    # 49.5 to 50.5 percent, and 99.5 to 100.5 percent.
    assert in_unit("difference", [(full, "percent"), (half, "fraction")], "percent") == (49, 51)
    assert in_unit("difference", [(full, "percent"), (half, "loss")], "percent") is None
    low, high = Fraction(495, 1005), Fraction(505, 995)
    for unit, whole in (("percent", 100), ("fraction", 1), ("ratio", 1)):
        made = in_unit("ratio", [(half, "fraction"), (full, "percent")], unit)
        assert made == (low * whole, high * whole)
    # The unit of a divisor is brought to that of what it divides; a foreign unit is not known.
    assert in_unit("ratio", [(half, "fraction"), (full, "loss")], "percent") is None
    assert in_unit("mean", [(full, "percent"), (full, "percent")], "fraction") == (
        Fraction(995, 1000),
        Fraction(1005, 1000),
    )


@pytest.mark.parametrize(
    ("pattern", "made"),
    [
        ("a", ["a"]),
        ("a,b", ["a,b"]),
        ("{a,b}", ["a", "b"]),
        ("x,y/{a,b}/u,v", ["x,y/a/u,v", "x,y/b/u,v"]),
        ("{a}{b,c}", ["ab", "ac"]),
        ("{a,b}/{c,d}", ["a/c", "a/d", "b/c", "b/d"]),
    ],
)
def test_a_comma_chooses_inside_braces_only(pattern: str, made: list[str]) -> None:
    assert list(ids(pattern)) == made
    assert count(pattern) == len(made)
    assert all(fits(pattern).fullmatch(id) for id in made)
    assert not fits(pattern).fullmatch("v")


SMALL = """schema_version: 1
experiment: made
profile: mini
version: 1-A
defaults:
  - {{match: "**", status: unreported, unit: percent, place: doc}}
cells:
{cells}
present: [{present}]
claims: []
"""


@pytest.mark.parametrize(
    ("cells", "present", "line"),
    [
        (["t/a/{x,y}", "t/b/{x,y}"], ["t/d/{x,y}", "t/e/{x,y}"], 0),
        (["t/a/{x,y,z}", "t/b/{x,y}"], [], 9),
        (["t/a/x"], ["t/d/{x,y,z}", "t/e/{x,y}"], 9),
    ],
)
def test_cells_have_their_limit_together(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    cells: list[str],
    present: list[str],
    line: int,
) -> None:
    monkeypatch.setattr(expand, "MOST_CELLS", 4)
    path = tmp_path / "made.yaml"
    given = "\n".join(f'  - id: "{cell}"' for cell in cells)
    path.write_text(SMALL.format(cells=given, present=", ".join(f'"{id}"' for id in present)))
    if not line:
        made = load_expectation(path)
        assert len(made.cells) == len(made.present) == 4
        return
    with pytest.raises(Many) as caught:
        load_expectation(path)
    (error,) = caught.value.errors
    assert "more than 4 cells" in error.what
    assert error.where.split(":")[-2] == str(line)


def test_the_last_problem_that_is_kept_is_the_last_that_is_read() -> None:
    problems = Problems("x")
    for line in range(MOST_PROBLEMS - 1, 0, -1):
        problems.add(line, 1, "bad")
    assert [e.where for e in problems.sorted()][:2] == ["x:1:1", "x:2:1"]
    with pytest.raises(Many) as caught:
        problems.add(MOST_PROBLEMS, 1, "bad")
    assert len(caught.value.errors) == MOST_PROBLEMS + 1
    assert "the rest was not read" in caught.value.errors[-1].what


def test_problems_of_a_place_that_has_some_are_not_repeated() -> None:
    own, other = Problems("x"), Problems("x")
    own.add(2, 1, "first")
    other.add(2, 1, "again")
    other.add(2, 2, "beside")
    other.add(1, 1, "before")
    own.merge(other)
    assert [e.what for e in own.sorted()] == ["before", "first", "beside"]


def test_children_of_a_list_are_counted_or_named() -> None:
    source = parse_yaml("- {id: a, n: 1}\n- {n: 2}\n- {id: a, n: 3}\n- plain\n", Problems("x"))
    assert source is not None

    def child(step: str | int) -> Node | None:
        entry = source.child(step)
        return entry[1] if entry is not None else None

    assert [child(step) is None for step in (-1, 0, 3, 4, "a", "b", "plain")] == [
        True, False, False, True, False, True, True,
    ]  # fmt: skip
    assert child(0) is source.items[0]
    assert child("a") is source.items[2]
    assert source.value_of("a") is None
    assert source.items[3].child("a") is None
    numbered = parse_yaml("- {id: 5}\n", Problems("x"))
    assert numbered is not None
    assert numbered.child(5) is None
    assert source.items[0].child(0) is None
    assert source.items[0].child("n") is not None


@pytest.mark.parametrize(
    ("value", "fault"),
    [(0, False), (LARGEST_SEED, False), (-1, True), (LARGEST_SEED + 1, True), (True, True),
     (1.0, True), ("1", True), ("${cell.seed}", False), (None, True)],
)  # fmt: skip
def test_a_seed_is_a_whole_number_within_bounds(value: object, fault: bool) -> None:
    assert bool(seed_fault(value)) == fault


@pytest.mark.parametrize(("length", "whole"), [(60, True), (61, False)])
def test_what_is_long_is_cut(length: int, whole: bool) -> None:
    said = seed_fault("x" * length)
    assert ("x" * length in said) == whole
    assert (f"'{'x' * 57}...'" in said) != whole


def made_text(folder: Path, data: bytes) -> str:
    path = folder / "made.yaml"
    path.write_bytes(data)
    return text.read_text(path)


def test_a_file_has_its_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text, "MAX_BYTES", 10)
    assert made_text(tmp_path, b"a" * 10) == "a" * 10
    with pytest.raises(InvalidInput, match="1,000 bytes; the limit is 10"):
        made_text(tmp_path, b"a" * 1000)


@pytest.mark.parametrize(
    ("data", "at"), [(b"\xff", "1:1"), (b"\n\xff", "2:1"), (b"ab\ncde\xff", "2:4")]
)
def test_a_byte_that_is_no_text_has_its_place(tmp_path: Path, data: bytes, at: str) -> None:
    with pytest.raises(InvalidInput, match="not UTF-8: byte 0xff") as caught:
        made_text(tmp_path, data)
    assert caught.value.where.endswith(f"made.yaml:{at}")


@pytest.mark.parametrize(
    ("data", "at"), [("\x07", "1:1"), ("\n\x07", "2:1"), ("a\nbc\x07", "2:3"), ("ab\x07", "1:3")]
)
def test_a_control_character_has_its_place(data: str, at: str) -> None:
    problems = Problems("x")
    text.check_characters(data, problems)
    (error,) = problems.sorted()
    assert error.where == f"x:{at}"


@pytest.mark.parametrize(
    ("document", "at", "remedy"),
    [
        ("a:\n\t- 1\n", "2:1", "indent with spaces, not tabs"),
        ("a: b: c\n", "1:5", "put text that contains ': ' in quotes"),
        ("a: 1\nbc\nd: 2\n", "3:1", "a key needs a colon and a space after it"),
        ("a: [1, 2\nb: 3\n", "2:2", ""),
    ],
)
def test_a_slip_of_the_form_has_its_remedy(document: str, at: str, remedy: str) -> None:
    assert [(where, step) for where, _, step in noted(document)] == [(at, remedy)]


@pytest.mark.parametrize(
    ("document", "said"),
    [
        ("? {a: 1}\n: 2\nb: 3\n", ["1:3 a list or map cannot be a key"]),
        ("? [a, [b]]\n: {c: 2}\nb: 3\n", ["1:3 a list or map cannot be a key"]),
        ("a: [{b: 1}, [c]]\nd: {e: {f: 1}}\ng: 1\n", []),
        ("'<<': 1\n", []),
        ('"1": 1\n', []),
        ("!!map {a: 1}\n", ["1:1 tag tag:yaml.org,2002:map"]),
        ("! a\n", []),
        ("%YAML 1.2\n---\na: 1\n", []),
        ("%TAG ! tag:x,2000:\n---\na: 1\n", ["2:1 directives (%YAML, %TAG) are not used here"]),
        ("a: 1\n---\nb: 1\n---\nc: 1\n", ["2:1 a second document in one file"]),
        ("\x01", ["1:1 not YAML: unacceptable character #x0001: special characters are not "
                  "allowed"]),
        ("revision: 12\nrevise: {revision: 0123e45}\n",
         ["2:20 the revision must be text in quotes; the number 0123e45 is absurdly large "
          "(read as 1.23e+47)"]),
        ("revise: 0123e45\n",
         ["1:9 the number 0123e45 is absurdly large (read as 1.23e+47)"]),
        ("? 0123e45\n: a\n",
         ["1:3 the number 0123e45 is absurdly large (read as 1.23e+47)",
          "1:3 the key 0123e45 is not text"]),
    ],
)  # fmt: skip
def test_each_problem_is_noted_once(document: str, said: list[str]) -> None:
    assert [f"{where} {what}" for where, what, _ in noted(document)] == said


@pytest.mark.parametrize(("depth", "said"), [(32, []), (33, ["nested deeper than 32 levels"])])
@pytest.mark.parametrize(("opened", "closed"), [("[", "]"), ("{a: ", "}")])
def test_nesting_has_its_limit(
    monkeypatch: pytest.MonkeyPatch, depth: int, said: list[str], opened: str, closed: str
) -> None:
    monkeypatch.setattr(yaml_nodes, "MAX_DEPTH", 32)
    document = opened * depth + "1" + closed * depth
    assert [what for _, what, _ in noted(document)] == said


def test_a_line_has_its_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(yaml_nodes, "MAX_LINE", 1000)
    rest = 1000 - len("a: ''")
    assert noted(f"a: '{'b' * rest}'") == []
    ((where, what, _),) = noted(f"c: 1\na: '{'b' * (rest + 1)}'")
    assert where == "2:1"
    assert "a line of 1,001 characters; at most 1,000" in what


@pytest.mark.parametrize("sign", ["", "-", "+"])
def test_numbers_as_written_have_their_limit(sign: str) -> None:
    zeros = "0" * (MAX_DIGITS - 1 - len(sign))
    assert resolve(f"{sign}{zeros}7") == (int(f"{sign}7"), "")
    value, wrong = resolve(f"{sign}0{zeros}7")
    assert (value, f"{MAX_DIGITS + 1} digits" in wrong) == (0, True)
    zeros = "0" * (MAX_CHARACTERS - 2 - len(sign))
    assert resolve(f"{sign}7.{zeros}") == (float(f"{sign}7"), "")
    value, wrong = resolve(f"{sign}7.{zeros}0")
    assert (value, f"{MAX_CHARACTERS + 1} characters" in wrong) == (0.0, True)


@pytest.mark.parametrize("written", [".inf", "1e31", "1e-400", "9" * 30, "9" * 70])
def test_nothing_stands_for_a_number_that_is_refused(written: str) -> None:
    value, wrong = resolve(written)
    assert not value
    assert wrong
    assert value is not None


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (RecursionError(), "the parser gave up (RecursionError)"),
        (yaml_nodes.YAMLError("first\nsecond"), "not YAML: first"),
        (yaml_nodes.MarkedYAMLError("context", None, "problem", None), "not YAML: context problem"),
    ],
)
def test_a_parser_that_fails_is_no_crash(
    monkeypatch: pytest.MonkeyPatch, error: Exception, told: str
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr("kit.manifest.yaml_nodes.YAML.parse", fail)
    ((where, what, _),) = noted("a: 1")
    assert where == "1:1"
    assert what.endswith(told)


def test_what_the_types_alone_refuse_is_placed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write_manifest: Callable[[str], Path]
) -> None:
    """Should the JSON Schema ever be milder than the types, their own sentence is shown."""
    monkeypatch.setattr(load, "_schema_problems", lambda data, source, name: Problems(source.name))
    with pytest.raises(Many) as caught:
        read_manifest(write_manifest("version: one }"))
    (error,) = caught.value.errors
    assert "Expected `int`, got `str`" in error.what
    assert error.where.endswith("11:38")


@pytest.fixture
def write_manifest(tmp_path: Path) -> Callable[[str], Path]:
    """A small manifest with something else in the line of its step."""
    from tests.manifest.test_explain import MANIFEST

    def write(instead: str) -> Path:
        path = tmp_path / "x.yaml"
        path.write_text(MANIFEST.replace("version: 1 }", instead))
        return path

    return write


def test_half_a_character_as_a_key_is_noted_once(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_text('{"schema_version": 1, "\\ud800": 1}')
    with pytest.raises(Many) as caught:
        read_manifest(path)
    assert [e.what for e in caught.value.errors] == [
        "control or invisible character U+D800 in a string"
    ]
