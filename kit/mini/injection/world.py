"""Training pool, development set and evaluation set of the miniature world.

The three share no (instruction, input) pair, whatever the seeds and sizes: each pair belongs to
one split by its hash, and a set keeps only the pairs of its own split. Pretraining keeps to the
training split too, so no model has seen a question of the other two.
"""

from __future__ import annotations

import hashlib
from random import Random

from kit.methods.defensive_tokens.samples import Sample
from kit.mini.injection.tasks import ALONE, WITH_DATA, Item, draw_item

NO_INPUT_SHARE = 0.30
"""Share of the training pool without input. In Cleaned Alpaca it is about 63 %; here it is lower
because only two tasks make sense without data, and both are easy."""

EVALUATION_SEED = 999
DEVELOPMENT_SEED = 555


def split_of(instruction: str, data: str) -> str:
    """``"train"``, ``"dev"`` or ``"eval"``; questions without data are always ``"train"``."""
    if not data:
        return "train"
    digest = hashlib.sha256(f"{instruction}\n{data}".encode()).digest()
    return {0: "eval", 1: "dev"}.get(digest[0] % 8, "train")


def training_pool(seed: int, n: int) -> list[Sample]:
    """The world's counterpart of Cleaned Alpaca: what a defence may be trained on.

    About ``NO_INPUT_SHARE`` of the samples have an empty input. Pairs with input are unique;
    without input they repeat, since the world has only twenty places. A longer pool of the same
    seed begins with the shorter one. The attacker's word never occurs.

    Args:
        seed: Pools of different seeds overlap only by chance.
        n: Number of samples.
    """
    rng = Random(f"pool-{seed}")
    seen: set[tuple[str, str]] = set()
    samples: list[Sample] = []
    while len(samples) < n:
        alone = rng.random() < NO_INPUT_SHARE
        item = _draw_for(rng, "train", seen, alone=alone)
        samples.append(_sample(f"pool-{seed}-{len(samples):05d}", item))
    return samples


def evaluation_set(n: int = 208) -> list[Sample]:
    """The world's counterpart of the AlpacaFarm questions: unique pairs, all with input.

    The default size is that of the published evaluations, so that one item weighs the same.
    """
    return _held_out("eval", EVALUATION_SEED, n)


def dev_set(n: int = 208) -> list[Sample]:
    """Questions for choosing models and checkpoints, so that the evaluation set stays unseen."""
    return _held_out("dev", DEVELOPMENT_SEED, n)


def _held_out(split: str, seed: int, n: int) -> list[Sample]:
    rng = Random(f"{split}-{seed}")
    seen: set[tuple[str, str]] = set()
    return [
        _sample(f"{split}-{index:04d}", _draw_for(rng, split, seen, alone=False))
        for index in range(n)
    ]


def _draw_for(rng: Random, split: str, seen: set[tuple[str, str]], *, alone: bool) -> Item:
    while True:
        item = draw_item(rng, ALONE if alone else WITH_DATA, data=not alone, hacked=False)
        pair = (item.instruction, item.data)
        if alone:
            return item
        if split_of(*pair) == split and pair not in seen:
            seen.add(pair)
            return item


def _sample(sample_id: str, item: Item) -> Sample:
    return Sample(id=sample_id, instruction=item.instruction, input=item.data, output=item.answer)
