"""Weights that are missing, superfluous, misshapen or not finite; saving and loading back."""

from __future__ import annotations

import hashlib
import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from kit.lm.files import read_embeddings, read_output_embeddings
from kit.lm.load import load_model, load_tokenizer, save_model
from kit.lm.model import embedding_matrix, is_tied
from tests.lm.families import FAMILIES, tiny
from tests.lm.tiny_world import llama3_tokenizer, mini_tokenizer

WEIGHTS = "model.safetensors"


def written(folder, name="llama", **changes):
    save_model(tiny(name, **changes), None, folder)
    return folder


def edit(folder, change):
    weights = load_file(folder / WEIGHTS)
    change(weights)
    save_file(weights, folder / WEIGHTS, metadata={"format": "pt"})


def configure(folder, **values):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | values))


def refused(folder, words):
    with pytest.raises(ValueError, match=words) as caught:
        load_model(folder)
    assert str(folder) in str(caught.value)


@pytest.mark.parametrize(
    "lost", ["model.layers.1.mlp.up_proj.weight", "model.norm.weight", "lm_head.weight"]
)
def test_a_missing_weight_is_not_made_up(tmp_path, lost):
    edit(written(tmp_path), lambda weights: weights.pop(lost))
    refused(tmp_path, f"the weights lack {lost}")


def test_a_missing_output_matrix_of_gpt_neox_is_not_made_up(tmp_path):
    edit(written(tmp_path, "gpt_neox"), lambda weights: weights.pop("embed_out.weight"))
    refused(tmp_path, "the weights lack .*(lm_head|embed_out)")


@pytest.mark.parametrize(("declared", "stored"), [(4, 3), (2, 3), (10**6, 3)])
def test_another_number_of_layers_is_refused_before_a_model_is_made(tmp_path, declared, stored):
    configure(written(tmp_path), num_hidden_layers=declared)
    refused(tmp_path, f"declares {declared:,} layers, the weights hold {stored}")


def test_a_larger_vocabulary_is_refused_before_memory_is_asked_for(tmp_path):
    configure(written(tmp_path), vocab_size=10**12)
    refused(tmp_path, r"embed_tokens.weight has shape \(64, 32\), config.json declares")


def test_a_superfluous_weight_is_not_dropped(tmp_path):
    extra = "model.layers.0.self_attn.q_proj.bias"
    edit(written(tmp_path), lambda weights: weights.update({extra: torch.zeros(32)}))
    refused(tmp_path, f"LlamaForCausalLM has no use for {extra}")


def test_another_shape_is_refused(tmp_path):
    edit(written(tmp_path), lambda weights: weights.update({"model.norm.weight": torch.ones(2)}))
    refused(tmp_path, r"model.norm.weight has shape \(2,\), config.json asks for \(32,\)")


def test_buffers_that_old_checkpoints_carry_are_let_through(tmp_path):
    """The files of Pythia hold masks and frequencies that the classes now compute."""
    start = "gpt_neox.layers.0.attention"
    old = {
        f"{start}.bias": torch.ones(1, 1, 4, 4, dtype=torch.bool),
        f"{start}.masked_bias": torch.tensor(-1e9),
        f"{start}.rotary_emb.inv_freq": torch.zeros(4),
    }
    model = tiny("gpt_neox")
    edit(written(tmp_path, "gpt_neox"), lambda weights: weights.update(old))
    loaded = load_model(tmp_path)
    ids = torch.arange(10)[None]
    assert torch.equal(loaded(ids).logits, model(ids).logits)


def test_two_matrices_under_a_config_that_ties_them(tmp_path):
    written(tmp_path, "llama-tied")
    edit(tmp_path, lambda weights: weights.update({"lm_head.weight": torch.randn(64, 32)}))
    refused(tmp_path, "ties input and output embeddings, but the files hold two")


def test_the_same_matrix_twice_under_a_config_that_ties_them(tmp_path):
    def twice(weights):
        weights["lm_head.weight"] = weights["model.embed_tokens.weight"].clone()

    edit(written(tmp_path, "llama-tied"), twice)
    assert is_tied(load_model(tmp_path))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("name", ["model.layers.2.mlp.up_proj.weight", "model.norm.weight"])
def test_a_number_that_is_not_finite_is_refused(tmp_path, name, value):
    edit(written(tmp_path), lambda weights: weights[name].view(-1)[5].fill_(value))
    refused(tmp_path, f"{name} holds numbers that are not finite")


def test_a_number_that_the_dtype_cannot_hold_is_refused(tmp_path):
    edit(written(tmp_path), lambda weights: weights["model.norm.weight"][5].fill_(1e6))
    assert load_model(tmp_path, dtype="bfloat16").dtype is torch.bfloat16
    with pytest.raises(ValueError, match=r"model\.norm\.weight holds numbers that are not finite"):
        load_model(tmp_path, dtype="float16")


def test_frozen_unless_asked_for_and_in_evaluation_mode_either_way(tmp_path):
    written(tmp_path, "gpt2")
    for trainable in (False, True):
        model = load_model(tmp_path, trainable=trainable)
        assert {p.requires_grad for p in model.parameters()} == {trainable}
        assert not any(module.training for module in model.modules())


def digests(folder):
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.iterdir()}


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_saving_and_loading_is_exact_and_the_same_weights_give_the_same_bytes(
    tmp_path, name, dtype
):
    model = tiny(name).to(getattr(torch, dtype))
    tokenizer = mini_tokenizer()
    for folder in ("first", "second"):
        save_model(model, tokenizer, tmp_path / folder)
    assert digests(tmp_path / "first") == digests(tmp_path / "second")
    loaded = load_model(tmp_path / "first", dtype=dtype)
    assert is_tied(loaded) == is_tied(model)
    weights = loaded.state_dict()
    assert weights.keys() == model.state_dict().keys()
    for key, tensor in model.state_dict().items():
        assert torch.equal(weights[key], tensor)
    save_model(loaded, load_tokenizer(tmp_path / "first"), tmp_path / "third")
    first, third = digests(tmp_path / "first"), digests(tmp_path / "third")
    assert first[WEIGHTS] == third[WEIGHTS]
    assert first["tokenizer.json"] == third["tokenizer.json"]
    assert (tmp_path / "first" / WEIGHTS).stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize("name", FAMILIES)
def test_embeddings_read_alone_are_those_of_the_model(tmp_path, name):
    model = tiny(name)
    save_model(model, None, tmp_path)
    assert torch.equal(read_embeddings(tmp_path), embedding_matrix(model))
    assert torch.equal(read_output_embeddings(tmp_path), model.get_output_embeddings().weight)


@pytest.mark.parametrize("name", ["llama", "qwen2", "gpt_neox", "gpt2"])
def test_the_tokenizer_is_the_file_s_whatever_the_type_of_the_model(tmp_path, name):
    tokenizer = llama3_tokenizer()
    save_model(tiny(name), tokenizer, tmp_path)
    loaded = load_tokenizer(tmp_path)
    text = "12345 e\u0301 it's  \n\n a.\n\n\u96ea <|eot_id|>"
    assert loaded.encode(text, add_special_tokens=False) == tokenizer.encode(
        text, add_special_tokens=False
    )
    assert loaded.get_vocab() == tokenizer.get_vocab()


IGNORED = "ignore:.*is deprecated and will be removed in v6:FutureWarning"


@pytest.mark.filterwarnings(IGNORED)
def test_a_broken_model_and_one_with_adapters_are_not_saved(tmp_path):
    from peft import LoraConfig, get_peft_model

    model = tiny("llama")
    adapted = get_peft_model(model, LoraConfig(target_modules=["q_proj"]))
    with pytest.raises(ValueError, match="merge the adapters"):
        save_model(adapted, None, tmp_path / "adapted")
    model = tiny("llama")
    model.lm_head.weight[3, 3] = float("nan")
    with pytest.raises(ValueError, match=r"lm_head\.weight holds numbers that are not finite"):
        save_model(model, None, tmp_path / "broken")
    assert not list(tmp_path.iterdir())


def test_a_model_that_is_no_causal_language_model_is_refused(tmp_path):
    configure(written(tmp_path), model_type="clip_vision_model")
    with pytest.raises(ValueError, match="'clip_vision_model' is no type of causal"):
        load_model(tmp_path)
