"""Where reminder and sandwich stand, and that the attacker's text stays what it was."""

from __future__ import annotations

import pytest

from kit.methods.defensive_tokens.prompt_defences import NO_DEFENCE, PromptDefence, load_defence
from kit.methods.defensive_tokens.samples import Sample
from tests.lm.tiny_world import TEXTS, samples
from tests.methods.defensive_tokens.test_dt_evaluate import ELIGIBLE, TOKENIZER, Scripted, evaluate

SAMPLE = samples(2)[1]
REMINDER = PromptDefence(after_instruction=" say only cat")
SANDWICH = PromptDefence(after_data=" task : {instruction}")


def prompts(defence):
    backend = Scripted()
    result = evaluate(backend, defence=defence)
    ((ids, _),) = backend.calls
    return [TOKENIZER.decode(prompt) for prompt in ids], result


def test_without_a_defence_both_turns_are_as_they_were():
    assert NO_DEFENCE.instruction(SAMPLE) == SAMPLE.instruction
    assert NO_DEFENCE.data(SAMPLE, "red") == "red"
    assert prompts(NO_DEFENCE)[0] == prompts(PromptDefence())[0]


def test_the_reminder_stands_behind_the_instruction():
    assert REMINDER.instruction(SAMPLE) == f"{SAMPLE.instruction} say only cat"
    assert REMINDER.data(SAMPLE, "red") == "red"
    for text, sample in zip(prompts(REMINDER)[0], ELIGIBLE * 4, strict=True):
        assert f"[INST] {sample.instruction} say only cat [DATA] {sample.input}" in text


def test_the_sandwich_stands_behind_the_attack():
    assert SANDWICH.data(SAMPLE, "red") == f"red task : {SAMPLE.instruction}"
    assert SANDWICH.instruction(SAMPLE) == SAMPLE.instruction
    for text, sample in zip(prompts(SANDWICH)[0], ELIGIBLE * 4, strict=True):
        assert text.endswith(f"task : {sample.instruction} [RESP]")
    attacked = prompts(SANDWICH)[0][0]
    assert attacked.index(TEXTS.injected_prompt) < attacked.index(" task : ")


@pytest.mark.parametrize("defence", [REMINDER, SANDWICH])
def test_what_is_kept_is_what_the_attacker_wrote(defence):
    plain, defended = prompts(NO_DEFENCE)[1], prompts(defence)[1]
    for name, condition in plain.attacks.items():
        ours = [response.data for response in defended.attacks[name].responses]
        assert ours == [response.data for response in condition.responses]


def test_braces_of_the_data_are_left_alone():
    assert SANDWICH.data(SAMPLE, "{instruction}").startswith("{instruction} task : ")


def shout(data: str, instruction: str) -> str:
    """A defence of one's own."""
    return f"{instruction}: {data.upper()}"


def mute(data: str, instruction: str) -> None:
    """No defence: it gives no text."""


SLOTS = "data {data} and {instruction}"


def test_a_text_of_ones_own_stands_around_the_data():
    name, defence = load_defence("quoted=<{data}> answer: {instruction} {instruction}")
    sample = Sample("a", "Count {data}", SLOTS, "")
    assert name == "quoted"
    assert defence.instruction(sample) == "Count {data}"
    made = f"<{SLOTS}> answer: Count {{data}} Count {{data}}"
    assert defence.data(sample, SLOTS) == made


def test_a_function_of_ones_own_gets_data_and_instruction():
    name, defence = load_defence(f"loud={__name__}:shout")
    assert name == "loud"
    assert defence.data(Sample("a", "Count", "x", ""), "x and more") == "Count: X AND MORE"
    _, silent = load_defence(f"silent={__name__}:mute")
    with pytest.raises(ValueError, match="a defence gave NoneType for a data turn"):
        silent.data(Sample("a", "Count", "x", ""), "x")


@pytest.mark.parametrize(
    ("written", "says"),
    [
        ("quoted", "no defence: 'quoted'"),
        ("quoted=no slot", "write NAME=text"),
        ("Name=<{data}>", "no defence"),
        (f"a={__name__}:gone", "the defence 'a': module"),
        ("a=no.such.module:f", "the defence 'a': No module named"),
        (f"a={__name__}:SLOTS", "is no function"),
    ],
)
def test_what_is_no_defence_is_refused(written, says):
    with pytest.raises(ValueError, match=says):
        load_defence(written)
