"""Examples and short cuts that the prefix-tuning tests share."""

from __future__ import annotations

import hashlib
import random

import torch

from kit.train.batching import Example

V, N, WIDTH = 64, 3, 32


def examples(count, seed=0, *, shortest=2, longest=9):
    """Prompts of slots, begin token and words; answers of different lengths."""
    rng = random.Random(seed)
    made = []
    for i in range(count):
        prompt = [*range(V, V + N), 1, *(rng.randrange(3, V) for _ in range(rng.randint(2, 9)))]
        answer = [rng.randrange(3, V) for _ in range(rng.randint(shortest, longest))]
        made.append(Example(f"e-{i}", (*prompt, *answer), len(prompt)))
    return made


def steps_of(pool, batch):
    """Consecutive batches, again from the start when the pool is used up."""

    def step_examples(step):
        start = step * batch % len(pool)
        return pool[start : start + batch]

    return step_examples


def initial(seed=0):
    return torch.randn(N, WIDTH, generator=torch.Generator().manual_seed(seed))


def fingerprint(model):
    """One hash of every weight's bytes."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()
