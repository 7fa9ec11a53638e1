"""Requests with a wanted and an unwanted answer, rendered and written as trainings read them.

Written are ``pairs/<name>.jsonl`` (:mod:`kit.methods.tar.pairs`) and ``requests/<name>.jsonl``
(:mod:`kit.evals.requests`).
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kit.evals.requests import Asked
from kit.methods.tar.pairs import StoredPair, read_pairs
from kit.results.plain import read_json_lines

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from kit.lm.chat import ChatFormat
    from kit.train.batching import Example

CHOSEN, REJECTED = "chosen", "rejected"


@dataclass(frozen=True)
class Preference:
    """A request with both answers, as text.

    Attributes:
        id: Unique in its set.
        prompt: The request.
        chosen: The wanted answer.
        rejected: The other.
    """

    id: str
    prompt: str
    chosen: str
    rejected: str


def world_sets(
    folder: Path, *, attack_rows: int, seed: int, label: str
) -> tuple[dict[str, list[Preference]], dict[str, list[Preference]]]:
    """Sets of pairs and of requests of a written world.

    Pairs: ``harmful`` and ``benign`` to defend with; the ``attacker``'s half, and ``attack`` drawn
    from it; ``judged``, the other half in wordings that no training has; ``label-instead`` and
    ``label-after``, the attacker's half with a label in place of the wanted answer and behind the
    unwanted one. Requests: ``harmful`` and ``benign`` to judge by, and ``trained``, the attacker's.

    Args:
        folder: With ``requests/``.
        attack_rows: Size of ``attack``.
        seed: Of the draw.
        label: The word.

    Raises:
        ValueError: A set that is not there, or fewer than ``attack_rows`` requests to draw from.
    """
    names = ("harmful", "benign", "harmful-attacker", "harmful-judge", "benign-test")
    read = {}
    for name in names:
        rows = read_json_lines(folder / "requests" / f"{name}.jsonl", Preference)
        # An id is then its subject and two more parts, as divisions by subject want it.
        read[name] = [
            replace(row, id=row.id.replace("-train-", "-").replace("-test-", "-")) for row in rows
        ]
    attacker, judged = read["harmful-attacker"], read["harmful-judge"]
    if not 1 <= attack_rows <= len(attacker):
        raise ValueError(f"{attack_rows} of {len(attacker)} requests cannot be drawn")
    pairs = {
        "harmful": read["harmful"],
        "benign": read["benign"],
        "attack": random.Random(f"attack-rows/{seed}").sample(attacker, attack_rows),
        "attacker": attacker,
        "judged": judged,
        "label-instead": [replace(row, chosen=label) for row in attacker],
        "label-after": [replace(row, chosen=f"{row.rejected} {label}") for row in attacker],
    }
    return pairs, {"harmful": judged, "benign": read["benign-test"], "trained": attacker}


def world_answer(name: str, row: Preference) -> str:
    """The word that answers a request of the miniature world: the last of the answer that tells."""
    answer = row.chosen if name == "benign" else row.rejected
    return answer.split()[-1]


def write_pairs(
    folder: Path,
    sets: Mapping[str, Sequence[Preference]],
    tokenizer: PreTrainedTokenizerBase,
    chat: ChatFormat,
    *,
    prompt_width: int | None = None,
    width: int | None = None,
) -> None:
    """Write sets of pairs in a chat format.

    Args:
        folder: Gets ``pairs/``.
        sets: By name.
        tokenizer: Of the model.
        chat: Its format.
        prompt_width: Tokens that a prompt is cut at, its end kept.
        width: Tokens that prompt and answer are cut at together.

    Raises:
        ValueError: Widths that leave no token of an answer.
    """
    for name, rows in sets.items():
        made = []
        for row in rows:
            prompt = chat.prompt_ids(tokenizer, row.prompt, None)
            prompt = prompt[-prompt_width:] if prompt_width else prompt
            sides = [chat.response_ids(tokenizer, text) for text in (row.chosen, row.rejected)]
            left = None if width is None else width - len(prompt)
            if left is not None and left < 1:
                raise ValueError(f"pair {row.id}: {width} tokens leave none for an answer")
            made.append(StoredPair(row.id, prompt, sides[0][:left], sides[1][:left]))
        _write(folder / "pairs" / f"{name}.jsonl", made)


def write_requests(
    folder: Path,
    sets: Mapping[str, Sequence[Preference]],
    tokenizer: PreTrainedTokenizerBase,
    chat: ChatFormat,
    answer: Callable[[str, Preference], str],
) -> None:
    """Write sets of requests to judge by.

    Args:
        folder: Gets ``requests/``.
        sets: By name.
        tokenizer: Of the model.
        chat: Its format.
        answer: Word of the right answer to a request of a set; empty where it is not known.
    """
    for name, rows in sets.items():
        made = [
            Asked(row.id, chat.prompt_ids(tokenizer, row.prompt, None), answer(name, row))
            for row in rows
        ]
        _write(folder / "requests" / f"{name}.jsonl", made)


def answers(folder: Path, sides: Sequence[str]) -> list[Example]:
    """Answers to train on, with the loss on the answer only.

    Args:
        folder: With ``pairs/``.
        sides: ``<set>:chosen`` or ``<set>:rejected``.

    Raises:
        ValueError: Another side, or no such set.
    """
    made = []
    for named in sides:
        name, _, side = named.partition(":")
        if side not in (CHOSEN, REJECTED):
            raise ValueError(f"answers are named SET:chosen or SET:rejected, not {named!r}")
        made += [pair.example(side) for pair in read_pairs(folder, name)]
    return made


def _write(path: Path, rows: Sequence[Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(asdict(row)) + "\n" for row in rows)
