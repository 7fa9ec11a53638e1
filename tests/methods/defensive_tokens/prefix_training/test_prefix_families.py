"""Prefix training of many architectures: the model's own loss, or a refusal with the reason."""

from __future__ import annotations

import pytest
import torch

from kit.lm.generate import TransformersBackend
from kit.methods.defensive_tokens.layouts import LAYOUTS, insert_slots
from kit.methods.defensive_tokens.prefix_training.config import PrefixTraining
from kit.methods.defensive_tokens.prefix_training.loss import accumulate
from kit.train.losses import TOKEN_MEAN
from tests.lm.families import FAMILIES, VOCABULARY, WINDOW, tiny
from tests.methods.defensive_tokens.prefix_training.test_packed import SLOTS, Example

STOP = 2
REFUSED = {
    "qwen2-window": "a window of 8 tokens",
    "mistral-window": "a window of 8 tokens",
    "gemma2": "a window of 8 tokens",
    "granite": "granite",
    "cohere": "cohere",
    "gpt2": "gpt2",
    "falcon": "falcon",
}


def examples():
    rng = torch.Generator().manual_seed(0)
    slots = tuple(VOCABULARY + i for i in range(SLOTS))
    made = []
    for number, length in enumerate((3, 2 * WINDOW, 7, 2 * WINDOW + 3)):
        body = torch.randint(3, VOCABULARY, (length,), generator=rng).tolist()
        made.append(Example(f"e{number}", (*slots, 1, *body), SLOTS + 2))
    return made


def gradient(model, **settings):
    torch.manual_seed(5)
    prefix = torch.nn.Parameter(torch.randn(SLOTS, 32))
    config = PrefixTraining(1, accumulation=1, normalisation=TOKEN_MEAN, **settings)
    loss = accumulate(model, prefix, examples(), config, pad_id=0)
    return loss, prefix.grad


def own_loss(model):
    """Each example alone through ``model(...)``, the mean over all label tokens."""
    torch.manual_seed(5)
    prefix = torch.nn.Parameter(torch.randn(SLOTS, 32))
    embed = model.get_input_embeddings()
    losses = []
    for example in examples():
        rows = torch.cat([prefix, embed(torch.tensor(example.ids[SLOTS:]))])
        scores = model(inputs_embeds=rows[None], use_cache=False).logits[0].float()
        targets = torch.tensor(example.ids[example.prompt_length :])
        losses.append(
            torch.nn.functional.cross_entropy(
                scores[example.prompt_length - 1 : -1], targets, reduction="none"
            )
        )
    loss = torch.cat(losses).mean()
    loss.backward()
    return loss.item(), prefix.grad


@pytest.mark.parametrize("name", FAMILIES)
def test_padded_training_has_the_models_own_loss_and_gradient(name):
    model = tiny(name)
    loss, grad = gradient(model, forward_rows=3)
    expected, wanted = own_loss(model)
    assert loss == pytest.approx(expected, abs=1e-5)
    torch.testing.assert_close(grad, wanted, rtol=1e-5, atol=1e-5)
    assert float(wanted.norm()) > 1e-3


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", FAMILIES)
def test_greedy_text_behind_a_prefix_is_the_models_own(name, layout):
    """Batched, padded and cached, against one prompt at a time through the whole model."""
    model = tiny(name, seed=4)
    prefix = torch.randn(SLOTS, 32, generator=torch.Generator().manual_seed(1))
    embed = model.get_input_embeddings()
    placed, wanted = [], []
    for example in examples():
        prompt = list(example.ids[SLOTS:])
        placed.append(
            insert_slots(layout, prompt, n=SLOTS, vocabulary_size=VOCABULARY, begin=prompt[0])
        )
        ids = torch.tensor(placed[-1])
        rows = embed(ids.clamp(max=VOCABULARY - 1))
        rows[ids >= VOCABULARY] = prefix
        new = []
        while len(new) < 6:
            with torch.no_grad():
                token = int(model(inputs_embeds=rows[None], use_cache=False).logits[0, -1].argmax())
            if token == STOP:
                break
            new.append(token)
            rows = torch.cat([rows, embed(torch.tensor([token]))])
        wanted.append(tuple(new))
    made = TransformersBackend(model, 0, max_batch=3).generate(
        placed, prefix=prefix, max_new_tokens=6, stop_ids=[STOP]
    )
    assert [generation.ids for generation in made] == wanted
    assert len(set(wanted)) > 1


@pytest.mark.parametrize("forward", ["padded", "packed"])
def test_a_prefix_of_another_width_is_refused(forward):
    model = tiny("llama")
    prefix = torch.nn.Parameter(torch.randn(SLOTS, 31))
    config = PrefixTraining(1, accumulation=1, normalisation=TOKEN_MEAN, forward=forward)
    with pytest.raises(ValueError, match=r"shape \(3, 31\) does not fit a model of width 32"):
        accumulate(model, prefix, examples(), config, pad_id=0)


@pytest.mark.parametrize("name", FAMILIES)
def test_packed_training_too_or_it_is_refused_with_the_reason(name):
    model = tiny(name)
    if name in REFUSED:
        with pytest.raises(ValueError, match=f"cannot be packed .*{REFUSED[name]}"):
            gradient(model, forward="packed")
        return
    loss, grad = gradient(model, forward="packed")
    expected, wanted = own_loss(model)
    assert loss == pytest.approx(expected, abs=1e-5)
    torch.testing.assert_close(grad, wanted, rtol=1e-5, atol=1e-5)
