"""Packed training on a GPU: bf16 gradients are as near to the fp32 ones as the padded path's."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

from kit.methods.defensive_tokens.prefix_training.config import PrefixTraining
from kit.methods.defensive_tokens.prefix_training.loss import accumulate
from kit.methods.defensive_tokens.prefix_training.packed_model import ready
from kit.train.batching import Example
from tests.lm.tiny_world import tiny_llama

pytestmark = [pytest.mark.gpu, pytest.mark.filterwarnings("ignore")]
SLOTS, VOCABULARY, WIDTH = 5, 1024, 512


@pytest.fixture(scope="module")
def model() -> Any:
    wide = tiny_llama(
        VOCABULARY,
        hidden_size=WIDTH,
        intermediate_size=1024,
        num_hidden_layers=4,
        num_attention_heads=8,
        num_key_value_heads=2,
        initializer_range=0.05,
    )
    return wide.to("cuda", torch.bfloat16)


def examples() -> list[Example]:
    generator = torch.Generator().manual_seed(0)

    def draw(low: int, high: int, count: int = 1) -> list[int]:
        return torch.randint(low, high, (count,), generator=generator).tolist()  # type: ignore[no-any-return]

    made = []
    for i in range(16):
        body = draw(3, VOCABULARY, draw(20, 400)[0])
        ids = (*range(VOCABULARY, VOCABULARY + SLOTS), 1, *body)
        made.append(Example(f"e{i}", ids, SLOTS + 1 + len(body) // 3))
    return made


def gradient(model: Any, **changes: Any) -> torch.Tensor:
    torch.manual_seed(1)
    prefix = torch.nn.Parameter(torch.randn(SLOTS, WIDTH).cuda())
    accumulate(model, prefix, examples(), PrefixTraining(1, **changes), pad_id=0)
    assert prefix.grad is not None
    return prefix.grad


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"low_memory": True},
        {"compile": True},
        {"compile": True, "low_memory": True},
        {"label_chunk": 100},
        {"forward_rows": 5},
    ],
)
def test_packed_is_as_exact_as_padded(model: Any, changes: dict[str, Any]) -> None:
    weights = [p.clone() for p in model.parameters()]
    exact = gradient(copy.deepcopy(model).float(), forward_rows=1)
    padded = (gradient(model, forward_rows=1) - exact).norm() / exact.norm()
    packed = (gradient(model, forward="packed", **changes) - exact).norm() / exact.norm()
    # A fixed bound was met by chance or not: rounding differs from call to call.
    assert float(packed) < max(1.5 * float(padded), 0.02)
    assert all(torch.equal(a, b) for a, b in zip(weights, model.parameters(), strict=True))
    assert all(p.grad is None for p in model.parameters())


def test_fp32_on_a_gpu_takes_the_mask_and_is_exact(model: Any) -> None:
    wide = copy.deepcopy(model).float()
    torch.testing.assert_close(
        gradient(wide, forward="packed"), gradient(wide), rtol=1e-3, atol=1e-5
    )


def test_examples_are_isolated_in_the_kernel(model: Any) -> None:
    states = torch.randn(1, 60, WIDTH, device="cuda", dtype=torch.bfloat16)
    changed = states.clone()
    changed[:, :20] = torch.randn_like(changed[:, :20])
    bounds = torch.tensor([0, 20, 60], dtype=torch.int32, device="cuda")
    positions = torch.cat([torch.arange(20), torch.arange(40)])[None].cuda()

    def last(embeds: torch.Tensor) -> torch.Tensor:
        with ready(model), torch.no_grad():
            return model.model(  # type: ignore[no-any-return]
                inputs_embeds=embeds,
                position_ids=positions,
                use_cache=False,
                cu_seq_lens_q=bounds,
                max_length_q=40,
            ).last_hidden_state[:, 20:]

    assert torch.equal(last(states), last(changed))
