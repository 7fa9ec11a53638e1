"""The searched loss is the model's own, its gradient that of the one-hot vectors."""

from __future__ import annotations

import pytest
import torch

from kit.lm.model import embedding_matrix
from kit.methods.defensive_tokens.adaptive.prompts import OpenPrompt
from tests.methods.defensive_tokens.adaptive import small

SUFFIXES = torch.tensor([[1, 2, 3], [6, 5, 4], [2, 2, 6]])
ITEMS = torch.arange(3)


@pytest.mark.parametrize("slots", [0, 3])
@pytest.mark.parametrize("use_cache", [True, False])
def test_the_loss_is_that_of_the_whole_prompt(slots: int, use_cache: bool) -> None:
    model, vectors = small.model(), small.prefix() if slots else None
    prompts = small.prompts(slots)
    made = small.objective(model, prompts, vectors, use_cache=use_cache).losses(ITEMS, SUFFIXES)
    wanted = [
        small.plain_loss(model, prompt, suffix.tolist(), vectors)
        for prompt, suffix in zip(prompts, SUFFIXES, strict=True)
    ]
    torch.testing.assert_close(made, torch.stack(wanted), rtol=0, atol=1e-12)


def test_what_is_computed_beside_a_suffix_and_in_which_order_changes_nothing() -> None:
    model, prompts = small.model(), small.prompts()
    items, suffixes = torch.tensor([2, 0, 2, 1, 0]), SUFFIXES[[0, 1, 2, 0, 0]]
    made = small.objective(model, prompts).losses(items, suffixes)
    narrow = small.objective(model, prompts, rows=2).losses(items, suffixes)
    alone = [
        small.objective(model, [prompts[i]]).losses(torch.zeros(1, dtype=torch.long), row[None])
        for i, row in zip(items.tolist(), suffixes, strict=True)
    ]
    torch.testing.assert_close(narrow, made, rtol=0, atol=1e-12)
    torch.testing.assert_close(torch.cat(alone), made, rtol=0, atol=1e-12)


def test_without_a_prefix_it_is_the_plain_model_and_a_prefix_changes_it() -> None:
    model = small.model()
    plain = small.objective(model, small.prompts()).losses(ITEMS, SUFFIXES)
    empty = torch.zeros(0, small.WIDTH, dtype=torch.float64)
    assert torch.equal(
        small.objective(model, small.prompts(), empty).losses(ITEMS, SUFFIXES), plain
    )
    guarded = small.objective(model, small.prompts(3), small.prefix()).losses(ITEMS, SUFFIXES)
    assert (guarded - plain).abs().min() > 1e-3


def test_the_prefix_is_read_at_the_positions_where_it_stands() -> None:
    """Slots in front of the begin token are other prompts than slots behind it, or in turn."""
    model, vectors, suffix = small.model(), small.prefix(2), SUFFIXES[:1]
    item = torch.zeros(1, dtype=torch.long)
    losses = []
    for before in ((11, 12, 10, 2), (10, 11, 12, 2), (12, 11, 10, 2)):
        prompt = OpenPrompt(small.NOBODY, "", before, (1, 1, 1), small.AFTER)
        made = small.objective(model, [prompt], vectors).losses(item, suffix)
        wanted = small.plain_loss(model, prompt, suffix[0].tolist(), vectors)
        torch.testing.assert_close(made[0], wanted, rtol=0, atol=1e-12)
        losses.append(float(made))
    assert len({round(loss, 6) for loss in losses}) == 3


@pytest.mark.parametrize("slots", [0, 3])
def test_the_gradient_is_that_of_the_one_hot_vectors_by_finite_differences(slots: int) -> None:
    model, vectors = small.model(), small.prefix() if slots else None
    prompts = small.prompts(slots)
    objective = small.objective(model, prompts, vectors)
    gradient = objective.gradient(ITEMS, SUFFIXES)
    assert gradient.shape == (3, 3, len(small.ALLOWED))
    table, step = embedding_matrix(model), 1e-5
    for item in range(3):
        for position in range(3):
            for column, token in enumerate(small.ALLOWED):
                one_hot = torch.nn.functional.one_hot(SUFFIXES[item], small.VOCABULARY).double()
                ends = []
                for sign in (1, -1):
                    moved = one_hot.clone()
                    moved[position, token] += sign * step
                    rows = (moved @ table)[None]
                    ends.append(objective._of_embeddings(ITEMS[item : item + 1], rows))
                wanted = (ends[0] - ends[1]) / (2 * step)
                torch.testing.assert_close(
                    gradient[item, position, column], wanted[0], rtol=1e-6, atol=1e-8
                )


def test_gradients_reach_no_weight_and_no_neighbour() -> None:
    model = small.model()
    objective = small.objective(model, small.prompts())
    together = objective.gradient(ITEMS, SUFFIXES)
    assert all(weight.grad is None for weight in model.parameters())
    alone = torch.cat([objective.gradient(ITEMS[i : i + 1], SUFFIXES[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(alone, together, rtol=0, atol=1e-12)


def test_prompts_that_go_on_differently_are_refused() -> None:
    first, *rest = small.prompts()
    other = OpenPrompt(small.NOBODY, "", first.before, first.start, (7,))
    with pytest.raises(ValueError, match="go on differently"):
        small.objective(small.model(), [other, *rest])
