"""Log-likelihoods: independent of the batch, with a prefix, shared inputs, what is refused."""

from __future__ import annotations

import random

import pytest
import torch

from kit.lm.backend import LogLikelihood
from kit.lm.generate import TransformersBackend
from tests.lm.tiny_world import tiny_llama

V = 64


def pairs(count, seed=0):
    rng = random.Random(seed)

    def some(least, most):
        return [rng.randrange(3, V) for _ in range(rng.randint(least, most))]

    return [([1, *some(0, 20)], some(1, 6)) for _ in range(count)]


def run(wanted, *, model=None, prefix=None, **settings):
    return TransformersBackend(model or tiny_llama(V), 0, **settings).loglikelihoods(
        wanted, prefix=prefix
    )


@pytest.mark.parametrize("settings", [{"max_batch": 1}, {"max_batch": 7}, {"max_tokens": 50}])
def test_the_batch_does_not_matter(settings):
    wanted = pairs(40)
    whole, parts = run(wanted), run(wanted, **settings)
    assert [r.tokens for r in whole] == [len(tokens) for _, tokens in wanted]
    assert [r.greedy for r in whole] == [r.greedy for r in parts]
    assert [r.total for r in whole] == pytest.approx([r.total for r in parts], abs=1e-5)
    shuffled = wanted[::-1]
    assert [r.total for r in run(shuffled)] == pytest.approx(
        [r.total for r in whole[::-1]], abs=1e-5
    )


def test_a_greedy_continuation_is_called_greedy_and_its_neighbour_is_not():
    model = tiny_llama(V)
    backend = TransformersBackend(model, 0)
    prompts = [context for context, _ in pairs(8, 3)]
    made = [list(g.ids) for g in backend.generate(prompts, max_new_tokens=4, stop_ids=[])]
    scored = backend.loglikelihoods(list(zip(prompts, made, strict=True)))
    assert all(result.greedy and result.tokens == 4 for result in scored)
    changed = [[*ids[:-1], (ids[-1] + 1) % V] for ids in made]
    others = backend.loglikelihoods(list(zip(prompts, changed, strict=True)))
    assert not any(result.greedy for result in others)
    assert all(a.total > b.total for a, b in zip(scored, others, strict=True))


def test_all_continuations_of_one_token_together_are_certain():
    results = run([([1, 5, 9], [token]) for token in range(V)])
    total = torch.tensor([result.total for result in results], dtype=torch.float64).exp().sum()
    assert float(total) == pytest.approx(1.0, abs=1e-6)
    assert sum(result.greedy for result in results) == 1


def test_the_same_input_is_computed_once():
    model = tiny_llama(V)
    rows = []
    model.model.layers[0].register_forward_hook(lambda _m, inputs, _o: rows.append(len(inputs[0])))
    question = [1, 8, 9]
    wanted = [(question, [token]) for token in (10, 11, 12, 13)] + [([1, 8], [9, 20])]
    together = run(wanted, model=model)
    assert rows == [1]
    alone = [run([pair], model=tiny_llama(V))[0].total for pair in wanted]
    assert [r.total for r in together] == pytest.approx(alone, abs=1e-5)


def test_a_prefix_is_read_and_not_scored():
    model, prefix = tiny_llama(V), torch.randn(2, 32)
    (result,) = run([([V, V + 1, 1, 5], [6, 7])], model=model, prefix=prefix)
    table = torch.cat([model.get_input_embeddings().weight, prefix])
    ids = torch.tensor([[V, V + 1, 1, 5, 6]])
    logits = model(inputs_embeds=table[ids]).logits[0, -2:]
    loss = torch.nn.functional.cross_entropy(logits, torch.tensor([6, 7]), reduction="sum")
    assert result.total == pytest.approx(-float(loss), abs=1e-5)
    with pytest.raises(ValueError, match="no prefix was given"):
        run([([V, 1, 5], [6])], model=model)


def test_bfloat16_is_summed_in_float32():
    """A softmax over 64 words in bfloat16 would be off in the third digit."""
    model = tiny_llama(V).bfloat16()
    context, continuation = pairs(1, 5)[0]
    (result,) = run([(context, continuation)], model=model)
    logits = model(torch.tensor([[*context, *continuation]])).logits[0, len(context) - 1 : -1]
    exact = logits.double().log_softmax(1)[range(len(continuation)), continuation].sum()
    assert result.total == pytest.approx(float(exact), abs=1e-5)


@pytest.mark.parametrize(
    ("pair", "message"),
    [
        (([], [5]), "pair 1 has an empty context"),
        (([1], []), "pair 1 has an empty continuation"),
        (([1], [V]), "pair 1 continues with an id"),
        (([1], [-1]), "pair 1 continues with an id"),
    ],
)
def test_pairs_without_a_likelihood_are_refused(pair, message):
    with pytest.raises(ValueError, match=message):
        run([([1], [5]), pair])


def test_no_pairs_give_no_results():
    assert run([]) == []


def test_like_lm_eval():
    """The harness that the field's numbers come from, on the same model and ids."""
    from lm_eval.models.huggingface import HFLM

    from tests.lm.tiny_world import mini_tokenizer

    tokenizer = mini_tokenizer()
    model = tiny_llama(len(tokenizer))
    harness = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=3, device="cpu")
    wanted = [
        ([t % len(tokenizer) for t in c], [t % len(tokenizer) for t in k]) for c, k in pairs(20, 7)
    ]
    theirs = harness._loglikelihood_tokens([(("", ""), c, k) for c, k in wanted], disable_tqdm=True)
    ours = run(wanted, model=model)
    assert ours == [
        LogLikelihood(pytest.approx(total, abs=1e-4), len(tokens), greedy)
        for (total, greedy), (_, tokens) in zip(theirs, wanted, strict=True)
    ]
