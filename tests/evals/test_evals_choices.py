"""Multiple choice: against lm-evaluation-harness, by hand, and on the miniature world."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace

import pytest
import torch
from scipy.special import softmax

from kit.evals.formats import Formatted, cloze, lettered, with_shots
from kit.evals.harness import harness_score
from kit.evals.multiple_choice import (
    Scored,
    accuracy,
    items_of,
    letters,
    mean_probability,
    score,
)
from kit.lm.generate import TransformersBackend
from kit.lm.standin import read_shape
from tests.lm.tiny_world import MINI_WORDS, llama3_tokenizer, mini_tokenizer, tiny_llama

torch.set_num_threads(1)


@dataclass(frozen=True)
class Asked:
    id: str
    prompt: str
    options: tuple[str, ...]
    answer: int


def questions(count=40, words_an_option=3, seed=0):
    """Questions of random words whose options differ in length."""
    draw = torch.Generator().manual_seed(seed)

    def text(words):
        return " ".join(
            MINI_WORDS[i] for i in torch.randint(len(MINI_WORDS), (words,), generator=draw)
        )

    made = []
    for number in range(count):
        lengths = torch.randint(1, words_an_option + 1, (4,), generator=draw)
        options = tuple(text(int(n)) for n in lengths)
        made.append(Asked(f"q{number}", text(5 + number % 4), options, number % 4))
    return made


def backend(tokenizer, seed=0):
    model = tiny_llama(len(tokenizer), seed=seed, max_position_embeddings=512)
    return TransformersBackend(model, 0)


def harness_task(name, asked):
    """The harness's own task class over questions in memory."""
    import datasets
    from lm_eval.api.task import ConfigurableTask

    rows = [{"q": a.prompt, "options": list(a.options), "answer": a.answer} for a in asked]

    def custom_dataset(**_):
        return {"test": datasets.Dataset.from_list(rows)}

    return ConfigurableTask(
        config={
            "task": name,
            "custom_dataset": custom_dataset,
            "test_split": "test",
            "output_type": "multiple_choice",
            "doc_to_text": "{{q}}",
            "doc_to_choice": "options",
            "doc_to_target": "answer",
            "num_fewshot": 0,
            "metric_list": [{"metric": "acc"}, {"metric": "acc_norm"}],
        }
    )


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("make", [mini_tokenizer, llama3_tokenizer])
def test_like_lm_eval(make):
    """Every likelihood to 1e-6, every pick, both accuracies: the harness's public entry point."""
    from lm_eval import simple_evaluate
    from lm_eval.models.huggingface import HFLM

    tokenizer = make()
    tokenizer.pad_token = tokenizer.eos_token = tokenizer.convert_ids_to_tokens(0)
    bare = questions()
    forms = {"bare": bare, "lettered": [*map(lettered, bare)], "cloze": [*map(cloze, bare)]}
    # In float64 what is left of differences is arithmetic, not rounding.
    model = tiny_llama(len(tokenizer), max_position_embeddings=512).double()
    harness = HFLM(
        pretrained=model,
        tokenizer=tokenizer,
        batch_size=64,
        device="cpu",
        max_length=512,
        softmax_dtype="float64",
    )
    tasks = [harness_task(name, asked) for name, asked in forms.items()]
    theirs = simple_evaluate(harness, tasks=tasks, bootstrap_iters=0)
    for name, asked in forms.items():
        samples = sorted(theirs["samples"][name], key=lambda sample: sample["doc_id"])
        ours = score(TransformersBackend(model, 0), items_of(asked, tokenizer.encode))
        assert [one.id for one in ours] == [a.id for a in asked]
        for one, sample in zip(ours, samples, strict=True):
            expected = [float(response[0]) for (response,) in sample["resps"]]
            assert one.loglikelihoods == pytest.approx(expected, abs=1e-6, rel=0)
            assert float(one.right()) == sample["acc"]
            assert float(one.right(normalised=True)) == sample["acc_norm"]
        results = theirs["results"][name]
        assert accuracy(ours).value == pytest.approx(results["acc,none"], abs=1e-12)
        assert accuracy(ours, normalised=True).value == pytest.approx(results["acc_norm,none"])
        # Length changes picks where options differ in length, so the two are told apart.
        differ = sum(one.chosen() != one.chosen(normalised=True) for one in ours)
        assert (differ == 0) == (name == "lettered")


@pytest.mark.filterwarnings("ignore")
def test_a_missing_result_is_an_error(monkeypatch):
    """The published scripts counted a question without a result as .25."""
    import lm_eval

    tokenizer = mini_tokenizer()
    tokenizer.pad_token = tokenizer.eos_token = tokenizer.convert_ids_to_tokens(0)
    model, asked = tiny_llama(len(tokenizer), max_position_embeddings=512), questions(4)
    scored = harness_score(model, tokenizer, asked)
    assert [answer.id for answer in scored] == [question.id for question in asked]
    evaluate = lm_eval.simple_evaluate

    def without_the_last(*given, **named):
        results = evaluate(*given, **named)
        results["samples"]["questions"].pop()
        return results

    monkeypatch.setattr(lm_eval, "simple_evaluate", without_the_last)
    with pytest.raises(ValueError, match="answered 3 of 4 questions"):
        harness_score(model, tokenizer, asked)


def test_the_harness_reads_as_much_as_the_published_models_do(monkeypatch):
    """Longer prompts lose their beginning, as the models' own context has it."""
    import lm_eval
    from lm_eval.models import huggingface

    class Enough(Exception):
        pass

    given = {}

    def scorer(**how):
        given.update(how)
        raise Enough

    monkeypatch.setattr(huggingface, "HFLM", scorer)
    assert lm_eval.simple_evaluate
    tokenizer = mini_tokenizer()
    with pytest.raises(Enough):
        harness_score(tiny_llama(len(tokenizer)), tokenizer, questions(2), batch=3)
    published = read_shape("gpt-neox-6.9b").config["max_position_embeddings"]
    assert given["max_length"] == published
    assert given["batch_size"] == 3
    assert given["add_bos_token"] is False


def test_formats_like_the_harness_task_files():
    """The prompt that the harness renders from the WMDP and MMLU template."""
    from lm_eval.utils import apply_template

    template = (
        "{{question.strip()}}\nA. {{choices[0]}}\nB. {{choices[1]}}\nC. {{choices[2]}}\n"
        "D. {{choices[3]}}\nAnswer:"
    )
    asked = Asked("x", " What is it? ", ("a dog", "a cat", "a fox", "a plum"), 2)
    rendered = apply_template(template, {"question": asked.prompt, "choices": asked.options})
    opening = "The following are multiple choice questions (with answers) about biology.\n\n"
    made = lettered(asked, about="biology")
    assert made.prompt == opening + rendered
    assert made.options == ("A", "B", "C", "D")
    assert made.answer == 2
    assert cloze(asked).prompt == "Question: What is it?\nAnswer:"
    assert cloze(asked).options == asked.options


def test_shots_are_answered_and_the_opening_stands_once():
    first, second = (lettered(one) for one in questions(2))
    made = with_shots(second, [first], about="fruit")
    assert made.prompt == (
        "The following are multiple choice questions (with answers) about fruit.\n\n"
        f"{first.prompt} A\n\n{second.prompt}"
    )
    with pytest.raises(ValueError, match="among its own examples"):
        with_shots(second, [first, second])


def scored(*loglikelihoods, answer=0, characters=(1, 1, 1, 1), id="q"):
    options = tuple((i,) for i in range(len(loglikelihoods)))
    return Scored(id, options, loglikelihoods, characters, answer)


def test_picks_by_hand():
    one = scored(-4.0, -3.0, -9.0, -8.0, characters=(8, 2, 3, 16), answer=3)
    assert one.chosen() == 1
    assert one.chosen(normalised=True) == 0  # -.5, -1.5, -3, -.5: the first of two equal ones
    assert not one.right(normalised=True)
    assert one.probabilities == pytest.approx(tuple(softmax([-4.0, -3.0, -9.0, -8.0])))
    assert letters([one]) == (["B"], ["D"])


def test_the_mean_probability_of_the_right_option():
    pair = [
        scored(0.0, math.log(3), answer=1, characters=(1, 1)),
        scored(-5000.0, -5000.0, characters=(1, 1)),
    ]
    assert mean_probability(pair) == pytest.approx((0.75 + 0.5) / 2)
    with pytest.raises(ValueError, match="no questions"):
        mean_probability([])


def test_a_rigged_model_is_right_exactly_where_it_was_rigged():
    """The output layer is made to prefer a word; only questions with that answer are right."""
    tokenizer = mini_tokenizer()
    model = tiny_llama(len(tokenizer))
    favourite = tokenizer.convert_tokens_to_ids("cat")
    model.lm_head = torch.nn.Linear(32, len(tokenizer))
    torch.nn.init.zeros_(model.lm_head.weight)
    torch.nn.init.zeros_(model.lm_head.bias)
    with torch.no_grad():
        model.lm_head.bias[favourite] = 5.0
    asked = [
        Asked("hit", "copy the first", ("dog", "cat", "fox", "red"), 1),
        Asked("miss", "copy the last", ("dog", "cat", "fox", "red"), 2),
    ]
    got = score(TransformersBackend(model, 0), items_of(asked, tokenizer.encode))
    assert [one.right() for one in got] == [True, False]
    assert [one.chosen() for one in got] == [1, 1]


def test_a_space_at_the_end_of_a_prompt_goes_to_the_option():
    encode = llama3_tokenizer().encode
    plain = Asked("x", "dog", ("cat", "fox"), 0)
    assert items_of([replace(plain, prompt="dog ")], encode, delimiter="") == items_of(
        [plain], encode
    )


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ([], "no questions"),
        ([Asked("x", "dog", ("cat", "fox"), 0)] * 2, "x is there twice"),
        ([Asked("x", "dog", ("cat",), 0)], "answer 0 of 1 options"),
        ([Asked("x", "dog", ("cat", "fox"), 2)], "answer 2 of 2 options"),
        ([Asked("x", "dog", ("cat", "fox"), -1)], "answer -1 of 2 options"),
        ([Asked("x", "dog", ("cat", ""), 0)], "an empty option"),
        ([Asked("x", "  ", ("cat", "fox"), 0)], "an empty prompt"),
        ([Asked("x", "dog", ("cat", " "), 0)], "adds no token"),
    ],
)
def test_bad_questions(asked, message):
    with pytest.raises(ValueError, match=message):
        items_of(asked, mini_tokenizer().encode)


def test_a_broken_model_picks_nothing():
    tokenizer = mini_tokenizer()
    broken = backend(tokenizer)
    with torch.no_grad():
        broken.model.lm_head.weight.fill_(float("nan"))
    items = items_of([Asked("x", "dog", ("cat", "fox"), 0)], tokenizer.encode)
    with pytest.raises(ValueError, match="question x: a likelihood is not a number"):
        score(broken, items)


def test_the_world_of_facts_fits_and_is_fast():
    """Its questions as they are; hundreds of them on its own model within a second or two."""
    from kit.mini.facts.measure import accuracy as world_accuracy
    from kit.mini.facts.measure import question_sets
    from kit.mini.facts.model import Shape, new_model, vocabulary
    from kit.mini.facts.world import make_world

    ids = vocabulary()
    asked = question_sets(make_world(0))["retain"]
    model = new_model(Shape(), 0).eval()
    items = items_of(asked, lambda text: [ids[word] for word in text.split()])
    assert len(items) >= 300
    begin = time.process_time()
    got = score(TransformersBackend(model, ids["<pad>"]), items)
    assert time.process_time() - begin < 2.0
    assert accuracy(got).value == world_accuracy(model, asked)
    assert {type(one) for one in [lettered(asked[0])]} == {Formatted}
