"""Micro-batches: padding is known from lengths, weights add up whatever the division."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch

from kit.train.batches import chunks, examples_of_tokens, micro_batches, share_of_process
from kit.train.batching import Example, collate
from kit.train.losses import MICRO_MEAN, language_model_loss, token_weights
from kit.train.optimizers import AdamW
from kit.train.single_process import SingleProcess
from tests.lm.families import FAMILIES, VOCABULARY, WINDOW, tiny

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Place:
    rank: int = 0
    world_size: int = 1
    device: torch.device = CPU


def texts(lengths=(9, 3, 2, 7, 5), seed=0):
    rng = torch.Generator().manual_seed(seed)
    return examples_of_tokens(
        {
            f"t{i}": torch.randint(3, VOCABULARY, (n,), generator=rng).tolist()
            for i, n in enumerate(lengths)
        }
    )


def without_dropout(model):
    """An engine trains in training mode, and GPT-2 declares dropout."""
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    return model


def test_all_tokens_but_the_first_are_labels_and_padding_is_known_from_lengths():
    """A pad id that is a token of the text too: it is a label there and nowhere else."""
    (made,) = micro_batches(
        examples_of_tokens({"a": [5, 0, 7], "b": [0, 0, 4, 9, 9, 1]}, max_length=5),
        Place(),
        rows=4,
        pad_id=0,
    )
    assert made.batch.ids.tolist() == [[5, 0, 7, 0, 0], [0, 0, 4, 9, 9]]
    assert made.batch.labels.tolist() == [[-100, 0, 7, -100, -100], [-100, 0, 4, 9, 9]]
    assert made.batch.attention_mask.tolist() == [[True] * 3 + [False] * 2, [True] * 5]
    assert made.item_ids == ("a", "b")


def test_a_width_pads_to_itself_and_refuses_longer_rows():
    (made,) = micro_batches(texts((3, 2)), Place(), rows=2, pad_id=0, width=8)
    assert made.batch.ids.shape == (2, 8)
    with pytest.raises(ValueError, match="9 tokens does not fit 8"):
        collate(texts((9,)), 0, width=8)


@pytest.mark.parametrize(("world", "rows"), [(1, 1), (1, 5), (2, 1), (2, 2), (3, 4), (5, 1)])
def test_every_example_is_computed_once_with_one_weight(world, rows):
    examples = texts()
    parts = [
        part
        for rank in range(world)
        for part in micro_batches(examples, Place(rank, world), rows=rows, pad_id=0)
    ]
    assert [i for part in parts for i in part.item_ids] == [e.id for e in examples]
    assert all(len(part.item_ids) <= rows for part in parts)
    tokens = sum(e.labels for e in examples)
    assert {float(w) for part in parts for w in part.weights} == {float(torch.tensor(1 / tokens))}
    assert sum(part.row_share for part in parts) == pytest.approx(1)


def test_micro_means_are_taken_before_the_batch_is_divided():
    examples = texts((9, 3, 2, 7))
    expected = token_weights([e.labels for e in examples], micro_batch=2)
    for world, rows in ((1, 3), (2, 1)):
        parts = [
            part
            for rank in range(world)
            for part in micro_batches(
                examples,
                Place(rank, world),
                rows=rows,
                pad_id=0,
                normalisation=MICRO_MEAN,
                mean_over=2,
            )
        ]
        weights = [float(w) for part in parts for w in part.weights]
        assert weights == pytest.approx(expected)


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("chunk", [4096, 7])
def test_loss_and_gradient_are_those_of_the_models_own_loss(name, chunk):
    """Scaled, capped and windowed scores too; rows longer than the window, in micro-batches."""
    theirs, ours = without_dropout(tiny(name)), without_dropout(tiny(name))
    examples = texts((2 * WINDOW + 3, 3, 2 * WINDOW, 5))
    engine = SingleProcess(ours.requires_grad_(True), AdamW(0.1, 0.0))
    loss = engine.accumulate(
        lambda model, part: language_model_loss(model, part, chunk=chunk),
        micro_batches(examples, engine, rows=3, pad_id=0),
    )
    batch = collate(examples, 0)
    expected = theirs.requires_grad_(True)(
        input_ids=batch.ids, attention_mask=batch.attention_mask.long(), labels=batch.labels
    ).loss
    expected.backward()
    torch.testing.assert_close(loss, expected.detach(), rtol=1e-5, atol=1e-5)
    gradients = engine.gradients()
    for parameter, p in theirs.named_parameters():
        torch.testing.assert_close(
            gradients[parameter], p.grad, rtol=1e-4, atol=1e-5, msg=parameter
        )


def test_what_stands_at_padding_does_not_matter():
    losses = []
    for pad_id, width in ((0, None), (7, None), (7, 30)):
        engine = SingleProcess(tiny("llama").requires_grad_(True), AdamW(0.1, 0.0))
        parts = micro_batches(texts(), engine, rows=5, pad_id=pad_id, width=width)
        losses.append(engine.accumulate(language_model_loss, parts))
    torch.testing.assert_close(losses[0], losses[1])
    torch.testing.assert_close(losses[0], losses[2])


def test_chunks_of_a_long_text():
    assert chunks(range(7), 3) == [(0, 1, 2), (3, 4, 5)]
    assert chunks(range(8), 3) == [(0, 1, 2), (3, 4, 5), (6, 7)]
    assert chunks(range(100), 3, most=2) == [(0, 1, 2), (3, 4, 5)]


def test_wrong_batches_are_named():
    with pytest.raises(ValueError, match="text t0: nothing is predicted in 1 tokens"):
        texts((1,))
    with pytest.raises(ValueError, match="leaves some of 3 processes idle"):
        share_of_process([1, 2], Place(0, 3))
    with pytest.raises(ValueError, match="no label"):
        micro_batches([Example("a", (1, 2), 2)], Place(), rows=1, pad_id=0)
    with pytest.raises(ValueError, match="at least one row"):
        micro_batches(texts(), Place(), rows=0, pad_id=0)
