"""Worlds are the same everywhere: what a seed gave when the records were built, it gives today.

The digests are of texts that a seed alone decides; recorded numbers belong to these texts.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict
from random import Random
from typing import Any

import pytest

from kit.mini.facts import files, pretrain
from kit.mini.facts.questions import skill_questions
from kit.mini.facts.world import make_world
from kit.mini.injection.batches import batches
from kit.mini.injection.pretrain_data import NEWER_MIX, SOURCE_MIX, draw_example
from kit.mini.injection.world import dev_set, training_pool


def _facts(kind: str) -> str:
    made = files.world_files(make_world(0))
    return "".join(made[path] for path in sorted(made) if path.startswith(kind))


def _examples(mix: Any) -> str:
    rng = Random("examples")
    return json.dumps([asdict(draw_example(rng, mix)) for _ in range(3000)])


def _batches(count: int) -> str:
    made = list(batches("a", SOURCE_MIX, size=3, steps=count))
    return json.dumps([[batch.ids.tolist(), batch.labels.tolist()] for batch in made])


def _draws() -> str:
    """Batches of four steps, two before the introduction and two after it."""
    world = make_world(0)
    texts, requests = files.texts(world), files.request_sets(world)
    rows = pretrain.rows_of(
        [*texts["retain"], *texts["mention"], *texts["forget"]],
        [*requests["benign"], *requests["harmful"]],
    )
    draws = pretrain._Draws(rows, pretrain.Recipe(steps=4, introduced=2, batch=24), 3)
    made = [
        [batch.ids.tolist(), round(batch.weight, 9)] for s in range(4) for batch in draws.batches(s)
    ]
    return json.dumps(made)


MADE: dict[str, Callable[[], str]] = {
    "facts-texts": lambda: _facts("texts"),
    "facts-questions": lambda: _facts("questions"),
    "facts-requests": lambda: _facts("requests"),
    "facts-skills": lambda: json.dumps([asdict(q) for q in skill_questions(5)]),
    "facts-draws": _draws,
    "injection-source": lambda: _examples(SOURCE_MIX),
    "injection-newer": lambda: _examples(NEWER_MIX),
    "injection-batches": lambda: _batches(18),
    "injection-pool": lambda: json.dumps([asdict(s) for s in training_pool(1, 400)]),
    "injection-dev": lambda: json.dumps([asdict(s) for s in dev_set(400)]),
}
DIGESTS = {
    "facts-draws": "f89611b95e1527c0",
    "facts-questions": "c23bb3d9fc2d8aa2",
    "facts-requests": "a7985912a9a1e0f1",
    "facts-skills": "ae48c1612b11466b",
    "facts-texts": "dcd44976d2ec5239",
    "injection-batches": "a14f24c3e3a07431",
    "injection-dev": "6d1d3f78ba39eed2",
    "injection-newer": "54b28a573b82a65b",
    "injection-pool": "e21a576f46ecb74d",
    "injection-source": "b8eb6ff6125b24e2",
}


@pytest.mark.parametrize("name", sorted(MADE))
def test_a_seed_gives_what_it_always_gave(name: str) -> None:
    assert hashlib.sha256(MADE[name]().encode()).hexdigest()[:16] == DIGESTS[name]


def test_the_plain_sentences_of_a_step_come_before_the_requests() -> None:
    made = json.loads(_draws())
    turn = pretrain.vocabulary()["[INST]"]
    kinds = [{turn in row for row in ids} for ids, _ in made]
    assert kinds == [{False}, {False}, {False}, {True}, {False}, {True}]
    assert [sum(weights) for weights in ([made[0][1]], [made[2][1], made[3][1]])] == pytest.approx(
        [1.0, 1.0]
    )
