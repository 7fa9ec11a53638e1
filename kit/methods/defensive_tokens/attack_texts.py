"""The attack strings, read from files and never shipped.

The published sentences are CC BY-NC 4.0 text inside a Python file. It is read as data: assignments
of literals are evaluated by ``ast.literal_eval``, plus the two forms that the file's own constants
use (``NAME[0]`` and an f-string of names). Nothing of it is executed.
"""

from __future__ import annotations

import ast
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from kit.results.plain import read_json as read_json_file

SLOT = "{injected_prompt}"
# How many of each list of fake delimiters StruQ keeps for its tests (defensive_tokens.md, 1.2).
HELD_OUT = 2


@dataclass(frozen=True)
class Delimiters:
    """How a fake dialogue marks its turns."""

    response: str
    instruction: str


COMPLETION = Delimiters("### response:", "### instruction:")
"""Of the evaluated completion attack in the public code."""


@dataclass(frozen=True)
class AttackTexts:
    """Everything that attacks are made of.

    Attributes:
        injected_word: What a successful injection makes the model begin with.
        injected_prompt: The injected instruction.
        ignore_test: Sentences of the evaluated ignore attack; ``{injected_prompt}`` is the slot.
        ignore_train: Other sentences of the same kind, for training.
        completion_real: Delimiters of the evaluated completion attack.
        fake_delimiters_train: For training; disjoint from the test ones.
        fake_delimiters_test: For the completion-other attack.
        paraphrase_test: Unseen wordings of the whole attack; may be empty.
        delimiter_words: StruQ's lists, by name, that its fake delimiters are put together from;
            ``None`` where the file gives pairs only.
    """

    injected_word: str
    injected_prompt: str
    ignore_test: tuple[str, ...]
    ignore_train: tuple[str, ...]
    completion_real: Delimiters
    fake_delimiters_train: tuple[Delimiters, ...]
    fake_delimiters_test: tuple[Delimiters, ...]
    paraphrase_test: tuple[str, ...] = ()
    delimiter_words: dict[str, tuple[str, ...]] | None = None

    def __post_init__(self) -> None:
        """Refuse texts with which an attack would silently be something else."""
        if not self.injected_word.strip() or not self.injected_prompt.strip():
            raise ValueError("the injected word and the injected prompt must not be empty")
        if self.injected_word.lower() not in self.injected_prompt.lower():
            raise ValueError("the injected prompt does not ask for the injected word")
        overlap = set(self.ignore_test) & set(self.ignore_train)
        if overlap:
            raise ValueError(f"{len(overlap)} ignore sentences are in both train and test")
        if set(self.fake_delimiters_test) & set(self.fake_delimiters_train):
            raise ValueError("some fake delimiters are in both train and test")


def read_attack_texts(path: str | Path) -> AttackTexts:
    """Attack strings from either source, by file name ending: ``.py`` or ``.json``.

    Raises:
        ValueError: Another ending, or a file that is not such a source.
    """
    readers = {".py": read_config_py, ".json": read_json}
    reader = readers.get(Path(path).suffix)
    if reader is None:
        raise ValueError(f"{path}: attack strings come from {' or '.join(readers)} files")
    return reader(path)


def fill(sentence: str, injected: str) -> str:
    """Put the injected instruction into a sentence; behind it where it has no slot."""
    return sentence.replace(SLOT, injected) if SLOT in sentence else f"{sentence} {injected}"


def read_config_py(path: str | Path) -> AttackTexts:
    """Attack texts from the ``config.py`` of SecAlign or Meta_SecAlign.

    Raises:
        ValueError: Not such a file, or a constant is missing.
    """
    try:
        constants = literal_constants(Path(path).read_text(encoding="utf-8"))
    except (OSError, SyntaxError, UnicodeDecodeError) as error:
        raise ValueError(f"cannot read attack texts from {path}: {error}") from error
    missing = [
        name
        for name in (
            "TEST_INJECTED_WORD",
            "TEST_INJECTED_PROMPT",
            "IGNORE_ATTACK_SENTENCES",
            "OTHER_DELM_TOKENS",
        )
        if name not in constants
    ]
    if missing:
        raise ValueError(f"{path} defines no literal {', '.join(missing)}")
    sentences, parts = constants["IGNORE_ATTACK_SENTENCES"], constants["OTHER_DELM_TOKENS"]
    return AttackTexts(
        injected_word=constants["TEST_INJECTED_WORD"],
        injected_prompt=constants["TEST_INJECTED_PROMPT"],
        ignore_test=tuple(sentences["test"]),
        ignore_train=tuple(sentences["train"]),
        completion_real=COMPLETION,
        fake_delimiters_train=fake_delimiters(parts, test=False),
        fake_delimiters_test=fake_delimiters(parts, test=True),
        delimiter_words={name: tuple(spellings) for name, spellings in parts.items()},
    )


def fake_delimiters(parts: dict[str, list[str]], *, test: bool) -> tuple[Delimiters, ...]:
    """All pairs of response and instruction delimiters that StruQ's lists give.

    Each as often as StruQ's sampling makes it likely: one mark for both delimiters; role and word
    per delimiter; upper, lower and given case, a third each. The last two of every list are the
    test's (defensive_tokens.md, 1.2).
    """

    def half(name: str) -> list[str]:
        return parts[name][-HELD_OUT:] if test else parts[name][:-HELD_OUT]

    def spellings(role: str, word: str) -> list[str]:
        names = [r + w for r, w in product(half(role), half(word))]
        return [f(n) for n in names for f in (str.upper, str.lower, str)]

    return tuple(
        Delimiters(mark.replace("{s}", resp) + ":", mark.replace("{s}", inst) + ":")
        for mark in half("mark")
        for resp in spellings("asst", "resp")
        for inst in spellings("user", "inst")
    )


def read_json(path: str | Path) -> AttackTexts:
    """Attack texts from a JSON file with the fields of :class:`AttackTexts`.

    ``injected_word``, ``injected_prompt`` and ``ignore_test`` are needed; ``completion_real`` is
    what the public code has, lists are empty where absent, and an attack that needs one says so.
    Delimiters are objects: ``completion_real`` has ``response_delimiter`` and
    ``instruction_delimiter``, the fake ones have ``response`` and ``instruction``.

    Raises:
        ValueError: Not such a file, or a field is missing.
    """
    try:
        raw = read_json_file(path, dict[str, Any])
        real = raw.get("completion_real")
        return AttackTexts(
            injected_word=raw["injected_word"],
            injected_prompt=raw["injected_prompt"],
            ignore_test=tuple(raw["ignore_test"]),
            ignore_train=tuple(raw.get("ignore_train", ())),
            completion_real=COMPLETION
            if real is None
            else Delimiters(real["response_delimiter"], real["instruction_delimiter"]),
            fake_delimiters_train=_pairs(raw.get("fake_delimiters_train", [])),
            fake_delimiters_test=_pairs(raw.get("fake_delimiters_test", [])),
            paraphrase_test=tuple(raw.get("paraphrase_test", ())),
        )
    except KeyError as error:
        raise ValueError(f"{path}: the field {error.args[0]!r} is missing") from error
    except (ValueError, TypeError, AttributeError) as error:
        raise ValueError(f"cannot read attack texts from {path}: {error}") from error


def literal_constants(source: str) -> dict[str, Any]:
    """Top-level ``NAME = literal`` assignments of a Python source, without running it."""
    constants: dict[str, Any] = {}
    for node in ast.parse(source).body:
        if isinstance(node, ast.Assign) and len(node.targets) == 1:
            target = node.targets[0]
            if isinstance(target, ast.Name):
                try:
                    constants[target.id] = _literal(node.value, constants)
                except (ValueError, TypeError, KeyError, IndexError):
                    constants.pop(target.id, None)  # computed by code: not ours to know
    return constants


def _literal(node: ast.expr, known: dict[str, Any]) -> Any:
    if isinstance(node, ast.Name):
        return known[node.id]
    if isinstance(node, ast.Subscript):
        return _literal(node.value, known)[ast.literal_eval(node.slice)]
    if isinstance(node, ast.JoinedStr):
        return "".join(str(_literal(part, known)) for part in node.values)
    if isinstance(node, ast.FormattedValue) and node.conversion == -1 and node.format_spec is None:
        return _literal(node.value, known)
    return ast.literal_eval(node)


def _pairs(rows: list[dict[str, str]]) -> tuple[Delimiters, ...]:
    return tuple(Delimiters(row["response"], row["instruction"]) for row in rows)
