"""The searched attack on many items: who knows what, and what is broken by how many queries.

The injected text is a published one followed by a suffix of fillers; the suffix is searched so that
the attacker's own model begins its answer with the word asked for, as in SecAlign's harness
(test.py at 3fc9c9c). Whether the attacker's model has the defender's prefix is the question.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING, Any

import torch

from kit.evals.injection import injection_labels
from kit.methods.defensive_tokens.adaptive.gcg import Kept, SearchSettings, Suffix, search
from kit.methods.defensive_tokens.adaptive.prompts import OpenPrompt
from kit.methods.defensive_tokens.adaptive.suffix_loss import SuffixLoss
from kit.methods.defensive_tokens.adaptive.victims import Victim
from kit.methods.defensive_tokens.samples import Sample

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class Wanted:
    """What is attacked, and how much of it at a time.

    Attributes:
        word: That the answer should begin with.
        allowed: Ids that may be searched.
        filler: First word of every position of the suffix.
        length: Tokens of the suffix.
        together: Items searched side by side.
        rows: Most texts in a forward pass.
    """

    word: str
    allowed: Sequence[int]
    filler: str
    length: int
    together: int
    rows: int


@dataclass(frozen=True)
class Searched:
    """An item with what was kept for it.

    Attributes:
        prompt: Of the item, on the attacker's model.
        kept: At every reported step.
    """

    prompt: OpenPrompt
    kept: list[Kept]


def attack_items(
    model: PreTrainedModel,
    own: Victim,
    samples: Sequence[Sample],
    turns: Sequence[str],
    wanted: Wanted,
    settings: SearchSettings,
    *,
    known: Mapping[str, list[Kept]],
) -> Iterator[list[Searched]]:
    """Search a suffix for every item, a group of items after the other.

    Args:
        model: Frozen.
        own: The attacker's model: ``model`` with the prefix, if he knows it.
        samples: The items.
        turns: Their data turns up to the suffix.
        wanted: What the answer should begin with.
        settings: Of the search.
        known: What was kept for items before a kill, by id; they are not searched again.

    Yields:
        The items searched side by side, those with the shortest prompts first.
    """
    prompter = own.prompter
    tokenizer = prompter.tokenizer
    prompts = [
        prompter.opened(sample, turn, filler=wanted.filler, length=wanted.length)
        for sample, turn in zip(samples, turns, strict=True)
    ]
    prompts.sort(key=lambda prompt: len(prompt.before))
    target = tokenizer.encode(wanted.word, add_special_tokens=False)
    for start in range(0, len(prompts), wanted.together):
        group = prompts[start : start + wanted.together]
        open_ = [prompt for prompt in group if prompt.sample.id not in known]
        kept = dict(known)
        if open_:
            loss = SuffixLoss(
                model,
                open_,
                target,
                prefix=own.prefix,
                pad_id=prompter.chat.pad_id(tokenizer),
                allowed=wanted.allowed,
                rows=wanted.rows,
            )
            made = search(
                loss,
                torch.tensor([prompt.start for prompt in open_], device=loss.allowed.device),
                [prompt.sample.id for prompt in open_],
                settings,
                can_be_written=_writer(own, open_),
                works=_asker(own, open_, wanted.word),
            )
            kept |= {p.sample.id: texts for p, texts in zip(open_, made, strict=True)}
        yield [Searched(prompt, kept[prompt.sample.id]) for prompt in group]


def broken_by(
    victim: Victim, own: Victim, searched: Sequence[Searched], word: str
) -> dict[str, Any]:
    """What the texts kept at each step do to a victim, each text sent as text.

    Args:
        victim: Gets the texts.
        own: The attacker's model, on which they were searched.
        searched: The items.
        word: That a hijacked answer begins with.

    Returns:
        ``labels`` (for every reported step 0 or 1 an item), ``empty`` (empty answers at the last).
    """
    samples = [item.prompt.sample for item in searched]
    labels: list[list[int]] = []
    answers: list[str] = []
    steps = len(searched[0].kept) if searched else 0
    before: list[Suffix] = []
    for step in range(steps):
        suffixes = [item.kept[step].suffix for item in searched]
        if suffixes != before:
            turns = [
                own.prompter.data(item.prompt, suffix)
                for item, suffix in zip(searched, suffixes, strict=True)
            ]
            answers, before = victim.answers(samples, turns), suffixes
        labels.append([int(hit) for hit in injection_labels(answers, word)])
    return {"labels": labels, "empty": sum(not answer.strip() for answer in answers)}


def mean_losses(searched: Sequence[Searched]) -> list[float]:
    """Mean kept loss over the items at every reported step, nats a target token."""
    return [fmean(step) for step in zip(*([k.loss for k in s.kept] for s in searched), strict=True)]


def _writer(own: Victim, prompts: Sequence[OpenPrompt]) -> Callable[[int, Suffix], bool]:
    return lambda item, suffix: own.prompter.can_be_written(prompts[item], suffix)


def _asker(
    own: Victim, prompts: Sequence[OpenPrompt], word: str
) -> Callable[[Sequence[tuple[int, Suffix]]], list[bool]]:
    def works(pairs: Sequence[tuple[int, Suffix]]) -> list[bool]:
        turns = [own.prompter.data(prompts[item], suffix) for item, suffix in pairs]
        samples = [prompts[item].sample for item, _ in pairs]
        return injection_labels(own.answers(samples, turns), word)

    return works
