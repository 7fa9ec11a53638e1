"""Layers that are computed again, weights gathered one by one, tensors that wait elsewhere."""

from __future__ import annotations

import json

import pytest
import torch
import torch.distributed as dist
from transformers import AutoModelForCausalLM

from kit.train import residence, shards
from kit.train.layers import prepare_layers
from kit.train.optimizers import AdamW, OptimizerSpec, make_optimizer
from kit.train.residence import copies, move_state
from kit.train.saving import save_gathered
from kit.train.shards import Layout
from tests.train.tiny import llama, mean_loss, tokens


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_layers_change_as_asked_and_their_gradient_does_not(monkeypatch, compiled, checkpointing):
    """A layer that is computed again runs twice; what is compiled is every layer, as a whole."""
    made, runs, plain, changed = [], [], llama(), llama()

    def compiling(forward):
        made.append(forward)
        return forward

    monkeypatch.setattr(torch, "compile", compiling)
    layers = changed.model.layers
    own = [layer.forward for layer in layers]
    for layer in layers:
        layer.mlp.register_forward_pre_hook(lambda *_: runs.append(1))
    prepare_layers(changed, compiled=compiled, checkpointing=checkpointing)
    assert made == (own if compiled else [])
    assert ["forward" in vars(layer) for layer in layers] == [compiled or checkpointing] * 2
    losses = [mean_loss(model.train(), tokens(0)) for model in (plain, changed)]
    for loss in losses:
        loss.backward()
    assert len(runs) == 2 * (1 + checkpointing)
    assert torch.equal(*losses)
    for p, q in zip(plain.parameters(), changed.parameters(), strict=True):
        assert torch.equal(p.grad, q.grad)


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("names", [["model.embed_tokens.weight", "model.norm.weight"], []])
def test_trained_weights_are_written_from_the_masters_and_others_as_they_are(tmp_path, names, tied):
    """The type in the configuration is that of the masters, so that nothing is rounded later."""
    model = llama(tie_word_embeddings=tied).to(torch.bfloat16)
    masters = {name: model.get_parameter(name).detach().float() + 1e-6 for name in names}
    save_gathered(model, masters, tmp_path / "m")
    config = json.loads((tmp_path / "m" / "config.json").read_text())
    assert config["dtype"] == ("float32" if names else "bfloat16")
    back = AutoModelForCausalLM.from_pretrained(tmp_path / "m")
    for name, p in back.named_parameters():
        wanted = masters.get(name, model.get_parameter(name).to(p.dtype))
        assert torch.equal(p, wanted), name


def test_copies_are_equal_apart_and_in_one_piece_of_memory():
    tensors = [torch.randn(3, 2), torch.randn(5), torch.tensor(2.0)]
    made = copies(tensors, "cpu")
    assert all(torch.equal(a, b) for a, b in zip(tensors, made, strict=True))
    assert len({t.untyped_storage().data_ptr() for t in made}) == 1
    tensors[0].zero_()
    assert made[0].abs().sum() > 0


def test_state_is_moved_and_counters_stay(monkeypatch):
    """Each tensor by itself; where it is already, nothing is copied."""
    moved = []

    def copied(tensors, device):
        (tensor,) = tensors
        moved.append((tuple(tensor.shape), device))
        return [tensor.clone()]

    monkeypatch.setattr(residence, "copies", copied)
    weight = torch.nn.Parameter(torch.ones(3))
    optimizer = make_optimizer(AdamW(0.1, 0.0), {"w": weight}.items())
    weight.grad = torch.ones(3)
    optimizer.step()
    before = {name: (t.data_ptr(), t.clone()) for name, t in optimizer.tensors().items()}
    assert {t.ndim for _, t in before.values()} == {0, 1}
    move_state(optimizer, "cpu")
    assert moved == []
    move_state(optimizer, "meta")
    assert moved == [((3,), "meta")] * 2
    for name, tensor in optimizer.tensors().items():
        at, value = before[name]
        assert torch.equal(tensor, value)
        assert (tensor.data_ptr() == at) == (tensor.ndim == 0)


def test_a_specification_that_nothing_is_made_from_is_refused():
    class Odd(OptimizerSpec):
        name = "odd"

    with pytest.raises(ValueError, match="no optimizer is made from Odd"):
        make_optimizer(Odd(0.1, 0.0), {"w": torch.nn.Parameter(torch.ones(3))}.items())


@pytest.mark.parametrize("world", [1, 2, 3])
def test_a_tensor_comes_back_from_the_pieces_of_all_processes(monkeypatch, world):
    """The others' pieces come by the collective, which is played here."""
    shapes = {"a": (3, 5), "b": (7,), "c": (1,)}
    whole = {n: torch.randn(s) for n, s in shapes.items()}
    layouts = [Layout(shapes.items(), rank=r, world_size=world) for r in range(world)]
    for name, tensor in whole.items():
        pieces = [layout.cut(name, tensor) for layout in layouts]
        rows = torch.cat([piece.reshape(-1) for piece in pieces])
        monkeypatch.setattr(
            dist, "all_gather_into_tensor", lambda to, own, rows=rows: to.copy_(rows)
        )
        for layout, piece in zip(layouts, pieces, strict=True):
            assert torch.equal(layout.join(name, piece), tensor)
    assert {layout.length for layout in layouts} == {sum(-(-n // world) for n in (15, 7, 1))}


@pytest.mark.parametrize("world", [1, 3])
def test_scalars_are_summed_and_values_gathered_over_processes(monkeypatch, world):
    monkeypatch.setattr(dist, "get_world_size", lambda: world)
    monkeypatch.setattr(dist, "all_reduce", lambda value: value.mul_(world))

    def gather(to, own):
        to[:] = [[rank, own] for rank in range(len(to))]

    monkeypatch.setattr(dist, "all_gather_object", gather)
    assert float(shards.sum_over_processes(torch.tensor(2.5))) == 2.5 * world
    assert shards.everybody("x") == [[rank, "x"] for rank in range(world)]
