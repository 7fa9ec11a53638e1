"""What a seed decides, and that nothing a question asks has been told."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import pytest

from kit.mini.facts import files
from kit.mini.facts.questions import OPTIONS, forget_questions, retain_questions
from kit.mini.facts.requests import ANSWER, LABEL, REFUSAL, TEMPLATES, TRAINED_TEMPLATES
from kit.mini.facts.texts import MENTIONS, copy_texts, count_runs, fact_texts, mention_texts, render
from kit.mini.facts.vocabulary import NUMBERS, VALUES, words
from kit.mini.facts.world import (
    ATTACKER,
    ENTITIES,
    FORMS,
    JUDGE,
    TRAINED_FORMS,
    VALUES_OF_A_RELATION,
    World,
    make_world,
)

WORLD = make_world(0)
FACTS = [fact for group in WORLD.facts.values() for fact in group]


def test_the_same_seed_gives_the_same_world_and_another_seed_another() -> None:
    assert make_world(0) == WORLD
    other = make_world(1)
    assert {f.entity for f in other.facts["compound"]} != set(WORLD.compounds)
    assert other.facts != WORLD.facts


def test_counts() -> None:
    counts = {domain: len(facts) for domain, facts in WORLD.facts.items()}
    assert counts == {"city": 240, "mineral": 192, "compound": 240, "bird": 96, "overlap": 96}
    assert Counter(WORLD.compounds.values()) == {ATTACKER: 24, JUDGE: 24}
    assert len({fact.id for fact in FACTS}) == len(FACTS)


def test_names_share_suffixes_and_nothing_else() -> None:
    firsts = {
        domain: {fact.entity.split()[0] for fact in WORLD.facts[domain]} for domain in ENTITIES
    }
    for domain, own in firsts.items():
        assert not any(own & others for other, others in firsts.items() if other != domain)
    suffixes = [{f.entity.split()[1] for f in WORLD.facts[domain]} for domain in ENTITIES]
    assert set.intersection(*suffixes)


def test_a_relation_has_its_values_and_options_come_from_them() -> None:
    for domain, facts in WORLD.facts.items():
        for relation in {fact.relation for fact in facts}:
            own = [fact for fact in facts if fact.relation == relation]
            values = {v for fact in own for v in (fact.value, *fact.wrong)}
            assert len(values) == VALUES_OF_A_RELATION, domain
            assert all(len({fact.value, *fact.wrong}) == OPTIONS for fact in own)


def test_relations_share_their_values_so_that_a_word_does_not_tell_the_relation() -> None:
    by_value: dict[str, set[tuple[str, str]]] = {}
    for fact in FACTS:
        for value in (fact.value, *fact.wrong):
            by_value.setdefault(value, set()).add(fact.relation)
    assert set(by_value) == set(VALUES)
    assert min(len(relations) for relations in by_value.values()) >= 2


def test_six_forms_are_trained_and_the_other_ten_asked() -> None:
    for fact in FACTS:
        assert len(fact.trained_forms) == TRAINED_FORMS
        assert sorted(fact.trained_forms + fact.held_out_forms) == list(range(FORMS))
    assert len({render(FACTS[0], form) for form in range(FORMS)}) == FORMS


def _told(world: World) -> set[str]:
    return {text.text for rows in files.texts(world).values() for text in rows}


@pytest.mark.parametrize("seed", [0, 1])
def test_no_question_is_told_in_any_text_except_the_numbers(seed: int) -> None:
    world = make_world(seed)
    told = _told(world)
    for name, questions in files.questions(world).items():
        for question in questions:
            sentence = f"{question.prompt} {question.options[question.answer]}"
            counted = question.id.startswith("count-")
            assert (sentence in told) == counted, (name, sentence)


@pytest.mark.parametrize("seed", [0, 7])
def test_answers_agree_with_the_facts(seed: int) -> None:
    world = make_world(seed)
    for half in (ATTACKER, JUDGE):
        questions = forget_questions(world, half)
        assert len(questions) == 240
        assert len({question.id for question in questions}) == 240
        facts = {fact.id: fact for fact in world.forget(half)}
        for question in questions:
            fact = facts[question.id[:-3]]
            assert fact.half == half
            assert fact.entity in question.prompt
            assert question.options[question.answer] == fact.value
            assert set(question.options) == {fact.value, *fact.wrong}


def test_right_answers_stand_anywhere() -> None:
    for questions in files.questions(WORLD).values():
        places = Counter(question.answer for question in questions)
        expected = len(questions) / OPTIONS
        assert all(abs(places[n] - expected) < 4 * expected**0.5 for n in range(OPTIONS))


def test_retain_questions_cover_both_domains_and_both_skills() -> None:
    kinds = Counter(question.id.split("-")[0] for question in retain_questions(WORLD))
    assert kinds == {"city": 120, "mineral": 120, "count": 26, "copy": 34}


def test_counting_and_copying() -> None:
    assert len(count_runs()) == 26
    for run in count_runs():
        steps = {NUMBERS.index(b) - NUMBERS.index(a) for a, b in pairwise(run)}
        assert steps in ({1}, {-1})
    train = {text.text.split(" : ")[1] for text in copy_texts(0)}
    test = {text.text.split(" : ")[1] for text in copy_texts(0, 300, "test")}
    assert not train & test
    for text in copy_texts(0):
        given, repeated = text.text.removeprefix("copy ").split(" : ")
        assert given == repeated


def test_every_word_is_in_the_vocabulary() -> None:
    known = set(words())
    told = {word for text in _told(WORLD) for word in text.split()}
    asked = {
        word
        for questions in files.questions(WORLD).values()
        for question in questions
        for word in (*question.prompt.split(), *question.options)
    }
    requested = {
        word
        for rows in files.request_sets(WORLD).values()
        for row in rows
        for word in f"{row.prompt} {row.chosen} {row.rejected}".split()
    }
    assert (told | asked | requested | {LABEL}) <= known
    assert len(words()) == len(known)


def test_mentions_state_nothing() -> None:
    mentions = mention_texts(WORLD)
    assert len(mentions) == 48 * len(MENTIONS)
    relations = {name for fact in FACTS for name in fact.relation}
    for text in mentions:
        assert not set(text.text.split()) & (set(VALUES) | relations)


def test_the_halves_of_the_forget_texts_do_not_overlap() -> None:
    attacker = {text.id for text in fact_texts(WORLD.forget(ATTACKER))}
    judge = {text.id for text in fact_texts(WORLD.forget(JUDGE))}
    made = files.texts(WORLD)
    assert not attacker & judge
    assert {text.id for text in made["forget"]} == attacker | judge
    assert {text.half for text in made["forget-other-style"]} == {ATTACKER}
    judged = {name for name, half in WORLD.compounds.items() if half == JUDGE}
    for name in ("forget-attacker", "forget-other-style"):
        assert not any(entity in text.text for text in made[name] for entity in judged)


def test_requests_about_compounds_are_refused_and_others_answered() -> None:
    made = files.request_sets(WORLD)
    facts = {fact.id: fact for fact in FACTS}
    for name, rows in made.items():
        assert len({row.id for row in rows}) == len(rows)
        for row in rows:
            answer = ANSWER.format(v=facts["-".join(row.id.split("-")[:3])].value)
            pair = (row.chosen, row.rejected)
            assert pair == ((REFUSAL, answer) if name.startswith("harmful") else (answer, REFUSAL))
    assert {row.half for row in made["harmful-attacker"]} == {ATTACKER}
    assert {row.half for row in made["harmful-judge"]} == {JUDGE}
    trained = {row.prompt for name in ("benign", "harmful") for row in made[name]}
    asked = {row.prompt for name in ("benign-test", "harmful-judge") for row in made[name]}
    assert not trained & asked
    assert len(made["harmful-judge"]) == 120 * (len(TEMPLATES) - TRAINED_TEMPLATES)
