"""Chat formats by name, from plain values, or from a tokenizer's own template.

No list is closed: whoever defines a format registers it, a pin can hold a format's few lines, and
``tokenizer`` means the template that the model came with (:mod:`kit.lm.template`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from kit.lm.chat import PARTS, ChatFormat, Segment, Special, Text

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

OWN_TEMPLATE = "tokenizer"
_FORMATS: dict[str, ChatFormat] = {}
_KEYS = (*PARTS, "stop", "stop_if_known", "pad")
HOW_TO = (
    f"write {OWN_TEMPLATE!r} for the tokenizer's own template, or give the format's lines: "
    f"{', '.join(_KEYS)}, where a text stands for itself and {{token: NAME}} for a control token"
)


def register_format(chat_format: ChatFormat) -> ChatFormat:
    """Make a format known by its name.

    Raises:
        ValueError: Another format has this name.
    """
    known = _FORMATS.setdefault(chat_format.name, chat_format)
    if known != chat_format or chat_format.name == OWN_TEMPLATE:
        raise ValueError(f"there is another chat format of the name {chat_format.name!r}")
    return chat_format


def get_format(name: str) -> ChatFormat:
    """The registered format of this name.

    Raises:
        ValueError: Unknown name; the message lists the known ones and says how to give another.
    """
    try:
        return _FORMATS[name]
    except KeyError:
        known = ", ".join(sorted(_FORMATS)) or "none"
        raise ValueError(f"unknown chat format {name!r}; known: {known}; or {HOW_TO}") from None


def declared_format(
    declared: str | Mapping[str, Any], tokenizer: PreTrainedTokenizerBase
) -> ChatFormat:
    """The format that a pin declares.

    Args:
        declared: A registered name, ``tokenizer``, or the lines of a format.
        tokenizer: Of the model; its template is read for ``tokenizer``.

    Raises:
        ValueError: Unknown name, lines that make no format, or a template that makes none.
    """
    if isinstance(declared, Mapping):
        return read_format(declared)
    if declared == OWN_TEMPLATE:
        from kit.lm.template import template_format

        return template_format(tokenizer)
    return get_format(declared)


def read_format(values: Mapping[str, Any]) -> ChatFormat:
    """A format from plain values, as they stand in YAML or JSON.

    Args:
        values: The parts of a :class:`ChatFormat` by name. ``begin``, ``instruction``, ``data``,
            ``generate``, ``response`` and ``end`` are lists whose items are a text, or
            ``{token: NAME}``; ``stop`` and ``stop_if_known`` are lists of token names. ``name``,
            ``begin`` and ``stop_if_known`` may be left out.

    Raises:
        ValueError: An unknown or a missing part, or an item that is neither.
    """
    unknown = sorted(set(values) - {*_KEYS, "name"})
    missing = sorted(set(_KEYS) - {"begin", "stop_if_known"} - set(values))
    if unknown or missing:
        words = ", ".join(
            [*(f"unknown: {k}" for k in unknown), *(f"missing: {k}" for k in missing)]
        )
        raise ValueError(f"the lines of a chat format do not fit ({words}); {HOW_TO}")
    parts = {part: _segments(part, values.get(part, [])) for part in PARTS}
    return ChatFormat(
        name=str(values.get("name", "declared by its pin")),
        stop=_names("stop", values["stop"]),
        stop_if_known=_names("stop_if_known", values.get("stop_if_known", [])),
        pad=str(values["pad"]),
        **parts,
    )


def _segments(part: str, items: Any) -> tuple[Segment, ...]:
    if not isinstance(items, Sequence) or isinstance(items, str):
        raise ValueError(f"{part} of a chat format is a list of texts and tokens, not {items!r}")
    segments: list[Segment] = []
    for item in items:
        if isinstance(item, str):
            segments.append(Text(item))
        elif isinstance(item, Mapping) and list(item) == ["token"]:
            segments.append(Special(str(item["token"])))
        else:
            raise ValueError(f"{part} of a chat format: {item!r} is no text and no {{token: NAME}}")
    return tuple(segments)


def _names(part: str, items: Any) -> tuple[str, ...]:
    if not isinstance(items, Sequence) or isinstance(items, str):
        raise ValueError(f"{part} of a chat format is a list of token names, not {items!r}")
    return tuple(str(item) for item in items)
