"""What a search leaves behind: finished groups of items while it runs, its numbers at the end."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from kit.methods.defensive_tokens.adaptive.attack import Searched
from kit.methods.defensive_tokens.adaptive.gcg import Kept
from kit.methods.defensive_tokens.adaptive.victims import Victim


def append_group(path: Path, group: Sequence[Searched]) -> None:
    """Keep a finished group of items: a line for all of them, so that none is kept by half."""
    kept = {
        item.prompt.sample.id: [[k.step, k.loss, k.suffix] for k in item.kept] for item in group
    }
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(kept) + "\n")


def read_groups(path: Path) -> dict[str, list[Kept]]:
    """Item id -> what was kept for it; a last line that a kill cut off is left out."""
    known: dict[str, list[Kept]] = {}
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    for line in lines:
        try:
            group = json.loads(line)
        except json.JSONDecodeError:
            break
        for item, points in group.items():
            known[item] = [Kept(step, loss, tuple(ids)) for step, loss, ids in points]
    return known


def text_rows(own: Victim, searched: Iterable[Searched]) -> list[dict[str, Any]]:
    """Every kept text, ready for JSON lines."""
    return [
        {
            "searched_on": own.name,
            "sample_id": item.prompt.sample.id,
            "step": kept.step,
            "loss": kept.loss,
            "data": own.prompter.data(item.prompt, kept.suffix),
        }
        for item in searched
        for kept in item.kept
    ]


def search_scores(
    items: Sequence[str],
    queries: Sequence[int],
    victims: Mapping[str, Mapping[str, Any]],
    losses: Mapping[str, Sequence[float]],
) -> dict[str, Any]:
    """The numbers of one attacker's searches.

    Args:
        items: Ids, in the order of the labels.
        queries: At every reported step.
        victims: Name -> what :func:`.attack.broken_by` says.
        losses: Token set of the attacker's own model -> mean kept loss at every reported step.
    """
    return {
        "items": list(items),
        "queries": list(queries),
        "victims": {name: dict(outcome) for name, outcome in victims.items()},
        "losses": {name: list(values) for name, values in losses.items()},
    }
