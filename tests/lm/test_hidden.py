"""Hidden states against transformers' own ``output_hidden_states``."""

from __future__ import annotations

import pytest
import torch

from kit.lm.hidden import block_outputs
from kit.lm.model import decoder_layers, final_norm
from kit.lm.padding import positions
from tests.lm.families import FAMILIES, LAYERS, VOCABULARY, tiny

EVERY = list(range(-1, LAYERS))
LENGTHS = (12, 7, 10)


def batch(side):
    """Ids and mask of three rows; the padding stands on the side that is named."""
    torch.manual_seed(1)
    ids = torch.randint(3, VOCABULARY, (len(LENGTHS), max(LENGTHS)))
    column = torch.arange(max(LENGTHS))
    length = torch.tensor(LENGTHS)[:, None]
    if side == "none":
        return ids, torch.ones_like(ids, dtype=torch.bool)
    mask = column < length if side == "right" else column >= max(LENGTHS) - length
    return ids.masked_fill(~mask, 0), mask


@pytest.mark.parametrize("side", ["none", "left", "right"])
@pytest.mark.parametrize("name", FAMILIES)
def test_equal_to_transformers(name, side):
    model = tiny(name)
    ids, mask = batch(side)
    states = block_outputs(model, ids, mask, EVERY)
    assert list(states) == EVERY
    placed = {"position_ids": positions(mask)} if name != "falcon" else {}
    expected = model(
        ids, attention_mask=mask, output_hidden_states=True, use_cache=False, **placed
    ).hidden_states
    for block in EVERY:
        state = states[block]
        if block == LAYERS - 1:
            # Theirs has gone through the final norm, ours has not.
            assert not torch.allclose(state[mask], expected[block + 1][mask], atol=1e-3)
            state = final_norm(model)(state)
        torch.testing.assert_close(state[mask], expected[block + 1][mask], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("name", ["llama", "qwen2", "gpt_neox", "gpt2"])
def test_padding_changes_no_real_state(name, side):
    model = tiny(name)
    ids, mask = batch(side)
    padded = block_outputs(model, ids, mask, EVERY)
    for row, length in enumerate(LENGTHS):
        alone = block_outputs(model, ids[row, mask[row]][None], None, EVERY)
        for block in EVERY:
            assert alone[block].shape == (1, length, 32)
            torch.testing.assert_close(
                padded[block][row, mask[row]], alone[block][0], atol=1e-5, rtol=1e-5
            )


def test_nothing_behind_the_last_wanted_block_is_computed():
    model = tiny("llama")
    ran = []
    layers = decoder_layers(model)
    for index, layer in enumerate(layers):
        layer.register_forward_hook(lambda *_, index=index: ran.append(index))
    model.lm_head.register_forward_hook(lambda *_: ran.append("head"))
    ids, mask = batch("left")
    block_outputs(model, ids, mask, [1])
    assert ran == [0, 1]
    assert decoder_layers(model) is layers
    assert len(layers) == LAYERS
    model(ids)
    assert ran == [0, 1, 0, 1, 2, "head"]


def test_the_model_is_whole_again_after_a_failure():
    model = tiny("llama")
    layers = decoder_layers(model)

    def fail(*_):
        raise RuntimeError("planted")

    handle = layers[0].register_forward_hook(fail)
    with pytest.raises(RuntimeError, match="planted"):
        block_outputs(model, batch("none")[0], None, [0, 1])
    handle.remove()
    assert decoder_layers(model) is layers
    assert not any(layer._forward_hooks for layer in layers)


def checkpointed(model):
    """By the name of transformers 5.2x, or the older one."""
    switch = getattr(model, "activation_checkpointing_enable", None)
    (switch or model.gradient_checkpointing_enable)({"use_reentrant": False})


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("name", ["llama", "gpt_neox"])
def test_gradients_are_those_of_transformers_and_reach_no_later_block(name, checkpointing):
    ids, mask = batch("right")
    gradients = []
    for ours in (True, False):
        model = tiny(name).requires_grad_(True)
        if checkpointing and ours:
            checkpointed(model)
            model.train()
        if ours:
            state = block_outputs(model, ids, mask, [1])[1]
        else:
            state = model(ids, attention_mask=mask, output_hidden_states=True).hidden_states[2]
        (state[mask] ** 2).sum().backward()
        gradients.append({n: p.grad for n, p in model.named_parameters()})
    ours, theirs = gradients
    moved = {n for n, gradient in ours.items() if gradient is not None and bool(gradient.any())}
    assert moved == {
        n for n, gradient in theirs.items() if gradient is not None and bool(gradient.any())
    }
    assert not any(".layers.2." in n for n in moved)
    for n in moved:
        torch.testing.assert_close(ours[n], theirs[n], atol=1e-5, rtol=1e-4)


@pytest.mark.filterwarnings("ignore:.*is deprecated and will be removed in v6:FutureWarning")
def test_adapters_inside_the_model_count():
    from peft import LoraConfig, get_peft_model

    ids, mask = batch("left")
    plain = block_outputs(tiny("llama"), ids, mask, [0, 2])
    adapted = get_peft_model(
        tiny("llama"), LoraConfig(target_modules=["q_proj"], layers_to_transform=[1])
    )
    fresh = block_outputs(adapted, ids, mask, [0, 2])
    assert torch.equal(fresh[2], plain[2])
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter)
    moved = block_outputs(adapted, ids, mask, [0, 2])
    assert torch.equal(moved[0], plain[0])
    assert not torch.allclose(moved[2], plain[2])


@pytest.mark.parametrize(
    ("blocks", "message"),
    [([], "no block"), ([0, 0], "twice"), ([3], "block 3 of a model with the blocks -1 to 2"),
     ([-2], "block -2")],
)  # fmt: skip
def test_blocks_that_do_not_exist_are_refused(blocks, message):
    with pytest.raises(ValueError, match=message):
        block_outputs(tiny("llama"), batch("none")[0], None, blocks)


def test_a_mask_of_another_shape_is_refused():
    ids, mask = batch("left")
    with pytest.raises(ValueError, match=r"a mask of shape \(3, 11\)"):
        block_outputs(tiny("llama"), ids, mask[:, 1:], [0])
