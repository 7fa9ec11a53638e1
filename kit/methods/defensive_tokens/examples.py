"""Training items and their labels as token ids."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kit.lm.chat import ChatFormat
from kit.methods.defensive_tokens.layouts import begin_id, insert_slots
from kit.methods.defensive_tokens.samples import Sample
from kit.methods.defensive_tokens.self_label import SelfLabel, label_of
from kit.methods.defensive_tokens.struq import TrainingItem

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from kit.train.batching import Example

AS_TEXT = "as-text"
AS_GENERATED = "as-generated"
LABEL_TOKENS = (AS_TEXT, AS_GENERATED)


@dataclass(frozen=True)
class Encoding:
    """How items become ids.

    Attributes:
        layout: Where the prefix slots go.
        label_tokens: ``as-text`` decodes the label and renders it through the chat format, as the
            follow-up did; for Llama-3 that puts a line break in front of the end token which the
            model itself does not write (defensive_tokens.md, P5). ``as-generated`` keeps the
            generated ids.
        end_truncated: Whether a label cut by the token limit still gets the end token, which
            teaches to stop in mid-sentence (defensive_tokens.md, P4; the follow-up did).
        max_length: Ids kept, prefix slots included; the follow-up: 2048.
    """

    layout: str
    label_tokens: str = AS_GENERATED
    end_truncated: bool = False
    max_length: int = 2048

    def __post_init__(self) -> None:
        """Refuse an unknown label mode."""
        if self.label_tokens not in LABEL_TOKENS:
            raise ValueError(
                f"unknown label_tokens {self.label_tokens!r}; known: {', '.join(LABEL_TOKENS)}"
            )


def encode_items(
    items: Sequence[TrainingItem],
    samples: Mapping[str, Sample],
    labels: Mapping[str, SelfLabel],
    tokenizer: PreTrainedTokenizerBase,
    chat_format: ChatFormat,
    encoding: Encoding,
    *,
    n: int,
    vocabulary_size: int,
) -> list[Example]:
    """One example an item.

    A prompt that fills ``max_length`` leaves no room for a label: the follow-up's code cuts it and
    masks all of it, and so does this.

    Args:
        items: What to train on.
        samples: Sample id -> sample; its output stands in for an empty self-label.
        labels: Sample id -> self-label.
        tokenizer: Of the model.
        chat_format: The prompts' format.
        encoding: See :class:`Encoding`.
        n: Prefix slots.
        vocabulary_size: Rows of the model's embedding matrix.

    Raises:
        ValueError: A label is missing or was made for another instruction.
    """
    from kit.train.batching import Example

    begin = begin_id(chat_format, tokenizer)
    examples = []
    for item in items:
        label = label_of(labels, item.sample_id, item.instruction)
        prompt = insert_slots(
            encoding.layout,
            chat_format.prompt_ids(tokenizer, item.instruction, item.data),
            n=n,
            vocabulary_size=vocabulary_size,
            begin=begin,
        )
        answer = label_ids(label, samples[item.sample_id], tokenizer, chat_format, encoding)
        ids = tuple((prompt + answer)[: encoding.max_length])
        examples.append(Example(item.id, ids, min(len(prompt), len(ids))))
    return examples


def label_ids(
    label: SelfLabel,
    sample: Sample,
    tokenizer: PreTrainedTokenizerBase,
    chat_format: ChatFormat,
    encoding: Encoding,
) -> list[int]:
    """The answer to train on; an empty self-label gives way to the dataset's output."""
    if not label.text.strip():
        return chat_format.response_ids(tokenizer, sample.output)
    end = label.finish_reason == "stop" or encoding.end_truncated
    if encoding.label_tokens == AS_TEXT:
        return chat_format.response_ids(tokenizer, label.text, end=end)
    return [*label.ids, *(chat_format.end_ids(tokenizer) if end else [])]


def baited_items(
    items: Sequence[TrainingItem], labels: Mapping[str, SelfLabel]
) -> list[TrainingItem]:
    """Completion items whose fake response is the label: they teach to repeat the data (SQP)."""
    return [
        item
        for item in items
        if item.fake_response is not None
        and item.fake_response.strip() == labels[item.sample_id].text.strip()
    ]


def empty_labels(labels: Mapping[str, SelfLabel]) -> list[str]:
    """Ids of samples whose self-label is empty, so that the dataset's output replaces it."""
    return [label.sample_id for label in labels.values() if not label.text.strip()]
