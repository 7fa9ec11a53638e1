"""Compiled layers: which ones, that hooks still see them, and that numbers stay."""

from __future__ import annotations

import json
import subprocess
import sys
from functools import partial

import pytest
import torch

from kit.lm.hidden import block_outputs
from kit.lm.model import decoder_layers
from kit.train.compiling import compiled_layers
from kit.train.lora import Lora, adapter_names, add_adapter
from tests.methods.checkpoint_transfer.tiny import batch, model

# The compiler looks at the gradient of every tensor that it meets.
pytestmark = pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Everything of the compiler but the making of kernels; what was given to it."""
    real, given = torch.compile, []

    def traced(function, **how):
        given.append(function)
        return real(function, backend="aot_eager", **how)

    monkeypatch.setattr(torch, "compile", traced)
    torch._dynamo.reset()
    return given


def gradients(adapted, ids, mask, blocks) -> dict[str, torch.Tensor]:
    adapted.zero_grad()
    states = block_outputs(adapted, ids, mask, blocks)
    sum(value.float().square().mean() for value in states.values()).backward()
    return {n: p.grad.clone() for n, p in adapted.named_parameters() if p.grad is not None}


def test_states_and_gradients_are_those_of_the_plain_layers(quick) -> None:
    """Of the layers 1 to 2 of 4; 0 starts, and 3 has no adapter. Hooks read compiled layers."""
    adapted = add_adapter(
        model(0, "gpt_neox"), Lora(4, 4.0, ("query_key_value",), (0, 1, 2)), seed=0
    )
    for name in adapter_names(adapted):
        if "lora_B" in name:
            torch.nn.init.normal_(adapted.get_parameter(name), std=0.1)
    compute = partial(gradients, adapted, *batch(3), [1, 2])
    plain = compute()
    with compiled_layers(adapted):
        compiled = compute()
        again = compute()
    assert [function.__self__ for function in quick] == list(decoder_layers(adapted))[1:3]
    assert compiled.keys() == plain.keys()
    for name, value in plain.items():
        torch.testing.assert_close(compiled[name], value, rtol=1e-4, atol=1e-6, msg=name)
        torch.testing.assert_close(again[name], value, rtol=1e-4, atol=1e-6, msg=name)
    assert not any("forward" in vars(layer) for layer in decoder_layers(adapted))


def test_all_layers_and_both_losses_share_a_graph_and_other_lengths_another(quick) -> None:
    from torch._dynamo.utils import counters

    adapted = add_adapter(
        model(0, "gpt_neox"), Lora(4, 4.0, ("query_key_value",), (0, 1, 2)), seed=0
    )
    counters.clear()
    graphs = []
    with compiled_layers(adapted):
        for length in (9, 9, 7, 8, 9):
            ids, _ = batch(3, length=length)
            gradients(adapted, ids, torch.ones_like(ids, dtype=torch.bool), [2])
            adapted(input_ids=ids, use_cache=False).logits.sum().backward()
            graphs.append(counters["stats"]["unique_graphs"])
    assert graphs == [1, 1, 2, 2, 2]


def test_passes_without_gradients_are_left_alone(quick) -> None:
    from torch._dynamo.utils import counters

    adapted = add_adapter(model(0, "gpt_neox"), Lora(4, 4.0), seed=0)
    counters.clear()
    with compiled_layers(adapted), torch.no_grad():
        block_outputs(adapted, *batch(3), [2])
    assert counters["stats"]["unique_graphs"] == 0


def test_one_graph_serves_all_layers_of_a_sharded_model() -> None:
    """12 layers under ZeRO-3 and fully_shard: a graph a layer would stop at dynamo's limit, 8."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "tests.train.compiled_graphs"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    made = json.loads(done.stdout.splitlines()[-1])
    assert made == {name: {"graphs": 1, "breaks": 0} for name in ("zero-3", "fsdp")}
