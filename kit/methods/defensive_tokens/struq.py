"""Training mixtures of clean and attacked samples, by name.

``as-reported`` is the follow-up's, which trains on the very strings it is evaluated with
(defensive_tokens.md, P2). ``struq`` is StruQ's, as its public code writes it. ``proper`` is the
kit's own reading of StruQ's description, for worlds without sentences as well: it holds everything
of the evaluation out, and its text is not that of StruQ's code (defensive_tokens.md, 1.2).
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from kit.methods.defensive_tokens.attack_texts import AttackTexts, fill
from kit.methods.defensive_tokens.attacks import (
    AttackStyle,
    append,
    completion_text,
    remove_control_tokens,
)
from kit.methods.defensive_tokens.samples import Sample
from kit.methods.defensive_tokens.struq_text import delimiter_words, training_texts

if TYPE_CHECKING:
    from numpy.random import RandomState

Kind = Literal["clean", "naive", "ignore", "completion"]
AS_REPORTED = "as-reported"
PROPER = "proper"
STRUQ = "struq"
MIXTURES = (AS_REPORTED, PROPER, STRUQ)


@dataclass(frozen=True)
class TrainingItem:
    """One prompt to train on; its label is the clean sample's.

    Attributes:
        id: ``<sample id>/<kind>``.
        sample_id: The sample whose instruction it is, and whose label it takes.
        kind: What was done to the data.
        instruction: The trusted instruction.
        data: The data turn; ``None`` when the prompt has none.
        injected_from: Sample whose instruction was injected; ``None`` for clean items and for the
            fixed test injection.
        fake_response: The answer that a completion attack pretends to; never the item's label.
    """

    id: str
    sample_id: str
    kind: Kind
    instruction: str
    data: str | None
    injected_from: str | None = None
    fake_response: str | None = None


def as_reported(
    samples: Sequence[Sample],
    texts: AttackTexts,
    style: AttackStyle,
    *,
    seed: int = 42,
) -> list[TrainingItem]:
    """The follow-up's mixture (defensive_tokens.md, 1.3; tiny-adapt note, "Setup").

    A seeded shuffle, the first n // 2 samples clean, half of the rest with a *test* ignore
    sentence, the others with the *evaluated* completion attack, both around the *test* injection.
    Samples without input are attacked too, and every prompt has a data turn, an empty one if need
    be. The fake response is the dataset's output.

    Raises:
        ValueError: No samples, or no ignore sentences.
    """
    import numpy as np

    _some(samples)
    if not texts.ignore_test:
        raise ValueError("the attack texts contain no ignore_test sentences")
    order = list(range(len(samples)))
    np.random.RandomState(seed).shuffle(order)
    clean = len(samples) // 2
    ignore = (len(samples) - clean) // 2
    # Sentences and the final order come from a second generator, as in the follow-up.
    rng = random.Random(seed)
    items = []
    for position, index in enumerate(order):
        sample = samples[index]
        kind: Kind = (
            "clean" if position < clean else "ignore" if position < clean + ignore else "completion"
        )
        data, fake = sample.input, None
        if kind == "ignore":
            sentence = fill(rng.choice(texts.ignore_test), texts.injected_prompt)
            data = append(data, style.gap, sentence)
        elif kind == "completion":
            fake = sample.output
            data = completion_text(data, fake, texts.injected_prompt, texts.completion_real, style)
        items.append(_item(sample, kind, data, fake=fake))
    rng.shuffle(items)
    return items


def proper(
    samples: Sequence[Sample],
    texts: AttackTexts,
    style: AttackStyle,
    *,
    seed: int = 42,
    exact: bool = False,
    fake_responses: Mapping[str, str] | None = None,
    control_tokens: Sequence[str] = (),
) -> list[TrainingItem]:
    """The kit's mixture after StruQ's description, held out from the evaluation.

    Each sample draws one of [naive, clean, completion-other, clean] by itself. Samples without
    input stay clean and have no data turn. What is injected is another sample's instruction and
    input; nothing that contains the test word is ever injected. Fake delimiters come from the
    training list.

    Args:
        samples: The training data.
        texts: Only the training parts are used, and the test word, to keep it out.
        style: How pieces are joined.
        seed: Of every choice.
        exact: Among the samples with input make exactly half clean and a quarter (rounded down)
            naive, instead of in expectation.
        fake_responses: Sample id -> another answer to the same instruction, for completion attacks.
            Without one, the output of another sample is used, because repeating the sample's own
            answer as bait "leads the model to repeat its input" (SQP).
        control_tokens: Removed from everything untrusted.

    Raises:
        ValueError: No samples, no training delimiters, fewer than two usable samples, or only one
            distinct output.
    """
    import numpy as np

    _some(samples)
    if not texts.fake_delimiters_train:
        raise ValueError("the attack texts contain no fake_delimiters_train")
    rng = np.random.RandomState(seed)
    kinds = _exact_kinds(samples, rng) if exact else _drawn_kinds(samples, rng)
    word = texts.injected_word.lower()
    sources = [s for s in samples if word not in f"{s.instruction} {s.input} {s.output}".lower()]
    if len({s.id for s in sources}) < 2:
        raise ValueError("fewer than two samples are free of the test word: nothing to inject")
    answers = fake_responses or {}
    items = []
    for sample, kind in zip(samples, kinds, strict=True):
        data = remove_control_tokens(sample.input, control_tokens)
        if not data.strip():
            items.append(_item(sample, "clean", None))
            continue
        if kind == "clean":
            items.append(_item(sample, "clean", data))
            continue
        other = _another(sources, sample, rng)
        injected = remove_control_tokens(injected_text(other, style), control_tokens)
        if style.sentence_case and not data.endswith("."):
            data += "."
        if kind == "naive":
            data = append(data, style.gap, _capital(injected) if style.sentence_case else injected)
            items.append(_item(sample, "naive", data, injected_from=other.id))
            continue
        pairs = texts.fake_delimiters_train
        delimiters = pairs[int(rng.choice(len(pairs)))]
        fake = answers.get(sample.id)
        if fake is None or fake.strip() == sample.output.strip():
            fake = _another_output(sources, sample, rng)
        fake = remove_control_tokens(fake, control_tokens)
        text = _capital(injected) if style.sentence_case else injected
        data = completion_text(data, fake, text, delimiters, style)
        items.append(_item(sample, "completion", data, injected_from=other.id, fake=fake))
    return items


def as_in_struq(
    samples: Sequence[Sample],
    texts: AttackTexts,
    style: AttackStyle,
    *,
    seed: int = 42,
    references: Mapping[str, str] | None = None,
) -> list[TrainingItem]:
    """StruQ's mixture as its public code writes it (:mod:`.struq_text`).

    Args:
        samples: The training data.
        texts: Its lists of delimiter words are used.
        style: Must have sentences: the code's text is fixed.
        seed: Of every draw.
        references: Instruction -> answer that completions pretend to; a sample's own output where
            there is none. For labels that the model makes itself: where the data set's output is
            the label, it would be the bait too.

    Raises:
        ValueError: No samples, texts without lists, or a style without sentences.
    """
    _some(samples)
    if not style.sentence_case:
        raise ValueError(f"StruQ's text is made of sentences; the style {style.name!r} has none")
    made = training_texts(samples, delimiter_words(texts), references or {}, seed=seed)
    return [
        _item(s, t.kind, t.data, injected_from=t.injected_from, fake=t.fake_response)
        for s, t in zip(samples, made, strict=True)
    ]


def build(
    mixture: str,
    samples: Sequence[Sample],
    texts: AttackTexts,
    style: AttackStyle,
    *,
    seed: int = 42,
    references: Mapping[str, str] | None = None,
    control_tokens: Sequence[str] = (),
) -> list[TrainingItem]:
    """A mixture by name.

    ``control_tokens`` are removed in ``proper`` only: the follow-up and StruQ's code filter nothing
    in training. ``references`` are read by ``struq`` only (:func:`as_in_struq`).

    Raises:
        ValueError: Unknown mixture, and what the builders raise.
    """
    if mixture == AS_REPORTED:
        return as_reported(samples, texts, style, seed=seed)
    if mixture == STRUQ:
        return as_in_struq(samples, texts, style, seed=seed, references=references)
    if mixture == PROPER:
        return proper(samples, texts, style, seed=seed, exact=True, control_tokens=control_tokens)
    raise ValueError(f"unknown mixture {mixture!r}; known: {', '.join(MIXTURES)}")


def injected_text(sample: Sample, style: AttackStyle) -> str:
    """Another sample as ``proper`` injects it: instruction and input.

    Where the world has sentence case, a question is announced and other text starts in lower case.
    """
    text = (
        append(sample.instruction, " ", sample.input)
        if sample.input.strip()
        else (sample.instruction)
    )
    if not style.sentence_case:
        return text
    if sample.instruction.rstrip().endswith("?"):
        return f"answer the following question. {text}"
    return text[:1].lower() + text[1:]


def leaked_items(
    items: Sequence[TrainingItem], samples: Mapping[str, Sample], word: str
) -> list[TrainingItem]:
    """Items into which the mixture put the word; samples may speak of it by themselves.

    Args:
        items: Of a mixture.
        samples: Sample id -> clean sample, those that were injected included.
        word: The test word, in any case.
    """
    wanted = word.lower()

    def own(item: TrainingItem) -> int:
        text = f"{samples[item.sample_id].input} {item.fake_response or ''}"
        if item.injected_from is not None:
            other = samples[item.injected_from]
            text += f" {other.instruction} {other.input}"
            if item.kind == "completion":  # StruQ's have the other sample's input twice
                text += f" {other.input}"
        return text.lower().count(wanted)

    return [item for item in items if (item.data or "").lower().count(wanted) > own(item)]


def _drawn_kinds(samples: Sequence[Sample], rng: RandomState) -> list[Kind]:
    copies: tuple[Kind, ...] = ("naive", "clean", "completion", "clean")
    return [copies[int(i)] for i in rng.choice(len(copies), size=len(samples))]


def _exact_kinds(samples: Sequence[Sample], rng: RandomState) -> list[Kind]:
    kinds: list[Kind] = ["clean"] * len(samples)
    with_data = [i for i, sample in enumerate(samples) if sample.input.strip()]
    rng.shuffle(with_data)
    attacked = with_data[len(with_data) - len(with_data) // 2 :]
    for position, index in enumerate(attacked):
        kinds[index] = "naive" if position < len(attacked) // 2 else "completion"
    return kinds


def _another(sources: Sequence[Sample], sample: Sample, rng: RandomState) -> Sample:
    while True:
        other = sources[int(rng.choice(len(sources)))]
        if other.id != sample.id:
            return other


def _another_output(sources: Sequence[Sample], sample: Sample, rng: RandomState) -> str:
    own = sample.output.strip()
    if all(s.output.strip() == own for s in sources):
        raise ValueError("all samples have one output: no fake response differs from the label")
    while True:
        output = sources[int(rng.choice(len(sources)))].output
        if output.strip() != own:
            return output


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _item(
    sample: Sample,
    kind: Kind,
    data: str | None,
    *,
    injected_from: str | None = None,
    fake: str | None = None,
) -> TrainingItem:
    return TrainingItem(
        id=f"{sample.id}/{kind}",
        sample_id=sample.id,
        kind=kind,
        instruction=sample.instruction,
        data=data,
        injected_from=injected_from,
        fake_response=fake,
    )


def _some(samples: Sequence[Sample]) -> None:
    if not samples:
        raise ValueError("no samples to build a mixture from")
