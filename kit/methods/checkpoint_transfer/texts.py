"""The texts of a run as token ids: what is forgotten, what is retained, what maps are fitted on."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

from kit.methods.checkpoint_transfer.pairs import Pairs

FORGET, RETAIN, FIT, HELD_OUT = "forget", "retain", "fit", "held-out"
SETS = (FORGET, RETAIN, FIT, HELD_OUT)
AS_THEY_COME, SHUFFLED = "as-they-come", "shuffled"
ORDERS = (AS_THEY_COME, SHUFFLED)

Ids = list[list[int]]


@dataclass(frozen=True)
class Texts:
    """Token ids of each text.

    Attributes:
        forget: Of the pairs, in order; a run of N pairs takes the first N.
        retain: As many.
        fit: What the affine maps are fitted on; retain text.
        held_out: What their error is measured on; retain text that no fit saw.
    """

    forget: Ids
    retain: Ids
    fit: Ids
    held_out: Ids

    def pairs(self, examples: int, *, pad_id: int, device: str = "cpu") -> Pairs:
        """The first pairs.

        Raises:
            ValueError: There are fewer.
        """
        if examples > len(self.forget):
            raise ValueError(f"{examples} pairs asked of {len(self.forget)} texts")
        return Pairs(self.forget[:examples], self.retain[:examples], pad_id, device)


def choose_texts(
    forget: Sequence[str],
    retain: Sequence[str],
    encode: Callable[[str], list[int]],
    *,
    pairs: int,
    fit: int,
    held_out: int,
    seed: int,
    most_tokens: int,
    forget_order: str = AS_THEY_COME,
    repeat: bool = False,
) -> Texts:
    """Choose and tokenise the texts of a run.

    Forget text comes in its order, as in the published code, or shuffled; retain text is always
    shuffled (reference page, section 1.7). The held-out texts are taken from the retain text
    first, so that no fit sees them.

    Args:
        forget: Documents to forget.
        retain: Documents to retain.
        encode: Text to token ids.
        pairs: Pairs of forget and retain text.
        fit: Texts for the affine maps.
        held_out: Texts to measure them on.
        seed: Of the shuffles.
        most_tokens: Longer texts are cut.
        forget_order: One of :data:`ORDERS`.
        repeat: Where there are fewer documents than pairs, take them again, in another order
            each time. Without, that is an error: repeated data are another experiment.

    Raises:
        ValueError: Too few documents, an unknown order, a text without tokens.
    """
    if forget_order not in ORDERS:
        raise ValueError(f"unknown order {forget_order!r}; known: {', '.join(ORDERS)}")
    shuffled = Random(f"retain-{seed}").sample(list(retain), len(retain))
    if len(shuffled) < held_out + fit:
        raise ValueError(f"{len(retain)} retain documents for {held_out + fit} texts of the fit")
    apart, rest = shuffled[:held_out], shuffled[held_out:]
    shuffle = forget_order == SHUFFLED
    taken = {
        FORGET: _take(list(forget), pairs, Random(f"forget-{seed}"), shuffle, repeat, FORGET),
        RETAIN: _take(rest, pairs, Random(f"pairs-{seed}"), True, repeat, RETAIN),
        FIT: rest[:fit],
        HELD_OUT: apart,
    }
    ids = {name: [encode(text)[:most_tokens] for text in texts] for name, texts in taken.items()}
    for name, rows in ids.items():
        if not all(rows):
            raise ValueError(f"a {name} text has no tokens")
    return Texts(ids[FORGET], ids[RETAIN], ids[FIT], ids[HELD_OUT])


def _take(
    documents: list[str], number: int, rng: Random, shuffle: bool, repeat: bool, what: str
) -> list[str]:
    if not documents or (number > len(documents) and not repeat):
        raise ValueError(f"{len(documents)} {what} documents for {number} pairs")
    taken: list[str] = []
    while len(taken) < number:
        again = shuffle or bool(taken)
        taken += rng.sample(documents, len(documents)) if again else documents
    return taken[:number]


def write_texts(folder: Path, texts: Texts) -> None:
    """Write a file for each set: one JSON list of token ids a line."""
    for name, rows in zip(
        SETS, (texts.forget, texts.retain, texts.fit, texts.held_out), strict=True
    ):
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / f"{name}.jsonl").write_text(lines, encoding="utf-8")


def read_texts(folder: Path) -> Texts:
    """Read what :func:`write_texts` wrote."""
    rows = []
    for name in SETS:
        lines = (folder / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
        rows.append([json.loads(line) for line in lines])
    return Texts(*rows)


def read_documents(files: Sequence[Path], fields: Sequence[str]) -> list[str]:
    """Documents of Parquet or JSON-lines files.

    Args:
        files: In the order in which they are read.
        fields: Columns that make up a document, joined by blank lines; empty ones are left out.

    Raises:
        ValueError: No files, or one without these columns.
    """
    import datasets

    if not files:
        raise ValueError("no files to read documents from")
    kind = "parquet" if files[0].suffix == ".parquet" else "json"
    rows = datasets.load_dataset(kind, data_files=[str(file) for file in files], split="train")
    missing = [field for field in fields if field not in rows.column_names]
    if missing:
        raise ValueError(
            f"{files[0].name} has no column {missing[0]!r}; there: {', '.join(rows.column_names)}"
        )
    return ["\n\n".join(str(row[f]) for f in fields if row[f]) for row in rows]
