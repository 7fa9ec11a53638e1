"""Greedy generation: independent of cache, batch and padding; ties, stops, limits."""

from __future__ import annotations

import random

import pytest
import torch

from kit.lm import generate
from kit.lm.backend import Generation
from kit.lm.generate import TransformersBackend
from kit.lm.padding import left_pad
from tests.lm.tiny_world import tiny_llama

V = 64
STOP = 2


def prompts(count, seed=0, *, slots=0):
    rng = random.Random(seed)
    return [
        [*range(V, V + slots), 1, *(rng.randrange(3, V) for _ in range(rng.randint(1, 14)))]
        for _ in range(count)
    ]


def run(model, wanted, *, prefix=None, max_new_tokens=8, stop=(STOP,), banned=(), **settings):
    return TransformersBackend(model, 0, **settings).generate(
        wanted, prefix=prefix, max_new_tokens=max_new_tokens, stop_ids=stop, banned_ids=banned
    )


def reference(model, prompt, max_new_tokens, prefix=None):
    """Token by token, one prompt, no cache, no padding, the model's own embedding call."""
    table = model.get_input_embeddings().weight
    table = table if prefix is None else torch.cat([table, prefix])
    ids, new = list(prompt), []
    for _ in range(max_new_tokens):
        with torch.no_grad():
            logits = model(inputs_embeds=table[torch.tensor([ids])]).logits[0, -1]
        token = int(logits.argmax())
        if token == STOP:
            return Generation(tuple(new), "stop")
        new.append(token)
        ids.append(token)
    return Generation(tuple(new), "length")


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_equals_the_plain_loop(seed):
    model, wanted = tiny_llama(V, seed=seed), prompts(12, seed)
    assert run(model, wanted) == [reference(model, p, 8) for p in wanted]


def test_equals_the_plain_loop_with_a_prefix():
    model, wanted = tiny_llama(V), prompts(12, slots=3)
    prefix = torch.randn(3, 32)
    got = run(model, wanted, prefix=prefix)
    assert got == [reference(model, p, 8, prefix) for p in wanted]


@pytest.mark.parametrize("max_batch", [1, 2, 7, 64])
@pytest.mark.parametrize("use_cache", [True, False])
def test_batch_size_and_cache_do_not_matter_in_fp32(max_batch, use_cache):
    model, wanted = tiny_llama(V, seed=3), prompts(40, 3, slots=2)
    prefix = torch.randn(2, 32, generator=torch.Generator().manual_seed(0))
    expected = run(model, wanted, prefix=prefix, max_batch=1, use_cache=False)
    assert run(model, wanted, prefix=prefix, max_batch=max_batch, use_cache=use_cache) == expected
    assert len({g.finish_reason for g in expected}) == 2, "the test should see both reasons"


def test_a_small_token_budget_only_changes_the_batches():
    model, wanted = tiny_llama(V), prompts(20)
    assert run(model, wanted, max_tokens=1) == run(model, wanted)


def test_batches_respect_both_bounds_and_hold_every_prompt_once():
    wanted = prompts(50, 5)
    backend = TransformersBackend(tiny_llama(V), 0, max_batch=6, max_tokens=40)
    batches = backend._batches(wanted, [1] * len(wanted))
    assert sorted(i for batch in batches for i in batch) == list(range(50))
    for batch in batches:
        longest = max(len(wanted[i]) for i in batch)
        assert len(batch) <= 6
        assert len(batch) == 1 or len(batch) * longest <= 40


def test_batches_keep_scores_within_a_bound(monkeypatch):
    """Long continuations have scores for every token: they share a batch with fewer others."""
    monkeypatch.setattr(generate, "MOST_SCORES", 12 * V)
    wanted, scored = prompts(50, 5), [1 + i % 5 for i in range(50)]
    batches = TransformersBackend(tiny_llama(V), 0)._batches(wanted, scored)
    assert sorted(i for batch in batches for i in batch) == list(range(50))
    for batch in batches:
        assert len(batch) * max(scored[i] for i in batch) <= 12


def test_matches_transformers_generate():
    model, wanted = tiny_llama(V, seed=4), prompts(6, 4)
    for prompt, ours in zip(wanted, run(model, wanted, max_new_tokens=6), strict=True):
        ids = torch.tensor([prompt])
        theirs = model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=6,
            do_sample=False,
            eos_token_id=STOP,
            pad_token_id=0,
        )[0, len(prompt) :].tolist()
        assert [i for i in theirs if i != STOP] == list(ours.ids)


def test_the_lowest_of_equally_scored_ids_wins():
    model = tiny_llama(V)
    with torch.no_grad():
        model.lm_head.weight[:] = 0.0
    (generation,) = run(model, [[1, 5]], max_new_tokens=2)
    assert generation == Generation((0, 0), "length")
    (banned,) = run(model, [[1, 5]], max_new_tokens=2, banned=[0, 1])
    assert banned == Generation((), "stop"), "with 0 and 1 banned, 2 is the lowest: the stop token"


def test_banned_ids_are_never_produced_and_unknown_ones_ignored():
    model, wanted = tiny_llama(V), prompts(10)
    free = {i for g in run(model, wanted) for i in g.ids}
    banned = sorted(free)[:3]
    got = run(model, wanted, banned=[*banned, V + 1, -1])
    assert not set(banned) & {i for g in got for i in g.ids}


def test_limit_of_one_token():
    model, wanted = tiny_llama(V), prompts(10)
    for generation in run(model, wanted, max_new_tokens=1):
        assert generation.finish_reason == "stop" or len(generation.ids) == 1


def test_any_of_several_stop_tokens_ends_a_row():
    model, wanted = tiny_llama(V), prompts(10)
    plain = run(model, wanted, stop=())
    stop = {g.ids[1] for g in plain}
    for generation, unstopped in zip(run(model, wanted, stop=stop), plain, strict=True):
        assert not stop & set(generation.ids)
        assert unstopped.ids[: len(generation.ids)] == generation.ids


def test_no_prompts_give_no_generations():
    assert run(tiny_llama(V), []) == []


def test_left_padding_and_mask():
    ids, mask = left_pad([[5], [6, 7]], 0, torch.device("cpu"))
    assert ids.tolist() == [[0, 5], [6, 7]]
    assert mask.tolist() == [[False, True], [True, True]]


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"max_batch": 0}, "at least 1"), ({"max_tokens": 0}, "at least 1")],
)
def test_bounds_must_be_positive(settings, message):
    with pytest.raises(ValueError, match=message):
        TransformersBackend(tiny_llama(V), 0, **settings)


def test_the_padding_id_must_be_in_the_vocabulary():
    with pytest.raises(ValueError, match="not in the vocabulary"):
        TransformersBackend(tiny_llama(V), V)


def test_bad_requests_are_refused():
    with pytest.raises(ValueError, match="empty prompt"):
        run(tiny_llama(V), [[1], []])
    with pytest.raises(ValueError, match="max_new_tokens"):
        run(tiny_llama(V), [[1]], max_new_tokens=0)


def test_vocabulary_size_is_the_first_slot():
    assert TransformersBackend(tiny_llama(V), 0).vocabulary_size == V


def test_a_prompt_beyond_the_model_s_positions_is_refused_before_it_costs_memory():
    model = tiny_llama(V)
    limit = model.config.max_position_embeddings
    fits, too_long = [1] * (limit - 8), [1] * 2_000_000
    with pytest.raises(ValueError, match=f"prompt 1 has 2,000,000 tokens .* takes {limit:,}"):
        run(model, [[1, 5], too_long])
    assert len(run(model, [fits])) == 1
    with pytest.raises(ValueError, match="prompt 0 has"):
        run(model, [[*fits, 1]])
