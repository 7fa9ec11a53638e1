"""Whatever stands in a file, loading it gives a document or a KitError, and nothing else."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import msgspec
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kit.errors import KitError
from kit.manifest.explain import validator
from kit.manifest.load import parse, read_expectation, read_manifest, read_pins
from kit.manifest.schema import TYPES
from tests.manifest.test_load_yaml import DEMO

QUICK = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True
)
LOADERS = (parse, read_manifest, read_pins, read_expectation)


def load_everything(data: bytes, suffix: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"x{suffix}"
        path.write_bytes(data)
        for load in LOADERS:
            try:
                load(path)
            except KitError as caught:
                error = caught
            else:
                continue
            assert error.render()
            assert error.exit_code == 4


YAML_PIECES = st.sampled_from(
    [
        *"abc:-?[]{},&*#!|>'\"%@`~\n\t 019.eE+_<=",
        "- ",
        ": ",
        "\n  ",
        "\n\n",
        "---\n",
        "...\n",
        "<<: ",
        "&a ",
        "*a",
        "!!str ",
        "? ",
        "|\n ",
        ">-\n ",
        "0x",
        "0o",
        ".inf",
        "1e999",
        "\ufeff",
        "\x85",
        "\u2028",
        "\\u0000",
        '"\\',
        "key: value\n",
        "schema_version: 1\n",
        "pins:\n",
        "steps: [",
        "%YAML 1.2\n",
    ]
)


@QUICK
@given(st.lists(YAML_PIECES, max_size=40).map("".join), st.sampled_from([".yaml", ".json"]))
def test_random_yaml(text: str, suffix: str) -> None:
    load_everything(text.encode("utf-8", "surrogatepass"), suffix)


@QUICK
@given(st.binary(max_size=300), st.sampled_from([".yaml", ".json"]))
def test_random_bytes(data: bytes, suffix: str) -> None:
    load_everything(data, suffix)


@QUICK
@given(st.text(max_size=200))
def test_random_text(text: str) -> None:
    load_everything(text.encode("utf-8", "surrogatepass"), ".yaml")


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3)
    ),
    max_leaves=12,
)


@QUICK
@given(VALUES)
def test_json_reads_back_as_it_was_or_is_refused(value: Any) -> None:
    text = json.dumps(value)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.json"
        path.write_text(text)
        try:
            found = parse(path).root.plain()
        except KitError:
            return
        assert found == value


def _places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found = [path]
    items = (
        value.items()
        if isinstance(value, dict)
        else enumerate(value)
        if isinstance(value, list)
        else ()
    )
    for key, inner in items:
        found += _places(inner, (*path, key))
    return found


DOCUMENT = msgspec.to_builtins(read_manifest(DEMO).value)
PLACES = [place for place in _places(DOCUMENT) if place]
REPLACEMENTS = st.one_of(
    VALUES,
    st.sampled_from(
        ["", "x", "X", "demo\n", "1-A", "1-A\n", "a/b", 0, -1, 1.0, True, None, [], {}]
    ),
)


@QUICK
@given(st.lists(st.tuples(st.sampled_from(PLACES), REPLACEMENTS, st.booleans()), max_size=3))
def test_types_and_schema_agree(changes: list[tuple[tuple[Any, ...], Any, bool]]) -> None:
    """The quick path (msgspec alone) and the full one (with jsonschema) decide alike."""
    document = json.loads(json.dumps(DOCUMENT))
    for place, replacement, remove in changes:
        parent = document
        try:
            for step in place[:-1]:
                parent = parent[step]
            if remove:
                del parent[place[-1]]
            else:
                parent[place[-1]] = replacement
        except (KeyError, IndexError, TypeError):
            continue
    try:
        msgspec.convert(document, TYPES["manifest"], strict=True)
        by_types = True
    except msgspec.ValidationError:
        by_types = False
    assert by_types == validator("manifest").is_valid(document)
