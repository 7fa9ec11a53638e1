"""Adapters: the base stays as it is, merged equals adapted."""

from __future__ import annotations

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from kit.train.lora import Lora, add_adapter, load_adapter, merge_adapter, save_adapter

IDS = torch.tensor([[1, 5, 9, 2, 30, 7]])


@pytest.fixture
def model():
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=40,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=3,
        num_attention_heads=2,
        num_key_value_heads=1,
    )
    return LlamaForCausalLM(config).eval()


def trained(model, lora, steps=3):
    adapted = add_adapter(model, lora, seed=1)
    optimizer = torch.optim.AdamW((p for p in adapted.parameters() if p.requires_grad), lr=0.05)
    for _ in range(steps):
        optimizer.zero_grad()
        adapted(input_ids=IDS, labels=IDS).loss.backward()
        optimizer.step()
    return adapted.eval()


@torch.no_grad()
def logits(model):
    return model(input_ids=IDS).logits


def test_a_fresh_adapter_changes_nothing_and_trains_alone(model):
    before = logits(model)
    adapted = add_adapter(model, Lora(4, 8), seed=1)
    assert torch.equal(logits(adapted), before)
    trainable = [n for n, p in adapted.named_parameters() if p.requires_grad]
    assert all("lora_" in n for n in trainable)
    assert len(trainable) == 2 * 7 * 3


def test_training_leaves_the_base_bit_identical(model):
    before = {n: p.clone() for n, p in model.state_dict().items()}
    plain = logits(model)
    adapted = trained(model, Lora(4, 8, ("q_proj", "down_proj"), (0, 1)))
    assert not torch.equal(logits(adapted), plain)
    with adapted.disable_adapter():
        assert torch.equal(logits(adapted), plain)
    after = {
        n.replace("base_model.model.", "").replace(".base_layer", ""): p
        for n, p in adapted.state_dict().items()
        if "lora_" not in n
    }
    assert set(after) == set(before)
    assert all(torch.equal(after[n], before[n]) for n in before)
    assert not [n for n, _ in adapted.named_parameters() if "lora_" in n and "layers.2." in n]


def test_merged_equals_adapted(model):
    plain = logits(model)
    adapted = trained(model, Lora(4, 8))
    expected = logits(adapted)
    merged = merge_adapter(adapted)
    assert not any("lora_" in n for n, _ in merged.named_parameters())
    torch.testing.assert_close(logits(merged), expected, rtol=1e-5, atol=1e-5)
    assert (expected - plain).abs().max() > 0.1


def test_the_update_is_alpha_over_rank_times_the_product(model):
    weight = model.model.layers[0].self_attn.q_proj.weight.detach().clone()
    lora = Lora(2, 6, ("q_proj",))
    adapted = trained(model, lora)
    layer = adapted.base_model.model.model.layers[0].self_attn.q_proj
    a, b = layer.lora_A["default"].weight, layer.lora_B["default"].weight
    merged = merge_adapter(adapted).model.layers[0].self_attn.q_proj.weight
    torch.testing.assert_close(merged, weight + lora.scale * b @ a)
    assert lora.scale == 3


def test_saved_and_loaded(model, tmp_path):
    adapted = trained(model, Lora(4, 8))
    expected = logits(adapted)
    save_adapter(adapted, tmp_path)
    assert sorted(p.suffix for p in tmp_path.iterdir() if p.stem.startswith("adapter")) == [
        ".json",
        ".safetensors",
    ]
    loaded = load_adapter(adapted.unload(), tmp_path)
    assert torch.equal(logits(loaded.eval()), expected)
    assert not any(p.requires_grad for p in loaded.parameters())
    with pytest.raises(ValueError, match="holds no adapter"):
        load_adapter(model, tmp_path / "elsewhere")


def test_the_seed_decides_and_the_generators_outside_do_not_move(model):
    torch.manual_seed(7)
    state = torch.get_rng_state()
    first = [p.clone() for p in add_adapter(model, Lora(4, 8), seed=1).parameters()]
    assert torch.equal(torch.get_rng_state(), state)
    model = _bare(model)
    again = [p.clone() for p in add_adapter(model, Lora(4, 8), seed=1).parameters()]
    other = [p.clone() for p in add_adapter(_bare(model), Lora(4, 8), seed=2).parameters()]
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(first, other, strict=True))


def _bare(model):
    """The same weights in a model that never had an adapter."""
    fresh = LlamaForCausalLM(model.config)
    weights = {
        n.replace(".base_layer", ""): p for n, p in model.state_dict().items() if "lora_" not in n
    }
    fresh.load_state_dict(weights)
    return fresh.eval()


def test_missing_modules_and_blocks_are_named(model):
    with pytest.raises(ValueError, match="no module qkv"):
        add_adapter(model, Lora(4, 8, ("q_proj", "qkv")), seed=1)
    with pytest.raises(ValueError, match="no block 9"):
        add_adapter(_bare(model), Lora(4, 8, ("q_proj",), (0, 9)), seed=1)


def test_an_adapter_of_a_bf16_model_is_fp32(model):
    adapted = add_adapter(model.to(torch.bfloat16), Lora(4, 8), seed=1)
    assert {p.dtype for p in adapted.parameters() if p.requires_grad} == {torch.float32}
    assert {p.dtype for p in adapted.parameters() if not p.requires_grad} == {torch.bfloat16}
