"""Loading from local folders, and what is refused."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM

from kit.lm.files import (
    read_config,
    read_embeddings,
    read_output_embeddings,
    require_untied,
    tied_embeddings,
    weight_files,
)
from kit.lm.load import load_model, load_tokenizer
from tests.lm.tiny_world import mini_tokenizer, tiny_llama


@pytest.fixture
def folder(tmp_path):
    model = tiny_llama(64)
    model.save_pretrained(tmp_path / "model")
    return tmp_path / "model", model


def test_a_loaded_model_is_frozen_in_evaluation_mode_and_equal(folder):
    path, model = folder
    loaded = load_model(path)
    assert not loaded.training
    assert not any(parameter.requires_grad for parameter in loaded.parameters())
    for name, tensor in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor)


def test_the_dtype_is_the_one_asked_for(folder):
    path, _ = folder
    assert load_model(path, dtype="bfloat16").dtype is torch.bfloat16
    assert load_model(path, dtype=torch.float32).dtype is torch.float32


@pytest.mark.parametrize("dtype", ["auto", "float31", "nn"])
def test_an_unknown_dtype_is_refused(folder, dtype):
    with pytest.raises(ValueError, match="unknown dtype"):
        load_model(folder[0], dtype=dtype)


@pytest.mark.parametrize(
    ("asked", "given"), [("cuda", "cuda:1"), ("cuda:0", "cuda:0"), (torch.device("cuda"), "cuda:1")]
)
def test_every_tensor_goes_to_the_current_gpu(folder, monkeypatch, asked, given):
    # safetensors takes "cuda" for the first GPU, and transformers makes buffers on the current.
    path, _ = folder
    whole = AutoModelForCausalLM.from_pretrained
    asked_for = []

    def on_the_cpu(*args, device_map, **named):
        asked_for.append(device_map)
        return whole(*args, **named)

    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", on_the_cpu)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
    load_model(path, device=asked)
    assert asked_for == [{"": torch.device(given)}]


def test_loading_draws_no_progress_bar(folder, capfd):
    load_model(folder[0])
    assert capfd.readouterr() == ("", "")


def test_embeddings_are_read_from_a_single_file(folder):
    path, model = folder
    assert torch.equal(read_embeddings(path), model.get_input_embeddings().weight)


def test_embeddings_are_read_from_the_one_shard_that_holds_them(folder):
    path, model = folder
    sharded = path.parent / "sharded"
    model.save_pretrained(sharded, max_shard_size="20KB")
    files = weight_files(sharded)
    assert len(set(files.values())) > 1
    holder = files["model.embed_tokens.weight"]
    for file in set(files.values()) - {holder}:
        file.write_bytes(b"")  # present, unreadable: any access would fail
    assert torch.equal(read_embeddings(sharded), model.get_input_embeddings().weight)


def test_a_missing_shard_is_named(folder):
    path, model = folder
    sharded = path.parent / "sharded"
    model.save_pretrained(sharded, max_shard_size="20KB")
    victim = sorted(set(weight_files(sharded).values()))[0]
    victim.unlink()
    with pytest.raises(ValueError, match=victim.name):
        weight_files(sharded)


def test_pickled_weights_are_not_read(folder):
    path, model = folder
    (path / "model.safetensors").unlink()
    torch.save(model.state_dict(), path / "pytorch_model.bin")
    with pytest.raises(ValueError, match=r"pytorch_model\.bin is not read"):
        load_model(path)


def test_a_broken_file_is_named(folder):
    path, _ = folder
    (path / "model.safetensors").write_bytes(b"not safetensors")
    with pytest.raises(ValueError, match=r"model\.safetensors is not a readable"):
        read_embeddings(path)


def test_a_file_without_embeddings_is_refused(folder):
    save_file({"other": torch.zeros(2)}, folder[0] / "model.safetensors")
    with pytest.raises(ValueError, match=r"model\.embed_tokens\.weight is wanted"):
        read_embeddings(folder[0])


def test_an_architecture_without_names_is_refused_with_the_known_ones(folder):
    path, _ = folder
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps(config | {"model_type": "megatron"}))
    with pytest.raises(ValueError, match=r"'megatron' are not known.*gpt_neox"):
        read_embeddings(path)


@pytest.mark.parametrize("tied", [False, True])
def test_output_embeddings_are_the_input_ones_where_tied(tmp_path, tied):
    model = tiny_llama(64, tie_word_embeddings=tied)
    model.save_pretrained(tmp_path)
    output = read_output_embeddings(tmp_path)
    assert torch.equal(output, model.lm_head.weight)
    assert torch.equal(output, read_embeddings(tmp_path)) is tied


def test_missing_folder_and_missing_config(tmp_path):
    with pytest.raises(ValueError, match="no model folder"):
        load_model(tmp_path / "nowhere")
    with pytest.raises(ValueError, match=r"no config\.json"):
        load_model(tmp_path)


def test_a_config_must_be_an_object(tmp_path):
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(ValueError, match="not a JSON object"):
        read_config(tmp_path)


def test_tied_embeddings_are_seen_and_refused_where_they_matter(tmp_path):
    tiny_llama(64, tie_word_embeddings=True).save_pretrained(tmp_path / "tied")
    tiny_llama(64).save_pretrained(tmp_path / "untied")
    assert tied_embeddings(tmp_path / "tied")
    assert not tied_embeddings(tmp_path / "untied")
    require_untied(tmp_path / "untied", "rows are written")
    with pytest.raises(ValueError, match="rows are written"):
        require_untied(tmp_path / "tied", "rows are written")


def test_a_silent_config_is_decided_by_the_stored_tensors(folder):
    path, _ = folder
    config = json.loads((path / "config.json").read_text())
    config.pop("tie_word_embeddings", None)
    (path / "config.json").write_text(json.dumps(config))
    assert not tied_embeddings(path)
    save_file({"model.embed_tokens.weight": torch.zeros(2, 2)}, path / "model.safetensors")
    assert tied_embeddings(path)


def test_tokenizer_round_trip(tmp_path):
    tokenizer = mini_tokenizer()
    tokenizer.save_pretrained(tmp_path)
    assert load_tokenizer(tmp_path).get_vocab() == tokenizer.get_vocab()


def test_a_folder_without_a_fast_tokenizer_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"no tokenizer\.json"):
        load_tokenizer(tmp_path)
