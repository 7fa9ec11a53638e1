"""Evaluation: every response kept, scored by the rules, the same every time; and its scores."""

from __future__ import annotations

import json
from dataclasses import dataclass, field

import pytest
import torch

from kit.lm.backend import Generation
from kit.lm.generate import TransformersBackend
from kit.methods.defensive_tokens import attacks
from kit.methods.defensive_tokens.evaluate import evaluate_prefix
from kit.methods.defensive_tokens.scores import response_rows, score_table
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
    return evaluate_prefix(
        backend or Scripted(),
        TOKENIZER,
        MINI,
        layout,
        prefix,
        POOL,
        TEXTS,
        attacks.MINI,
        **settings,
    )


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
    with pytest.raises(ValueError, match="none of 0 samples"):
        evaluate_prefix(Scripted(), TOKENIZER, MINI, "before-bos", None, [], TEXTS, attacks.MINI)


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
