"""The cached loss is that of whole prompts for every architecture, padding or windows or not."""

from __future__ import annotations

import pytest
import torch

from kit.lm.prefix import embed
from kit.methods.defensive_tokens.adaptive.prompts import OpenPrompt
from kit.methods.defensive_tokens.adaptive.suffix_loss import SuffixLoss
from tests.lm.families import FAMILIES, VOCABULARY, tiny
from tests.methods.defensive_tokens.adaptive.small import NOBODY

LENGTHS, AFTER, TARGET = (9, 4, 14), (7, 8), (9, 5)


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_gives_the_loss_of_whole_prompts_and_its_gradient(name: str) -> None:
    model = tiny(name, seed=1)
    width = model.get_input_embeddings().weight.shape[1]
    vectors = torch.randn(2, width, generator=torch.Generator().manual_seed(3))
    front = (VOCABULARY, VOCABULARY + 1)
    prompts = [
        OpenPrompt(NOBODY, "", front + tuple(range(10, 10 + n)), (1, 1, 1, 1), AFTER)
        for n in LENGTHS
    ]
    allowed = list(range(10, 20))
    objective = SuffixLoss(model, prompts, TARGET, prefix=vectors, pad_id=0, allowed=allowed)
    items = torch.arange(3)
    suffixes = torch.tensor([[11, 12, 13, 14], [19, 18, 17, 16], [12, 12, 15, 10]])
    losses = objective.losses(items, suffixes)
    gradient = objective.gradient(items, suffixes)
    table = embed(model, torch.tensor([allowed]), None)[0]
    for item, (prompt, suffix) in enumerate(zip(prompts, suffixes.tolist(), strict=True)):
        ids = torch.tensor([[*prompt.before, *suffix, *AFTER, *TARGET]])
        rows = embed(model, ids, vectors).detach().requires_grad_()
        scores = model(inputs_embeds=rows).logits[0, -len(TARGET) - 1 : -1]
        loss = torch.nn.functional.cross_entropy(scores, torch.tensor(TARGET))
        (whole,) = torch.autograd.grad(loss, rows)
        start = len(prompt.before)
        torch.testing.assert_close(losses[item], loss.detach(), rtol=2e-5, atol=2e-5)
        torch.testing.assert_close(
            gradient[item], whole[0, start : start + 4] @ table.T, rtol=1e-3, atol=2e-5
        )
