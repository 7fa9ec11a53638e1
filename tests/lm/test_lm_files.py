"""Files of a model that are wrong in some way, and what is said about it; what a hash covers."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from kit.lm import standin
from kit.lm.files import INDEX_FILE, read_embeddings, weight_files
from kit.lm.fingerprint import fingerprint, fingerprints
from kit.lm.load import _check_loaded, load_model, require_finite, save_model, tied_weights
from kit.lm.vocabulary import control_tokens, renamed_control_ids
from tests.lm.families import tiny


def index(folder: Path, files: dict[str, str]) -> None:
    (folder / "config.json").write_text('{"model_type": "llama"}')
    (folder / INDEX_FILE).write_text(json.dumps({"metadata": {}, "weight_map": files}))


def test_of_many_missing_shards_the_first_by_name_is_named(tmp_path: Path) -> None:
    index(tmp_path, {f"w{i}": f"{i:02d}.safetensors" for i in range(29, 9, -1)})
    with pytest.raises(ValueError, match=r"names 10\.safetensors, which is missing"):
        weight_files(tmp_path)


@pytest.mark.parametrize(
    ("ending", "more", "named"),
    [("bin", "pth", "10.bin"), ("pth", "txt", "10.pth")],
)
def test_of_many_pickles_the_first_by_name_is_named(
    tmp_path: Path, ending: str, more: str, named: str
) -> None:
    for i in (19, 11, 15, 27, 13, 10, 28, 21, 12, 29, 14, 18):
        (tmp_path / f"{i}.{ending}").touch()
        (tmp_path / f"0{i}.{more}").touch()
    with pytest.raises(ValueError, match=f"{named} is not read"):
        weight_files(tmp_path)


@pytest.mark.parametrize(("length", "words"), [(255, "is missing"), (256, "not a file beside it")])
def test_a_file_name_is_as_long_as_a_file_system_takes(
    tmp_path: Path, length: int, words: str
) -> None:
    index(tmp_path, {"w": "a" * length})
    with pytest.raises(ValueError, match=words):
        weight_files(tmp_path)


def test_a_damaged_shard_of_an_index_is_refused_by_name(tmp_path: Path) -> None:
    index(tmp_path, {"model.embed_tokens.weight": "a.safetensors"})
    (tmp_path / "a.safetensors").write_bytes(b"nothing")
    with pytest.raises(ValueError, match=r"a\.safetensors is not a readable safetensors file"):
        read_embeddings(tmp_path)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_shapes_that_do_not_fit_are_counted(tmp_path: Path, count: int) -> None:
    model = tiny("llama")
    save_model(model, None, tmp_path)
    weights = dict(model.state_dict())
    for i in range(count):
        weights[f"model.layers.{i}.input_layernorm.weight"] = torch.ones(2)
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"layers\.0\.input_layernorm.*asks for \(32,\)") as caught:
        load_model(tmp_path)
    said = str(caught.value).partition("asks for (32,)")[2]
    assert said == ("" if count == 1 else f" (and {count - 1} more)")


def test_what_else_transformers_has_to_say_is_raised(tmp_path: Path) -> None:
    lists = ("missing_keys", "unexpected_keys", "mismatched_keys", "error_msgs")
    info: dict[str, Any] = {name: [] for name in lists}
    _check_loaded(tmp_path, tiny("llama"), info)
    with pytest.raises(ValueError, match="a conversion failed"):
        _check_loaded(tmp_path, tiny("llama"), info | {"error_msgs": ["a conversion failed"]})


def test_names_of_a_tied_weight_are_in_order_whatever_came_first() -> None:
    module: Any = torch.nn.Module()
    module.b, module.single = torch.nn.Linear(2, 2, bias=False), torch.nn.Linear(2, 2)
    module.a = module.b
    assert tied_weights(module) == [["a.weight", "b.weight"]]


def fake(vocabulary: dict[str, int], special: tuple[int, ...] = (), added: tuple[int, ...] = ()):  # type: ignore[no-untyped-def]
    names = {i: token for token, i in vocabulary.items()}
    return SimpleNamespace(
        get_vocab=lambda: vocabulary,
        added_tokens_decoder={
            i: SimpleNamespace(content=names[i], special=i in special) for i in (*special, *added)
        },
    )


def test_control_tokens_come_in_the_order_of_their_ids() -> None:
    spread = {"<c>": 64, "<b>": 8, "<a>": 1}
    assert control_tokens(fake(spread, special=(64, 8, 1))) == ["<a>", "<b>", "<c>"]


def test_an_added_token_differs_where_both_vocabularies_have_one() -> None:
    """Only ids behind the end of the shorter vocabulary may be new."""
    first = fake({"a": 0, "b": 1}, added=(1,))
    with pytest.raises(ValueError, match="first at id 1: 'b' in the source, 'c' in the target"):
        renamed_control_ids(first, fake({"a": 0, "c": 1}, added=(1,)))
    longer = fake({"a": 0, "b": 1, "c": 2}, added=(2,))
    assert renamed_control_ids(first, longer) == renamed_control_ids(longer, first) == [2]
    plain = fake({"a": 0, "b": 1, "c": 2})
    with pytest.raises(ValueError, match="first at id 2"):
        renamed_control_ids(first, plain)


def test_a_control_token_of_a_single_vocabulary_is_no_renamed_one() -> None:
    with pytest.raises(ValueError, match="first at id 0"):
        renamed_control_ids(fake({"a": 0, "b": 1}, special=(0,)), fake({"c": 0, "b": 1}))


def test_names_count_and_their_order_does_not() -> None:
    def module(names: str) -> Any:
        made = torch.nn.Module()
        for name in names:
            made.register_buffer(name, torch.full((3,), float(ord(name))))
        return made

    assert fingerprint(module("ab")) == fingerprint(module("ba"))


def documented(tensor: torch.Tensor) -> str:
    """The docstring's hash, by numpy."""
    raw = tensor.numpy().reshape(-1).view(np.uint8)
    digest = hashlib.sha256(repr((str(tensor.dtype), tuple(tensor.shape))).encode())
    if raw.size <= 2**20:
        digest.update(raw.tobytes())
        return digest.hexdigest()
    for first in range(0, raw.size, 2**26):
        part = raw[first : first + 2**26]
        rest = part.size % 4
        words = part[: part.size - rest].view(np.int32).astype(np.int64)
        weighted = words * (np.arange(words.size) % 65521 + 1)
        digest.update(repr((int(words.sum()), int(weighted.sum()))).encode())
        digest.update(part[part.size - rest :].tobytes())
    return digest.hexdigest()


@pytest.mark.parametrize("size", [5, 2**20, 2**20 + 1, 2**20 + 7])
def test_the_hash_is_the_documented_function_of_the_bytes(size: int) -> None:
    """Hashes are kept in records: another version has to give them again."""
    tensor = torch.arange(size, dtype=torch.int32).remainder_(251).to(torch.uint8)
    assert fingerprints({"a": tensor}) == {"a": documented(tensor)}


@pytest.mark.parametrize("difference", [0.0, 0.5, 2.0])
@pytest.mark.parametrize("spread", [None, 0.3])
def test_random_embeddings_have_the_spread_of_the_configuration(
    tmp_path: Path, difference: float, spread: float | None
) -> None:
    """Transformers' own default is 0.02."""
    config = {"vocab_size": 4096, "hidden_size": 32}
    config |= {} if spread is None else {"initializer_range": spread}  # type: ignore[dict-item]
    (tmp_path / "config.json").write_text(json.dumps(config))
    made = standin.random_embeddings(tmp_path, 3, difference=difference, dtype=torch.float32)
    assert made.shape == (4096, 32)
    assert float(made.std()) == pytest.approx(spread or 0.02, rel=0.015)


def test_a_difference_of_nothing_is_the_same_matrix(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"vocab_size": 64, "hidden_size": 8}')
    same, other = (standin.random_embeddings(tmp_path, seed, difference=0) for seed in (0, 1))
    assert torch.equal(same, other)


def test_counts_and_empty_tensors_are_finite() -> None:
    model: Any = torch.nn.Module()
    model.register_buffer("count", torch.tensor(3))
    model.register_buffer("none", torch.zeros(0))
    model.register_buffer("seen", torch.tensor([True]))
    require_finite(model, "here")
    model.register_buffer("broken", torch.tensor([1.0, float("inf")]))
    with pytest.raises(ValueError, match="here: broken holds numbers that are not finite"):
        require_finite(model, "here")
