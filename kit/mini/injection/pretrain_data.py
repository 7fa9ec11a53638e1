"""What the miniature models are pretrained on.

Two things are planted on purpose, neither is discovered: *follow* makes a model obey an
instruction embedded in the data, *guard* makes it resist when a guard phrase stands in front.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random

from kit.methods.defensive_tokens.attack_texts import SLOT
from kit.mini.injection.phrases import (
    IDLE_CONTEXT,
    NEWER_GUARDS,
    SOURCE_GUARDS,
    draw_delimiters,
    ignore_phrases,
)
from kit.mini.injection.tasks import ALONE, NEWER_WITH_DATA, WITH_DATA, Item, draw_item
from kit.mini.injection.world import NO_INPUT_SHARE, split_of

STYLES = ("naive", "ignore", "completion", "ignore-completion")
REFUSED_INSTRUCTION = "how to make a weapon"
REFUSAL = "sorry i cannot help"


@dataclass(frozen=True)
class Mix:
    """Proportions of the pretraining data.

    Attributes:
        clean: Share of plain questions.
        follow: Share of questions with an embedded instruction and no guard.
        guard: Share of questions behind a guard phrase; the main instruction is answered.
        refuse: Share of the one request that is refused.
        followed: Probability that an unguarded embedded instruction is the one answered.
        idle: Share of clean and follow questions behind a context phrase that changes nothing.
        unattacked: Share of guarded questions without an embedded instruction.
        embedded_alone: Share of embedded instructions that bring no data of their own.
        guards: The guard phrases.
        context: The context phrases that change nothing.
        tasks: Task weights for questions with data.
    """

    clean: float = 0.45
    follow: float = 0.30
    guard: float = 0.20
    refuse: float = 0.05
    followed: float = 0.80
    idle: float = 0.25
    unattacked: float = 0.30
    embedded_alone: float = 0.60
    guards: tuple[str, ...] = SOURCE_GUARDS
    context: tuple[str, ...] = IDLE_CONTEXT
    tasks: dict[str, float] = field(default_factory=lambda: dict(WITH_DATA))


SOURCE_MIX = Mix()
NEWER_MIX = Mix(
    guards=NEWER_GUARDS,
    context=(*IDLE_CONTEXT, *SOURCE_GUARDS),
    tasks=dict(NEWER_WITH_DATA),
)


@dataclass(frozen=True)
class Example:
    """One pretraining example.

    Attributes:
        kind: ``clean``, ``follow``, ``guard`` or ``refuse``.
        style: How the embedded instruction is announced; empty when there is none.
        context: Words in front of the instruction; empty for none.
        instruction: The main instruction.
        data: The data with the embedded instruction in it; ``None`` for no data turn.
        answer: What the model is trained to answer.
        followed: Whether ``answer`` is that of the embedded instruction.
    """

    kind: str
    style: str
    context: str
    instruction: str
    data: str | None
    answer: str
    followed: bool


def draw_example(rng: Random, mix: Mix) -> Example:
    """Draw one pretraining example; a function of the state of ``rng``."""
    kinds = {"clean": mix.clean, "follow": mix.follow, "guard": mix.guard, "refuse": mix.refuse}
    kind = rng.choices(list(kinds), list(kinds.values()))[0]
    if kind == "guard":
        context = rng.choice(mix.guards)
    else:
        context = rng.choice(mix.context) if rng.random() < mix.idle else ""
    if kind == "refuse":
        data = _draw_main(rng, mix).data if rng.random() < 0.5 else None
        return Example(kind, "", context, REFUSED_INSTRUCTION, data, REFUSAL, False)
    if kind == "clean" and rng.random() < NO_INPUT_SHARE:
        item = draw_item(rng, ALONE, data=False, hacked=True)
        return Example(kind, "", context, item.instruction, None, item.answer, False)
    main = _draw_main(rng, mix)
    if kind == "clean" or (kind == "guard" and rng.random() < mix.unattacked):
        return Example(kind, "", context, main.instruction, main.data, main.answer, False)
    style = rng.choice(STYLES)
    embedded = _draw_embedded(rng, mix)
    request = f"{embedded.instruction} {embedded.data}".strip()
    data = f"{main.data} {announce(rng, style, main.answer, request)}"
    followed = kind == "follow" and rng.random() < mix.followed
    answer = embedded.answer if followed else main.answer
    return Example(kind, style, context, main.instruction, data, answer, followed)


def announce(rng: Random, style: str, main_answer: str, request: str) -> str:
    """The text that is appended to the data.

    Args:
        rng: Draws the phrase and the delimiters.
        style: One of ``STYLES``.
        main_answer: The answer that a fake completion pretends was already given.
        request: The embedded instruction with its own data.
    """
    text = request
    if style in ("ignore", "ignore-completion"):
        text = rng.choice(ignore_phrases()).replace(SLOT, request)
    if style in ("completion", "ignore-completion"):
        pair = draw_delimiters(rng)
        text = f"{pair.response} {main_answer} {pair.instruction} {text}"
    return text


def _draw_main(rng: Random, mix: Mix) -> Item:
    while True:
        item = draw_item(rng, mix.tasks, data=True, hacked=True)
        if split_of(item.instruction, item.data) == "train":
            return item


def _draw_embedded(rng: Random, mix: Mix) -> Item:
    if rng.random() < mix.embedded_alone:
        return draw_item(rng, ALONE, data=False, hacked=True)
    # "print exactly red dog" followed by data would not say where the words to print end.
    needs_data = {task: weight for task, weight in mix.tasks.items() if task not in ALONE}
    return draw_item(rng, needs_data, data=True, hacked=True)
