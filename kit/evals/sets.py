"""Texts and questions in files, and a model watched by them.

A folder of data holds ``texts/<name>.jsonl`` (lines ``{id, text, ...}``, or ``{id, ids, special}``
where texts were tokenised before, ``special`` being positions of control tokens) and
``questions/<name>.jsonl`` (lines ``{id, prompt, options, answer}``); further keys are ignored.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kit.evals.multiple_choice import (
    LETTERS,
    Item,
    accuracy,
    items_of,
    letters,
    mean_probability,
    score,
)
from kit.evals.texts import text_score
from kit.lm.generate import TransformersBackend
from kit.results.plain import read_json_lines
from kit.train.batches import examples_of_tokens

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from kit.train.batching import Example


@dataclass(frozen=True)
class StoredQuestion:
    """See :class:`kit.evals.multiple_choice.Question`."""

    id: str
    prompt: str
    options: tuple[str, ...]
    answer: int


@dataclass(frozen=True)
class _StoredText:
    id: str
    text: str = ""
    ids: list[int] | None = None
    special: list[int] = field(default_factory=list)


def read_questions(folder: Path, name: str) -> list[StoredQuestion]:
    """The questions of a set, in the order of the file.

    Raises:
        ValueError: No such set.
    """
    return read_json_lines(_file(folder / "questions" / f"{name}.jsonl"), StoredQuestion)


def pad_id(tokenizer: PreTrainedTokenizerBase) -> int:
    """The id that fills rows: the tokenizer's padding, or its end where it has none."""
    chosen: Any = tokenizer.pad_token_id
    return int(tokenizer.eos_token_id if chosen is None else chosen)


def text_examples(
    folder: Path,
    names: Sequence[str],
    tokenizer: PreTrainedTokenizerBase,
    *,
    max_length: int | None = None,
    special_labels: str = "masked",
) -> list[Example]:
    """All texts of some sets as examples whose every token but the first is a label.

    Args:
        folder: Of data.
        names: Sets.
        tokenizer: Of the model.
        max_length: Texts are cut here.
        special_labels: Of conversations, whose control tokens are marked in the file: ``masked``,
            none of them is a label; ``kept``, all are but the end of a turn, which is also the
            padding and goes with it (TAR reference page, 1.7 no. 9).

    Raises:
        ValueError: No such set, an id in two of them, a text with nothing to predict.
    """
    if special_labels not in ("masked", "kept"):
        raise ValueError(f"labels of control tokens are masked or kept, not {special_labels!r}")
    tokens: dict[str, list[int]] = {}
    hidden: dict[str, frozenset[int]] = {}
    for name in names:
        for row in read_json_lines(_file(folder / "texts" / f"{name}.jsonl"), _StoredText):
            if row.id in tokens:
                raise ValueError(f"text {row.id} stands twice in the sets {', '.join(names)}")
            ids = tokenizer(row.text).input_ids if row.ids is None else row.ids
            tokens[row.id] = ids
            hidden[row.id] = frozenset(
                position
                for position in row.special
                if special_labels == "masked" or ids[position] == tokenizer.eos_token_id
            )
    made = examples_of_tokens(tokens, max_length)
    return [
        replace(example, hidden=hidden[example.id]) if hidden[example.id] else example
        for example in made
    ]


@dataclass(frozen=True)
class Watch:
    """What is measured of a model, before, during and after a training.

    Attributes:
        items: Questions by the name of the measurement.
        texts: Examples by the name of the measurement; gives ``<name>-loss`` and
            ``<name>-entropy``, nats.
        pad_id: Fills rows.
        seldom: Measurements that are taken at :attr:`steps` only; they cost more than they say in
            between.
        steps: Of the seldom ones.
        normalised: Measurements that pick by log-likelihood divided by characters
            (:func:`kit.evals.multiple_choice.is_cloze`), as before and after a training.
    """

    items: Mapping[str, Sequence[Item]]
    texts: Mapping[str, Sequence[Example]]
    pad_id: int
    seldom: frozenset[str] = frozenset()
    steps: frozenset[int] = frozenset()
    normalised: frozenset[str] = frozenset()

    def __call__(self, model: PreTrainedModel, step: int) -> dict[str, Any]:
        """Shares of right answers (0 to 1), letters picked, mean probability of the right option.

        Losses and entropies stand beside them.
        """
        backend = TransformersBackend(model, self.pad_id, max_batch=1024)
        values: dict[str, Any] = {"picks": {}, "probability": {}}
        for name, items in self.items.items():
            if name in self.seldom and step not in self.steps:
                continue
            scored, divided = score(backend, items), name in self.normalised
            values[name] = accuracy(scored, normalised=divided).value
            picked, _ = letters(scored, normalised=divided)
            values["picks"][name] = "".join(picked)
            values["probability"][name] = mean_probability(scored)
        for name, examples in self.texts.items():
            if name not in self.seldom or step in self.steps:
                measured = text_score(model, examples, self.pad_id, rows=256)
                values |= {f"{name}-loss": measured.loss, f"{name}-entropy": measured.entropy}
        return values

    def answers(self) -> dict[str, dict[str, Any]]:
        """Ids, options and right letters of each set, for reading the picks."""
        return {
            name: {
                "items": [item.id for item in items],
                "answers": "".join(LETTERS[item.answer] for item in items),
            }
            for name, items in self.items.items()
        }


def question_items(
    folder: Path, sets: Mapping[str, str], tokenizer: PreTrainedTokenizerBase
) -> dict[str, list[Item]]:
    """Tokenised questions by the name of the measurement.

    Args:
        folder: Of data.
        sets: Measurement -> name of a set of questions.
        tokenizer: Of the model.
    """
    return {
        name: items_of(read_questions(folder, stored), lambda text: tokenizer(text).input_ids)
        for name, stored in sets.items()
    }


def _file(path: Path) -> Path:
    if not path.is_file():
        known = ", ".join(sorted(file.stem for file in path.parent.glob("*.jsonl"))) or "none"
        raise ValueError(f"no {path.name} in {path.parent}; there: {known}")
    return path
