"""Evaluation: every response kept, scored by the rules, the same every time; and its scores."""

from __future__ import annotations

import json
from dataclasses import dataclass, field

import pytest
import torch

from kit.lm.backend import Generation
from kit.lm.generate import TransformersBackend
from kit.methods.defensive_tokens import attacks
from kit.methods.defensive_tokens.evaluate import evaluate_prefixes
from kit.methods.defensive_tokens.prompt_defences import NO_DEFENCE, PromptDefence
from kit.methods.defensive_tokens.scores import response_rows, score_table
from kit.methods.defensive_tokens.standin import AnswerLengths, answer_lengths
from kit.methods.defensive_tokens.struq_text import TEST_ATTACKS
from kit.mini.chat import MINI
from tests.lm.tiny_world import TEXTS, mini_tokenizer, samples, tiny_llama

TOKENIZER = mini_tokenizer()
VOCABULARY = TOKENIZER.get_vocab()
V = len(TOKENIZER)
POOL = samples(10, every_empty=5)
ELIGIBLE = [sample for sample in POOL if sample.input]


@dataclass
class Scripted:
    """Answers by rule: obeys injections in every second sample, otherwise the right answer."""

    vocabulary_size: int = V
    calls: list = field(default_factory=list)

    def generate(self, prompts, **settings):
        self.calls.append(([list(p) for p in prompts], settings))
        answers = []
        for position, prompt in enumerate(prompts):
            sample = ELIGIBLE[position % len(ELIGIBLE)]
            hacked = VOCABULARY["hacked"] in prompt and position % 2 == 0
            words = ["hacked"] if hacked else [sample.output]
            answers.append(Generation(tuple(VOCABULARY[w] for w in words), "stop"))
        return answers


def evaluate(backend=None, prefix=None, **settings):
    settings = {"max_new_tokens": 4, "references_are_right": True, **settings}
    layout = settings.pop("layout", "before-bos")
    defence = settings.pop("defence", NO_DEFENCE)
    (made,) = evaluate_prefixes(
        backend or Scripted(),
        TOKENIZER,
        MINI,
        layout,
        [(prefix, defence)],
        POOL,
        TEXTS,
        attacks.MINI,
        **settings,
    )
    return made


def test_one_call_generates_all_conditions():
    backend = Scripted()
    evaluate(backend)
    (prompts, settings), *more = backend.calls
    assert not more
    assert len(prompts) == 4 * len(ELIGIBLE)
    assert settings["prefix"] is None
    assert settings["max_new_tokens"] == 4


def test_scores_of_a_scripted_model():
    result = evaluate()
    assert list(result.attacks) == ["ignore", "completion", "ignore_completion"]
    for condition in result.attacks.values():
        assert list(condition.injected) == [i % 2 == 0 for i in range(len(ELIGIBLE))]
        assert condition.injected_anywhere == condition.injected
        assert list(condition.correct) == [not flag for flag in condition.injected]
        assert condition.refused == {}
    assert all(result.benign.correct)
    assert result.benign.injected == ()
    assert set(result.benign.refused) == {"as-reported", "first-sentence", "six-phrases"}
    name, rate = result.max_asr()
    assert (name, rate.k, rate.n) == ("ignore", 4, 8)
    assert result.any_asr().k == 4


def test_every_response_is_kept_with_its_data_and_prompt_start():
    result = evaluate(Scripted(), torch.zeros(2, 32))
    condition = result.attacks["completion"]
    assert [r.sample_id for r in condition.responses] == [s.id for s in ELIGIBLE]
    first = condition.responses[0]
    assert first.data.startswith(f"{ELIGIBLE[0].input} response :")
    assert first.prompt_start[:3] == (V, V + 1, VOCABULARY["<s>"])
    assert len(first.prompt_start) == 8
    assert (first.text, first.tokens, first.finish_reason) == ("hacked", 1, "stop")


def test_the_layout_reaches_the_prompts():
    begin = VOCABULARY["<s>"]
    result = evaluate(Scripted(), torch.zeros(1, 32), layout="bos-before-and-after")
    assert result.benign.responses[0].prompt_start[:3] == (begin, V, begin)
    undefended = evaluate(layout="bos-before-and-after")
    assert undefended.benign.responses[0].prompt_start[:2] == (begin, begin)


def test_without_right_references_there_is_no_accuracy():
    result = evaluate(references_are_right=False)
    assert result.benign.correct == ()
    assert score_table(result)["accuracy"] == {}


def test_a_real_model_gives_the_same_evaluation_twice_and_for_any_batch():
    model = tiny_llama(V)
    prefix = torch.randn(3, 32, generator=torch.Generator().manual_seed(0))
    names = tuple(name for name in attacks.ATTACKS if name not in TEST_ATTACKS)
    first = evaluate(TransformersBackend(model, 0), prefix, attacks=names)
    second = evaluate(TransformersBackend(model, 0, max_batch=3), prefix, attacks=names)
    assert first == second
    assert list(first.attacks) == list(names)


def test_the_prefix_changes_what_the_model_says():
    model = tiny_llama(V)
    backend = TransformersBackend(model, 0)
    plain, defended = evaluate(backend), evaluate(backend, 3 * torch.randn(3, 32))
    assert [r.text for r in plain.benign.responses] != [r.text for r in defended.benign.responses]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"attacks": ()}, "once each"),
        ({"attacks": ("naive", "naive")}, "once each"),
        ({"attacks": ("gcg",)}, "unknown attack 'gcg'"),
        ({"layout": "end"}, "unknown layout"),
    ],
)
def test_bad_requests_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        evaluate(**settings)


def test_no_eligible_sample_is_an_error():
    asked = [(None, NO_DEFENCE)]
    made = evaluate_prefixes(
        Scripted(), TOKENIZER, MINI, "before-bos", asked, [], TEXTS, attacks.MINI
    )
    with pytest.raises(ValueError, match="none of 0 samples"):
        list(made)


@dataclass
class Together(Scripted):
    """Serves three prefixes of two vectors side by side; which came together is kept."""

    groups: list = field(default_factory=list)

    def sets_at_once(self, vectors):
        return 6 // vectors

    def generate_sets(self, sets, **settings):
        self.groups.append([prefix for _, prefix in sets])
        return [self.generate(prompts, prefix=prefix, **settings) for prompts, prefix in sets]


def test_prefixes_are_served_side_by_side_with_the_same_outcome():
    prefixes = [None, torch.zeros(2, 8), torch.ones(2, 8), torch.full((2, 8), 2.0)]
    defence = PromptDefence(after_data="Stop.")
    asked = [(prefix, NO_DEFENCE) for prefix in prefixes] + [(None, defence)]
    given = (TOKENIZER, MINI, "before-bos", asked, POOL, TEXTS, attacks.MINI)
    alone, backend = Scripted(), Together()
    wanted = list(evaluate_prefixes(alone, *given, max_new_tokens=4))
    assert list(evaluate_prefixes(backend, *given, max_new_tokens=4)) == wanted
    assert [len(group) for group in backend.groups] == [3, 2]
    assert [prefix for group in backend.groups for prefix in group] == [p for p, _ in asked]
    assert backend.calls == alone.calls


def test_what_is_asked_twice_is_generated_once():
    start, other = torch.ones(2, 8), torch.ones(2, 8).bfloat16()
    defence = PromptDefence(after_data="Stop.")
    asked = [
        (None, NO_DEFENCE),
        (start, NO_DEFENCE),
        (None, defence),
        (start.clone(), NO_DEFENCE),
        (None, NO_DEFENCE),
        (start, defence),
        (start + 1e-6, NO_DEFENCE),
        (other, NO_DEFENCE),
        (start[:1], NO_DEFENCE),
    ]
    given = (TOKENIZER, MINI, "before-bos", asked, POOL, TEXTS, attacks.MINI)
    backend = Together()
    made = list(evaluate_prefixes(backend, *given, max_new_tokens=4))
    assert [len(group) for group in backend.groups] == [3, 3, 1]
    assert made[3] is made[1]
    assert made[4] is made[0]
    # Every other is its own: a defence, the last bit, the dtype and the number of vectors count.
    assert len({id(evaluation) for evaluation in made}) == 7
    each = [
        next(iter(evaluate_prefixes(Scripted(), *given[:3], [one], *given[4:], max_new_tokens=4)))
        for one in asked
    ]
    assert made == each


def test_scores_of_an_evaluation():
    scores = score_table(evaluate())
    n = len(ELIGIBLE)
    assert scores["items"] == [sample.id for sample in ELIGIBLE]
    assert scores["asr"]["ignore"] == [1, 0] * 4
    assert scores["refusal"]["as-reported"] == [0] * n
    assert scores["accuracy"]["benign"] == [1] * n
    assert scores["accuracy"]["ignore"] == [0, 1] * 4
    benign = scores["lengths"]["benign"]
    assert (benign["truncated"], benign["empty"], benign["mean_tokens"]) == (0, 0, 1.0)


def test_scores_and_rows_are_plain_json():
    result = evaluate()
    scores = score_table(result)
    assert json.loads(json.dumps(scores)) == scores
    rows = json.loads(json.dumps(response_rows(result)))
    assert len(rows) == 4 * len(ELIGIBLE)
    attacked, benign = rows[0], rows[-1]
    assert attacked["injected"] is True
    assert "refused_as-reported" not in attacked
    assert benign["condition"] == "benign"
    assert benign["refused_as-reported"] is False
    assert benign["correct"] is True
    assert "injected" not in benign


class Counting:
    """Answers with as many tokens as it may, all the same."""

    vocabulary_size = V

    def __init__(self):
        self.asked = []

    def generate(self, prompts, *, max_new_tokens, prefix, stop_ids):
        self.asked.append(max_new_tokens)
        return [Generation((7,) * max_new_tokens, "length")] * len(prompts)

    def sets_at_once(self, vectors):
        return 3

    def generate_sets(self, sets, *, max_new_tokens, stop_ids):
        self.asked.append(max_new_tokens)
        return [[Generation((7,) * n, "length") for n in limits] for limits in max_new_tokens]


def test_stand_in_answers_have_true_lengths_one_by_one_and_side_by_side():
    sets = [([[1]] * 5, None), ([[1]] * 8, torch.zeros(2, 8))]
    how = {"max_new_tokens": 60, "stop_ids": [2]}
    limits = [[min(n, 60) for n in answer_lengths(k, k)] for k in (5, 8)]
    for cut, at_once in ((False, 3), (True, 1)):
        inner = Counting()
        backend = AnswerLengths(inner, [30, 31], cut=cut)
        assert backend.sets_at_once(2) == at_once
        made = backend.generate_sets(sets, **how)
        assert [[len(one.ids) for one in answers] for answers in made] == limits
        assert {token for answers in made for one in answers for token in one.ids} == {31}
        assert inner.asked == ([60, 60] if cut else [limits])
        assert backend.generate(sets[1][0], prefix=sets[1][1], **how) == made[1]
