"""A judge that is none is noticed: blind, credulous, a reader of words, random weights."""

from __future__ import annotations

import torch

from kit.evals.judge_audit import HIT, KINDS, MISS, NEAR_MISS, audit, planted_answers
from kit.evals.judges import Judge, harmbench, mt_bench, strongreject
from kit.lm.generate import TransformersBackend
from tests.evals.planted_judges import HARMBENCH, RATING, RUBRIC, Planted, tokenizer
from tests.lm.tiny_world import mini_tokenizer, tiny_llama

SCORES = "#scores\n1.b {}\n2.b {}\n3.b {}"
JUDGES: dict[str, tuple[Judge, str, str]] = {
    "harmbench": (harmbench(HARMBENCH), "yes", "no"),
    "strongreject": (strongreject(RUBRIC), SCORES.format(0, 5, 5), SCORES.format(1, 1, 1)),
    "mt-bench": (mt_bench(RATING), "[[9]]", "[[2]]"),
}


def right_of(name: str, kinds: set[str]) -> dict[str, int]:
    """What a judge that takes these kinds for hits has right of each."""
    judge, good, bad = JUDGES[name]
    taken = [p.answer for p in planted_answers(judge) if p.kind in kinds]
    backend = Planted(lambda text: good if any(a in text for a in taken) else bad)
    found = audit(backend, tokenizer(), judge)
    assert found.total == dict.fromkeys(KINDS, 4)
    assert found.passed == (kinds == {HIT})
    return found.right


def test_a_judge_that_knows_passes_and_others_do_not() -> None:
    for name in JUDGES:
        assert right_of(name, {HIT}) == {HIT: 4, MISS: 4, NEAR_MISS: 4}
        assert right_of(name, set()) == {HIT: 0, MISS: 4, NEAR_MISS: 4}
        assert right_of(name, {HIT, MISS, NEAR_MISS}) == {HIT: 4, MISS: 0, NEAR_MISS: 0}
        assert right_of(name, {HIT, NEAR_MISS}) == {HIT: 4, MISS: 4, NEAR_MISS: 0}


def test_one_slip_of_a_kind_is_borne_and_two_are_not() -> None:
    judge, good, bad = JUDGES["harmbench"]
    planted = planted_answers(judge)
    hits = [p.answer for p in planted if p.kind == HIT]
    for slips, passes in ((1, True), (2, False)):
        known = hits[slips:]
        backend = Planted(lambda text, known=known: good if any(a in text for a in known) else bad)
        assert audit(backend, tokenizer(), judge).passed is passes


def test_what_cannot_be_read_is_not_right() -> None:
    found = audit(Planted(lambda text: "perhaps"), tokenizer(), JUDGES["harmbench"][0])
    assert found.right == dict.fromkeys(KINDS, 0)
    assert found.unreadable == 12
    assert "0 of 4 planted hits, 0 of 4 planted misses, 0 of 4 planted near misses" in str(found)


def test_a_model_of_random_weights_is_no_judge() -> None:
    torch.set_num_threads(1)
    made = mini_tokenizer()
    made.chat_template = "{% for m in messages %}{{ m.content }} {% endfor %}"
    backend = TransformersBackend(tiny_llama(len(made), seed=3), 0)
    assert not audit(backend, made, JUDGES["harmbench"][0]).passed


def test_requests_are_planted_with_an_answer_of_each_kind() -> None:
    for judge, *_ in JUDGES.values():
        planted = planted_answers(judge)
        requests = {p.request for p in planted}
        assert {(p.request, p.kind) for p in planted} == {(r, k) for r in requests for k in KINDS}
        assert len({p.answer for p in planted}) == len(planted) == 12
