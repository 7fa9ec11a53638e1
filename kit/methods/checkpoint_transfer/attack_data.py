"""What a tampering attack of the log trains on, and what it is watched with, as a folder of data.

The attack takes 512 documents in an order of its own, cuts them into pieces of 2,048 tokens, at
most five a document, and trains on the pieces (reference page, section 3). The folder is the one
that :mod:`kit.evals.sets` reads.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random

ATTACKER = "attacker"
"""Name of the set of pieces."""


def cut(
    documents: Sequence[str],
    encode: Callable[[str], list[int]],
    *,
    number: int,
    seed: int,
    most_tokens: int,
    most_pieces: int,
) -> dict[str, list[int]]:
    """Choose documents and cut them into pieces of token ids.

    Args:
        documents: All there are.
        encode: Text to token ids.
        number: Documents to take.
        seed: Of their order.
        most_tokens: Of a piece.
        most_pieces: Of a document; what is left of it is dropped.

    Returns:
        Id (document and piece) -> token ids; a rest of a single token predicts nothing and is
        left out.

    Raises:
        ValueError: Too few documents, or none with two tokens.
    """
    if number > len(documents):
        raise ValueError(f"{number} documents asked of {len(documents)}")
    order = Random(f"attack-{seed}").sample(range(len(documents)), number)
    pieces = {}
    for at in order:
        ids = encode(documents[at])
        for piece in range(most_pieces):
            part = ids[piece * most_tokens : (piece + 1) * most_tokens]
            if len(part) > 1:
                pieces[f"document-{at:06d}-{piece}"] = part
    if not pieces:
        raise ValueError("no document has two tokens")
    return pieces


def write_attack_data(folder: Path, pieces: dict[str, list[int]], questions: Path) -> None:
    """Write the pieces, and copy the questions of another folder of data."""
    (folder / "texts").mkdir()
    lines = "".join(json.dumps({"id": id, "ids": ids}) + "\n" for id, ids in pieces.items())
    (folder / "texts" / f"{ATTACKER}.jsonl").write_text(lines, encoding="utf-8")
    shutil.copytree(questions / "questions", folder / "questions")
