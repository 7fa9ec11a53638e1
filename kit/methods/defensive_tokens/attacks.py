"""Test-time attacks: a sample's untrusted data with an injected instruction in it.

Sources: defensive_tokens.md, 2.2. The paper's three variants are ``ignore``, ``completion`` and
``ignore_completion`` (DTP, "Security"); ``naive`` is Meta_SecAlign's ``straightforward``; those of
StruQ's test have its text and its name (:mod:`.struq_text`); ``completion_other``, which takes the
evaluation's own frame and whole pairs of held-out delimiters, and ``paraphrase`` are the kit's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kit.methods.defensive_tokens.attack_texts import AttackTexts, Delimiters, fill
from kit.methods.defensive_tokens.samples import Sample
from kit.methods.defensive_tokens.struq_text import TEST_ATTACKS

if TYPE_CHECKING:
    from numpy.random import RandomState

PAPER_ATTACKS = ("ignore", "completion", "ignore_completion")


@dataclass(frozen=True)
class AttackStyle:
    """How attack pieces are joined in a world.

    Attributes:
        name: What manifests call it.
        gap: Between the data and a sentence behind it.
        block: Around the delimiters of a fake dialogue.
        sentence_case: Whether the world has upper case and full stops: training attacks then end
            the data with a full stop and adjust the injected text's first letter.
    """

    name: str
    gap: str
    block: str
    sentence_case: bool


# Meta_SecAlign's strings, which the follow-up evaluates with (defensive_tokens.md, 2.2).
PAPER = AttackStyle("paper", gap=" ", block="\n\n", sentence_case=True)
# The miniature world: words and single spaces.
MINI = AttackStyle("mini", gap=" ", block=" ", sentence_case=False)
STYLES = {style.name: style for style in (PAPER, MINI)}


def get_style(name: str) -> AttackStyle:
    """The style of this name.

    Raises:
        ValueError: Unknown name; the message lists the known ones.
    """
    if name not in STYLES:
        raise ValueError(f"unknown attack style {name!r}; known: {', '.join(STYLES)}")
    return STYLES[name]


@dataclass(frozen=True)
class Attacked:
    """A sample under attack.

    Attributes:
        sample_id: Of the sample.
        attack: Name of the attack.
        data: What stands in the data turn.
    """

    sample_id: str
    attack: str
    data: str


def append(data: str, separator: str, rest: str) -> str:
    """``rest`` behind the data; empty data leave no separator (defensive_tokens.md, 1.3)."""
    return data + separator + rest if data.strip() else rest


def completion_text(
    data: str,
    response: str,
    injected: str,
    delimiters: Delimiters,
    style: AttackStyle,
) -> str:
    """Data, then a fake finished answer and a fake next instruction, with ``block`` between all."""
    turns = (
        f"{delimiters.response}{style.block}{response}",
        f"{delimiters.instruction}{style.block}{injected}",
    )
    return append(data, style.block, style.block.join(turns))


def attack_samples(
    name: str,
    samples: Sequence[Sample],
    texts: AttackTexts,
    style: AttackStyle,
    *,
    seed: int = 42,
    control_tokens: Sequence[str] = (),
) -> list[Attacked]:
    """Attack every sample that has data, in order.

    The random state is made anew for each attack, as in the follow-up, so that ``ignore`` and
    ``ignore_completion`` put the same sentence into the same sample.

    Args:
        name: One of :data:`ATTACKS`.
        samples: Those without input are left out.
        texts: The strings.
        style: How they are joined.
        seed: Of the choice of sentences.
        control_tokens: Removed from the clean data before the attack.

    Raises:
        ValueError: Unknown attack, no sample with input, or texts that the attack needs are
            missing.
    """
    import numpy as np

    if name not in ATTACKS:
        raise ValueError(f"unknown attack {name!r}; known: {', '.join(ATTACKS)}")
    eligible = with_input(samples)
    rng = np.random.RandomState(seed)
    attacked = []
    for sample in eligible:
        data = remove_control_tokens(sample.input, control_tokens)
        context = _Context(sample, data, texts, style, rng)
        attacked.append(Attacked(sample.id, name, ATTACKS[name](context)))
    return attacked


def with_input(samples: Sequence[Sample]) -> list[Sample]:
    """The samples that have untrusted data to put an attack into.

    Raises:
        ValueError: There are none.
    """
    eligible = [sample for sample in samples if sample.input.strip()]
    if not eligible:
        raise ValueError(f"none of {len(samples)} samples has input: nothing can be attacked")
    return eligible


def remove_control_tokens(text: str, control_tokens: Sequence[str]) -> str:
    """Remove control tokens until none is left, also those that removal puts together.

    ("<|eot<|eot_id|>_id|>" contains one, and is one afterwards.)
    """
    while True:
        before = text
        for token in control_tokens:
            if token:
                text = text.replace(token, "")
        if text == before:
            return text


@dataclass(frozen=True)
class _Context:
    sample: Sample
    data: str
    texts: AttackTexts
    style: AttackStyle
    rng: RandomState

    def sentence(self, sentences: tuple[str, ...], what: str) -> str:
        if not sentences:
            raise ValueError(f"the attack texts contain no {what}")
        return fill(sentences[int(self.rng.choice(len(sentences)))], self.texts.injected_prompt)

    def after_data(self, text: str) -> str:
        return append(self.data, self.style.gap, text)

    def completion(self, injected: str, delimiters: Delimiters) -> str:
        return completion_text(self.data, self.sample.output, injected, delimiters, self.style)


def _naive(c: _Context) -> str:
    return c.after_data(c.texts.injected_prompt)


def _ignore(c: _Context) -> str:
    return c.after_data(c.sentence(c.texts.ignore_test, "ignore_test sentences"))


def _completion(c: _Context) -> str:
    return c.completion(c.texts.injected_prompt, c.texts.completion_real)


def _ignore_completion(c: _Context) -> str:
    sentence = c.sentence(c.texts.ignore_test, "ignore_test sentences")
    return c.completion(sentence, c.texts.completion_real)


def _completion_other(c: _Context) -> str:
    pairs = c.texts.fake_delimiters_test
    if not pairs:
        raise ValueError("the attack texts contain no fake_delimiters_test")
    return c.completion(c.texts.injected_prompt, pairs[int(c.rng.choice(len(pairs)))])


def _struq(name: str) -> Callable[[_Context], str]:
    def attack(c: _Context) -> str:
        if not c.style.sentence_case:
            raise ValueError(f"{name} is written in sentences; the style {c.style.name!r} has none")
        return TEST_ATTACKS[name](c.sample, c.data, c.texts, c.rng)

    return attack


def _paraphrase(c: _Context) -> str:
    return c.after_data(c.sentence(c.texts.paraphrase_test, "paraphrase_test sentences"))


ATTACKS: dict[str, Callable[[_Context], str]] = {
    "naive": _naive,
    "ignore": _ignore,
    "completion": _completion,
    "ignore_completion": _ignore_completion,
    "completion_other": _completion_other,
    "paraphrase": _paraphrase,
    **{name: _struq(name) for name in TEST_ATTACKS},
}
