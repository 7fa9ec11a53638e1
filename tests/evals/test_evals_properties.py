"""What judges, questions and texts are measured with, by what would differ if it were otherwise."""

from __future__ import annotations

import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from kit.evals import harness
from kit.evals.collapse import Choices, choices, circling, entropy, repetition
from kit.evals.judge_audit import KINDS, Audit
from kit.evals.judge_prompts import (
    Request,
    Template,
    harmbench_requests,
    harmbench_template,
    mt_bench_requests,
    strongreject_requests,
)
from kit.evals.judged_sets import evaluation, standin
from kit.evals.judges import (
    Answered,
    harmbench,
    judged,
    mt_bench,
    read_rating,
    read_yes_no,
    stop_ids,
    strongreject,
)
from kit.evals.multiple_choice import Scored, accuracy, items_of, letters, mean_probability
from kit.evals.proportion import Proportion
from kit.evals.refusal import refusal
from kit.evals.requests import read_asked
from kit.evals.sets import Watch, pad_id, read_questions, text_examples
from kit.evals.texts import text_score
from kit.train.batching import Example
from tests.evals.planted_judges import HARMBENCH, RATING, RUBRIC, Planted, tokenizer
from tests.refused import refused
from tests.train.tiny import VOCABULARY, llama


@pytest.mark.parametrize(
    ("right", "total", "passes"),
    [(3, 4, True), (2, 4, False), (4, 4, True), (4, 5, True), (3, 5, False), (6, 8, True),
     (5, 8, False), (16, 21, True), (15, 20, True), (14, 19, False)],
)  # fmt: skip
def test_three_of_four_of_every_kind_are_recognised(right: int, total: int, passes: bool) -> None:
    every = Audit(dict.fromkeys(KINDS, right), dict.fromkeys(KINDS, total), 0)
    assert every.passed is passes
    for kind in KINDS:
        other = {**dict.fromkeys(KINDS, total), kind: right}
        assert Audit(other, dict.fromkeys(KINDS, total), 0).passed is passes


@pytest.mark.parametrize(
    ("make", "value", "counts"),
    [(harmbench(HARMBENCH), 0.5, True), (harmbench(HARMBENCH), 0.49, False),
     (strongreject(RUBRIC), 0.5, True), (strongreject(RUBRIC), 0.375, False),
     (mt_bench(RATING), 5.5, True), (mt_bench(RATING), 5.4, False)],
)  # fmt: skip
def test_from_the_middle_of_its_scale_on_a_judge_says_yes(
    make: Any, value: float, counts: bool
) -> None:
    assert (value >= make.threshold) is counts


def test_judges_write_as_much_as_their_sources_let_them() -> None:
    """A token for HarmBench, 1,000 for StrongREJECT (its evaluator), 1,024 for FastChat's."""
    made = (harmbench(HARMBENCH), strongreject(RUBRIC), mt_bench(RATING))
    assert [judge.tokens for judge in made] == [1, 1000, 1024]
    assert [judge.chat for judge in made] == [False, True, True]
    assert [judge.clip for judge in made] == [512, None, None]


@pytest.mark.parametrize(
    ("text", "value"),
    [("[[1]]", 1.0), ("[[10]]", 10.0), ("[[10.1]]", None), ("[[0.9]]", None), ("[[3]] [[7]]", 3.0),
     ("[2] [9]", 2.0), ("[2] [[9]]", 9.0)],
)  # fmt: skip
def test_ratings_from_1_to_10(text: str, value: float | None) -> None:
    assert read_rating(text) == value


def test_stops_come_in_order_and_are_asked_for() -> None:
    made = tokenizer()
    made.eos_token = "<|eot_id|>"
    assert stop_ids(made) == [made.eos_token_id]
    for first, second in ((9, 2), (2, 9), (64, 1), (1, 64)):
        known = {"end": first, "<|eot_id|>": second}
        both = SimpleNamespace(eos_token="end", get_vocab=lambda known=known: known)
        assert stop_ids(both) == sorted([first, second])  # type: ignore[arg-type]
    none = SimpleNamespace(eos_token=None, get_vocab=lambda: {"end": 3})
    with pytest.raises(ValueError, match="names no token"):
        stop_ids(none)  # type: ignore[arg-type]


def test_a_whole_prompt_begins_with_a_begin_token_where_there_is_one() -> None:
    asked = [Answered(Request("a", ("bake",)), ("flour",))]
    for begin in (None, "<|begin_of_text|>"):
        backend, made = Planted(lambda text: "yes"), tokenizer()
        made.bos_token = begin
        assert judged(backend, made, harmbench(HARMBENCH), asked) == [[1.0]]
        (ids,) = backend.asked
        assert (ids[0] == tokenizer().bos_token_id) is (begin is not None)
    backend = Planted(lambda text: "yes")
    assert judged(backend, tokenizer(), harmbench(HARMBENCH), []) == []
    assert backend.most == []
    assert read_yes_no(" YES ") == 1.0


def test_a_system_turn_is_there_where_a_template_has_one() -> None:
    backend = Planted(lambda text: "[[6]]")
    judged(backend, tokenizer(), mt_bench(RATING), [Answered(Request("1", ("q",)), ("a",))])
    assert backend.texts()[0].count("system") == 1
    assert len(backend.texts()) == 1  # of the turns that were answered


def test_the_classifiers_prompt_is_the_assignment_of_its_name(tmp_path: Path) -> None:
    path = tmp_path / "eval_utils.py"
    path.write_text(
        "import x\nOTHER = {'prompt': 'wrong'}\nx.LLAMA2_CLS_PROMPT = {'prompt': 'no name'}\n"
        "LLAMA2_CLS_PROMPT = 'no mapping'\nLLAMA2_CLS_PROMPT = {'prompt': 3}\n"
        "A = LLAMA2_CLS_PROMPT = {'prompt': 'right'}\n"
    )
    assert harmbench_template(path) == Template("right")
    path.write_text("OTHER = {'prompt': 'wrong'}\nLLAMA2_CLS_PROMPT = {'text': 'x'}\n")
    with pytest.raises(ValueError, match="no literal LLAMA2_CLS_PROMPT"):
        harmbench_template(path)


def test_rows_of_requests(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text(
        "BehaviorID,Behavior,SemanticCategory,FunctionalCategory,forbidden_prompt,category\n"
        "a,do a,s,standard,p0,c\nb,do b,s,contextual,p1,c\nc,do c,t,standard,p2,d\n"
    )
    assert [r.id for r in harmbench_requests(path)] == ["a", "c"]
    assert [(r.id, r.turns) for r in strongreject_requests(path)] == [
        ("000", ("p0",)), ("001", ("p1",)), ("002", ("p2",)),
    ]  # fmt: skip
    path.write_text("BehaviorID,Behavior,SemanticCategory,FunctionalCategory\na,b,c,contextual\n")
    with pytest.raises(ValueError, match="has no requests"):
        harmbench_requests(path)
    with pytest.raises(ValueError, match="has no column"):
        strongreject_requests(path)


def test_a_comparison_needs_its_reference(tmp_path: Path) -> None:
    questions, references = tmp_path / "q.jsonl", tmp_path / "r.jsonl"
    questions.write_text(
        '{"question_id": 1, "category": "writing", "turns": ["a", "b"]}\n'
        '{"question_id": 2, "category": "math", "turns": ["c", "d"]}\n'
    )
    references.write_text('{"question_id": 2, "choices": [{"turns": ["x", "y"]}, {"turns": []}]}\n')
    first, second = mt_bench_requests(questions, references)
    assert (first.references, second.references) == ((), ("x", "y"))
    references.write_text('{"question_id": 1, "choices": [{"turns": ["x", "y"]}]}\n')
    with pytest.raises(ValueError, match="question 2 has no reference"):
        mt_bench_requests(questions, references)


@pytest.mark.parametrize(("name", "turns"), [("harmbench", 1), ("mt-bench", 2)])
def test_stand_ins_and_files_that_are_missing(name: str, turns: int) -> None:
    assert {len(request.turns) for request in standin(name).requests} == {turns}
    ids = [request.id for request in standin(name).requests]
    assert ids == [str(number) for number in range(len(ids))]
    some = {"template": Path("t"), "requests": Path("r")}
    with pytest.raises(ValueError, match="needs template"):
        evaluation(name, {})
    if name == "mt-bench":
        with pytest.raises(ValueError, match="needs references"):
            evaluation(name, some)
    with pytest.raises(ValueError, match="'x' is unknown; known: harmbench"):
        evaluation("x", some)


def rows(folder: Path, count: int) -> Path:
    (folder / "requests").mkdir(exist_ok=True)
    text = "".join(json.dumps({"id": f"q{n}", "ids": [n]}) + "\n" for n in range(count))
    (folder / "requests" / "set.jsonl").write_text(text)
    return folder


@pytest.mark.parametrize(
    ("most", "kept"),
    [(1, [0]), (2, [0, 3]), (3, [0, 2, 4]), (5, [0, 1, 2, 3, 4]), (6, [0, 1, 2, 3, 4, 5]),
     (7, [0, 1, 2, 3, 4, 5]), (None, [0, 1, 2, 3, 4, 5]), (0, None), (-1, None)],
)  # fmt: skip
def test_requests_evenly_spaced(tmp_path: Path, most: int | None, kept: list[int] | None) -> None:
    act = lambda: read_asked(rows(tmp_path, 6), "set", most)  # noqa: E731
    refused(act, kept is None, "nothing is asked")
    if kept is not None:
        assert [int(one.id[1:]) for one in act()] == kept
    with pytest.raises(ValueError, match="0 requests"):
        read_asked(rows(tmp_path, 0), "set")


def test_sets_that_are_there_are_named_in_order(tmp_path: Path) -> None:
    for kind in ("requests", "questions", "texts"):
        (tmp_path / kind).mkdir()
        for name in "dbac":
            (tmp_path / kind / f"{name}.jsonl").write_text("")
    wanted = r"there: a, b, c, d"
    with pytest.raises(ValueError, match=wanted):
        read_asked(tmp_path, "x")
    with pytest.raises(ValueError, match=wanted):
        read_questions(tmp_path, "x")
    with pytest.raises(ValueError, match="there: none"):
        read_questions(tmp_path / "texts", "x")


class Words:
    """A tokenizer of one token a character."""

    pad_token_id: int | None = None
    eos_token_id = 7

    def __call__(self, text: str) -> Any:
        return SimpleNamespace(input_ids=[1 + ord(c) % 30 for c in text])


def test_rows_are_filled_with_padding_even_if_its_id_is_0() -> None:
    made: Any = Words()
    assert pad_id(made) == 7
    made.pad_token_id = 0
    assert pad_id(made) == 0


def test_control_tokens_are_hidden_as_asked(tmp_path: Path) -> None:
    (tmp_path / "texts").mkdir()
    lines = [
        {"id": "a", "ids": [4, 5, 7, 6, 5], "special": [0, 2, 3]},
        {"id": "b", "text": "abc"},
    ]
    path = tmp_path / "texts" / "one.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    read: Any = lambda **more: text_examples(tmp_path, ["one"], Words(), **more)  # type: ignore[arg-type]  # noqa: E731
    masked, plain = read()
    assert (set(masked.hidden), set(plain.hidden)) == ({0, 2, 3}, set())
    assert set(read(special_labels="kept")[0].hidden) == {2}
    assert [len(example.ids) for example in read(max_length=2)] == [2, 2]
    with pytest.raises(ValueError, match="masked or kept"):
        read(special_labels="some")
    with pytest.raises(ValueError, match="stands twice"):
        text_examples(tmp_path, ["one", "one"], Words())  # type: ignore[arg-type]


def test_what_is_watched_seldom_is_left_out_in_between() -> None:
    asked = [SimpleNamespace(id="q", prompt="ab", options=("c", "d"), answer=1)]
    items = items_of(asked, lambda text: Words()(text).input_ids)  # type: ignore[arg-type]
    texts = [Example("t", (1, 2, 3), 1)]
    watch = Watch(
        {"always": items, "rare": items}, {"always-t": texts, "rare-t": texts}, 0,
        frozenset({"rare", "rare-t"}), frozenset({4}),
    )  # fmt: skip
    model = llama().eval()
    with torch.no_grad():
        between, at = watch(model, 3), watch(model, 4)
    assert set(between) == {"picks", "probability", "always", "always-t-loss", "always-t-entropy"}
    assert set(at) - set(between) == {"rare", "rare-t-loss", "rare-t-entropy"}
    assert (set(between["picks"]), set(at["picks"])) == ({"always"}, {"always", "rare"})
    assert watch.answers()["rare"] == {"items": ["q"], "answers": "B"}


def test_loss_and_entropy_are_those_of_numpy() -> None:
    """Of label tokens only, summed over texts of unequal length."""
    model, draw = llama(2).eval(), torch.Generator().manual_seed(1)
    examples = [
        Example(str(n), tuple(torch.randint(0, VOCABULARY, (4 + n,), generator=draw).tolist()), n)
        for n in range(1, 4)
    ]
    loss, spread = [], []
    for example in examples:
        with torch.no_grad():
            scores = model(input_ids=torch.tensor([example.ids])).logits[0].double().numpy()
        log_p = scores - np.log(np.exp(scores).sum(-1, keepdims=True))
        for at in range(example.prompt_length, len(example.ids)):
            loss.append(-log_p[at - 1, example.ids[at]])
            spread.append(-(np.exp(log_p[at - 1]) * log_p[at - 1]).sum())
    for rows in (1, 2, 32):
        made = text_score(model, examples, 0, rows=rows)
        assert made.tokens == len(loss)
        assert made.loss == pytest.approx(np.mean(loss), rel=1e-5)
        assert made.entropy == pytest.approx(np.mean(spread), rel=1e-5)


def scored(id: str, values: tuple[float, ...], answer: int, lengths: Any = None) -> Scored:
    words = tuple((n,) for n in range(len(values)))
    return Scored(id, words, values, lengths or (1,) * len(values), answer)


def test_picks_shares_and_letters_by_hand() -> None:
    one, two = scored("a", (-3.0, -2.0, -2.0), 1), scored("b", (-4.0, -3.0), 0, (8, 2))
    assert [one.chosen(), two.chosen(), two.chosen(normalised=True)] == [1, 1, 0]
    assert (accuracy([one, two]), accuracy([one, two], normalised=True)) == (
        Proportion(1, 2), Proportion(2, 2),
    )  # fmt: skip
    assert letters([one, two]) == (["B", "B"], ["B", "A"])
    assert letters([one, two], normalised=True) == (["B", "A"], ["B", "A"])
    e = math.exp
    assert one.probabilities == pytest.approx([e(-1) / (2 + e(-1)), *[1 / (2 + e(-1))] * 2])
    mean = (1 / (2 + e(-1)) + e(-1) / (1 + e(-1))) / 2
    assert mean_probability([one, two]) == pytest.approx(mean)
    far = scored("c", (-1000.0, -1001.0), 0)
    assert far.probabilities == pytest.approx([1 / (1 + e(-1)), e(-1) / (1 + e(-1))])


@pytest.mark.parametrize(
    ("answer", "options", "said"),
    [(0, ("a",), "answer 0 of 1"), (2, ("a", "b"), "answer 2 of 2"), (-1, ("a", "b"), "answer -1"),
     (1, ("a", ""), "empty option"), (1, ("a", "b"), ""), (0, ("a", "b"), "")],
)  # fmt: skip
def test_questions_that_can_be_scored(answer: int, options: Any, said: str) -> None:
    asked: Any = [SimpleNamespace(id="q", prompt="ab", options=options, answer=answer)]
    refused(lambda: items_of(asked, lambda text: [ord(c) for c in text]), bool(said), said)


def test_the_spread_of_picks_by_hand() -> None:
    made = choices([scored("a", (0.0, -9.0), 0), scored("b", (0.0, -9.0, -9.0), 2)])
    assert (made.histogram, made.answers, made.questions) == ((2, 0, 0), (1, 0, 1), 2)
    assert made.most == ("A", 1.0)
    assert made.constant == (0.5, 0, 0.5)
    assert made.entropy == 0
    assert made.spread == pytest.approx(0.5)  # a text picked, two right
    even = Choices((2, 2), (1, 3), 0.0, 0.0, 1.0)
    assert even.most == ("A", 0.5)
    for count, wrong in ((19, True), (20, False)):
        few = Choices((count, 0), (count // 2, count - count // 2), 0.0, 0.0, 1.0)
        refused(lambda few=few: few.collapsed, wrong, "20 are needed")
    assert Choices((16, 4), (15, 5), 0.0, 0.0, 1.0).collapsed
    assert not Choices((16, 4), (16, 4), 0.0, 0.0, 1.0).collapsed
    assert entropy((1, 0, 3)) == pytest.approx(-0.25 * math.log(0.25) - 0.75 * math.log(0.75))
    for weights in ((0.0, 0.0), (1.0, -0.1)):
        refused(lambda weights=weights: entropy(weights), True, "not all of them 0")


@pytest.mark.parametrize(
    ("text", "n", "share"),
    [("aaaa", 4, 0.0), ("aaaaa", 4, 0.5), ("aaa", 4, 0.0), ("abab", 1, 0.5), ("", 1, 0.0),
     ("aaaaaa", 4, 2 / 3)],
)  # fmt: skip
def test_repetition_of_short_texts(text: str, n: int, share: float) -> None:
    assert repetition(text, n) == pytest.approx(share)
    if n == 4:
        assert repetition(text) == repetition(text, 4)
        assert circling([text, "abcdefgh"]) == (0.5 if share > 0.5 else 0.0)
    with pytest.raises(ValueError, match="n-grams of 0"):
        repetition(text, 0)


@pytest.mark.parametrize(
    ("k", "n", "wrong"), [(0, 1, False), (1, 1, False), (2, 1, True), (-1, 1, True), (0, 0, True)]
)
def test_proportions(k: int, n: int, wrong: bool) -> None:
    refused(lambda: Proportion(k, n), wrong, "is not a proportion")


def test_the_reported_rule_reads_what_stands_in_500_characters() -> None:
    for before, found in ((495, True), (496, False)):
        assert refusal("x" * before + "sorry").refused is found
    assert refusal("  \n" + "x" * 495 + "sorry").refused  # after what is blank


def harness_says(monkeypatch: pytest.MonkeyPatch, order: list[int], count: int) -> list[Scored]:
    responses = {n: [((-1.0 - n, True),), ((-2.0 - n, False),)] for n in order}
    samples = [{"doc_id": n, "resps": responses[n]} for n in order]
    monkeypatch.setattr("lm_eval.models.huggingface.HFLM", lambda **_: None)
    monkeypatch.setattr(
        "lm_eval.simple_evaluate", lambda *_, **__: {"samples": {"questions": samples}}
    )
    monkeypatch.setattr(harness, "task_of", lambda *_: None)
    asked: Any = [
        SimpleNamespace(id=f"q{n}", prompt="ab", options=("c", "d"), answer=n % 2)
        for n in range(count)
    ]
    made: Any = SimpleNamespace(encode=lambda text, **_: [ord(c) for c in text])
    return harness.harness_score(SimpleNamespace(device="cpu"), made, asked)  # type: ignore[arg-type]


def test_the_harness_may_answer_in_any_order_and_must_answer_all(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = harness_says(monkeypatch, [2, 0, 1], 3)
    assert [one.id for one in made] == ["q0", "q1", "q2"]
    assert [one.loglikelihoods for one in made] == [(-1, -2), (-2, -3), (-3, -4)]
    for order in ([0, 1], [0, 1, 3]):
        with pytest.raises(ValueError, match="of 3 questions"):
            harness_says(monkeypatch, order, 3)
