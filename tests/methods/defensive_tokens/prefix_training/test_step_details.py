"""Which way a step goes: the short way of a plain head, what is compiled, when is looked."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from kit.methods.defensive_tokens.adaptive.suffix_loss import SuffixLoss
from kit.methods.defensive_tokens.prefix_training import loss as losses
from kit.methods.defensive_tokens.prefix_training import packed as packing
from kit.methods.defensive_tokens.prefix_training import tuning
from kit.methods.defensive_tokens.prefix_training.checkpoints import Checkpoints
from kit.methods.defensive_tokens.prefix_training.config import PrefixTraining
from kit.methods.defensive_tokens.prefix_training.frozen_head import head_cross_entropy
from kit.methods.defensive_tokens.prefix_training.packed_model import ready
from kit.methods.defensive_tokens.prefix_training.state import start
from kit.train.batching import Example
from kit.train.errors import TrainingDiverged
from kit.train.losses import weighted_cross_entropy
from tests.lm.tiny_world import tiny_llama
from tests.methods.defensive_tokens.adaptive import small
from tests.methods.defensive_tokens.prefix_training.prefix_cases import (
    WIDTH,
    N,
    V,
    examples,
    initial,
    steps_of,
)


class Doubling(torch.nn.Linear):
    """A linear layer that is no plain one."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return 2 * super().forward(input)


@pytest.mark.parametrize(
    ("kind", "bias", "trained", "short"),
    [
        (torch.nn.Linear, False, False, True),
        (torch.nn.Linear, True, False, False),
        (Doubling, False, False, False),
        (torch.nn.Linear, False, True, False),
        (Doubling, True, True, False),
    ],
)
def test_only_a_plain_frozen_head_goes_the_short_way_and_all_give_the_same(
    kind: type[torch.nn.Linear], bias: bool, trained: bool, short: bool
) -> None:
    torch.manual_seed(0)
    head = kind(6, 9, bias=bias).requires_grad_(trained)
    targets, weights = torch.randint(0, 9, (5,)), torch.rand(5)
    made = []
    for function in (head_cross_entropy, weighted_cross_entropy):
        hidden = torch.ones(5, 6).cumsum(0).requires_grad_()
        loss = function(hidden, head, targets, weights)
        loss.backward()
        made.append((loss.detach(), hidden.grad))
        if function is head_cross_entropy:
            assert ("FrozenHead" in loss.grad_fn.name()) is short  # type: ignore[union-attr]
    torch.testing.assert_close(made[0], made[1])


def config(**changes: Any) -> PrefixTraining:
    return replace(PrefixTraining(steps=1, micro_batch=2, accumulation=3), **changes)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What compiling ahead would compute."""
    calls: list[Any] = []
    monkeypatch.setattr(
        losses, "accumulate", lambda *given, pad_id: calls.append(SimpleNamespace(given=given))
    )
    return calls


@pytest.mark.parametrize(("precision", "kind"), [("float32", "float32"), ("table", "bfloat16")])
def test_what_is_compiled_ahead_is_a_step_of_documented_lengths(
    asked: list[Any], precision: str, kind: str
) -> None:
    model = tiny_llama(V).to(torch.bfloat16)
    how = PrefixTraining(
        steps=1, forward="packed", compile=True, precision=precision, micro_batch=4, accumulation=4
    )
    losses.compile_ahead(model, how, n=5)
    ((_, prefix, made, settings),) = [call.given for call in asked]
    assert settings is how
    assert prefix.shape == (5, WIDTH)
    assert prefix.dtype is getattr(torch, kind)
    assert prefix.requires_grad
    assert len(made) == 16
    assert all(example.ids[:5] == (V, V + 1, V + 2, V + 3, V + 4) for example in made)
    assert all(0 <= token < V for example in made for token in example.ids[5:])
    # defensive_tokens.md, 2.1: 107 prompt tokens and 193 label tokens on average.
    lengths = [len(example.ids) for example in made]
    prompts = [example.prompt_length for example in made]
    assert len(set(lengths)) == len(set(prompts)) == 16
    assert sum(lengths) / 16 == pytest.approx(300, abs=8)
    assert sum(prompts) / 16 == pytest.approx(107, abs=1)


@pytest.mark.parametrize(
    ("forward", "compiled", "calls"),
    [("packed", True, 1), ("packed", False, 0), ("padded", False, 0)],
)
def test_only_what_is_compiled_is_compiled_ahead(
    asked: list[Any], forward: str, compiled: bool, calls: int
) -> None:
    how = config(forward=forward, compile=compiled)
    losses.compile_ahead(tiny_llama(V), how, n=2)
    assert len(asked) == calls


@pytest.mark.parametrize(("precision", "sizes"), [("float32", [6]), ("table", [2, 2, 2])])
def test_gradients_are_rounded_after_each_micro_batch_only_as_rows_of_a_table(
    monkeypatch: pytest.MonkeyPatch, precision: str, sizes: list[int]
) -> None:
    given = []

    def recorded(
        model: Any, prefix: Any, some: Sequence[Example], *rest: Any
    ) -> Iterator[torch.Tensor]:
        given.append([example.id for example in some])
        yield (prefix * len(some)).sum()

    monkeypatch.setattr(losses, "_losses", recorded)
    prefix = torch.ones(1, 1, requires_grad=True)
    whole = examples(6)
    value = losses.accumulate(tiny_llama(V), prefix, whole, config(precision=precision), pad_id=0)
    assert [len(ids) for ids in given] == sizes
    assert [id for ids in given for id in ids] == [example.id for example in whole]
    assert value == 6
    assert prefix.grad is not None
    assert float(prefix.grad) == 6


@pytest.mark.parametrize(
    ("precision", "together"),
    [("float32", [["e-1", "e-3"], ["e-0", "e-2"]]), ("table", [["e-0", "e-1"], ["e-2", "e-3"]])],
)
def test_examples_of_like_lengths_share_a_padded_pass_unless_each_is_rounded(
    monkeypatch: pytest.MonkeyPatch, precision: str, together: list[list[str]]
) -> None:
    lengths = (9, 4, 8, 5)
    made = [Example(f"e-{i}", (*range(V, V + N), *[3] * n), N + 1) for i, n in enumerate(lengths)]
    seen: list[list[str]] = []

    def noted(some: Sequence[Example], *rest: Any) -> Any:
        seen.append(sorted(example.id for example in some))
        return losses_collate(some, *rest)

    losses_collate = losses.collate
    monkeypatch.setattr(losses, "collate", noted)
    prefix = initial().requires_grad_()
    how = config(precision=precision, forward_rows=2)
    list(losses._losses(tiny_llama(V), prefix, made, [1.0] * 4, how, 0))
    assert sorted(map(tuple, seen)) == sorted(map(tuple, together))


@pytest.mark.parametrize(
    ("low_memory", "chunk", "used"),
    [(False, 4096, 4096), (True, 4096, 512), (True, 100, 100), (False, 100, 100)],
)
def test_scores_of_fewer_labels_exist_at_once_where_memory_is_low(
    monkeypatch: pytest.MonkeyPatch, low_memory: bool, chunk: int, used: int
) -> None:
    chunks = []

    def noted(*given: Any, chunk: int, compiled: bool) -> torch.Tensor:
        chunks.append(chunk)
        return torch.zeros(())

    monkeypatch.setattr(packing, "packed_loss", noted)
    list(
        packing.packed_losses(
            tiny_llama(V), initial(), examples(2), [1.0] * 2, chunk=chunk, low_memory=low_memory
        )
    )
    assert chunks == [used]


def test_a_slot_without_a_vector_in_any_example_is_an_error() -> None:
    good, bad = Example("a", (V, 1, 5, 6), 2), Example("b", (1, V + N, 5, 6), 2)
    for some in ([good, bad], [bad, good]):
        with pytest.raises(ValueError, match=f"slot beyond the {N} vectors"):
            list(packing.packed_losses(tiny_llama(V), initial(), some, [1.0] * 2))
    last = Example("c", (V + N - 1, 1, 5, 6), 2)
    assert len(list(packing.packed_losses(tiny_llama(V), initial(), [last], [1.0]))) == 1


@pytest.mark.parametrize(("low_memory", "times"), [(False, 1), (True, 2)])
def test_low_memory_computes_the_layers_again_in_the_backward_pass(
    low_memory: bool, times: int
) -> None:
    model = tiny_llama(V)
    calls: list[int] = []
    for number, layer in enumerate(model.model.layers):
        layer.mlp.register_forward_pre_hook(lambda *_, number=number: calls.append(number))
    rows = torch.randn(1, 4, WIDTH, requires_grad=True)
    with ready(model, low_memory=low_memory):
        states = model.model(
            inputs_embeds=rows,
            attention_mask=packing.block_causal_mask(torch.tensor([0, 4])),
            position_ids=torch.arange(4)[None],
            use_cache=False,
        ).last_hidden_state
        states.sum().backward()
    assert sorted(calls) == sorted([*range(2)] * times)


def train(how: PrefixTraining, kept: list[int]) -> Any:
    return tuning.train_prefix(
        tiny_llama(V),
        start(initial()),
        steps_of(examples(6), how.batch),
        how,
        pad_id=0,
        on_checkpoint=lambda state: kept.append(state.step),
    )


@pytest.mark.parametrize(
    ("tick", "kept"), [(14.9, [2]), (15.0, [1, 2]), (30.0, [1, 2]), (29.9, [1, 2]), (7.0, [])]
)
def test_a_state_is_kept_as_soon_as_the_time_is_up(
    monkeypatch: pytest.MonkeyPatch, tick: float, kept: list[int]
) -> None:
    now, at = [0.0], []

    def later() -> float:
        now[0] += tick  # from one look at the clock to the next
        return now[0]

    monkeypatch.setattr(tuning.time, "monotonic", later)
    monkeypatch.setattr(tuning, "KEEP_SECONDS", 15.0)
    train(config(steps=2), at)
    assert at == kept


@pytest.mark.parametrize(
    ("looks", "wanted", "seconds", "at_once"),
    [
        (True, (), 1e9, True),
        (False, (1,), 1e9, True),
        (False, (), 0.0, True),
        (False, (2,), 1e9, False),
        (False, (0, 3), 1e9, False),
    ],
)
def test_an_infinite_prefix_is_seen_before_it_is_kept(
    monkeypatch: pytest.MonkeyPatch,
    looks: bool,
    wanted: tuple[int, ...],
    seconds: float,
    at_once: bool,
) -> None:
    monkeypatch.setattr(tuning, "_looking_is_free", lambda prefix: looks)
    monkeypatch.setattr(tuning, "KEEP_SECONDS", seconds)
    kept: list[int] = []
    with pytest.raises(TrainingDiverged) as stopped:
        train(config(steps=3, learning_rate=1e37, checkpoint_steps=wanted), kept)
    assert (stopped.value.step == 0) is at_once
    assert [step for step in kept if step] == []


@pytest.mark.parametrize(("target", "allowed"), [((), (1,)), ((1,), ()), ((), ())])
def test_a_search_without_a_target_or_without_ids_is_refused(
    target: tuple[int, ...], allowed: tuple[int, ...]
) -> None:
    with pytest.raises(ValueError, match="a target and ids"):
        SuffixLoss(small.model(), small.prompts(), target, prefix=None, pad_id=0, allowed=allowed)


@pytest.mark.parametrize(("device", "free"), [("cpu", True), ("meta", False)])
def test_looking_at_a_prefix_waits_for_nothing_on_a_cpu(device: str, free: bool) -> None:
    assert tuning._looking_is_free(torch.zeros(1, device=device)) is free


def test_a_training_that_goes_on_leaves_the_state_that_it_began_from_alone() -> None:
    first = train(config(steps=1), [])
    begun = first.state
    before = {name: tensor.clone() for name, tensor in begun.tensors().items()}
    how = config(steps=3)
    given = (tiny_llama(V), begun, steps_of(examples(6), how.batch), how)
    gone_on = tuning.train_prefix(*given, pad_id=0)
    assert gone_on.state.step == 3
    for name, tensor in begun.tensors().items():
        assert torch.equal(tensor, before[name])
    assert not torch.equal(gone_on.state.exp_avg, begun.exp_avg)
    assert not torch.equal(gone_on.state.exp_avg_sq, begun.exp_avg_sq)


def test_losses_come_in_the_order_of_their_steps(tmp_path: Path) -> None:
    kept = Checkpoints(tmp_path)
    for step in (2, 1, 3):
        kept.on_step(step, float(step))
    assert kept.losses() == [1.0, 2.0, 3.0]
