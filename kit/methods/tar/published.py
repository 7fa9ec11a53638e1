"""The published data of TAR as sets of texts, read from pinned files by streaming.

What is read and what is left out: TAR reference page, section 3; paper E.1. Files are read by
``datasets`` from disk, so that nothing needs the hub once it was fetched. No row is kept that the
sets do not need, and nothing of a row is ever executed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

SPLIT_SEED, HELD_OUT_SHARE = 42, 0.2
"""[CODE] modules/dataloaders.py: ``train_test_split(test_size=0.2, seed=42)``."""
SHORTEST_WRITEUP = 150
"""Characters; CTFtime writeups up to this long are left out (paper E.1)."""
TURN = "\n\nAssistant:"
ASKED = "\n\nHuman:"
FORMATS = {".parquet": "parquet", ".jsonl": "json", ".json": "json", ".csv": "csv"}

Rows = Iterator[dict[str, Any]]


def rows_of(files: Sequence[Path], columns: Sequence[str]) -> Rows:
    """Rows of files of one format, one after the other, with these columns.

    Raises:
        ValueError: No files, files of several or unknown formats, or a column that is not there.
    """
    import datasets

    endings = {file.suffix for file in files}
    if len(endings) != 1 or not endings <= FORMATS.keys():
        raise ValueError(f"files of one format are read ({', '.join(FORMATS)}), not {endings}")
    (ending,) = endings
    names = [str(file) for file in files]
    stream = datasets.load_dataset(FORMATS[ending], data_files=names, split="train", streaming=True)
    for row in stream:
        missing = [name for name in columns if name not in row]
        if missing:
            raise ValueError(f"no column {missing[0]!r} in {files[0].name}: {', '.join(row)}")
        yield {name: row[name] for name in columns}


def pile_bio(files: Sequence[Path]) -> dict[str, list[str]]:
    """``forget`` and ``retain`` by the label that a model gave each text.

    Raises:
        ValueError: A label that is neither true nor false.
    """
    made: dict[str, list[str]] = {"forget": [], "retain": []}
    for row in rows_of(files, ["txt_chunk", "label"]):
        if not isinstance(row["label"], bool):
            raise ValueError(f"a label of the Pile's texts is {row['label']!r}, not true or false")
        made["forget" if row["label"] else "retain"].append(str(row["txt_chunk"]))
    return made


def chunks(files: Sequence[Path]) -> dict[str, list[str]]:
    """``forget``: every text of a set that has no labels (Camel-bio, a user's own forget set)."""
    return {"forget": [str(row["text_chunk"]) for row in rows_of(files, ["text_chunk"])]}


def writeups(files: Sequence[Path]) -> dict[str, list[str]]:
    """``forget``: writeups of more than 150 characters."""
    return {"forget": [text for text in chunks(files)["forget"] if len(text) > SHORTEST_WRITEUP]}


def magpie(files: Sequence[Path]) -> list[list[dict[str, str]]]:
    """Conversations as chat messages.

    Raises:
        ValueError: A speaker that is neither the user nor the assistant.
    """
    roles = {"human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant"}
    made = []
    for row in rows_of(files, ["conversations"]):
        turns = row["conversations"]
        unknown = [turn["from"] for turn in turns if turn["from"] not in roles]
        if unknown:
            raise ValueError(f"a conversation has a turn from {unknown[0]!r}")
        made.append([{"role": roles[t["from"]], "content": str(t["value"])} for t in turns])
    return made


def preferences(files: Sequence[Path]) -> list[tuple[str, str, str]]:
    """(prompt, chosen, rejected) of Anthropic HH: the last answers to one conversation.

    Rows whose two conversations differ before the last answer are left out, as they compare no
    answers to one prompt; the caller counts them.

    Raises:
        ValueError: A conversation without an answer.
    """
    made = []
    for row in rows_of(files, ["chosen", "rejected"]):
        sides = [_last_turn(str(row[name])) for name in ("chosen", "rejected")]
        if sides[0][0] == sides[1][0]:
            made.append((sides[0][0], sides[0][1], sides[1][1]))
    return made


def toxic_dpo(files: Sequence[Path]) -> list[tuple[str, str, str]]:
    """(prompt, chosen, rejected) of Toxic-DPO, whose chosen side is the harmful one."""
    rows = rows_of(files, ["prompt", "chosen", "rejected"])
    return [(str(r["prompt"]), str(r["chosen"]), str(r["rejected"])) for r in rows]


def halved(items: Sequence[Any]) -> tuple[list[Any], list[Any]]:
    """80 % and 20 %, as ``datasets`` divides with the seed of the released code.

    Raises:
        ValueError: Too few items to divide.
    """
    from datasets import Dataset

    if len(items) < 2:
        raise ValueError(f"{len(items)} items cannot be divided")
    numbers = Dataset.from_dict({"number": list(range(len(items)))})
    parts = numbers.train_test_split(test_size=HELD_OUT_SHARE, seed=SPLIT_SEED)
    train, test = ([items[i] for i in parts[name]["number"]] for name in ("train", "test"))
    return train, test


READERS: Mapping[str, Callable[[Sequence[Path]], dict[str, list[str]]]] = {
    "pile-bio": pile_bio,
    "camel-bio": chunks,
    "cyber": writeups,
    "chem": chunks,
    "ood-bio": chunks,
}
"""Sets of raw texts by the name of the input."""


def counts(there: Mapping[str, int], published: Iterable[str]) -> list[tuple[str, bool]]:
    """What each published count says of the sets that there are.

    Args:
        there: Set -> items in it.
        published: ``name=count``.

    Returns:
        A sentence for each, and whether it holds; a set that is not there has no items.

    Raises:
        ValueError: An entry that is not ``name=count``.
    """
    comparisons = []
    for entry in published:
        name, sign, number = entry.partition("=")
        if not sign or not number.isdigit():
            raise ValueError(f"a published count is written name=count, not {entry!r}")
        items = there.get(name, 0)
        comparisons.append((f"{name}: {items} of {number}", items == int(number)))
    return comparisons


def _last_turn(conversation: str) -> tuple[str, str]:
    before, sign, answer = conversation.rpartition(TURN)
    if not sign:
        raise ValueError("a conversation of HH has no answer")
    return before.removeprefix(ASKED).strip(), answer.strip()
