"""Each stage of an experiment from folders to models: safeguards, the outer loop.

What a stage needs is read from a folder of data (:mod:`kit.evals.sets`); what it makes is a trained
engine and a record.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kit.evals.sets import pad_id, text_examples
from kit.lm.model import output_rows
from kit.methods.tar.adversaries import AdversaryType
from kit.methods.tar.baselines.common import FORGET, RETAIN
from kit.methods.tar.baselines.llmu import llmu
from kit.methods.tar.baselines.max_entropy import max_entropy
from kit.methods.tar.baselines.min_posterior import min_posterior
from kit.methods.tar.baselines.random_mapping import random_mapping
from kit.methods.tar.baselines.recipe import Term
from kit.methods.tar.baselines.rmu import rmu, steering_vector, trained_names
from kit.methods.tar.losses import MASKED
from kit.methods.tar.outer_loop import Batching, OuterLoop, outer_spec, train_tar
from kit.methods.tar.records import OuterStep, TarRun
from kit.methods.tar.representations import hashed_vectors
from kit.methods.tar.safeguards import train_safeguard
from kit.methods.tar.settings import TarSettings
from kit.methods.tar.streams import HELD_OUT, adversary_stream, tar_streams
from kit.train.clock import Clock
from kit.train.engine import Engine, Precision, Snapshot
from kit.train.engines import EngineFactory, engine_factory
from kit.train.loop import FineTuned, FineTuning
from kit.train.optimizers import optimizer_spec
from kit.train.schedules import Schedule
from kit.train.streams import Stream, Streams

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from kit.train.batching import Example
    from kit.train.checkpoints import CheckpointFolder

METHODS = ("random-mapping", "max-entropy", "min-posterior", "llmu", "rmu")
"""Safeguards that are a sum of terms on forget and retain data."""


@dataclass(frozen=True)
class SafeguardPlan:
    """A baseline's training.

    Attributes:
        method: One of :data:`METHODS`.
        steps: Optimizer steps.
        learning_rate: Peak.
        batch: Texts of each stream a step.
        optimizer: Name.
        warmup: Steps of linear rise.
        seed: Of orders and of random vectors.
        scale: Of the entropy (max-entropy).
        steering: c (rmu).
        retain_scale: alpha (rmu).
        block: Compared block, counted from 0 (rmu).
        updated_blocks: Whose MLP output projections are trained (rmu).
        clip: Largest norm of a gradient.
    """

    method: str
    steps: int
    learning_rate: float
    batch: int
    optimizer: str = "adamw"
    warmup: int = 0
    seed: int = 0
    scale: float = 1.0
    steering: float = 20.0
    retain_scale: float = 700.0
    block: int = 7
    updated_blocks: tuple[int, ...] = (5, 6, 7)
    clip: float | None = None


@dataclass(frozen=True)
class Trained:
    """A trained model.

    Attributes:
        engine: What holds it.
        start: Its weights before.
    """

    engine: Engine
    start: Snapshot

    def largest_change(self) -> float:
        """Largest absolute difference of a weight, for a canary that training moved something."""
        return self.engine.largest_change(self.start)


@dataclass(frozen=True)
class Forget:
    """The forget texts, divided between simulated adversaries and the held-out batch.

    Attributes:
        adversary: What simulated adversaries train on.
        held_out: What the tamper-resistance loss is measured on.
    """

    adversary: list[Example]
    held_out: list[Example]


def divided(examples: Sequence[Example], share: float, *, by: str, seed: int | str) -> Forget:
    """Adversary and held-out texts without a common text, or without a common subject.

    Args:
        examples: Forget texts.
        share: Of the adversary.
        by: ``text``; or ``subject``: everything of an id before its last two ``-``.
        seed: Of the draw.

    Raises:
        ValueError: Unknown ``by``, or a share that leaves a part empty.
    """
    if by not in ("text", "subject"):
        raise ValueError(f"forget texts are divided by 'text' or 'subject', not {by!r}")
    key = {e.id: e.id if by == "text" else e.id.rsplit("-", 2)[0] for e in examples}
    subjects = sorted(set(key.values()))
    random.Random(f"held-out/{seed}").shuffle(subjects)
    chosen = set(subjects[: int(len(subjects) * share)])
    made = Forget(
        [e for e in examples if key[e.id] in chosen],
        [e for e in examples if key[e.id] not in chosen],
    )
    if not made.adversary or not made.held_out:
        raise ValueError(f"a share of {share} of {len(subjects)} leaves a part empty")
    return made


def train_by_terms(
    model: PreTrainedModel,
    reference: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    data: Path,
    plan: SafeguardPlan,
    *,
    forget: Sequence[str],
    retain: Sequence[str],
    rows: int = 64,
    max_length: int | None = None,
    folder: CheckpointFolder | None = None,
    make_engine: EngineFactory | None = None,
    precision: Precision | None = None,
) -> tuple[Trained, FineTuned]:
    """Train a baseline, or TAR's initial safeguard, in place.

    Args:
        model: Trained.
        reference: The original, frozen.
        tokenizer: Of both.
        data: Folder of texts.
        plan: What to do.
        forget: Names of the sets of forget texts.
        retain: Likewise.
        rows: Most rows in a forward pass.
        max_length: Tokens that texts are cut at.
        folder: Of checkpoints.
        make_engine: What trains; the whole model in this process without.
        precision: fp32 throughout if not given.

    Raises:
        ValueError: Unknown method, or data that are not there.
    """
    terms = _terms(plan, model, reference)
    texts = {
        name: text_examples(data, names, tokenizer, max_length=max_length)
        for name, names in ((FORGET, forget), (RETAIN, retain))
    }
    # A second batch of retain texts (LLMU's) is a stream of its own.
    used = sorted({name for term in terms for name in term.data})
    streams = Streams(
        *(Stream(n, texts.get(n, texts[RETAIN]), plan.batch, seed=plan.seed) for n in used)
    )
    if plan.method == "rmu":
        kept = set(trained_names(model, plan.updated_blocks))
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(name in kept)
    spec = optimizer_spec(
        plan.optimizer, {"learning_rate": plan.learning_rate, "weight_decay": 0.0}
    )
    engine = (make_engine or engine_factory())(model, spec, precision or Precision())
    start = engine.snapshot("cpu")
    done = train_safeguard(
        engine,
        terms,
        streams,
        FineTuning(
            steps=plan.steps,
            schedule=Schedule(warmup=plan.warmup),
            clip=plan.clip,
            highest_loss=float("inf"),
        ),
        rows=rows,
        pad_id=pad_id(tokenizer),
        folder=folder,
    )
    return Trained(engine, start), done


def _terms(
    plan: SafeguardPlan, model: PreTrainedModel, reference: PreTrainedModel
) -> Sequence[Term]:
    width = int(model.config.hidden_size)
    if plan.method == "random-mapping":
        vectors = hashed_vectors(output_rows(model), width, plan.seed)
        return random_mapping(vectors.to(model.device), padding=MASKED)
    if plan.method == "max-entropy":
        return max_entropy(padding=MASKED, scale=plan.scale)
    if plan.method == "min-posterior":
        return min_posterior()
    if plan.method == "llmu":
        return llmu()
    if plan.method == "rmu":
        target = steering_vector(width, plan.steering, plan.seed).to(model.device)
        return rmu(reference, target, block=plan.block, retain_scale=plan.retain_scale)
    raise ValueError(f"unknown safeguard {plan.method!r}; known: {', '.join(METHODS)}")


def simulated(
    changes: Mapping[str, Any], names: Sequence[str], shares: Sequence[float]
) -> dict[str, Any]:
    """Changes to a preset from plain values.

    Args:
        changes: Setting -> value; ``None`` leaves the preset's, a width of 0 is no width.
        names: Simulated adversaries (``forget``, ``retain``, ``retain-then-forget``); none leaves
            the preset's.
        shares: How often each is drawn; none draws all alike.

    Raises:
        ValueError: An unknown adversary, or shares for other adversaries.
    """
    plain = {key: tuple(v) if isinstance(v, list) else v for key, v in changes.items()}
    plain = {key: value for key, value in plain.items() if value is not None}
    if plain.get("width") == 0:
        plain["width"] = None
    known = {
        "forget": AdversaryType("forget", "forget"),
        "retain": AdversaryType("retain", "retain"),
        "retain-then-forget": AdversaryType("retain-then-forget", "forget", first="retain"),
    }
    unknown = sorted(set(names) - known.keys())
    if unknown:
        raise ValueError(f"unknown adversary {unknown[0]!r}; known: {', '.join(known)}")
    weights = shares or [1.0] * len(names)
    if len(weights) != len(names):
        raise ValueError(f"{len(shares)} shares for {len(names)} adversaries")
    kinds = tuple(replace(known[n], share=w) for n, w in zip(names, weights, strict=True))
    return plain | ({"adversaries": kinds} if kinds else {})


def train_outer_loop(
    model: PreTrainedModel,
    reference: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    data: Path,
    settings: TarSettings,
    *,
    forget: Sequence[str],
    retain: Sequence[str],
    adversary_share: float,
    divide_by: str,
    seed: int,
    redraw: bool = False,
    held_out: Sequence[str] = (),
    rows: int = 64,
    folder: CheckpointFolder | None = None,
    on_step: Callable[[OuterStep], None] | None = None,
    make_engine: EngineFactory | None = None,
    precision: Precision | None = None,
    snapshot_device: str | None = None,
    clock: Clock | None = None,
) -> tuple[Trained, TarRun]:
    """Run TAR's outer loop in place.

    Args:
        model: Trained; with the initial safeguard or without.
        reference: The original, frozen.
        tokenizer: Of both.
        data: Folder of texts.
        settings: Everything that decides a number.
        forget: Names of the sets of forget texts.
        retain: Likewise.
        adversary_share: Share of the forget texts that simulated adversaries train on.
        divide_by: See :func:`divided`.
        seed: Of the division, the orders and the adversaries.
        redraw: Divide the forget texts anew in every outer step; else once.
        held_out: Sets that the tamper-resistance loss is measured on, divided from the others
            before; every adversary then trains on the set of its own name.
        rows: Most rows in a forward pass.
        folder: Of checkpoints.
        on_step: Called after every outer step.
        make_engine: What trains; the whole model in this process without.
        precision: fp32 throughout if not given.
        snapshot_device: Where the weights wait for an attack's end; where they are if none.
        clock: Gets a mark after each part of an outer step.

    Raises:
        ValueError: Sets that are not there, or that were divided and are to be divided anew.
    """
    if redraw and held_out:
        raise ValueError("sets that were divided before cannot be divided anew: leave one out")

    def texts(names: Sequence[str]) -> list[Example]:
        return text_examples(
            data,
            names,
            tokenizer,
            max_length=settings.width,
            special_labels=settings.special_token_labels,
        )

    kept = texts(retain)
    forgotten = [] if held_out else texts(forget)
    if held_out:
        own = {name: texts([name]) for name in _adversary_names(settings)}
        parts = Forget([], texts(held_out))
    else:
        parts = divided(forgotten, adversary_share, by=divide_by, seed=seed)
        own = _adversary_data(settings, parts.adversary, kept)
    streams = tar_streams(
        settings,
        adversary=own,
        held_out=parts.held_out,
        retain=kept,
        seed=seed,
    )
    make = make_engine or engine_factory()
    engine = make(model, outer_spec(settings), precision or Precision())
    start = engine.snapshot("cpu")

    def divided_anew(number: int) -> Mapping[str, Sequence[Any]]:
        anew = divided(forgotten, adversary_share, by=divide_by, seed=f"{seed}/{number}")
        data = _adversary_data(settings, anew.adversary, kept)
        named = {adversary_stream(name): data[name] for name in data if "retain" not in name}
        return {**named, HELD_OUT: anew.held_out}

    loop = OuterLoop(
        engine,
        reference,
        settings,
        streams,
        Batching(rows, pad_id(tokenizer)),
        seed,
        snapshot_device,
        redraw=divided_anew if redraw else None,
        clock=clock or Clock(),
    )
    run = train_tar(loop, folder=folder, save_every=50, on_step=on_step)
    return Trained(engine, start), run


def _adversary_names(settings: TarSettings) -> list[str]:
    kinds = settings.adversaries
    return sorted({name for kind in kinds for name in (kind.first, kind.data) if name})


def _adversary_data(
    settings: TarSettings, forget: list[Example], retain: list[Example]
) -> dict[str, list[Example]]:
    names = _adversary_names(settings)
    return {name: retain if "retain" in name else forget for name in names}
