"""An alignment survives the disk bit by bit, scalars included."""

from __future__ import annotations

import json
import math
from dataclasses import fields, replace

import pytest
import torch

from kit.methods.defensive_tokens.alignment_files import describe, load_alignment, save_alignment
from kit.methods.defensive_tokens.procrustes import orthogonal_map


@pytest.fixture(params=[{}, {"center": True, "scale": True}])
def alignment(request):
    source = torch.randn(40, 8, generator=torch.Generator().manual_seed(1))
    noise = torch.randn(40, 8, generator=torch.Generator().manual_seed(2))
    return orthogonal_map(source, source + noise / 3, **request.param)


def same(ours, theirs):
    for field in fields(ours):
        a, b = getattr(ours, field.name), getattr(theirs, field.name)
        if isinstance(a, torch.Tensor):
            assert b.dtype == torch.float64
            assert torch.equal(a, b), field.name
        else:
            assert (a, type(a)) == (b, type(b)), field.name


def test_saved_and_loaded_is_equal_in_every_bit(alignment, tmp_path):
    save_alignment(tmp_path / "a.safetensors", alignment)
    loaded = load_alignment(tmp_path / "a.safetensors")
    same(alignment, loaded)
    vectors = torch.randn(5, 8)
    assert torch.equal(alignment.apply(vectors), loaded.apply(vectors))


def test_the_same_alignment_gives_the_same_file(alignment, tmp_path):
    for name in ("one", "two"):
        save_alignment(tmp_path / name, alignment)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_numbers_that_json_rounds_elsewhere_are_exact(alignment, tmp_path):
    odd = replace(alignment, residual=0.1 + 0.2, scale=math.nextafter(1.0, 2.0), unique=False)
    save_alignment(tmp_path / "a", odd)
    same(odd, load_alignment(tmp_path / "a"))


def test_an_alignment_that_is_a_view_can_be_saved(alignment, tmp_path):
    turned = replace(alignment, matrix=alignment.matrix.T)
    save_alignment(tmp_path / "a", turned)
    same(turned, load_alignment(tmp_path / "a"))


def test_the_description_is_plain_and_has_no_tensor(alignment):
    facts = describe(alignment)
    assert json.loads(json.dumps(facts)) == facts
    assert "matrix" not in facts
    values = alignment.singular_values.tolist()
    assert facts["singular_values"] == [values[i] for i in (0, 2, 4, 5, 7)]
    assert facts["smallest_singular_value"] == min(values)
    assert facts["sum_of_singular_values"] == pytest.approx(sum(values))
    assert facts["residual"] == alignment.residual
    assert facts["unique"] is True


def test_a_spectrum_of_one_value():
    one = torch.ones(3, 1)
    assert describe(orthogonal_map(one, one))["singular_values"] == [3.0] * 5
