"""Packed training equals padded training: exactly in fp32, to rounding in bf16."""

from __future__ import annotations

import random
import sys
from collections.abc import Sequence
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from kit.lm.prefix import embed
from kit.methods.defensive_tokens.prefix_training import packed as packing
from kit.methods.defensive_tokens.prefix_training import packed_model
from kit.methods.defensive_tokens.prefix_training.config import PrefixTraining
from kit.methods.defensive_tokens.prefix_training.frozen_head import head_cross_entropy
from kit.methods.defensive_tokens.prefix_training.loss import accumulate, compile_ahead
from kit.methods.defensive_tokens.prefix_training.packed_model import packed_attention, ready
from kit.methods.defensive_tokens.prefix_training.state import start
from kit.methods.defensive_tokens.prefix_training.tuning import train_prefix
from kit.train.batching import Example
from kit.train.losses import NORMALISATIONS, token_weights, weighted_cross_entropy
from tests.lm.tiny_world import tiny_llama

SLOTS = 3
VOCABULARY = 64


def examples(count: int, seed: int = 0) -> list[Example]:
    rng = random.Random(seed)
    made = []
    for i in range(count):
        length = rng.randint(6, 30)
        body = [rng.randrange(3, VOCABULARY) for _ in range(length)]
        slots = [VOCABULARY + j for j in range(SLOTS)]
        made.append(Example(f"e{i}", (*slots, 1, *body), SLOTS + 1 + rng.randint(1, length - 2)))
    return made


def gradient(
    model: torch.nn.Module, batch: Sequence[Example], config: PrefixTraining
) -> tuple[float, torch.Tensor]:
    torch.manual_seed(5)
    prefix = torch.nn.Parameter(torch.randn(SLOTS, 32))
    loss = accumulate(model, prefix, batch, config, pad_id=0)  # type: ignore[arg-type]
    assert prefix.grad is not None
    return loss, prefix.grad


def config(**changes: object) -> PrefixTraining:
    return PrefixTraining(**{"steps": 1, "micro_batch": 4, "accumulation": 4, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize("normalisation", NORMALISATIONS)
@pytest.mark.parametrize("rows", [16, 5])
@pytest.mark.parametrize("low_memory", [False, True])
def test_packed_equals_padded(normalisation: str, rows: int, low_memory: bool) -> None:
    model = tiny_llama(VOCABULARY)
    batch = examples(16)
    loss, grad = gradient(model, batch, config(normalisation=normalisation))
    same = config(
        normalisation=normalisation,
        forward="packed",
        forward_rows=rows,
        low_memory=low_memory,
    )
    packed_loss, packed_grad = gradient(model, batch, same)
    assert packed_loss == pytest.approx(loss, rel=1e-5)
    torch.testing.assert_close(packed_grad, grad, rtol=1e-5, atol=1e-7)


def test_packed_equals_the_published_normalisation_written_out() -> None:
    """Mean over micro-batches of per-token means, with one forward pass an example."""
    model = tiny_llama(VOCABULARY)
    batch = examples(8, seed=3)
    prefix = torch.nn.Parameter(torch.randn(SLOTS, 32))
    means = []
    for first in (0, 4):
        losses = []
        for example in batch[first : first + 4]:
            rows = torch.cat([prefix, model.model.embed_tokens(torch.tensor(example.ids[SLOTS:]))])
            scores = model(inputs_embeds=rows[None], use_cache=False).logits[0]
            losses.append(
                torch.nn.functional.cross_entropy(
                    scores[example.prompt_length - 1 : -1],
                    torch.tensor(example.ids[example.prompt_length :]),
                    reduction="none",
                )
            )
        means.append(torch.cat(losses).mean())
    (wanted,) = torch.autograd.grad(torch.stack(means).mean(), prefix)
    weights = token_weights([e.labels for e in batch], micro_batch=4)
    for loss in packing.packed_losses(model, prefix, batch, weights):
        loss.backward()
    torch.testing.assert_close(prefix.grad, wanted, rtol=1e-5, atol=1e-7)


def test_examples_do_not_see_each_other() -> None:
    model = tiny_llama(VOCABULARY)
    first, second, other = examples(3)
    prefix = torch.randn(SLOTS, 32)

    def states(batch: Sequence[Example]) -> torch.Tensor:
        packed = packing.pack(batch, VOCABULARY)
        with ready(model):
            return model.model(  # type: ignore[no-any-return]
                inputs_embeds=packing.embed_packed(model, packed, prefix)[None],
                attention_mask=packing.block_causal_mask(packed.bounds),
                position_ids=packed.position_ids,
                use_cache=False,
            ).last_hidden_state[0, packed.predicting[-second.labels :]]

    torch.testing.assert_close(states([first, second]), states([other, second]))


def test_pack_lays_out_positions_bounds_and_labels() -> None:
    batch = [Example("a", (9, 8, 7, 6), 2), Example("b", (5, 4, 3), 1)]
    packed = packing.pack(batch, VOCABULARY)
    assert packed.ids.tolist() == [[9, 8, 7, 5, 4]]
    assert packed.position_ids.tolist() == [[0, 1, 2, 0, 1]]
    assert packed.bounds.tolist() == [0, 3, 5]
    assert packed.bounds.dtype == torch.int32
    assert packed.longest == 3
    assert packed.predicting.tolist() == [1, 2, 3, 4]
    assert packed.targets.tolist() == [7, 6, 4, 3]
    assert packed.owners.tolist() == [0, 0, 1, 1]
    with pytest.raises(ValueError, match="at least one example"):
        packing.pack([], VOCABULARY)


def test_slots_are_known_by_their_ids() -> None:
    packed = packing.pack([Example("a", (64, 1, 8), 2), Example("b", (66, 65, 4), 2)], VOCABULARY)
    assert packed.slots.tolist() == [0, 2, 3]
    assert packed.vectors.tolist() == [0, 2, 1]


def test_embeddings_are_those_of_the_padded_path() -> None:
    model = tiny_llama(VOCABULARY)
    packed = packing.pack(examples(4), VOCABULARY)
    prefix = torch.randn(SLOTS, 32)
    torch.testing.assert_close(
        packing.embed_packed(model, packed, prefix)[None], embed(model, packed.ids, prefix)
    )


def test_a_slot_without_a_vector_is_an_error() -> None:
    with pytest.raises(ValueError, match="slot beyond the 2 vectors"):
        next(packing.packed_losses(tiny_llama(VOCABULARY), torch.zeros(2, 32), examples(1), [1.0]))


def reference_kernel(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    query_bounds: torch.Tensor,
    key_bounds: torch.Tensor,
    most_queries: int,
    most_keys: int,
    scale: float | None = None,
) -> torch.Tensor:
    """What the variable-length kernel computes, one sequence at a time."""
    assert query_bounds is key_bounds
    out = []
    for first, last in pairwise(query_bounds.tolist()):
        assert 0 < last - first <= most_queries == most_keys
        groups = query.shape[1] // key.shape[1]
        k, v = (x[first:last].repeat_interleave(groups, dim=1) for x in (key, value))
        scores = torch.einsum("qhd,khd->hqk", query[first:last], k) * (scale or 1.0)
        hidden = torch.ones_like(scores[0], dtype=torch.bool).triu(1)
        out.append(torch.einsum("hqk,khd->qhd", scores.masked_fill(hidden, -1e9).softmax(-1), v))
    return torch.cat(out)


@pytest.mark.parametrize("low_memory", [False, True])
def test_the_way_of_the_kernel_is_exact_too(
    monkeypatch: pytest.MonkeyPatch, low_memory: bool
) -> None:
    model = tiny_llama(VOCABULARY)
    batch = examples(16)
    loss, grad = gradient(model, batch, config())
    monkeypatch.setattr(packed_model, "KERNEL", reference_kernel)
    monkeypatch.setattr(packing, "can_use_kernel", lambda states: True)
    settings = config(forward="packed", low_memory=low_memory)
    kernel_loss, kernel_grad = gradient(model, batch, settings)
    assert kernel_loss == pytest.approx(loss, rel=1e-5)
    torch.testing.assert_close(kernel_grad, grad, rtol=1e-5, atol=1e-7)


def test_block_causal_mask() -> None:
    mask = packing.block_causal_mask(torch.tensor([0, 2, 3], dtype=torch.int32))
    assert mask[0, 0].int().tolist() == [[1, 0, 0], [1, 1, 0], [0, 0, 1]]


@pytest.mark.parametrize("low_memory", [False, True])
def test_model_is_left_as_it_was(low_memory: bool) -> None:
    model = tiny_llama(VOCABULARY)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    attention = model.config._attn_implementation
    gradient(model, examples(16), config(forward="packed", low_memory=low_memory))
    assert model.config._attn_implementation == attention
    assert not any(module.training for module in model.modules())
    assert not any(layer.gradient_checkpointing for layer in model.model.layers)
    assert all(parameter.grad is None for parameter in model.parameters())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_settings_come_back_after_an_error() -> None:
    model = tiny_llama(VOCABULARY)
    attention = model.config._attn_implementation
    with pytest.raises(RuntimeError, match="boom"), ready(model, low_memory=True):
        raise RuntimeError("boom")
    assert model.config._attn_implementation == attention
    assert not any(module.training for module in model.modules())


def test_training_runs_agree() -> None:
    model = tiny_llama(VOCABULARY)
    torch.manual_seed(0)
    first = start(torch.randn(SLOTS, 32))
    batches = [examples(16, seed) for seed in range(3)]
    runs = [
        train_prefix(
            model, first, lambda step: batches[step], config(steps=3, forward=name), pad_id=0
        )
        for name in ("padded", "packed")
    ]
    assert runs[1].losses == pytest.approx(runs[0].losses, rel=1e-4)
    torch.testing.assert_close(runs[1].state.prefix, runs[0].state.prefix, rtol=1e-3, atol=1e-3)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_compiled_softmax_and_layers_agree() -> None:
    model = tiny_llama(VOCABULARY)
    for seed in (0, 1):
        loss, grad = gradient(model, examples(16, seed), config())
        compiled_loss, compiled_grad = gradient(
            model, examples(16, seed), config(forward="packed", compile=True)
        )
        assert compiled_loss == pytest.approx(loss, rel=1e-5)
        torch.testing.assert_close(compiled_grad, grad, rtol=1e-4, atol=1e-6)
    assert all(layer._compiled_call_impl is None for layer in model.model.layers)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_what_is_compiled_ahead_serves_every_step() -> None:
    torch._dynamo.reset()
    model, how = tiny_llama(VOCABULARY), config(forward="packed", compile=True)
    compile_ahead(model, how, n=5)
    graphs = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    assert graphs > 0
    for seed in (0, 1):
        loss, grad = gradient(model, examples(16, seed), how)
        plain, plain_grad = gradient(model, examples(16, seed), config())
        assert loss == pytest.approx(plain, rel=1e-5)
        torch.testing.assert_close(grad, plain_grad, rtol=1e-4, atol=1e-6)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == graphs


def test_nothing_is_compiled_ahead_where_nothing_is_compiled() -> None:
    compile_ahead(None, config(forward="packed"), n=5)  # type: ignore[arg-type]
    compile_ahead(None, config(), n=5)  # type: ignore[arg-type]


@pytest.mark.parametrize("chunk", [100, 7])
def test_frozen_head_equals_autograd(chunk: int) -> None:
    torch.manual_seed(0)
    head = torch.nn.Linear(8, 50, bias=False).requires_grad_(False)
    hidden = torch.randn(20, 8)
    targets, weights = torch.randint(0, 50, (20,)), torch.rand(20)
    results = []
    for function in (head_cross_entropy, weighted_cross_entropy):
        leaf = hidden.clone().requires_grad_()
        loss = function(leaf, head, targets, weights, chunk=chunk)
        (loss * 3).backward()
        results.append((loss.detach(), leaf.grad))
    torch.testing.assert_close(results[0], results[1], rtol=1e-5, atol=1e-7)


def test_a_head_that_trains_keeps_its_gradient() -> None:
    head = torch.nn.Linear(8, 50, bias=False)
    hidden = torch.randn(4, 8, requires_grad=True)
    head_cross_entropy(hidden, head, torch.zeros(4).long(), torch.ones(4)).backward()
    assert head.weight.grad is not None
    given = head.weight.grad.clone()
    head.weight.grad = None
    weighted_cross_entropy(hidden, head, torch.zeros(4).long(), torch.ones(4)).backward()
    torch.testing.assert_close(given, head.weight.grad, rtol=1e-5, atol=1e-7)
    assert bool((given.norm(dim=1) > 0).all())


@pytest.mark.parametrize(
    ("on_gpu", "dtype", "built", "usable"),
    [
        (True, torch.bfloat16, True, True),
        (False, torch.bfloat16, True, False),
        (True, torch.float32, True, False),
        (True, torch.bfloat16, False, False),
    ],
)
def test_the_kernel_is_used_where_all_three_hold(
    on_gpu: bool, dtype: torch.dtype, built: bool, usable: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packed_model, "KERNEL", object() if built else None)
    states: Any = SimpleNamespace(is_cuda=on_gpu, dtype=dtype)
    assert packed_model.can_use_kernel(states) is usable


def _attend_2_10(query, key, bounds, *, is_causal=False, scale=None):  # type: ignore[no-untyped-def]
    return ("causal", is_causal)


def _attend_2_11(query, key, bounds, *, window_size=(-1, -1), scale=None):  # type: ignore[no-untyped-def]
    return ("window", window_size)


def _attend_2_13(query, *, window_size=(-1, -1), scale=None, enable_gqa=False):  # type: ignore[no-untyped-def]
    return ("window", window_size, enable_gqa)


def _attend_without_scale(query, *, window_size=(-1, -1)):  # type: ignore[no-untyped-def]
    raise AssertionError


@pytest.mark.parametrize(
    ("offered", "attended"),
    [
        (_attend_2_10, ("causal", True)),
        # Everything before a position and nothing behind it.
        (_attend_2_11, ("window", (-1, 0))),
        (_attend_2_13, ("window", (-1, 0), True)),
        (_attend_without_scale, None),
        (None, None),
    ],
)
def test_whatever_torch_offers_is_causal(
    offered: Any, attended: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = None if offered is None else SimpleNamespace(varlen_attn=offered)
    monkeypatch.setitem(sys.modules, "torch.nn.attention.varlen", module)
    kernel = packed_model._kernel()
    if attended is None:
        assert kernel is None
    else:
        assert kernel is not None
        assert kernel(*[None] * (1 if len(attended) == 3 else 3), scale=1.0) == attended


def test_a_layer_without_the_switch_cannot_be_checkpointed() -> None:
    model = tiny_llama(VOCABULARY)
    model.model.layers[0] = torch.nn.Identity()
    with pytest.raises(ValueError, match="cannot be checkpointed"), ready(model, low_memory=True):
        pass


@pytest.mark.parametrize("low_memory", [False, True])
def test_layers_are_compiled_once_or_their_parts_behind_checkpoints(
    monkeypatch: pytest.MonkeyPatch, low_memory: bool
) -> None:
    compiled: list[torch.nn.Module] = []

    def compile(module: torch.nn.Module, **how: Any) -> None:
        assert how["dynamic"]
        compiled.append(module)
        module._compiled_call_impl = module._call_impl

    monkeypatch.setattr(torch.nn.Module, "compile", compile)
    model = tiny_llama(VOCABULARY)
    layers = list(model.model.layers)
    parts = [
        part
        for layer in layers
        for part in (layer.mlp, layer.input_layernorm, layer.post_attention_layernorm)
    ]
    wanted = parts if low_memory else layers
    for _ in range(2):
        with ready(model, compiled=True, low_memory=low_memory):
            assert all(module._compiled_call_impl is not None for module in wanted)
        assert all(module._compiled_call_impl is None for module in model.modules())
    assert len(compiled) == len(wanted)
    assert {*map(id, compiled)} == {*map(id, wanted)}


def test_attention_refuses_dropout() -> None:
    states = torch.zeros(1, 1, 2, 4)
    with pytest.raises(AssertionError):
        packed_attention(torch.nn.Identity(), states, states, states, None, dropout=0.1)


def test_settings_that_would_do_nothing_are_refused() -> None:
    with pytest.raises(ValueError, match="unknown forward"):
        config(forward="sideways")
    with pytest.raises(ValueError, match="need forward='packed'"):
        config(compile=True)
