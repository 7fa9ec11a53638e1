"""Safetensors files made by an enemy: a message that names the file, and no number from them."""

from __future__ import annotations

import json
import struct
import time

import pytest
import torch
from safetensors.torch import load_file, save_file

from kit.lm.files import read_embeddings, weight_files
from kit.lm.load import load_model
from kit.lm.standin import load_random_model
from tests.lm.tiny_world import tiny_llama

EMBEDDINGS = "model.embed_tokens.weight"


@pytest.fixture
def folder(tmp_path):
    tiny_llama(64).save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def with_header(folder, header, data=None, length=None):
    """Replace the header of the weights; it can lie about its own length."""
    path = folder / "model.safetensors"
    whole = path.read_bytes()
    (old,) = struct.unpack("<Q", whole[:8])
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    size = len(raw) if length is None else length
    path.write_bytes(struct.pack("<Q", size) + raw + (whole[8 + old :] if data is None else data))


def header_of(folder):
    whole = (folder / "model.safetensors").read_bytes()
    (size,) = struct.unpack("<Q", whole[:8])
    return json.loads(whole[8 : 8 + size])


def both_refuse(folder, words="is not a readable safetensors file"):
    started = time.monotonic()
    for read in (read_embeddings, load_model):
        with pytest.raises(ValueError, match=words) as caught:
            read(folder)
        assert "model.safetensors" in str(caught.value)
    assert time.monotonic() - started < 10


@pytest.mark.parametrize("length", [2**64 - 1, 2**63, 2**40, 100_000_001, 0])
def test_a_header_that_lies_about_its_length(folder, length):
    """Believed, it would be read into memory first."""
    with_header(folder, header_of(folder), length=length)
    both_refuse(folder)


@pytest.mark.parametrize(
    "raw",
    [
        b"", b"not json", b"{", b"[]", b"null", b"\xff\xfe{}", b"[" * 100_000,
        b'{"a": {}}', b'{"a": 1}',
    ],
    ids=lambda raw: raw[:12].decode("latin-1"),
)  # fmt: skip
def test_a_header_that_is_none(folder, raw):
    with_header(folder, raw)
    both_refuse(folder)


def overlap(header):
    first, second = [name for name in header if name != "__metadata__"][:2]
    header[first]["data_offsets"] = header[second]["data_offsets"]


def beyond(header):
    header[EMBEDDINGS]["data_offsets"] = [0, 2**50]


def backwards(header):
    header[EMBEDDINGS]["data_offsets"].reverse()


def larger(header):
    header[EMBEDDINGS]["shape"] = [2**31, 2**31]


def negative(header):
    header[EMBEDDINGS]["shape"] = [-64, -32]


def unknown(header):
    header[EMBEDDINGS]["dtype"] = "F33"


def half(header):
    header[EMBEDDINGS]["dtype"] = "F16"


@pytest.mark.parametrize("change", [overlap, beyond, backwards, larger, negative, unknown, half])
def test_offsets_shapes_and_types_that_do_not_fit(folder, change):
    header = header_of(folder)
    change(header)
    with_header(folder, header)
    both_refuse(folder)


def test_bytes_that_no_tensor_claims(folder):
    """Room for something hidden; the format allows no gaps."""
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes() + b"#!/bin/sh\n")
    both_refuse(folder)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_embeddings_that_are_not_finite(folder, value):
    weights = load_file(folder / "model.safetensors")
    weights[EMBEDDINGS][63, 3] = value
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=f"{EMBEDDINGS} holds numbers that are not finite"):
        read_embeddings(folder)


@pytest.mark.parametrize(
    "tensor",
    [torch.zeros(64, 32, dtype=torch.int64), torch.zeros(64, 32, dtype=torch.bool),
     torch.zeros(64), torch.zeros(2, 32, 32)],
    ids=["integers", "bools", "a-vector", "three-dimensions"],
)  # fmt: skip
def test_embeddings_that_are_no_matrix_of_numbers(folder, tensor):
    save_file({EMBEDDINGS: tensor}, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match="not a matrix of numbers"):
        read_embeddings(folder)


@pytest.mark.parametrize("name", ["../model/model.safetensors", "/etc/passwd", "a/b.safetensors"])
def test_an_index_that_leads_elsewhere(folder, name):
    index = {"weight_map": {EMBEDDINGS: name}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ValueError, match="not a file beside it"):
        weight_files(folder)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"weight_map": 3}', '{"weight_map": []}'])
def test_an_index_that_is_none(folder, text):
    (folder / "model.safetensors.index.json").write_text(text)
    with pytest.raises(ValueError, match="is no index of weights"):
        weight_files(folder)


def test_code_beside_the_weights_is_not_run(folder, tmp_path):
    """A config can name Python files of its own; they stay files."""
    config = json.loads((folder / "config.json").read_text())
    config["auto_map"] = {
        "AutoConfig": "evil.EvilConfig",
        "AutoModelForCausalLM": "evil.EvilModel",
    }
    (folder / "config.json").write_text(json.dumps(config))
    witness = tmp_path / "ran"
    (folder / "evil.py").write_text(f"open({str(witness)!r}, 'w')\nclass EvilConfig: ...\n")
    model = load_model(folder)
    assert type(model).__module__.startswith("transformers.")
    assert not witness.exists()


def test_code_beside_a_shape_is_not_run(folder, tmp_path):
    """Nor where only the shape of a model is taken from its folder."""
    config = json.loads((folder / "config.json").read_text())
    config["auto_map"] = {"AutoConfig": "evil.Evil", "AutoModelForCausalLM": "evil.Evil"}
    (folder / "config.json").write_text(json.dumps(config))
    witness = tmp_path / "ran"
    (folder / "evil.py").write_text(f"open({str(witness)!r}, 'w')\nclass Evil: ...\n")
    model = load_random_model(folder, dtype="float32")
    assert type(model).__module__.startswith("transformers.")
    assert not witness.exists()


@pytest.mark.parametrize("trainable", [False, True])
def test_a_random_model_asks_for_gradients_only_when_asked(folder, trainable):
    model = load_random_model(folder, dtype="float32", trainable=trainable)
    assert {p.requires_grad for p in model.parameters()} == {trainable}
    assert not model.training


def test_a_file_that_lacks_what_the_index_says_is_refused(folder):
    (file,) = folder.glob("*.safetensors")
    held = load_file(file)
    name = next(name for name in held if "embed" in name)
    shard = folder / "model-00001-of-00002.safetensors"
    save_file({n: t for n, t in held.items() if n != name}, shard, metadata={"format": "pt"})
    index = {"metadata": {}, "weight_map": dict.fromkeys(held, shard.name)}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    file.unlink()
    with pytest.raises(ValueError, match=r"lacks .*which the index says it holds"):
        read_embeddings(folder)
