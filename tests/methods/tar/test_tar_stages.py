"""From texts to trained engines: which safeguard trains what, what the outer loop is given."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from kit.methods.tar import stages
from kit.methods.tar.baselines.rmu import trained_names
from kit.methods.tar.presets import preset
from kit.methods.tar.stages import METHODS, SafeguardPlan, train_by_terms, train_outer_loop
from kit.train.batching import Example
from kit.train.checkpoints import CheckpointFolder
from kit.train.clock import Clock
from tests.lm.tiny_world import mini_tokenizer
from tests.methods.tar.conftest import VOCABULARY, build_model


def texts(folder: Path, names: Any, tokenizer: Any, **how: Any) -> list[Example]:
    """Of each set eight, which no other set has."""
    made = []
    for name in names:
        draw = torch.Generator().manual_seed(len(name))
        rows = torch.randint(1, VOCABULARY, (8, 5), generator=draw).tolist()
        made += [Example(f"{name}-{n}-0-0", tuple(row), 1) for n, row in enumerate(rows)]
    return made


@pytest.fixture(autouse=True)
def _texts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stages, "text_examples", texts)


def safeguarded(method: str, **changes: Any) -> tuple[Any, Any, Any]:
    """The model before, the trained engine, and what became of the steps."""
    model, reference = build_model(0).float(), build_model(0).float().requires_grad_(False)
    plan = SafeguardPlan(
        method, steps=2, learning_rate=1e-2, batch=4, block=1, updated_blocks=(0, 1)
    )
    trained, done = train_by_terms(
        model, reference, mini_tokenizer(), Path(), replace(plan, **changes),
        forget=["forget"], retain=["retain"],
    )  # fmt: skip
    return reference, trained, done


@pytest.mark.parametrize("method", METHODS)
def test_each_safeguard_trains_what_it_says(method: str) -> None:
    before, trained, done = safeguarded(method)
    after = dict(trained.engine.model.named_parameters())
    moved = {name for name, p in before.named_parameters() if not torch.equal(p, after[name])}
    if method == "rmu":
        assert moved == set(trained_names(before, (0, 1)))
    else:
        assert any("embed" in name for name in moved)
    assert trained.largest_change() > 0
    assert len(done.losses) == 2


def test_each_safeguard_has_a_loss_of_its_own() -> None:
    losses = {method: safeguarded(method)[2].losses[0] for method in METHODS}
    assert len({round(loss, 6) for loss in losses.values()}) == len(METHODS)


@pytest.mark.parametrize(
    ("method", "changes"),
    [
        ("max-entropy", {"scale": 2.0}),
        ("rmu", {"steering": 3.0}),
        ("rmu", {"block": 0}),
        ("random-mapping", {"seed": 1}),
        ("min-posterior", {"seed": 1}),
    ],
)
def test_what_a_plan_says_reaches_the_loss(method: str, changes: dict[str, Any]) -> None:
    assert safeguarded(method)[2].losses[0] != safeguarded(method, **changes)[2].losses[0]


def test_a_safeguard_is_trained_as_its_plan_says(monkeypatch: pytest.MonkeyPatch) -> None:
    """No weight shrinks by itself, and a loss without a bound may fall without one."""
    seen: dict[str, Any] = {}

    def trained(engine: Any, terms: Any, streams: Any, settings: Any, **how: Any) -> Any:
        seen.update(how, engine=engine, streams=streams, settings=settings)

    monkeypatch.setattr(stages, "train_safeguard", trained)
    safeguarded("llmu", steps=7, warmup=3, clip=0.5, optimizer="sgd", seed=5)
    spec, settings = seen["engine"].optimizer.spec, seen["settings"]
    assert (type(spec).__name__.lower(), spec.learning_rate, spec.weight_decay) == ("sgd", 1e-2, 0)
    assert (settings.steps, settings.schedule.warmup, settings.clip) == (7, 3, 0.5)
    assert settings.highest_loss == float("inf")
    streams = dict(seen["streams"].items())
    # The labels that LLMU puts in the place of others come from a batch of their own.
    assert len(streams) == 3
    assert {stream.size for stream in streams.values()} == {4}
    assert {stream.seed for stream in streams.values()} == {5}
    drawn = {name: {e.id.split("-")[0] for e in stream.take()} for name, stream in streams.items()}
    assert sorted(map(list, drawn.values())) == [["forget"], ["retain"], ["retain"]]
    assert seen["rows"] == 64


def test_an_unknown_safeguard_is_named() -> None:
    with pytest.raises(ValueError, match="unknown safeguard 'none'; known: random-mapping"):
        safeguarded("none")


SETTINGS = replace(
    preset("corrected", "bio"),
    outer_steps=2, outer_warmup=1, inner_steps=2, every=1, forget_batch=2, inner_retain_batch=2,
    held_out_batch=2, retain_batch=2, width=None,
)  # fmt: skip


def looped(settings: Any = SETTINGS, **how: Any) -> tuple[Any, Any]:
    model, reference = build_model(0).float(), build_model(0).float().requires_grad_(False)
    given = {"adversary_share": 0.5, "divide_by": "text", "seed": 3, **how}
    return train_outer_loop(
        model, reference, mini_tokenizer(), Path(), settings,
        forget=["forget"], retain=["retain"], **given,
    )  # fmt: skip


def test_the_clock_is_told_every_part_of_an_outer_step() -> None:
    clock = Clock()
    looped(clock=clock)
    assert clock.read().keys() == {
        "starting", "snapshot", "inner steps", "tamper-resistance passes", "restoring",
        "retain pass", "update",
    }  # fmt: skip


def test_a_tamper_loss_below_its_floor_has_no_part_in_the_gradient() -> None:
    """At the floor itself it has."""

    def first_step(lowest: float) -> Any:
        _, run = looped(replace(SETTINGS, outer_steps=1, lowest_tamper_loss=lowest))
        return run.steps[0]

    whole = first_step(-1e9)
    assert whole.gradient != pytest.approx(whole.retain_gradient, rel=1e-3)
    below = first_step(1e9)
    assert below.retain_gradient == pytest.approx(whole.retain_gradient, rel=1e-5)
    assert below.gradient == pytest.approx(below.retain_gradient, rel=1e-6)
    at = first_step(whole.weighted_tamper_loss)
    assert at.weighted_tamper_loss == whole.weighted_tamper_loss
    assert at.gradient == pytest.approx(whole.gradient, rel=1e-6)


@pytest.mark.parametrize("outer_steps", [3, 53])
def test_a_long_training_is_saved_on_the_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, outer_steps: int
) -> None:
    """What is lost of a killed one are fifty outer steps at most."""
    saved: list[int] = []
    monkeypatch.setattr(
        "kit.train.single_process.SingleProcess.save",
        lambda engine, folder, progress: saved.append(progress.step),
    )
    monkeypatch.setattr(stages.OuterLoop, "step", _no_step)
    clock = Clock()
    settings = replace(SETTINGS, outer_steps=outer_steps)
    looped(settings, folder=CheckpointFolder(tmp_path), clock=clock)
    assert saved == [step for step in (50,) if step <= outer_steps]
    assert ("saving" in clock.read()) is bool(saved)


def _no_step(loop: Any, number: int) -> Any:
    from kit.methods.tar.records import OuterStep

    for p in loop.engine.model.parameters():
        p.grad = torch.zeros_like(p)
    return OuterStep(number, [], 0.0, 0.0, 0.0, 0.0)


def prepared(monkeypatch: pytest.MonkeyPatch, **how: Any) -> tuple[Any, dict[str, set[str]]]:
    """The loop before its first step, and the ids in its streams."""
    loops: list[Any] = []
    streams: dict[str, set[str]] = {}
    make = stages.tar_streams

    def noted(settings: Any, *, adversary: Any, held_out: Any, retain: Any, seed: int) -> Any:
        parts = {**adversary, "held-out": held_out, "retain texts": retain}
        streams.update({name: ids(items) for name, items in parts.items()})
        return make(settings, adversary=adversary, held_out=held_out, retain=retain, seed=seed)

    monkeypatch.setattr(stages, "tar_streams", noted)
    monkeypatch.setattr(stages, "train_tar", lambda loop, **_: loops.append(loop))
    looped(**how)
    return loops[0], streams


def ids(items: Any) -> set[str]:
    return {example.id for example in items}


ALL = {f"forget-{n}-0-0" for n in range(8)}
TURN = replace(
    SETTINGS,
    adversaries=stages.simulated({}, ["forget", "retain-then-forget"], [])["adversaries"],
    switch=None,
)


def test_texts_are_divided_once_or_anew_in_every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    loop, streams = prepared(monkeypatch, settings=TURN)
    assert loop.redraw is None
    assert streams["forget"] | streams["held-out"] == ALL
    assert len(streams["forget"]) == len(streams["held-out"]) == 4
    assert streams["retain"] == streams["retain texts"]
    assert not streams["retain"] & ALL
    loop, _ = prepared(monkeypatch, settings=TURN, redraw=True)
    divisions = [loop.redraw(number) for number in range(6)]
    for made in divisions:
        # Retain texts are not divided: their stream goes on.
        assert made.keys() == {"adversary/forget", "held-out"}
        assert ids(made["adversary/forget"]) | ids(made["held-out"]) == ALL
        assert not ids(made["adversary/forget"]) & ids(made["held-out"])
    assert len({frozenset(ids(made["held-out"])) for made in divisions}) > 2
    assert ids(loop.redraw(1)["held-out"]) == ids(divisions[1]["held-out"])


def test_sets_that_were_divided_before_keep_their_names(monkeypatch: pytest.MonkeyPatch) -> None:
    _, streams = prepared(monkeypatch, settings=TURN, held_out=["apart"])
    assert streams["forget"] == ALL
    assert streams["held-out"] == {f"apart-{n}-0-0" for n in range(8)}
    assert streams["retain"] == {f"retain-{n}-0-0" for n in range(8)}
