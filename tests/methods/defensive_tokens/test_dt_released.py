"""Prefix files: the released JSON's shape, and our safetensors."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import save_file

from kit.methods.defensive_tokens.released import (
    check_prefix,
    load_prefix,
    read_released,
    save_prefix,
)

MODEL = "org/model"


@pytest.fixture
def write(tmp_path):
    def write_table(table):
        path = tmp_path / "tokens.json"
        path.write_text(table if isinstance(table, str) else json.dumps(table))
        return path

    return write_table


def rows(n=5, d=3):
    return [[float(i) + j / 4 for j in range(d)] for i in range(n)]


def test_reads_one_models_vectors(write):
    path = write({MODEL: rows(), "org/other": rows(5, 7)})
    prefix = read_released(path, MODEL, width=3)
    assert prefix.dtype is torch.float32
    assert prefix.tolist() == rows()
    assert read_released(path, "org/other").shape == (5, 7)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({MODEL: rows(4)}, "4 vectors, 5 wanted"),
        ({MODEL: rows(6)}, "6 vectors, 5 wanted"),
        ({MODEL: rows(d=4)}, "width 4, the model has 3"),
        ({MODEL: [*rows(4), [1.0]]}, r"different widths \[1, 3\]"),
        ({MODEL: "abc"}, "expected a list of vectors"),
        ({MODEL: [[1.0, "x", 2.0]] * 5}, "not a finite number"),
        ('{"org/model": [[NaN, 1, 2]]}', "not complete JSON"),
        ({"org/other": rows()}, "it has: org/other"),
        ([], "does not have the expected shape"),
        ("{", "cannot read"),
    ],
)
def test_unusable_files_are_refused(write, table, message):
    with pytest.raises(ValueError, match=message):
        read_released(write(table), MODEL, width=3)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(ValueError, match="cannot read"):
        read_released(tmp_path / "none.json", MODEL)


def test_save_and_load_round_trip(tmp_path):
    path, prefix = tmp_path / "p.safetensors", torch.randn(5, 8)
    save_prefix(path, prefix.requires_grad_(), {"step": "25", "layout": "before-bos"})
    loaded, metadata = load_prefix(path, n=5, width=8)
    assert torch.equal(loaded, prefix)
    assert metadata == {"step": "25", "layout": "before-bos"}
    assert not loaded.requires_grad


def test_load_checks_count_and_width(tmp_path):
    path = tmp_path / "p.safetensors"
    save_prefix(path, torch.randn(4, 8))
    with pytest.raises(ValueError, match="4 vectors, 5 wanted"):
        load_prefix(path, n=5)
    with pytest.raises(ValueError, match="the model has 9"):
        load_prefix(path, width=9)
    assert load_prefix(path)[1] == {}


def test_other_files_are_refused(tmp_path):
    path = tmp_path / "p.safetensors"
    save_file({"weights": torch.zeros(1)}, path)
    with pytest.raises(ValueError, match="no tensor named 'prefix'"):
        load_prefix(path)
    path.write_bytes(b"nonsense")
    with pytest.raises(ValueError, match="cannot read a prefix"):
        load_prefix(path)


@pytest.mark.parametrize(
    ("prefix", "message"),
    [
        (torch.zeros(3), "is not"),
        (torch.zeros(0, 3), "is not"),
        (torch.full((1, 3), float("inf")), "not finite"),
    ],
)
def test_what_is_no_prefix_is_neither_checked_in_nor_saved(tmp_path, prefix, message):
    with pytest.raises(ValueError, match=message):
        check_prefix(prefix)
    with pytest.raises(ValueError, match=message):
        save_prefix(tmp_path / "p.safetensors", prefix)
