"""Labels from the undefended model itself, keyed by stable sample id.

DTP 3.3 calls self-labels "crucial to maintain utility". Keying matters: the follow-up once looked
labels up by shuffled position (tiny-adapt note, Issue 1; defensive_tokens.md, P6).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from kit.lm.backend import Backend, FinishReason
from kit.lm.chat import ChatFormat
from kit.methods.defensive_tokens.layouts import begin_id, insert_slots
from kit.methods.defensive_tokens.samples import Sample

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

EMPTY_TURN = "empty-turn"
NO_TURN = "no-turn"
DATA_TURNS = (EMPTY_TURN, NO_TURN)


@dataclass(frozen=True)
class SelfLabel:
    """The undefended model's greedy answer to a clean sample.

    Attributes:
        sample_id: Of the sample.
        instruction: Its instruction, to notice a wrong mapping.
        text: The decoded answer.
        ids: The generated ids, without the stop token.
        finish_reason: ``length`` marks a cut answer (defensive_tokens.md, P4).
    """

    sample_id: str
    instruction: str
    text: str
    ids: tuple[int, ...]
    finish_reason: FinishReason


def data_turn(text: str, mode: str) -> str | None:
    """What stands in the data turn of a clean sample.

    ``empty-turn`` renders a turn even for empty input (the follow-up); ``no-turn`` leaves it out
    (StruQ).

    Raises:
        ValueError: Unknown mode.
    """
    if mode not in DATA_TURNS:
        raise ValueError(f"unknown data-turn mode {mode!r}; known: {', '.join(DATA_TURNS)}")
    return text if text.strip() or mode == EMPTY_TURN else None


def make_labels(
    backend: Backend,
    tokenizer: PreTrainedTokenizerBase,
    chat_format: ChatFormat,
    samples: Sequence[Sample],
    *,
    layout: str,
    max_new_tokens: int,
    empty_data: str = NO_TURN,
    banned_ids: Sequence[int] = (),
) -> dict[str, SelfLabel]:
    """Greedy answers of the undefended model, one a distinct sample.

    Args:
        backend: Runs the model without a prefix.
        tokenizer: Of the model.
        chat_format: The prompts' format.
        samples: Clean samples; a repeated id is labelled once.
        layout: Decides whether the begin token is doubled, as in the labelling harness.
        max_new_tokens: The follow-up's limit is 512.
        empty_data: See :func:`data_turn`.
        banned_ids: Ids never produced.

    Returns:
        Sample id -> label.
    """
    distinct = list({sample.id: sample for sample in samples}.values())
    begin = begin_id(chat_format, tokenizer)
    prompts = [
        insert_slots(
            layout,
            chat_format.prompt_ids(tokenizer, s.instruction, data_turn(s.input, empty_data)),
            n=0,
            vocabulary_size=backend.vocabulary_size,
            begin=begin,
        )
        for s in distinct
    ]
    generations = backend.generate(
        prompts,
        prefix=None,
        max_new_tokens=max_new_tokens,
        stop_ids=chat_format.stop_ids(tokenizer),
        banned_ids=banned_ids,
    )
    return {
        sample.id: SelfLabel(
            sample_id=sample.id,
            instruction=sample.instruction,
            text=str(tokenizer.decode(list(generation.ids), skip_special_tokens=True)),
            ids=generation.ids,
            finish_reason=generation.finish_reason,
        )
        for sample, generation in zip(distinct, generations, strict=True)
    }


def label_of(labels: Mapping[str, SelfLabel], sample_id: str, instruction: str) -> SelfLabel:
    """The label of a sample, checked against the instruction it was made for.

    Raises:
        ValueError: No label, or one that was made for another instruction.
    """
    label = labels.get(sample_id)
    if label is None:
        raise ValueError(f"sample {sample_id} has no self-label; label the scheduled samples first")
    if label.sample_id != sample_id or label.instruction != instruction:
        raise ValueError(
            f"the self-label of {sample_id} was made for another instruction: "
            f"{label.instruction[:60]!r}, not {instruction[:60]!r}"
        )
    return label


def save_labels(path: str | Path, labels: Mapping[str, SelfLabel]) -> None:
    """Write labels as JSON lines, in the mapping's order."""
    lines = [json.dumps(asdict(label), ensure_ascii=False) for label in labels.values()]
    Path(path).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def load_labels(path: str | Path) -> dict[str, SelfLabel]:
    """The inverse of :func:`save_labels`.

    Raises:
        ValueError: A line that is no label, or a sample that has two.
    """
    labels: dict[str, SelfLabel] = {}
    for number, line in enumerate(Path(path).read_text(encoding="utf-8").split("\n"), start=1):
        if not line:
            continue
        try:
            row = json.loads(line)
            label = SelfLabel(**{**row, "ids": tuple(row["ids"])})
        except (ValueError, TypeError, KeyError) as error:
            raise ValueError(f"{path}:{number}: not a self-label: {error}") from error
        if label.sample_id in labels:
            raise ValueError(f"{path}:{number}: a second label for {label.sample_id}")
        labels[label.sample_id] = label
    return labels
