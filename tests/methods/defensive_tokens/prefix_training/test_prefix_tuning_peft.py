"""The same loss and gradient as ``peft`` prompt tuning, which the paper trained with (DTP 3.3)."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from kit.methods.defensive_tokens.prefix_training.config import PrefixTraining
from kit.methods.defensive_tokens.prefix_training.loss import accumulate
from kit.train.batching import collate
from tests.lm.tiny_world import tiny_llama
from tests.methods.defensive_tokens.prefix_training.prefix_cases import N, V, examples, initial

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:peft", "ignore::FutureWarning")


def peft_model():
    from peft import PromptTuningConfig, TaskType, get_peft_model

    model = get_peft_model(
        tiny_llama(V),
        PromptTuningConfig(
            task_type=TaskType.CAUSAL_LM, num_virtual_tokens=N, prompt_tuning_init="RANDOM"
        ),
    )
    soft = model.prompt_encoder["default"].embedding.weight
    with torch.no_grad():
        soft.copy_(initial())
    return model.eval(), soft


@pytest.mark.parametrize("seed", [0, 1])
def test_loss_and_gradient_equal_peft(seed):
    pool = examples(4, seed)
    config = replace(PrefixTraining(steps=1), micro_batch=4, accumulation=1)
    prefix = torch.nn.Parameter(initial())
    ours = accumulate(tiny_llama(V), prefix, pool, config, pad_id=0)

    model, soft = peft_model()
    # peft puts its vectors in front by itself: hand it the prompt without the slots.
    bare = [replace(e, ids=e.ids[N:], prompt_length=e.prompt_length - N) for e in pool]
    batch = collate(bare, 0)
    theirs = model(
        input_ids=batch.ids, attention_mask=batch.attention_mask.long(), labels=batch.labels
    ).loss
    theirs.backward()
    assert ours == pytest.approx(theirs.item(), rel=1e-6)
    torch.testing.assert_close(prefix.grad, soft.grad, rtol=1e-4, atol=1e-7)


def test_peft_random_initialisation_is_standard_normal():
    """Reference page, section 1.1: RANDOM is torch's embedding default, N(0, 1)."""
    from peft import PromptTuningConfig, TaskType, get_peft_model

    config = PromptTuningConfig(task_type=TaskType.CAUSAL_LM, num_virtual_tokens=500)
    model = get_peft_model(tiny_llama(V), config)
    weight = model.prompt_encoder["default"].embedding.weight.detach()
    assert float(weight.std()) == pytest.approx(1.0, abs=0.03)
    assert float(weight.mean()) == pytest.approx(0.0, abs=0.03)
