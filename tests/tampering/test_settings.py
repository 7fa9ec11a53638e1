"""Every attack of the suites can be written in plain values and read back from them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import msgspec
import pytest

from kit.steps.tampering.params import Attack as Params
from kit.tampering.attack import Attack
from kit.tampering.settings import attack_of, settings_of
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
