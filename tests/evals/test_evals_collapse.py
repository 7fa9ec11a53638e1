"""Collapse detectors: they fire on broken models and stay silent on guessing ones."""

from __future__ import annotations

import math
from random import Random

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom
from scipy.stats import entropy as scipy_entropy

from kit.evals import texts
from kit.evals.collapse import (
    FEWEST_QUESTIONS,
    MOST_ONE_LETTER,
    choices,
    circling,
    entropy,
    repetition,
)
from kit.evals.multiple_choice import Scored
from kit.evals.texts import text_score
from kit.train.batching import Example
from tests.train.tiny import VOCABULARY, llama


def answering(pick, *, count=200, letters=4, seed=0):
    """A model that gives every question the letter that ``pick(draw, right)`` names."""
    draw = Random(seed)
    made = []
    for number in range(count):
        right = draw.randrange(letters)
        picked = pick(draw, right)
        scores = tuple(0.0 if i == picked else -3.0 for i in range(letters))
        options = tuple((i,) for i in range(letters))
        made.append(Scored(f"q{number}", options, scores, (1,) * letters, right))
    return made


def test_one_letter_is_a_collapse():
    got = choices(answering(lambda draw, right: 0))
    assert got.collapsed
    assert got.most == ("A", 1.0)
    assert got.entropy == 0
    assert got.constant[0] == got.answers[0] / 200


def test_guessing_knowing_and_leaning_are_not():
    for pick in (
        lambda draw, right: draw.randrange(4),
        lambda draw, right: right,
        lambda draw, right: 0 if draw.random() < 0.5 else right,
    ):
        assert not choices(answering(pick)).collapsed


def test_right_answers_that_are_all_one_letter_prove_nothing():
    one = Scored("q", ((0,), (1,)), (0.0, -3.0), (1, 1), 0)
    assert not choices([one] * 30).collapsed


def test_too_few_questions_are_no_evidence():
    with pytest.raises(ValueError, match="20 are needed"):
        _ = choices(answering(lambda draw, right: 0, count=19)).collapsed


def test_at_the_threshold_itself_a_model_still_chooses():
    """Fifteen of twenty are three quarters; a set of twenty is enough."""

    def picking(first):
        made = []
        for number in range(20):
            picked = 0 if number < first else 1 + number % 3
            scores = tuple(0.0 if i == picked else -3.0 for i in range(4))
            options = ((0,), (1,), (2,), (3,))
            made.append(Scored(f"q{number}", options, scores, (1,) * 4, number % 4))
        return choices(made)

    assert not picking(15).collapsed
    assert picking(16).collapsed
    # As many right answers under a letter: at the threshold that excuses nothing yet, above it all.
    one = [Scored("q", ((0,), (1,)), (0.0, -3.0), (1, 1), int(n >= 15)) for n in range(20)]
    assert choices(one).collapsed
    one[15] = Scored("q", ((0,), (1,)), (0.0, -3.0), (1, 1), 0)
    assert not choices(one).collapsed


def test_circling_begins_above_half_and_at_four_tokens():
    half = ["a", "a", "a", "a", "a"]  # two 4-grams, one of them new
    assert circling([half]) == 0
    assert circling([[*half, "a"]]) == 1
    # Three tokens in turn: nearly all 4-grams stood before, as all n-grams would.
    assert repetition(["a", "b", "c"] * 4) == pytest.approx(6 / 9)


def test_how_rarely_a_guesser_is_called_collapsed():
    """The figure in the documentation of the threshold."""
    n = FEWEST_QUESTIONS
    chance = 4 * binom.sf(math.floor(MOST_ONE_LETTER * n), n, 0.25)
    assert 1e-6 < chance < 2e-6


def test_uncertainty_is_the_mean_entropy_of_the_shares():
    sure = Scored("a", ((0,), (1,), (2,), (3,)), (0.0, -50.0, -50.0, -50.0), (1,) * 4, 0)
    lost = Scored("b", ((0,), (1,), (2,), (3,)), (-7.0,) * 4, (1,) * 4, 0)
    assert choices([sure]).uncertainty == pytest.approx(0, abs=1e-12)
    assert choices([lost]).uncertainty == pytest.approx(math.log(4))
    assert choices([sure, lost]).uncertainty == pytest.approx(math.log(4) / 2)


def test_spread_sees_a_model_that_prefers_the_same_words_whatever_is_asked():
    """Words in random order: the letters look fine."""
    draw = Random(1)
    knowing, fixed = [], []
    for number in range(400):
        words = draw.sample(range(16), 4)
        options = tuple((w,) for w in words)
        right = draw.randrange(4)
        knows = tuple(float(i == right) for i in range(4))
        knowing.append(Scored(f"k{number}", options, knows, (1,) * 4, right))
        prefers = tuple(-float(w) for w in words)
        fixed.append(Scored(f"f{number}", options, prefers, (1,) * 4, right))
    assert not choices(fixed).collapsed
    assert choices(fixed).entropy == pytest.approx(math.log(4), abs=0.05)
    assert choices(fixed).spread < 0.7
    assert choices(knowing).spread == pytest.approx(1)


@given(st.lists(st.floats(0, 100), min_size=1, max_size=8).filter(lambda w: sum(w) > 1e-6))
def test_entropy_like_scipy(weights):
    assert entropy(weights) == pytest.approx(float(scipy_entropy(weights)), abs=1e-9)


@pytest.mark.parametrize("weights", [[0.0, 0.0], [1.0, -1.0]])
def test_no_entropy(weights):
    with pytest.raises(ValueError, match="weights of at least 0"):
        entropy(weights)


def test_nothing_scored():
    with pytest.raises(ValueError, match="no questions"):
        choices([])


@pytest.mark.parametrize(
    ("text", "n", "share"),
    [
        ("a b c d e f", 2, 0.0),
        ("a a a a a", 4, 0.5),  # two 4-grams, one of them new
        ("a b a b a b", 2, 0.6),  # ab ba ab ba ab
        ("a b", 4, 0.0),
    ],
)
def test_repetition_by_hand(text, n, share):
    assert repetition(text.split(), n) == pytest.approx(share)


def test_circling_counts_responses():
    assert circling([["a", "b", "c", "d", "e", "f", "g"], ["a"] * 20]) == 0.5
    with pytest.raises(ValueError, match="no responses"):
        circling([])
    with pytest.raises(ValueError, match="n-grams of 0"):
        repetition(["a"], 0)


def examples():
    lengths = [9, 4, 6, 7, 5]
    draw = torch.Generator().manual_seed(3)
    return [
        Example(f"e{n}", tuple(torch.randint(1, VOCABULARY, (n,), generator=draw).tolist()), 1 + i)
        for i, n in enumerate(lengths)
    ]


def test_text_score_like_one_text_at_a_time_in_float64():
    model = llama().eval()
    exact = llama().eval().double()
    losses, entropies = [], []
    for example in examples():
        with torch.no_grad():
            log_p = exact(torch.tensor([example.ids])).logits[0].log_softmax(-1)
        for at in range(example.prompt_length, len(example.ids)):
            losses.append(-float(log_p[at - 1, example.ids[at]]))
            entropies.append(float(scipy_entropy(log_p[at - 1].exp().numpy())))
    for rows, pad in ((1, 0), (2, 0), (5, 7)):
        got = text_score(model, examples(), pad, rows=rows)
        assert got.tokens == len(losses)
        assert got.loss == pytest.approx(sum(losses) / len(losses), abs=1e-5)
        assert got.entropy == pytest.approx(sum(entropies) / len(entropies), abs=1e-5)


@pytest.mark.parametrize(
    ("positions", "widths"), [(10**9, [9]), (10, [5, 6, 7, 9]), (15, [5, 7, 9]), (18, [6, 9])]
)
def test_memory_for_scores_bounds_the_texts_of_a_pass(monkeypatch, positions, widths):
    """At the vocabulary of Llama 3 the 256 texts of a pass would need 34 GB for scores alone."""
    model, seen = llama().eval(), []
    whole = text_score(model, examples(), 0)
    model.register_forward_pre_hook(
        lambda module, args, given: seen.append(tuple(given["input_ids"].shape)), with_kwargs=True
    )
    monkeypatch.setattr(texts, "SCORES", positions * VOCABULARY)
    got = text_score(model, examples(), 0)
    assert all(rows == 1 or rows * width <= positions for rows, width in seen)
    assert sum(rows for rows, _ in seen) == len(examples())
    assert (got.loss, got.entropy) == pytest.approx((whole.loss, whole.entropy), abs=1e-6)
    assert [width for _, width in seen] == widths


def test_entropy_at_its_ends():
    """A head of zeros gives the logarithm of the vocabulary, a rigged head nothing."""
    model = llama().eval()
    torch.nn.init.zeros_(model.lm_head.weight)
    assert text_score(model, examples(), 0).entropy == pytest.approx(math.log(VOCABULARY), abs=1e-5)
    model.lm_head = torch.nn.Linear(16, VOCABULARY)
    torch.nn.init.zeros_(model.lm_head.weight)
    with torch.no_grad():
        model.lm_head.bias.fill_(-1e4)
        model.lm_head.bias[3] = 0.0
    assert text_score(model, examples(), 0).entropy == 0.0


def test_texts_without_labels():
    with pytest.raises(ValueError, match="no token"):
        text_score(llama(), [Example("x", (1, 2), 2)], 0)
