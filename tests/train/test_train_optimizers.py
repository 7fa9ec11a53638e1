"""Optimizers by name: each equals the library used directly, and says where its weights went."""

from __future__ import annotations

import copy
import json

import pytest
import schedulefree
import torch

from kit.train.optimizers import (
    SGD,
    Adadelta,
    AdamW,
    Muon,
    ScheduleFreeAdamW,
    make_optimizer,
    optimizer_spec,
)
from kit.train.routing import BELOW_10000_ROWS, BELOW_50000_ROWS, route


class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = torch.nn.Embedding(11, 6)
        self.layers = torch.nn.ModuleList(
            torch.nn.ModuleDict({"norm": torch.nn.LayerNorm(6), "up": torch.nn.Linear(6, 6)})
            for _ in range(2)
        )
        self.head = torch.nn.Linear(6, 11, bias=False)

    def forward(self, ids):
        states = self.embed(ids)
        for layer in self.layers:
            states = states + torch.tanh(layer["up"](layer["norm"](states)))
        return self.head(states)


@pytest.fixture
def pair():
    """The same model twice."""
    torch.manual_seed(0)
    model = Model()
    return model, copy.deepcopy(model)


def backward(model, step):
    ids = torch.randint(0, 11, (4, 5), generator=torch.Generator().manual_seed(step))
    model.zero_grad(set_to_none=True)
    torch.nn.functional.cross_entropy(model(ids).flatten(0, 1), ids.roll(1).flatten()).backward()


def train(model, optimizer, steps=5, start=0):
    for step in range(start, steps):
        backward(model, step)
        optimizer.step()


def assert_same(left, right):
    for (name, a), b in zip(left.named_parameters(), right.parameters(), strict=True):
        assert torch.equal(a, b), name


def muon_parameters(model):
    hidden = [p for n, p in model.named_parameters() if n.startswith("layers") and p.ndim == 2]
    others = [p for p in model.parameters() if not any(p is h for h in hidden)]
    return hidden, others


DIRECT = {
    "adamw": (
        AdamW(0.01, weight_decay=0.1, betas=(0.8, 0.99), eps=1e-6),
        lambda m: [
            torch.optim.AdamW(
                m.parameters(), lr=0.01, weight_decay=0.1, betas=(0.8, 0.99), eps=1e-6
            )
        ],
    ),
    "sgd": (
        SGD(0.1, weight_decay=0.01, momentum=0.8),
        lambda m: [
            torch.optim.SGD(m.parameters(), lr=0.1, weight_decay=0.01, momentum=0.8, nesterov=True)
        ],
    ),
    "sgd without momentum": (
        SGD(0.1, weight_decay=0.0, momentum=0.0),
        lambda m: [torch.optim.SGD(m.parameters(), lr=0.1)],
    ),
    "adadelta": (
        Adadelta(1.0, weight_decay=0.01, rho=0.8, eps=1e-5),
        lambda m: [
            torch.optim.Adadelta(m.parameters(), lr=1.0, weight_decay=0.01, rho=0.8, eps=1e-5)
        ],
    ),
    "muon": (
        Muon(0.02, weight_decay=0.01),
        lambda m: [
            torch.optim.Muon(
                muon_parameters(m)[0],
                lr=0.02,
                weight_decay=0.01,
                adjust_lr_fn="match_rms_adamw",
            ),
            torch.optim.AdamW(muon_parameters(m)[1], lr=0.02, weight_decay=0.01, betas=(0.9, 0.95)),
        ],
    ),
}


@pytest.mark.parametrize("name", DIRECT)
def test_equals_the_library_used_directly_bit_for_bit(pair, name):
    ours, theirs = pair
    before = copy.deepcopy(ours)
    spec, make = DIRECT[name]
    train(ours, make_optimizer(spec, ours.named_parameters()))
    parts = make(theirs)
    for step in range(5):
        backward(theirs, step)
        for part in parts:
            part.step()
    assert_same(ours, theirs)
    assert all(
        not torch.equal(a, b) for a, b in zip(ours.parameters(), before.parameters(), strict=True)
    )


def test_schedule_free_equals_the_package_for_both_weights(pair):
    ours, theirs = pair
    spec = ScheduleFreeAdamW(0.05, weight_decay=0.01, warmup_steps=3)
    optimizer = make_optimizer(spec, ours.named_parameters())
    package = schedulefree.AdamWScheduleFree(
        theirs.parameters(), lr=0.05, weight_decay=0.01, warmup_steps=3
    )
    package.train()
    train(ours, optimizer)
    train(theirs, package)
    assert_same(ours, theirs)
    y = copy.deepcopy(ours)
    optimizer.use_averaged_weights()
    package.eval()
    assert_same(ours, theirs)
    assert all(
        not torch.equal(a, b) for a, b in zip(ours.parameters(), y.parameters(), strict=True)
    )
    assert optimizer.averages


SPECS = [spec for spec, _ in DIRECT.values()] + [ScheduleFreeAdamW(0.05, 0.01, warmup_steps=3)]


@pytest.mark.parametrize("spec", SPECS, ids=lambda s: s.name)
def test_state_goes_through_names_and_json_and_continues_bit_for_bit(pair, spec):
    whole, first = pair
    train(whole, make_optimizer(spec, whole.named_parameters()), steps=6)
    optimizer = make_optimizer(spec, first.named_parameters())
    train(first, optimizer, steps=3)
    kept = {name: tensor.clone() for name, tensor in optimizer.tensors().items()}
    values = json.loads(json.dumps(optimizer.values()))
    resumed = make_optimizer(spec, first.named_parameters())
    resumed.load(kept, values)
    train(first, resumed, steps=6, start=3)
    assert_same(whole, first)


def test_state_of_another_optimizer_is_refused(pair):
    model, _ = pair
    adam = make_optimizer(AdamW(0.1, 0.0), model.named_parameters())
    train(model, adam, steps=1)
    other = make_optimizer(SGD(0.1, 0.0), model.named_parameters())
    with pytest.raises(ValueError, match="does not fit"):
        other.load(adam.tensors(), adam.values())
    bent = {name: t[:1] if t.ndim == 2 else t for name, t in adam.tensors().items()}
    with pytest.raises(ValueError, match="has shape"):
        adam.load(bent, adam.values())


def test_census_by_module_name(pair):
    model, _ = pair
    census = make_optimizer(Muon(0.1, 0.0), model.named_parameters()).census
    assert census.names("muon") == ("layers.0.up.weight", "layers.1.up.weight")
    assert census.counts == {"muon": 2, "adamw": 8}
    assert census.groups["muon"].values == 72
    assert census.groups["adamw"].values == sum(p.numel() for p in model.parameters()) - 72


def test_rates_reach_every_part(pair):
    model, _ = pair
    optimizer = make_optimizer(Muon(0.1, 0.0), model.named_parameters())
    optimizer.set_learning_rate(0.03)
    groups = [g for part in optimizer.parts.values() for g in part.param_groups]
    assert [g["lr"] for g in groups] == [0.03, 0.03]
    assert optimizer.learning_rate == 0.03


def neox_parameters(hidden, layers, vocabulary):
    """Names and shapes of GPT-NeoX, without memory."""
    from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

    config = GPTNeoXConfig(
        hidden_size=hidden,
        intermediate_size=4 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=8,
        vocab_size=vocabulary,
    )
    with torch.device("meta"):
        return dict(GPTNeoXForCausalLM(config).named_parameters())


def test_census_of_the_published_shape_and_of_its_faulty_rule():
    """Reference page 1.11: 64/324 with the fault, 128/260 after it."""
    parameters = neox_parameters(4096, 32, 50304)
    assert len(parameters) == 388
    faulty = route(parameters, "muon", BELOW_10000_ROWS)
    assert faulty.counts == {"muon": 64, "adamw": 324}
    assert faulty.groups["muon"].values == 2_684_354_560
    assert {n.split(".", 3)[-1] for n in faulty.names("muon")} == {
        "attention.dense.weight",
        "mlp.dense_4h_to_h.weight",
    }
    by_name = route(parameters, "muon", "hidden-layers")
    assert by_name.counts == {"muon": 128, "adamw": 260}
    assert by_name == route(parameters, "muon", BELOW_50000_ROWS)


def test_a_small_vocabulary_routes_the_same_tensors_by_name_and_others_by_rows():
    large = neox_parameters(32, 2, 50304)
    small = neox_parameters(32, 2, 300)
    names = route(large, "muon", "hidden-layers").names("muon")
    assert route(small, "muon", "hidden-layers").names("muon") == names
    assert "gpt_neox.embed_in.weight" in route(small, "muon", BELOW_50000_ROWS).names("muon")


def test_the_faulty_rule_scaled_to_a_miniature_takes_the_same_modules():
    """Width 128: 384 rows of fused attention and 512 of the first MLP matrix stay out."""
    faulty = route(neox_parameters(128, 2, 300), "muon", "below-200-rows")
    assert {n.split(".", 3)[-1] for n in faulty.names("muon")} == {
        "attention.dense.weight",
        "mlp.dense_4h_to_h.weight",
    }
    with pytest.raises(ValueError, match="unknown routing 'below-ten-rows'"):
        route(neox_parameters(32, 2, 300), "muon", "below-ten-rows")


def test_matrices_alone_decay_on_request(pair):
    ours, _ = pair
    before = copy.deepcopy(ours)
    optimizer = make_optimizer(
        AdamW(0.1, weight_decay=0.5, decay="matrices"), ours.named_parameters()
    )
    for p in ours.parameters():
        p.grad = torch.zeros_like(p)
    optimizer.step()
    for (name, p), old in zip(ours.named_parameters(), before.parameters(), strict=True):
        expected = old * 0.95 if p.ndim == 2 else old
        torch.testing.assert_close(p, expected, msg=name)


def test_frozen_parameters_stay_out(pair):
    model, _ = pair
    model.embed.requires_grad_(False)
    census = make_optimizer(AdamW(0.1, 0.0), model.named_parameters()).census
    assert "embed.weight" not in census.names("adamw")
    with pytest.raises(ValueError, match="nothing to train"):
        make_optimizer(AdamW(0.1, 0.0), model.requires_grad_(False).named_parameters())


def test_specification_by_name():
    spec = optimizer_spec(
        "adamw", {"learning_rate": 1e-3, "weight_decay": 0.01, "betas": [0.9, 0.98]}
    )
    assert spec == AdamW(1e-3, 0.01, betas=(0.9, 0.98))
    with pytest.raises(ValueError, match="known: adamw, sgd, adadelta"):
        optimizer_spec("adam", {})
    with pytest.raises(ValueError, match="no setting momentum"):
        optimizer_spec("adamw", {"learning_rate": 1, "weight_decay": 0, "momentum": 0.9})
    with pytest.raises(ValueError, match="needs weight_decay"):
        optimizer_spec("adamw", {"learning_rate": 1})
    with pytest.raises(ValueError, match="below 0"):
        AdamW(-1.0, 0.0)
    with pytest.raises(ValueError, match="below 0"):
        AdamW(float("nan"), 0.0)
    with pytest.raises(ValueError, match="unknown routing"):
        make_optimizer(Muon(0.1, 0.0, routing="by-shape"), Model().named_parameters())


def test_a_rule_that_gives_muon_nothing_is_refused():
    flat = torch.nn.Linear(3, 3)
    with pytest.raises(ValueError, match="none of 2 parameters"):
        make_optimizer(Muon(0.1, 0.0), flat.named_parameters())
