"""Every attack of the suites can be written in plain values and read back from them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import msgspec
import pytest

from kit.steps.tampering.params import Attack as Params
from kit.steps.tampering.params import Trial
from kit.tampering.attack import Attack
from kit.tampering.settings import attack_of, drawn_trial, settings_of
from kit.train.optimizers import AdamW, ScheduleFreeAdamW
from tests.tampering.test_suites import SUITES

EVERY = [attack for suite in SUITES.values() for attack in suite]


@pytest.mark.parametrize("attack", EVERY, ids=lambda a: a.name)
def test_an_attack_comes_back_from_its_plain_settings(attack: Attack) -> None:
    written: dict[str, Any] = settings_of(attack)
    assert all(isinstance(v, (int, float, str, list, type(None))) for v in written.values())
    read = attack_of(msgspec.convert(written, Params))
    unsaid = {"name": attack.name, "source": attack.source, "reconstruction": attack.reconstruction}
    assert replace(read, **unsaid) == attack


def test_a_setting_without_a_plain_name_is_refused() -> None:
    odd = Attack("odd", AdamW(1e-3, 0.0, betas=(0.5, 0.9)), steps=2, batch=1)
    with pytest.raises(ValueError, match="no plain setting is called betas"):
        settings_of(odd)


def test_settings_that_an_optimizer_lacks_are_refused() -> None:
    given: dict[str, Any] = {"seed": 0, "learning_rate": 1e-3, "steps": 4, "batch": 1}
    with pytest.raises(ValueError, match="optimizer adamw has no setting momentum"):
        attack_of(Params(**given, optimizer="adamw", momentum=0.5))
    with pytest.raises(ValueError, match="takes no schedule"):
        attack_of(Params(**given, optimizer=ScheduleFreeAdamW.name, schedule="linear"))


def trial(**fields: Any) -> Trial:
    given: dict[str, Any] = {
        "seed": 3, "optimizer": "adamw", "steps": 20, "batch": 4, "trial": 0,
        "lowest_rate": 1e-4, "highest_rate": 1e-2,
    }  # fmt: skip
    return Trial(**(given | fields))


@pytest.mark.parametrize(
    ("name", "has"),
    [
        ("adamw", {"weight_decay": 0.5}),
        ("sgd", {"weight_decay": 0.5, "momentum": 0.25, "nesterov": False}),
        ("adadelta", {"weight_decay": 0.5}),
        ("schedule-free-adamw", {"weight_decay": 0.5, "warmup_steps": 7}),
        ("muon", {"weight_decay": 0.5, "momentum": 0.25}),
    ],
)
def test_a_drawn_optimizer_has_those_of_the_settings_that_it_knows(
    name: str, has: dict[str, Any]
) -> None:
    """One search may draw optimizers of which only some have a momentum."""
    settings = trial(
        optimizers=[name], weight_decay=0.5, momentum=0.25, nesterov=False, warmup=7,
        optimizer="sgd",
    )  # fmt: skip
    spec = drawn_trial(settings).optimizer
    assert spec.name == name
    assert {field: getattr(spec, field) for field in has} == has


def test_an_unknown_optimizer_of_a_search_is_refused() -> None:
    with pytest.raises(ValueError, match="odd"):
        drawn_trial(trial(optimizers=["odd"]))


def test_the_drawn_trial_is_the_one_of_its_number_in_a_longer_search() -> None:
    names = [drawn_trial(trial(trial=number, batches=[2, 4, 8])) for number in range(6)]
    assert [made.name for made in names] == [f"trial-{number:03d}" for number in range(6)]
    assert len({made.optimizer.learning_rate for made in names}) == 6
    assert len({made.batch for made in names}) > 1
    assert drawn_trial(trial(trial=4, batches=[2, 4, 8])) == names[4]


def test_what_a_search_may_draw_comes_from_the_settings() -> None:
    settings = trial(
        schedules=["linear"], warmup=2, floor=0.25, ranks=[0], phases=["retain>forget"],
        first_share=0.25, lora_rank=8,
    )  # fmt: skip
    made = drawn_trial(settings)
    assert (made.schedule.name, made.schedule.warmup, made.schedule.floor) == ("linear", 2, 0.25)
    assert made.lora is None  # rank 0 is a full attack
    assert [(phase.data, phase.share) for phase in made.phases] == [
        ("retain", 0.25), ("forget", 0.75),
    ]  # fmt: skip
    adapted = drawn_trial(trial(ranks=[4], lora_alpha=3.0, lora_layers=[1], lora_dropout=0.5)).lora
    assert adapted is not None
    assert (adapted.rank, adapted.alpha, adapted.layers, adapted.dropout) == (4, 3.0, (1,), 0.5)
