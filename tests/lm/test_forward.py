"""Each architecture by its own forward pass: scores, text, log-likelihoods, and the short way."""

from __future__ import annotations

import pytest
import torch

from kit.lm.forward import last_scores, unlike_plain_attention, unlike_plain_head
from kit.lm.generate import TransformersBackend
from kit.lm.model import decoder
from tests.lm.families import FAMILIES, VOCABULARY, WINDOW, tiny

STOP = 2
# Longer than the sliding windows, and of different lengths.
LENGTHS = (3, 2 * WINDOW + 3, 5, 2 * WINDOW)


def prompts(seed=0):
    rng = torch.Generator().manual_seed(seed)
    return [[1, *torch.randint(3, VOCABULARY, (n,), generator=rng).tolist()] for n in LENGTHS]


@pytest.mark.parametrize("use_cache", [True, False])
@pytest.mark.parametrize("name", FAMILIES)
def test_greedy_text_is_that_of_transformers(name, use_cache):
    model = tiny(name, seed=4)
    wanted = prompts()
    ours = TransformersBackend(model, 0, use_cache=use_cache).generate(
        wanted, max_new_tokens=12, stop_ids=[STOP]
    )
    for prompt, generation in zip(wanted, ours, strict=True):
        ids = torch.tensor([prompt])
        theirs = model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=12,
            do_sample=False,
            eos_token_id=STOP,
            pad_token_id=0,
        )[0, len(prompt) :].tolist()
        assert [token for token in theirs if token != STOP] == list(generation.ids)
    assert len({generation.ids for generation in ours}) > 1


@pytest.mark.parametrize("name", FAMILIES)
def test_log_likelihoods_are_those_of_whole_logits(name):
    """Each pair alone, without padding, all logits of the model, torch's own cross-entropy."""
    model = tiny(name)
    pairs = [(prompt[:-3], prompt[-3:]) for prompt in prompts(1)]
    pairs += [(prompt, [token]) for prompt in prompts(2) for token in (7, 9)]
    results = TransformersBackend(model, 0, max_batch=3).loglikelihoods(pairs)
    for (context, continuation), result in zip(pairs, results, strict=True):
        ids = torch.tensor([[*context, *continuation]])
        with torch.no_grad():
            logits = model(ids).logits[0, len(context) - 1 : -1].float()
        target = torch.tensor(continuation)
        loss = torch.nn.functional.cross_entropy(logits, target, reduction="sum")
        assert result.total == pytest.approx(-float(loss), abs=1e-5)
        assert result.tokens == len(continuation)
        assert result.greedy == bool((logits.argmax(dim=1) == target).all())


@pytest.mark.parametrize("name", FAMILIES)
def test_only_the_last_columns_are_scored_and_alike(name):
    model = tiny(name)
    ids = torch.tensor([prompts()[1]])
    whole = model(ids).logits
    torch.testing.assert_close(last_scores(model, 4, input_ids=ids), whole[:, -4:])
    widths = []
    head = model.get_output_embeddings()
    head.register_forward_hook(lambda _m, inputs, _o: widths.append(inputs[0].shape[1]))
    last_scores(model, 4, input_ids=ids)
    assert widths == [4]


@pytest.mark.parametrize("name", FAMILIES)
def test_a_plain_head_is_said_to_be_plain_and_no_other(name):
    model = tiny(name)
    ids = torch.tensor([prompts()[1]])
    states = decoder(model)(ids).last_hidden_state
    plain = model.get_output_embeddings()(states)
    reason = unlike_plain_head(model.config)
    assert torch.allclose(plain, model(ids).logits, atol=1e-5) == (reason is None)


def packed_scores(model, rows):
    """Scores of some rows behind one another in a single row, kept apart by mask and positions."""
    lengths = torch.tensor([len(row) for row in rows])
    owner = torch.repeat_interleave(torch.arange(len(rows)), lengths)
    mask = torch.tril(owner[:, None] == owner[None, :])[None, None]
    if model.config._attn_implementation == "eager":  # adds its mask instead of selecting by it
        mask = torch.zeros(mask.shape).masked_fill(~mask, torch.finfo(torch.float32).min)
    logits = model(
        torch.tensor([[token for row in rows for token in row]]),
        attention_mask=mask,
        position_ids=torch.cat([torch.arange(n) for n in lengths.tolist()])[None],
        use_cache=False,
    ).logits[0]
    return logits.split(lengths.tolist())


@pytest.mark.parametrize("name", FAMILIES)
def test_where_packing_is_said_to_be_alike_it_is(name):
    """And where a window or another mechanism forbids it, the reason names the mechanism."""
    model = tiny(name)
    reason = unlike_plain_attention(model.config)
    if reason is not None:
        words = {"gemma2": "window of 8", "qwen2-window": "window of 8", "gpt2": "'gpt2'"}
        words |= {"mistral-window": "window of 8", "granite": "'granite'", "cohere": "'cohere'"}
        assert words.get(name, f"{name!r}") in reason
        return
    rows = prompts()
    for row, scores in zip(rows, packed_scores(model, rows), strict=True):
        alone = model(torch.tensor([row])).logits[0]
        torch.testing.assert_close(scores, alone, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", ["qwen2-window", "mistral-window"])
def test_a_window_is_really_lost_in_a_packed_row(name):
    model, rows = tiny(name), prompts()
    packed = packed_scores(model, rows)[1]
    assert not torch.allclose(packed, model(torch.tensor([rows[1]])).logits[0], atol=1e-3)


def test_an_architecture_that_nobody_compared_is_named():
    from transformers import PhiConfig

    assert "'phi' were not compared" in (unlike_plain_head(PhiConfig()) or "")
    assert "'phi' was not compared" in (unlike_plain_attention(PhiConfig()) or "")
