"""What TAR's steps say of their work before it is fitted to GPUs, and how they are shortened."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from kit.engine.registry import Cards, Sized
from kit.manifest.catalog import Catalog
from kit.steps import sharding
from kit.steps.tampering import kinds as tampering
from kit.steps.tampering.params import Attack
from kit.steps.tar import sizes
from kit.steps.tar.params import Data, Safeguard, Tabulate, Train
from kit.steps.tar.refusal_params import AnswerTuning, Refuse, Requests

CARDS = Cards(4, 79.0, 500.0)
RATE: dict[str, Any] = {"seed": 0, "steps": 30, "learning_rate": 1e-3, "batch": 8}
SIZED = Sized(params={}, gpu_memory_gb=1.0, memory_gb=2.0, minutes=3.0, words="so")


@dataclass
class Solved:
    """What a step asks to be solved."""

    work: Any = None
    steps: int = 0

    def __call__(self, params: Any, models: Any, cards: Any, work: Any, steps: int) -> Sized:
        self.work, self.steps = work, steps
        return SIZED


@pytest.fixture
def solved(monkeypatch: pytest.MonkeyPatch) -> Solved:
    made = Solved()
    for module in (sizes, tampering):
        monkeypatch.setattr(module, "solved", made)
    return made


def published_width() -> int:
    """Tokens of a prompt with its answer, as the experiment at the published size cuts them."""
    profile = Catalog().manifest("tar-refusal-full-size").profiles["paper"]
    return int(msgspec.to_builtins(profile)["set"]["requests"]["width"]["value"])


LOOP: dict[str, Any] = {
    "seed": 0,
    "preset": "paper",
    "outer_steps": 10,
    "inner_steps": 8,
    "every": 4,
    "forget_batch": 6,
    "held_out_batch": 5,
    "retain_batch": 3,
}


@pytest.mark.parametrize(
    ("retain", "adversary", "width", "columns"), [(2, 6, 40, 40), (7, 7, 40, 40), (2, 6, 0, None)]
)
def test_an_outer_loop_is_sized_by_its_batches(
    solved: Solved, retain: int, adversary: int, width: int, columns: int | None
) -> None:
    """Texts that are padded to the longest one are as long as they are cut."""
    sizes.train(Train(**LOOP, domain="bio", inner_retain_batch=retain, width=width), {}, CARDS)
    work = solved.work
    assert (work.adversary, work.held_out, work.retain) == (adversary, 5, 3)
    assert work.width == (columns or Data(domain="bio").width)
    assert (work.inner_steps, work.held_out_texts) == (8, 1)
    assert repr(work.tampers) == "2"
    assert solved.steps == 10


def test_pairs_count_twice_and_are_as_long_as_the_published_ones(solved: Solved) -> None:
    sizes.refuse(Refuse(**LOOP), {}, CARDS)
    assert (solved.work.held_out_texts, solved.work.width) == (2, published_width())
    assert solved.steps == 10


@pytest.mark.parametrize("asked", [[], ["harmful"]])
@pytest.mark.parametrize("length", [None, 70])
def test_answers_that_are_asked_for_meanwhile_take_the_declared_minutes(
    solved: Solved, asked: list[str], length: int | None
) -> None:
    params = AnswerTuning(**RATE, optimizer="adamw", asked=asked, length=length)
    made = sizes.tune(params, {}, CARDS)
    assert made is not None
    assert made.minutes == (None if asked else SIZED.minutes)
    assert (solved.work.batch, solved.work.width) == (8, length or published_width())
    assert (solved.work.measured, solved.steps) == (bool(asked), 30)


@pytest.mark.parametrize("length", [None, 70])
def test_texts_are_as_long_as_they_are_cut(solved: Solved, length: int | None) -> None:
    """A safeguard takes a forget and a retain text a turn; an attack is asked meanwhile."""
    sizes.safeguard(Safeguard(method="rmu", **RATE, length=length), {}, CARDS)
    width = length or Data(domain="bio").width
    assert (solved.work.batch, solved.work.width, solved.work.measured) == (8, width, False)
    assert solved.steps == 60
    made = tampering.sized(Attack(**RATE, optimizer="adamw", length=length), {}, CARDS)
    assert made is not None
    assert made.minutes is None
    assert (solved.work.width, solved.work.measured, solved.steps) == (width, True, 30)


@pytest.mark.parametrize("declared", [True, False])
@pytest.mark.parametrize("engine", ["single-process", "zero-3"])
def test_nothing_is_fitted_where_nothing_is_shared(declared: bool, engine: Any) -> None:
    params = Safeguard(method="rmu", **RATE, engine=engine)
    models = {"model": {"architecture": "llama-3-8b"} if declared else {}}
    made = sizes.safeguard(params, models, CARDS)
    assert (made is not None) is (declared and engine == "zero-3")
    attack = tampering.sized(Attack(**RATE, optimizer="adamw", engine=engine), models, CARDS)
    assert (attack is not None) is (declared and engine == "zero-3")


def test_a_training_takes_its_start_and_its_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    from kit.train import plan

    setting = SimpleNamespace(**dict.fromkeys(sharding._CHOSEN, "chosen"))
    fitted = SimpleNamespace(
        setting=setting, seconds=30.0, highest=70.0, host_gib=100.0, words=lambda: "cut so"
    )
    monkeypatch.setattr(plan, "solve", lambda *given: fitted)
    params = Safeguard(method="rmu", **RATE, engine="zero-3")
    models = {"model": {"architecture": "llama-3-8b"}}

    def minutes(steps: int) -> float:
        made = sharding.solved(params, models, CARDS, None, steps)  # type: ignore[arg-type]
        assert made is not None
        assert made.minutes is not None
        return made.minutes

    # Two minutes that no step takes: processes, libraries and weights.
    assert minutes(100) - minutes(0) == 50
    assert 0 < minutes(0) < 5
    assert minutes(1) == round(minutes(1), 1)
    made = sharding.solved(params, models, CARDS, None, 1)  # type: ignore[arg-type]
    assert made is not None
    assert made.gpu_memory_gb == 70.0
    assert made.memory_gb > 100.0 + 4 * 16
    known = {field.name for field in msgspec.structs.fields(Safeguard)}
    assert made.params == dict.fromkeys(known & {*sharding._CHOSEN}, "chosen")


@pytest.mark.parametrize(("fraction", "steps"), [(1.0, 30), (0.1, 3), (0.001, 1)])
def test_a_shortened_training_is_warm_in_time(fraction: float, steps: int) -> None:
    """A share of the steps; those that it keeps are whole."""
    made = sizes.shorter_safeguard(Safeguard(method="rmu", **RATE, warmup=5), fraction)
    assert (made.steps, made.warmup) == (steps, min(5, steps - 1))
    attack = tampering.shortened(
        Attack(**RATE, optimizer="adamw", warmup=5, period=10, measure_every=7), fraction
    )
    # An attack has two: it may switch between them.
    assert attack.steps == attack.measure_every == max(steps, 2)
    assert attack.warmup == min(5, attack.steps - 1)
    assert attack.period == max(1, round(10 * fraction))
    assert tampering.shortened(Attack(**RATE, optimizer="adamw"), fraction).period == 0
    loop = sizes.shorter_refuse(Refuse(**{**LOOP, "outer_steps": 30}), fraction)
    assert loop.outer_steps == steps
    train = sizes.shorter_train(Train(**{**LOOP, "outer_steps": 30}, domain="bio"), fraction)
    assert train.outer_steps == steps
    table = sizes.shorter_table(Tabulate(steps=[10, 30]), fraction)
    assert table.steps == [max(steps, 2)]
    assert sizes.shorter_table(Tabulate(), fraction).steps == []


def test_a_shortened_set_fills_a_batch() -> None:
    made = sizes.shorter_data(Data(domain="bio", published=["a=1000", "b=70", "c=9"]), 0.1)
    counts = dict(entry.split("=") for entry in made.published)
    assert counts == {"a": "100", "b": "64", "c": "9", "retain": "64"}
    # A set whose number nobody declares has one too, in every kind of data.
    whole = sizes.shorter_data(Data(domain="bio", published=["retain=1000"]), 1.0)
    assert whole.published == ["retain=1000"]
    pairs = sizes.shorter_requests(Requests(published=["attack=700"]), 0.5)
    counts = dict(entry.split("=") for entry in pairs.published)
    assert counts.pop("attack") == "350"
    assert counts
    assert set(counts.values()) == {"256"}


@pytest.mark.parametrize("rehearsal", [True, False])
def test_seconds_are_said_in_a_rehearsal_alone(rehearsal: bool) -> None:
    """To a tenth of a millisecond; the clock begins again either way."""
    said: list[tuple[str, float, int]] = []
    read: list[bool] = []

    def reading() -> dict[str, float]:
        read.append(True)
        return {"update": 1.234567}

    ctx: Any = SimpleNamespace(rehearsal=rehearsal, metric=lambda *given: said.append(given))
    clock: Any = SimpleNamespace(read=reading)
    sharding.say_seconds(ctx, clock, 7)
    assert said == ([("seconds of update", 1.2346, 7)] if rehearsal else [])
    assert read
