"""The world's data in the formats of the real data sets, so that one reader serves both.

``alpaca.json`` is Cleaned Alpaca's format, ``alpaca_farm.json`` and ``refusal.json`` AlpacaFarm's.
All are written from :mod:`kit.mini.injection.world`; a test compares the shipped files with a
fresh writing.
"""

from __future__ import annotations

import json

from kit.mini.injection.pretrain_data import REFUSAL, REFUSED_INSTRUCTION
from kit.mini.injection.world import evaluation_set, training_pool

POOL_SEED = 0
POOL_SIZE = 4000
EVALUATION_SIZE = 208


def files() -> dict[str, str]:
    """File name -> content of everything below ``data`` that is made from the world."""
    pool = [
        {"instruction": s.instruction, "input": s.input, "output": s.output}
        for s in training_pool(POOL_SEED, POOL_SIZE)
    ]
    evaluation = [
        {"instruction": s.instruction, "input": s.input, "output": s.output, "generator": "world"}
        for s in evaluation_set(EVALUATION_SIZE)
    ]
    refusal = [
        # Every second question becomes the one request that is refused, its data unchanged.
        row | {"instruction": REFUSED_INSTRUCTION, "output": REFUSAL} if index % 2 else row
        for index, row in enumerate(evaluation)
    ]
    return {
        "alpaca.json": _rows(pool),
        "alpaca_farm.json": _rows(evaluation),
        "refusal.json": _rows(refusal),
    }


def _rows(rows: list[dict[str, str]]) -> str:
    return "[\n" + ",\n".join(json.dumps(row) for row in rows) + "\n]\n"
