"""Axis values and seeds are checked when a manifest is read, with file, line and column."""

from __future__ import annotations

from pathlib import Path

import pytest

from kit.errors import Many
from kit.manifest.load import read_manifest

TEXT = (
    Path(__file__).parents[1] / "demo/data/repo/manifests/defensive_tokens/demo.yaml"
).read_text(encoding="utf-8")


def read(tmp_path: Path, old: str, new: str) -> None:
    assert old in TEXT
    path = tmp_path / "demo.yaml"
    path.write_text(TEXT.replace(old, new, 1), encoding="utf-8")
    read_manifest(path)


@pytest.mark.parametrize(
    "seed", ["-5", "1.5", "'5'", "true", "4294967296", "-0.0", "'\u200b5'", "../x"]
)
def test_a_seed_is_a_whole_number_that_libraries_take(tmp_path: Path, seed: str) -> None:
    for new, column in ((f"seed: [1, {seed}]", 17), (f"seed: [{{id: a, seed: {seed}}}]", 14)):
        with pytest.raises(Many) as caught:
            read(tmp_path, "seed: [1, 2]", new)
        (error,) = caught.value.errors
        assert "is no seed: a whole number from 0 to 4294967295" in str(error)
        assert f"demo.yaml:40:{column}" in error.where or "demo.yaml:40:28" in error.where


def test_a_parameter_called_seed_is_one(tmp_path: Path) -> None:
    with pytest.raises(Many, match=r"1 problem$") as caught:
        read(tmp_path, 'seed: "${seed}", name', "seed: -1, name")
    assert "-1' is no seed" in str(caught.value.errors[0])
    read(tmp_path, 'seed: "${seed}", name', "seed: 4294967295, name")


@pytest.mark.parametrize(
    "id",
    [
        *("../", "..", ".x", "-5", "a b", "a/b", "a=b", "a,b", "[a]", "x" * 65, "x" * 10_000, ""),
        *("a\u200bb", "\u202eab", "\ud55c", "a;b", "$(b)", "a%b", "a\\b"),
    ],
)
def test_an_id_is_short_and_plain(tmp_path: Path, id: str) -> None:
    quoted = '"' + id.replace("\\", "\\\\") + '"'
    for new in (f"{{id: {quoted}, target", f"{{id: up, group: {quoted}, target"):
        with pytest.raises(Many) as caught:
            read(tmp_path, "{id: up, target", new)
        error = caught.value.errors[0]
        assert "demo.yaml:38:" in error.where
        assert len(str(error)) < 300


@pytest.mark.parametrize("id", ["a", "A.b_c+d-1", "x" * 64, "0"])
def test_plain_ids_are_taken(tmp_path: Path, id: str) -> None:
    read(tmp_path, "{id: up, target", f"{{id: '{id}', group: '{id}', target")


def test_numbers_are_settings_and_may_be_negative(tmp_path: Path) -> None:
    read(tmp_path, "seed: [1, 2]", "seed: [1, 2]\n      rate: [-5, 0.1, true]")


def test_a_record_has_an_id(tmp_path: Path) -> None:
    with pytest.raises(Many) as caught:
        read(tmp_path, "{id: up, target", "{target")
    assert "a record of an axis has no id" in str(caught.value.errors[0])
