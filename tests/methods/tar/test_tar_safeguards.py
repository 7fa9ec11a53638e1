"""Random mapping and the baselines as trainings: what each step draws, sums and changes."""

from __future__ import annotations

import pytest
import torch

from kit.methods.tar.baselines.llmu import llmu
from kit.methods.tar.baselines.max_entropy import max_entropy
from kit.methods.tar.baselines.min_posterior import min_posterior
from kit.methods.tar.baselines.random_mapping import random_mapping
from kit.methods.tar.baselines.repnoise import repnoise
from kit.methods.tar.baselines.rmu import rmu, steering_vector, trained_names
from kit.methods.tar.baselines.rr import rr
from kit.methods.tar.representations import hashed_vectors
from kit.methods.tar.safeguards import train_safeguard
from kit.train.batching import Example
from kit.train.loop import FineTuning
from kit.train.optimizers import AdamW
from kit.train.single_process import SingleProcess
from kit.train.streams import Stream, Streams
from tests.methods.tar.conftest import VOCABULARY, build_model


def examples(seed, count=8):
    generator = torch.Generator().manual_seed(seed)
    return [
        Example(
            f"{seed}-{i}",
            tuple(torch.randint(1, VOCABULARY, (4 + i % 5,), generator=generator).tolist()),
            1,
        )
        for i in range(count)
    ]


def pairs(count=8):
    made = []
    for good, bad in zip(examples(5, count), examples(6, count), strict=True):
        prompt = good.ids[:2]
        made.append(
            tuple(Example(e.id, prompt + e.ids[2:], 2) for e in (bad, good)),
        )
    return made


def streams(size=4):
    data = {"forget": examples(1), "retain": examples(2), "unrelated": examples(3)}
    data |= {"harmful": examples(4), "pairs": pairs()}
    return Streams(*(Stream(name, items, size, seed=0) for name, items in data.items()))


def engine(trainable=None):
    model = build_model(0).float()
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(trainable is None or name in trainable)
    return SingleProcess(model, AdamW(learning_rate=3e-3, weight_decay=0.0))


def reference():
    return build_model(0).float().requires_grad_(False)


ALL = {
    "max-entropy": max_entropy,
    "min-posterior": min_posterior,
    "llmu": llmu,
    "random-mapping": lambda: random_mapping(hashed_vectors(VOCABULARY, 16, 0)),
    "rmu": lambda: rmu(reference(), steering_vector(16, 2.0, 0), block=1, retain_scale=1.0),
    "rr": lambda: rr(reference(), steps=6, alpha=2.0, blocks=(0, 1)),
    "repnoise": lambda: repnoise(generator=torch.Generator().manual_seed(0)),
}


@pytest.mark.parametrize("name", ALL)
def test_every_objective_trains(name):
    trained = engine()
    before = trained.model.lm_head.weight.clone(), trained.model.model.embed_tokens.weight.clone()
    run = train_safeguard(trained, ALL[name](), streams(), FineTuning(steps=6), rows=4, pad_id=0)
    assert len(run.losses) == 6
    assert all(norm > 0 for norm in run.norms)
    assert not torch.equal(trained.model.model.embed_tokens.weight, before[1])
    if name != "rr":  # its coefficients turn while it trains; every other loss must fall
        assert min(run.losses[3:]) < run.losses[0]


@pytest.mark.parametrize("name", sorted(set(ALL) - {"repnoise"}))
def test_micro_batches_change_nothing(name):
    runs = [
        train_safeguard(engine(), ALL[name](), streams(), FineTuning(steps=1), rows=rows, pad_id=0)
        for rows in (1, 4)
    ]
    assert runs[0].losses == pytest.approx(runs[1].losses, rel=1e-4)
    assert runs[0].norms == pytest.approx(runs[1].norms, rel=1e-3)


def test_each_stream_is_drawn_once_a_step():
    drawn = streams()
    train_safeguard(engine(), llmu(), drawn, FineTuning(steps=3), rows=4, pad_id=0)
    positions = drawn.positions()
    counts = {name: position["drawn"] for name, position in positions.items()}
    assert counts == {"forget": 12, "retain": 12, "unrelated": 12, "harmful": 0, "pairs": 0}


def test_rmu_moves_its_matrices_and_no_other():
    model = build_model(0).float()
    names = trained_names(model, (0, 1))
    trained = engine(set(names))
    train_safeguard(trained, ALL["rmu"](), streams(), FineTuning(steps=3), rows=4, pad_id=0)
    moved = {
        name
        for (name, now), (_, then) in zip(
            trained.model.named_parameters(), model.named_parameters(), strict=True
        )
        if not torch.equal(now, then)
    }
    assert moved == set(names)


def test_coefficients_of_rr_follow_the_steps():
    """At step 0 only the harmful term acts: the retain data could be anything."""
    run = train_safeguard(
        engine(), rr(reference(), steps=6, alpha=2.0, blocks=(0,)), streams(), FineTuning(steps=1),
        rows=4, pad_id=0,
    )  # fmt: skip
    assert run.losses[0] == pytest.approx(2.0, rel=1e-5)  # cosine 1 with itself, coefficient 2


def test_a_term_without_data_is_refused():
    few = Streams(Stream("retain", examples(1), 4, seed=0))
    with pytest.raises(ValueError, match="no stream 'forget'; there are retain"):
        train_safeguard(engine(), max_entropy(), few, FineTuning(steps=1), rows=4, pad_id=0)
