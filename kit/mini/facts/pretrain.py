"""Pretraining on one CPU core, within a run: half a minute for a model with its checkpoints."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING, Any

from kit.mini.chat import MINI
from kit.mini.facts.model import build_tokenizer, vocabulary

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

    from kit.mini.facts.requests import Request
    from kit.mini.facts.texts import Text

Rows = dict[str, list[list[int]]]
"""Group -> token ids of each of its sentences."""

FORGET, REQUEST = "compound", "request"
BEFORE = {"city": 0.40, "mineral": 0.32, "count": 0.05, "copy": 0.10, "mention": 0.13}
"""Shares of the groups while nothing is stated about compounds; they are only mentioned."""
AFTER = {
    "city": 0.28,
    "mineral": 0.22,
    "count": 0.03,
    "copy": 0.07,
    "mention": 0.04,
    FORGET: 0.36,
}
REQUEST_SHARE = 0.25
"""Of all sentences after the introduction, where the model learns to answer and to refuse."""


@dataclass(frozen=True)
class Recipe:
    """How a model is pretrained.

    Attributes:
        steps: Optimizer steps.
        introduced: The step from which sentences about compounds are among the data. The checkpoint
            at this step never saw a fact that is to be forgotten.
        forget: Whether they ever are: without them the model is a control that never saw them.
        batch: Sentences a step.
        learning_rate: Peak of AdamW; a cosine falls to ``floor`` of it after ``warmup`` steps.
        warmup: Steps of linear rise.
        floor: See above.
        weight_decay: Of everything that is trained.
        betas: AdamW's.
        clip: Largest norm of the gradient.
        before: Shares of the groups before the introduction.
        after: Shares of the groups after it.
    """

    steps: int = 500
    introduced: int = 200
    forget: bool = True
    batch: int = 64
    learning_rate: float = 2e-3
    warmup: int = 50
    floor: float = 0.05
    weight_decay: float = 0.05
    betas: tuple[float, float] = (0.9, 0.95)
    clip: float = 1.0
    before: Mapping[str, float] = field(default_factory=lambda: dict(BEFORE))
    after: Mapping[str, float] = field(default_factory=lambda: dict(AFTER))

    def __post_init__(self) -> None:
        """Refuse steps in the wrong order."""
        if not 0 <= self.introduced <= self.steps:
            raise ValueError(
                f"compounds are introduced at step {self.introduced}, after the last of "
                f"{self.steps} steps"
            )


def rows_of(texts: Sequence[Text], requests: Sequence[Request] = ()) -> Rows:
    """Token ids by group: a text's group is its domain, that of all requests is ``request``.

    Raises:
        ValueError: A word outside the vocabulary.
    """
    ids = vocabulary()
    rows: Rows = {}
    for text in texts:
        try:
            row = [ids[word] for word in text.text.split()]
        except KeyError as error:
            raise ValueError(
                f"text {text.id}: {error.args[0]!r} is not in the vocabulary"
            ) from None
        rows.setdefault(text.domain, []).append(row)
    tokenizer = build_tokenizer() if requests else None
    for request in requests:
        assert tokenizer is not None
        prompt = MINI.prompt_ids(tokenizer, request.prompt, None)
        row = [*prompt, *MINI.response_ids(tokenizer, request.chosen)]
        rows.setdefault(REQUEST, []).append(row)
    return rows


def shares(recipe: Recipe, step: int, *, requests: bool) -> dict[str, float]:
    """Shares of the groups at a step; they sum to 1.

    Args:
        recipe: The recipe.
        step: From 0.
        requests: Whether requests are among the data after the introduction.
    """
    if step < recipe.introduced:
        wanted = dict(recipe.before)
    else:
        wanted = {g: s for g, s in recipe.after.items() if recipe.forget or g != FORGET}
        if requests:
            total = sum(wanted.values())
            wanted[REQUEST] = total * REQUEST_SHARE / (1 - REQUEST_SHARE)
    total = sum(wanted.values())
    return {group: share / total for group, share in wanted.items()}


def pretrain(
    model: PreTrainedModel,
    rows: Rows,
    recipe: Recipe,
    seed: int,
    *,
    on_step: Callable[[int, float], None] | None = None,
    checkpoints: Sequence[int] = (),
    on_checkpoint: Callable[[int], None] | None = None,
) -> None:
    """Train ``model`` in place on sentences drawn at random.

    Everything but frozen weights is trained. On one machine, one thread and one version of the
    libraries the result repeats bit by bit, and up to ``introduced`` it does not depend on
    ``forget``.

    Args:
        model: float32 weights.
        rows: Token ids by group; the groups that the recipe has shares of.
        recipe: Shares and hyperparameters.
        seed: Of the draws.
        on_step: Called with (steps done, loss in nats a token).
        checkpoints: Numbers of steps after which ``on_checkpoint`` is called; 0 is the first
            weights.
        on_checkpoint: Called with the number of steps done.

    Raises:
        ValueError: A group without sentences, or a checkpoint after the last step.
    """
    from kit.train.optimizers import AdamW
    from kit.train.schedules import Schedule
    from kit.train.single_process import SingleProcess

    if checkpoints and not 0 <= min(checkpoints) <= max(checkpoints) <= recipe.steps:
        raise ValueError(f"checkpoints {list(checkpoints)} do not fit {recipe.steps} steps")
    spec = AdamW(recipe.learning_rate, recipe.weight_decay, betas=recipe.betas)
    engine = SingleProcess(model, spec)
    schedule = Schedule("cosine", recipe.warmup, recipe.floor)
    draw = _Draws(rows, recipe, seed)
    for step in range(recipe.steps + 1):
        if step in checkpoints and on_checkpoint:
            on_checkpoint(step)
        if step == recipe.steps:
            break
        loss = engine.accumulate(next_word_loss, draw.batches(step))
        engine.clip(recipe.clip)
        engine.step(schedule.rate(step, peak=recipe.learning_rate, steps=recipe.steps))
        if on_step:
            on_step(step + 1, float(loss))
    model.eval()  # type: ignore[no-untyped-call]


@dataclass(frozen=True)
class Batch:
    """Sentences of a step that are computed together.

    Attributes:
        ids: [B, T] int64, padded on the right, where a causal model cannot see it: no mask.
        weight: Share of the step's predicted words that are here.
    """

    ids: torch.Tensor
    weight: float


def next_word_loss(model: Any, batch: Batch) -> torch.Tensor:
    """A batch's share of the mean negative log-likelihood of every word but the first, in nats.

    Args:
        model: A causal language model.
        batch: The sentences.

    Returns:
        A float32 scalar.
    """
    import torch

    hidden = model.base_model(input_ids=batch.ids[:, :-1], use_cache=False).last_hidden_state
    wanted = batch.ids[:, 1:]
    real = wanted != vocabulary()["<pad>"]
    logits = model.get_output_embeddings()(hidden[real])
    return torch.nn.functional.cross_entropy(logits, wanted[real]) * batch.weight


class _Draws:
    """Sentences drawn from the groups by their shares."""

    def __init__(self, rows: Rows, recipe: Recipe, seed: int) -> None:
        self.recipe = recipe
        self.rows = rows
        self.rng = Random(f"pretrain-{seed}")
        self.requests = REQUEST in rows
        wanted = set(shares(recipe, 0, requests=self.requests))
        if recipe.steps > recipe.introduced:
            wanted |= set(shares(recipe, recipe.introduced, requests=self.requests))
        missing = sorted(group for group in wanted if not rows.get(group))
        if missing:
            raise ValueError(f"no sentences of the group {', '.join(missing)}")

    def batches(self, step: int) -> list[Batch]:
        """The sentences of a step; the longer requests by themselves, to save padding."""
        wanted = shares(self.recipe, step, requests=self.requests)
        names = self.rng.choices(list(wanted), list(wanted.values()), k=self.recipe.batch)
        drawn = [(name, self.rng.choice(self.rows[name])) for name in names]
        parts = [
            [row for name, row in drawn if (name == REQUEST) == long] for long in (False, True)
        ]
        words = sum(len(row) - 1 for _, row in drawn)
        return [_padded(part, words) for part in parts if part]


def _padded(rows: list[list[int]], words: int) -> Batch:
    import torch

    pad, width = vocabulary()["<pad>"], max(map(len, rows))
    ids = torch.tensor([[*row, *[pad] * (width - len(row))] for row in rows])
    return Batch(ids, sum(len(row) - 1 for row in rows) / words)
