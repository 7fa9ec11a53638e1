"""Full training: what the manifests ask for is what the method's recipe and the step do."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from kit.methods.defensive_tokens import full_dt
from kit.methods.defensive_tokens.standin import POOL_SIZE
from kit.methods.defensive_tokens.struq import STRUQ
from kit.steps.defensive_tokens.params import TrainPrefix
from kit.steps.defensive_tokens.training import _recipe
from tests.steps.test_kinds import CATALOG, plan


@pytest.mark.parametrize("experiment", ["full-dt", "bos-layout"])
def test_the_paper_profile_trains_by_the_recipe(experiment: str, tmp_path: Path) -> None:
    # Micro-batches decide what the loss averages over, the warm-up belongs to the schedule.
    expected = full_dt.recipe(POOL_SIZE)
    _, made = plan(experiment, "paper", tmp_path)
    trainings = [one for one in made.instances if one.kind.endswith("/train-prefix")]
    assert trainings
    for one in trainings:
        asked = _recipe(msgspec.convert(one.params, TrainPrefix))
        wanted = expected.training
        for name in ("steps", "micro_batch", "accumulation", "learning_rate", "schedule", "warmup"):
            assert getattr(asked.training, name) == getattr(wanted, name), name
        assert asked.encoding.max_length == expected.encoding.max_length
        assert asked.encoding.end_truncated == expected.encoding.end_truncated


@pytest.mark.parametrize("experiment", ["full-dt", "bos-layout", "tiny-adapt-heldout"])
def test_the_paper_profile_attacks_as_struq_does(experiment: str) -> None:
    settings = CATALOG.manifest(experiment).profiles["paper"].set
    assert settings["data"]["builder"].value == STRUQ
