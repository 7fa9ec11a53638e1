"""The search is algorithm 1 of its paper: held against brute force where all texts can be tried."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import pytest
import torch

from kit.methods.defensive_tokens.adaptive.gcg import Kept, SearchSettings, Suffix, search, swaps
from kit.methods.defensive_tokens.adaptive.prompts import OpenPrompt
from tests.methods.defensive_tokens.adaptive import small


def settings(steps: int = 6, candidates: int = 4, top_k: int = 3, **more: object) -> SearchSettings:
    return SearchSettings(
        steps,
        candidates,
        top_k,
        measure_at=tuple(range(steps + 1)),
        **more,  # type: ignore[arg-type]
    )


EVERYTHING = settings(candidates=1000, top_k=1000)


def anything(item: int, suffix: Suffix) -> bool:
    return True


def run(
    given: SearchSettings, length: int = 3, slots: int = 0, seed: int = 0, **more: object
) -> tuple[list[OpenPrompt], list[list[Kept]]]:
    prompts = small.prompts(slots, length)
    objective = small.objective(small.model(seed), prompts, small.prefix() if slots else None)
    starts = torch.tensor([prompt.start for prompt in prompts])
    options = {"can_be_written": anything, **more}
    names = [f"i{number}" for number in range(len(prompts))]
    return prompts, search(objective, starts, names, given, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("seed", range(4))
def test_with_a_single_position_the_first_step_finds_the_best_of_all_texts(seed: int) -> None:
    prompts, found = run(EVERYTHING, length=1, seed=seed)
    model = small.model(seed)
    for prompt, points in zip(prompts, found, strict=True):
        losses = {t: float(small.plain_loss(model, prompt, [t])) for t in small.ALLOWED}
        best = min(losses, key=losses.__getitem__)
        assert points[1].suffix == (best,)
        assert points[1].loss == pytest.approx(losses[best], abs=1e-12)


@pytest.mark.parametrize("slots", [0, 3])
def test_every_step_goes_to_the_best_single_replacement(slots: int) -> None:
    """Written down directly: all neighbours of a text, each as a whole prompt."""
    prompts, found = run(EVERYTHING, slots=slots)
    model, vectors = small.model(), small.prefix() if slots else None
    for prompt, points in zip(prompts, found, strict=True):
        text, best = list(prompt.start), float("inf")
        for point in points[1:]:
            around = [
                [*text[:i], token, *text[i + 1 :]] for i in range(3) for token in small.ALLOWED
            ]
            losses = [float(small.plain_loss(model, prompt, t, vectors)) for t in around]
            text = around[losses.index(min(losses))]
            best = min(best, min(losses))
            assert point.loss == pytest.approx(best, abs=1e-12)


def test_an_exhaustive_search_ends_where_no_single_replacement_helps_and_not_below_the_best() -> (
    None
):
    prompts, found = run(settings(steps=12, candidates=1000, top_k=1000))
    model = small.model()
    reached = []
    for prompt, points in zip(prompts, found, strict=True):
        end = points[-1]
        losses = {
            text: float(small.plain_loss(model, prompt, text))
            for text in product(small.ALLOWED, repeat=3)
        }
        neighbours = [
            loss
            for text, loss in losses.items()
            if sum(a != b for a, b in zip(text, end.suffix, strict=True)) <= 1
        ]
        assert end.loss == pytest.approx(min(neighbours), abs=1e-12)
        assert end.loss >= min(losses.values()) - 1e-12
        reached.append(end.loss < losses[prompt.start])
    assert all(reached)


@pytest.mark.parametrize("seed", range(5))
def test_the_kept_loss_never_rises_and_is_that_of_the_kept_text(seed: int) -> None:
    prompts, found = run(settings(steps=10, candidates=2, top_k=2, seed=seed), slots=3)
    model, vectors = small.model(), small.prefix()
    for prompt, points in zip(prompts, found, strict=True):
        losses = [point.loss for point in points]
        assert losses == sorted(losses, reverse=True)
        for point in points:
            plain = float(small.plain_loss(model, prompt, point.suffix, vectors))
            assert point.loss == pytest.approx(plain, abs=1e-12)


def test_only_allowed_ids_and_only_writable_texts_are_kept() -> None:
    def no_fours(item: int, suffix: Suffix) -> bool:
        return 4 not in suffix

    _, free = run(EVERYTHING)
    assert any(4 in points[-1].suffix for points in free)
    _, found = run(EVERYTHING, can_be_written=no_fours)
    for points in found:
        assert all(4 not in point.suffix for point in points)
        assert set(points[-1].suffix) <= set(small.ALLOWED)


def test_where_nothing_can_be_written_the_start_stays() -> None:
    prompts, found = run(settings(), can_be_written=lambda item, suffix: False)
    assert [points[-1].suffix for points in found] == [prompt.start for prompt in prompts]


def test_an_item_that_works_is_searched_no_further() -> None:
    asked: list[list[int]] = []

    def second(pairs: Sequence[tuple[int, Suffix]]) -> list[bool]:
        asked.append([item for item, _ in pairs])
        return [item == 1 for item, _ in pairs]

    _, found = run(settings(stop=True), works=second)
    assert asked == [[0, 1, 2]] + [[0, 2]] * 6
    assert len({point.suffix for point in found[1]}) == 1
    assert [point.step for point in found[1]] == list(range(7))
    _, unstopped = run(settings(), works=second)
    assert [found[i] for i in (0, 2)] == [unstopped[i] for i in (0, 2)]


def test_draws_depend_on_the_item_and_the_seed_alone() -> None:
    prompts = small.prompts()
    together = run(settings(steps=4))[1]
    objective = small.objective(small.model(), prompts[1:2])
    starts = torch.tensor([prompts[1].start])
    (alone,) = search(objective, starts, ["i1"], settings(steps=4), can_be_written=anything)
    assert [p.suffix for p in alone] == [p.suffix for p in together[1]]
    other = run(settings(steps=4, seed=1))[1]
    assert [p.suffix for p in other[1]] != [p.suffix for p in together[1]]


def test_drawn_texts_differ_in_a_single_token_from_the_best_replacements() -> None:
    top, suffix = torch.tensor([[2, 3], [4, 5], [6, 1]]), torch.tensor([1, 1, 1])
    drawn = swaps(top, suffix, 5, torch.Generator().manual_seed(0))
    assert drawn.shape == (5, 3)
    for text in drawn.tolist():
        changed = [i for i, token in enumerate(text) if token != 1]
        assert len(changed) <= 1
        assert all(text[i] in top[i].tolist() for i in changed)
    every = swaps(top, suffix, 6, torch.Generator())
    assert len({tuple(text) for text in every.tolist()}) == 6


def test_positions_and_replacements_are_drawn_uniformly() -> None:
    top = torch.arange(10, 34).view(4, 6)
    generator, suffix = torch.Generator().manual_seed(1), torch.zeros(4, dtype=torch.long)
    drawn = torch.cat([swaps(top, suffix, 23, generator) for _ in range(240)])
    counts, expected = torch.bincount(drawn.sum(dim=1), minlength=34)[10:].float(), 23 * 240 / 24
    # Chi square with 23 degrees of freedom: 49.7 is its 99.9 % point.
    assert float(((counts - expected) ** 2 / expected).sum()) < 49.7


def test_a_search_that_tries_nothing_or_hides_its_end_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        SearchSettings(0, 1, 1, (0,))
    with pytest.raises(ValueError, match="rise from 0"):
        SearchSettings(2, 1, 1, (2, 1))
    with pytest.raises(ValueError, match="last"):
        SearchSettings(2, 1, 1, (0, 1))


def test_queries_count_every_loss_and_every_gradient() -> None:
    assert SearchSettings(10, 32, 8, (0, 1, 10)).queries == (0, 33, 330)
