"""The loader: positions, everything at once, and the traps of YAML."""

from __future__ import annotations

from pathlib import Path

import pytest

from kit.errors import InvalidInput, KitError, Many
from kit.manifest.load import parse, read_manifest, read_pins

DATA = Path(__file__).parents[1] / "demo" / "data" / "repo" / "manifests"
DEMO = DATA / "defensive_tokens" / "demo.yaml"


def write(tmp_path: Path, text: str | bytes, name: str = "x.yaml") -> Path:
    path = tmp_path / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def errors(path: Path, load: object = parse) -> list[str]:
    """Rendered errors, with the path shortened to its name."""
    with pytest.raises(KitError) as caught:
        load(path)  # type: ignore[operator]
    error = caught.value
    found = error.errors if isinstance(error, Many) else (error,)
    return [one.render().replace(str(path), path.name) for one in found]


def test_a_manifest_loads() -> None:
    manifest = read_manifest(DEMO).value
    assert manifest.id == "demo"
    assert manifest.profiles["mini"].matrix["seed"] == [1, 2]
    assert manifest.profiles["paper"].resources["train"].gpu_memory_gb == 24.0


def test_every_value_has_a_position() -> None:
    loaded = read_manifest(DEMO)
    assert loaded.locate(("id",)).endswith("demo.yaml:2:5")
    assert loaded.locate(("id",), key=True).endswith("demo.yaml:2:1")
    assert loaded.locate(("steps", 1, "inputs", "tokens", "step")).endswith("demo.yaml:24:22")
    assert loaded.locate(()).endswith(":1:1")


def test_a_missing_place_is_located_at_its_nearest_parent() -> None:
    loaded = read_manifest(DEMO)
    assert loaded.locate(("steps", 1, "nothing")) == loaded.locate(("steps", 1))
    assert loaded.locate(("steps", 99)) == loaded.locate(("steps",))


def test_paths_are_shown_relative_to_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, "a: [")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(Many) as caught:
        parse(Path("x.yaml"))
    assert caught.value.errors[0].where.startswith("x.yaml:")


@pytest.mark.parametrize(
    ("text", "position", "said"),
    [
        ("a: b: c\n", "1:5", "mapping values are not allowed"),
        ("a: [1, 2\nb: 3\n", "2:2", "not YAML"),
        ("a:\n\t- 1\n", "2:1", "not YAML"),
        ('a: "open\n', "2:1", "not YAML"),
        ("a: 1\na: 2\n", "2:1", "duplicate key 'a'"),
        ("a: {b: 1, b: 2}\n", "1:11", "duplicate key 'b'"),
        ("a: &x 1\n", "1:4", "anchor &x"),
        ("a: &x [1]\nb: *x\n", "2:4", "alias *x"),
        ("<<: {a: 1}\n", "1:1", "merge key <<"),
        ("a: !!str 1\n", "1:4", "tag"),
        ("a: !secret 1\n", "1:4", "tag !secret"),
        ("a: !!python/object:os.system x\n", "1:4", "tag"),
        ("%YAML 1.1\n---\na: 1\n", "2:1", "directives"),
        ("a: 1\n---\nb: 2\n", "2:1", "a second document"),
        ("1: a\n", "1:1", "the key 1 is not text"),
        ("null: a\n", "1:1", "the key null is not text"),
        ("? [a, b]\n: 1\n", "1:3", "a list or map cannot be a key"),
        ("a: .inf\n", "1:4", "not a finite number"),
        ("a: -.INF\n", "1:4", "not a finite number"),
        ("a: .nan\n", "1:4", "not a finite number"),
        ("a: 12e4567\n", "1:4", "absurdly large (read as inf)"),
        ("a: 0123e45\n", "1:4", "absurdly large (read as 1.23e+47)"),
        ("a: 1e-400\n", "1:4", "too small to be kept"),
        ("a: 99999999999999999999\n", "1:4", "does not fit in 64 bits"),
        ("a: " + "9" * 5000 + "\n", "1:4", "5000 digits is absurdly large"),
        ("a: " + "1." + "9" * 500 + "\n", "1:4", "502 characters is absurd"),
        ("a: x\x00y\n", "1:5", "U+0000"),
        ("a: x\x1b[31m\n", "1:5", "U+001B"),
        ("a: 'safe\u202eevil'\n", "1:9", "U+202E"),
        ('a: "\\u202e"\n', "1:4", "U+202E in a string"),
        ('a: "\\0"\n', "1:4", "U+0000 in a string"),
        ("", "1:1", "the document is empty"),
        ("# only a comment\n", "1:1", "the document is empty"),
    ],
)
def test_what_is_refused_and_where(tmp_path: Path, text: str, position: str, said: str) -> None:
    found = errors(write(tmp_path, text))
    assert any(f"x.yaml:{position}: " in line and said in line for line in found), found


def test_nesting_is_limited(tmp_path: Path) -> None:
    assert parse(write(tmp_path, "[" * 31 + "]" * 31, "ok.yaml"))
    for text in ("[" * 40 + "]" * 40, "{a: " * 40 + "1" + "}" * 40, "- " * 40 + "1"):
        (error,) = errors(write(tmp_path, text))
        assert "nested deeper than 32 levels" in error


def test_hostile_nesting_is_quick(tmp_path: Path) -> None:
    for name in ("x.yaml", "x.json"):
        (error,) = errors(write(tmp_path, "[" * 200_000, name))
        assert "nested deeper" in error


@pytest.mark.parametrize("text", ["!", "'", "&", "a: !", "x "])
def test_a_line_without_end_is_quick(tmp_path: Path, text: str) -> None:
    """Some of these take the parser quadratic time: a line has its limit."""
    line = text + text[-1] * 4_000_000
    (error,) = errors(write(tmp_path, f"b: 1\n{line}\n"))
    assert "x.yaml:2:1: a line of 4,000,0" in error
    assert parse(write(tmp_path, f'{{"a": "{"x" * 100_000}"}}')).root.plain()


def test_files_of_five_megabytes_are_refused(tmp_path: Path) -> None:
    (error,) = errors(write(tmp_path, b"a: " + b"x" * 5_000_000))
    assert "the limit is 5,000,000" in error


def test_not_utf8_says_where(tmp_path: Path) -> None:
    (error,) = errors(write(tmp_path, b"a: ok\nb: caf\xe9\n"))
    assert "x.yaml:2:7: not UTF-8: byte 0xe9" in error
    (error,) = errors(write(tmp_path, "a: 1".encode("utf-16")))
    assert "not UTF-8" in error


def test_a_byte_order_mark_and_windows_line_ends_are_fine(tmp_path: Path) -> None:
    source = parse(write(tmp_path, b"\xef\xbb\xbfa: 1\r\nb: x\r\n"))
    assert source.root.plain() == {"a": 1, "b": "x"}
    assert source.position(("b",)) == (2, 4)


def test_absent_files_and_folders(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="no such file"):
        parse(tmp_path / "none.yaml")
    with pytest.raises(InvalidInput, match="a folder, not a file"):
        parse(tmp_path)


def test_many_problems_are_reported_together(tmp_path: Path) -> None:
    text = "a: &x 1\nb: .nan\nc: 1\nc: 2\nd: *x\n"
    found = errors(write(tmp_path, text))
    assert [line.split(" ")[1] for line in found] == [
        "x.yaml:1:4:",
        "x.yaml:2:4:",
        "x.yaml:4:1:",
        "x.yaml:5:4:",
    ]


def test_problems_of_notation_and_of_the_schema_are_reported_together(tmp_path: Path) -> None:
    text = DEMO.read_text().replace("id: demo\n", "id: Demo\nid: demo\n", 1)
    text = text.replace("variant: as-reported", "variant: reported")
    found = errors(write(tmp_path, text), read_manifest)
    assert len(found) == 3
    assert "id must be a name of lower-case letters" in found[0]
    assert "duplicate key 'id'" in found[1]
    assert "variant must be one of as-reported, corrected" in found[2]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-5", 1e-5),
        ("1.5e3", 1500.0),
        ("010", 10),
        ("0o10", 8),
        ("0x1F", 31),
        ("12:30", "12:30"),
        ("no", "no"),
        ("on", "on"),
        ("yes", "yes"),
        ("1_000", "1_000"),
        ("2026-11-21", "2026-11-21"),
        ("true", True),
        ("False", False),
        ("null", None),
        ("~", None),
        ("", None),
        ("-0.5", -0.5),
        (".5", 0.5),
        ("+3", 3),
        ("'1e-5'", "1e-5"),
        ('"no"', "no"),
        ("0.0", 0.0),
        ("1٠", "1٠"),
    ],
)
def test_scalars_follow_the_core_schema_of_yaml_1_2(
    tmp_path: Path, text: str, value: object
) -> None:
    found = parse(write(tmp_path, f"a: {text}\n")).root.plain()["a"]
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize("text", ["0123e45", "12e4567", "1234567", "1e5", "0.5", "true"])
def test_an_unquoted_revision_has_its_own_message(tmp_path: Path, text: str) -> None:
    pins = (
        "schema_version: 1\npins:\n  - id: a\n    kind: hf-model\n    title: t\n"
        f"    licence: l\n    repo: a/b\n    revision: {text}\n"
    )
    (error,) = errors(write(tmp_path, pins), read_pins)
    assert "x.yaml:8:15: the revision must be text in quotes" in error
    assert f'write revision: "{text}"' in error


def test_a_quoted_but_short_revision(tmp_path: Path) -> None:
    text = (DATA / "pins.yaml").read_text().replace("0123456789abcdef" * 2 + "01234567", "0123e45")
    (error,) = errors(write(tmp_path, text), read_pins)
    assert "a full commit: 40 lower-case hexadecimal digits" in error


def test_pins_have_positions() -> None:
    loaded = read_pins(DATA / "pins.yaml")
    assert loaded.locate(("pins", 0, "files", 0, "path")).endswith("pins.yaml:10:15")
