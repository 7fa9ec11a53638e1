"""The preference loss and its gradients equal those of trl's DPOTrainer on the same batch."""

from __future__ import annotations

import warnings

import pytest
import torch
from datasets import Dataset
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from transformers import PreTrainedTokenizerFast

from kit.methods.tar.dpo import Pairs, dpo_loss
from kit.methods.tar.objectives import preference_margins, reference_log_probs
from kit.train.batching import Example, collate
from tests.methods.tar.conftest import VOCABULARY, build_model

WORDS = ["<pad>", "</s>", *(f"w{i}" for i in range(VOCABULARY - 2))]


@pytest.fixture
def tokenizer():
    made = Tokenizer(WordLevel({w: i for i, w in enumerate(WORDS)}, unk_token="<pad>"))
    made.pre_tokenizer = WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=made, pad_token="<pad>", eos_token="</s>")


@pytest.fixture
def trainer(tokenizer, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from trl import DPOConfig, DPOTrainer

        rows = [("w1 w2", "w3 w4 w5", "w6"), ("w7", "w8 w9", "w10 w11 w12 w13")]
        data = Dataset.from_list(
            [{"prompt": p, "chosen": " " + c, "rejected": " " + r} for p, c, r in rows]
        )
        arguments = DPOConfig(
            output_dir=str(tmp_path),
            beta=0.3,
            per_device_train_batch_size=2,
            report_to="none",
            use_cpu=True,
            gradient_checkpointing=False,
            bf16=False,
        )
        return DPOTrainer(
            model=build_model(0).float(),
            ref_model=build_model(1).float(),
            args=arguments,
            train_dataset=data,
            processing_class=tokenizer,
        )


def test_loss_and_gradients_equal_trl(trainer):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        batch = next(iter(trainer.get_train_dataloader()))
        trainer.model.eval()
        theirs = trainer.compute_loss(trainer.model, batch)
        theirs.backward()
    expected = {n: p.grad.clone() for n, p in trainer.model.named_parameters()}

    # trl stacks the preferred responses on the rejected ones.
    made = []
    for i, row in enumerate(batch["input_ids"]):
        length = int(batch["attention_mask"][i].sum())
        prompt = length - int(batch["completion_mask"][i].sum())
        made.append(Example(str(i), tuple(row[:length].tolist()), prompt))
    chosen, rejected = collate(made[:2], 0), collate(made[2:], 0)
    model, reference = build_model(0).float(), build_model(1).float()
    pairs = Pairs(
        chosen,
        rejected,
        reference_log_probs(reference, chosen),
        reference_log_probs(reference, rejected),
    )
    ours = dpo_loss(preference_margins(model, pairs), beta=0.3)
    ours.backward()
    assert ours.item() != pytest.approx(0.6931, abs=0.01)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)
    for name, parameter in model.named_parameters():
        scale = expected[name].abs().max().item()
        torch.testing.assert_close(parameter.grad, expected[name], rtol=1e-3, atol=1e-5 * scale)
