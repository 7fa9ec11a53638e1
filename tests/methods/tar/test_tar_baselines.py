"""Every baseline's loss and gradient against a second evaluation in float64."""

from __future__ import annotations

import math

import pytest
import torch

from kit.methods.tar.baselines import llmu as llmu_module
from kit.methods.tar.baselines import r2d2 as r2d2_module
from kit.methods.tar.baselines import rmu as rmu_module
from kit.methods.tar.baselines.llmu import llmu
from kit.methods.tar.baselines.max_entropy import max_entropy
from kit.methods.tar.baselines.min_posterior import min_posterior
from kit.methods.tar.baselines.mlac_ar import mlac_ar
from kit.methods.tar.baselines.r2d2 import r2d2
from kit.methods.tar.baselines.random_mapping import random_mapping
from kit.methods.tar.baselines.repnoise import maximum_mean_discrepancy, repnoise
from kit.methods.tar.baselines.rmu import rmu, steering_vector, trained_names
from kit.methods.tar.baselines.rr import coefficients, rr
from kit.methods.tar.baselines.sophon_ar import sophon_ar
from kit.methods.tar.objectives import tamper_resistance_loss
from kit.methods.tar.presets import preset
from kit.methods.tar.representations import hashed_vectors
from tests.methods.tar.conftest import VOCABULARY, assert_same_loss, build_batch, count, rows_of


def total(model, terms, **batches):
    """Sum of the terms, each on its streams."""
    sums = 0
    for term in terms:
        counted = [count(batches[name]) for name in term.data]
        sums = sums + term.loss(model, counted[0] if len(counted) == 1 else tuple(counted))
    return sums


FP32 = 1e-6
"""Agreement where a term is the training engine's cross-entropy, or its weights are fp32."""


def label_log_probs(model, batch, labels=None, only=None):
    """log p of every label, row by row, or of one row."""
    values = []
    for i, (_, own, _, scores) in enumerate(rows_of(model, batch)):
        if only not in (None, i):
            continue
        row = own if labels is None else labels[i, : len(own)].tolist()
        log_p = torch.log_softmax(scores, -1)
        values += [log_p[t - 1, x] for t, x in enumerate(row) if t and x != -100]
    return torch.stack(values)


def states_of(model, batch, index):
    """[tokens, d] of a hidden state, real tokens only."""
    return torch.cat([hidden[index][0] for _, _, hidden, _ in rows_of(model, batch)])


def test_max_entropy(model, forget, retain):
    p = torch.cat([torch.softmax(s, -1) for *_, s in rows_of(model, forget)])
    entropy = -(p * p.log()).sum(-1).mean()
    by_hand = -label_log_probs(model, retain).mean() - entropy
    assert_same_loss(
        model,
        total(model, max_entropy(padding="masked"), forget=forget, retain=retain),
        by_hand,
        rtol=FP32,
    )
    # The same as KL to uniform up to ln V, which the paper says.
    kl = (p * (p * VOCABULARY).log()).sum(-1).mean()
    torch.testing.assert_close(kl - math.log(VOCABULARY), -entropy)


def test_min_posterior(model, forget, retain):
    log_p = label_log_probs(model, forget)
    by_hand = -label_log_probs(model, retain).mean() - torch.log1p(-log_p.exp()).mean()
    assert_same_loss(
        model, total(model, min_posterior(), forget=forget, retain=retain), by_hand, rtol=FP32
    )
    threshold = log_p.detach().median().item() + 1e-9
    kept = torch.where(log_p >= threshold, torch.log1p(-log_p.exp()), 0.0)
    by_hand = -label_log_probs(model, retain).mean() - kept.mean()
    ours = total(model, min_posterior(threshold=threshold), forget=forget, retain=retain)
    assert_same_loss(model, ours, by_hand, rtol=FP32)


def test_llmu(model, forget, retain):
    unrelated = build_batch(9, lengths=(6, 12, 5))
    labels = torch.full_like(forget.ids, -100)
    for i, n in enumerate((7, 4, 9)):
        for t in range(n):
            if t < unrelated.labels.shape[1]:
                labels[i, t] = unrelated.labels[i, t]
    assert torch.equal(llmu_module.mismatched_labels(forget, unrelated), labels)
    rows = [label_log_probs(model, forget, labels, only=i).mean() for i in range(3)]
    by_hand = (
        -label_log_probs(model, retain).mean()
        + label_log_probs(model, forget).mean()
        - torch.stack(rows).mean()
    )
    ours = total(model, llmu(), forget=forget, retain=retain, unrelated=unrelated)
    assert_same_loss(model, ours, by_hand, rtol=FP32)
    with pytest.raises(ValueError, match="2 unrelated rows cannot label 3"):
        llmu_module.mismatched_labels(forget, build_batch(1, lengths=(4, 4)))


@pytest.mark.parametrize(("features", "factor"), [("sum", 1), ("mean", 16)])
def test_rmu(model, reference, forget, retain, features, factor):
    target = steering_vector(16, 20.0, seed=5)
    assert target.norm().item() == pytest.approx(20.0, rel=1e-6)
    assert (target >= 0).all()
    # Block 1 counted from 0 is transformers' hidden state 2.
    steer = ((states_of(model, forget, 2) - target) ** 2).sum(-1).mean()
    with torch.no_grad():
        original = states_of(reference, retain, 2)
    anchor = ((states_of(model, retain, 2) - original) ** 2).sum(-1).mean()
    terms = rmu(reference, target, block=1, retain_scale=7.0, features=features)
    ours = total(model, terms, forget=forget, retain=retain)
    assert_same_loss(model, ours, (steer + 7 * anchor) / factor)


def test_rmu_trains_mlp_projections_and_knows_the_blocks(model, reference, forget, retain):
    names = trained_names(model, (0, 2))
    assert names == ["model.layers.0.mlp.down_proj.weight", "model.layers.2.mlp.down_proj.weight"]
    with pytest.raises(ValueError, match="MLP projections of blocks"):
        trained_names(model, (2, 3))
    with pytest.raises(ValueError, match="block 3 of a model"):
        total(model, rmu(reference, torch.zeros(16), block=3), forget=forget, retain=retain)
    with pytest.raises(ValueError, match="features is 'max'"):
        rmu(reference, torch.zeros(16), features="max")
    assert rmu_module.STEERING == {"bio": 20.0, "cyber": 30.0, "chem": 50.0}


def test_random_mapping(model, forget, retain):
    vectors = hashed_vectors(VOCABULARY, 16, 0)
    tokens = forget.ids[forget.attention_mask]
    cosines = torch.stack(
        [
            torch.cosine_similarity(states_of(model, forget, i), vectors[tokens].double())
            for i in range(4)
        ]
    )
    by_hand = -label_log_probs(model, retain).mean() + (1 - cosines.abs()).mean()
    ours = total(model, random_mapping(vectors, padding="masked"), forget=forget, retain=retain)
    assert_same_loss(model, ours, by_hand, rtol=FP32)


def test_rr(model, reference, forget, retain):
    harmful_scale, retain_scale = coefficients(30, alpha=10.0, steps=150)
    assert (harmful_scale, retain_scale) == (9.0, 1.0)
    assert coefficients(0) == (10.0, 0.0)
    assert coefficients(150) == (5.0, 5.0)
    with torch.no_grad():
        before = [states_of(reference, retain, i) for i in range(4)]
        original = [states_of(reference, forget, i) for i in (1, 2)]
    kept = torch.stack(
        [(states_of(model, retain, i) - b).norm(dim=-1).mean() for i, b in enumerate(before)]
    ).mean()
    turned = torch.stack(
        [
            torch.relu(torch.cosine_similarity(states_of(model, forget, i), o)).mean()
            for i, o in zip((1, 2), original, strict=True)
        ]
    ).mean()
    terms = rr(reference, blocks=(0, 1))(30)
    assert_same_loss(model, total(model, terms, harmful=forget, retain=retain), 9 * turned + kept)
    with pytest.raises(ValueError, match="block 3 of a model"):
        total(model, rr(reference, blocks=(3,))(0), harmful=forget, retain=retain)
    with pytest.raises(ValueError, match="one block at least"):
        rr(reference, blocks=())


def test_mmd_by_hand():
    generator = torch.Generator().manual_seed(1)
    x, y = (torch.randn(3, 4, dtype=torch.float64, generator=generator) for _ in range(2))
    points = [*x, *y]
    mean = sum(float((a - b) @ (a - b)) for a in points for b in points) / 30
    widths = [mean * 2.0**e for e in (-2, -1, 0, 1, 2)]

    def kernel(a, b):
        return sum(math.exp(-float((a - b) @ (a - b)) / w) for w in widths)

    by_hand = (
        sum(kernel(a, b) for a in x for b in x)
        + sum(kernel(a, b) for a in y for b in y)
        - 2 * sum(kernel(a, b) for a in x for b in y)
    ) / 9
    assert maximum_mean_discrepancy(x, y).item() == pytest.approx(by_hand, rel=1e-10)
    assert maximum_mean_discrepancy(x, x.clone()).item() == pytest.approx(0, abs=1e-12)
    with pytest.raises(ValueError, match="samples of"):
        maximum_mean_discrepancy(x, y[:2])


def test_mmd_has_a_finite_gradient_where_points_meet():
    x = torch.zeros(2, 3, dtype=torch.float64, requires_grad=True)
    maximum_mean_discrepancy(x, torch.ones(2, 3, dtype=torch.float64)).backward()
    assert torch.isfinite(x.grad).all()


def test_repnoise(model):
    harmful, harmless = build_batch(2, (8, 8, 8)), build_batch(3, (8, 8, 8))
    harmful.ids[:, :3] = harmless.ids[:, :3]
    differs = harmful.ids != harmless.ids
    assert 0 < int(differs.sum()) < differs.numel()

    captured = []
    hooks = [
        layer.mlp.register_forward_hook(lambda m, i, o: captured.append(o))
        for layer in model.model.layers
    ]
    bad = model(input_ids=harmful.ids, output_hidden_states=True)
    for hook in hooks:
        hook.remove()
    good = model(input_ids=harmless.ids)
    generator = torch.Generator().manual_seed(8)
    noisy = []
    for value in captured:
        noise = torch.randn(value.shape, generator=generator).double()
        a, b = ((t * differs[..., None]).reshape(3, -1) for t in (value, noise))
        noisy.append(maximum_mean_discrepancy(a, b))

    def masked_nats(scores, ids):
        log_p = torch.log_softmax(scores[:, :-1], -1).gather(2, ids[:, 1:, None])[..., 0]
        return -log_p[differs[:, 1:]].mean()

    nats = [
        masked_nats(model.lm_head(h if last else model.model.norm(h)), harmful.ids)
        for h, last in zip(bad.hidden_states, (False, False, False, True), strict=True)
    ]
    by_hand = (
        masked_nats(good.logits, harmless.ids)
        + 0.3 * torch.stack(noisy).mean()
        - 2 * torch.log(1 + torch.stack(nats).mean())
    )
    pair = (count(harmful), count(harmless))
    terms = repnoise(generator=torch.Generator().manual_seed(8), beta=0.3, alpha=2.0)
    assert_same_loss(model, sum(term.loss(model, pair) for term in terms), by_hand)

    # A benign term, which the published loss has not, is a cross-entropy beside it.
    benign, noise = build_batch(5, (6, 7, 4)), torch.Generator().manual_seed(8)
    *published, added = repnoise(generator=noise, beta=0.3, alpha=2.0, retain_scale=0.7)
    again = sum(term.loss(model, pair) for term in published)
    assert again.item() == pytest.approx(by_hand.item())
    assert added.data == ("retain",)
    wanted = -0.7 * label_log_probs(model, benign).mean()
    assert_same_loss(model, added.loss(model, count(benign)), wanted, rtol=FP32)


def test_repnoise_refuses_pairs_that_do_not_line_up(model, forget):
    first, _ = repnoise(generator=torch.Generator())
    with pytest.raises(ValueError, match="do not line up"):
        first.loss(model, (count(forget), count(build_batch(1, (4, 4, 4)))))
    with pytest.raises(ValueError, match="are the same"):
        first.loss(model, (count(forget), count(forget)))


def test_r2d2(model, forget, retain, monkeypatch):
    toward = build_batch(7, (6, 6, 6))
    log_p = label_log_probs(model, forget)
    lowest = float(log_p.detach().median())
    monkeypatch.setattr(r2d2_module, "LOWEST_LOG_PROB", lowest)
    by_hand = (
        -label_log_probs(model, retain).mean()
        - 0.5 * torch.log1p(-log_p[log_p >= lowest].exp()).sum() / len(log_p)
        - 0.25 * label_log_probs(model, toward).mean()
    )
    terms = r2d2(away_scale=0.5, toward_scale=0.25)
    ours = total(model, terms, away=forget, toward=toward, benign=retain)
    assert_same_loss(model, ours, by_hand, rtol=FP32)


def test_outer_loop_baselines_change_the_objective_only(model, forget):
    tar = preset("paper", "bio")
    for change, name in (
        (mlac_ar, "clamped-negative-cross-entropy"),
        (sophon_ar, "inverse-cross-entropy"),
    ):
        changed = change(tar)
        assert changed.objective == name
        assert changed.weights() == tar.weights()
    log_p = label_log_probs(model, forget)
    stopped = log_p.clamp(min=-math.log(VOCABULARY))
    assert 0 < int((log_p < stopped).sum()) < len(log_p)
    clamped = tamper_resistance_loss(model, count(forget), mlac_ar(tar))
    assert_same_loss(model, clamped, stopped.mean())
    inverse = tamper_resistance_loss(model, count(forget), sophon_ar(tar))
    assert_same_loss(model, inverse, -torch.log1p(-log_p.exp()).mean())


def test_the_objective_and_its_batch_must_fit(model, forget):
    with pytest.raises(ValueError, match="objective 'dpo' cannot be measured on Counted"):
        tamper_resistance_loss(model, count(forget), preset("paper", "refusal"))
