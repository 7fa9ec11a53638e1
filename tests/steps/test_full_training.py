"""Full training: what the manifests ask for is what the method's recipe and the step do."""

from __future__ import annotations

from math import ceil
from pathlib import Path

import msgspec
import pytest

from kit.methods.defensive_tokens.standin import POOL_SIZE
from kit.methods.defensive_tokens.struq import STRUQ
from kit.steps.defensive_tokens.params import TrainPrefix
from kit.steps.defensive_tokens.training import _recipe
from tests.steps.test_kinds import CATALOG, plan


@pytest.mark.parametrize("experiment", ["full-dt", "bos-layout"])
def test_the_paper_profile_trains_one_epoch(experiment: str, tmp_path: Path) -> None:
    """DTP 3.3 and "Training": rate 0.1, one epoch of the pool; 3 % warm-up, as the trainer rounds.

    Micro-batches decide what the loss averages over, the warm-up belongs to the schedule.
    """
    _, made = plan(experiment, "paper", tmp_path)
    trainings = [one for one in made.instances if one.kind.endswith("/train-prefix")]
    assert trainings
    for one in trainings:
        asked = _recipe(msgspec.convert(one.params, TrainPrefix))
        training = asked.training
        assert training.steps == POOL_SIZE // training.batch
        assert (training.micro_batch, training.accumulation) == (4, 32)
        assert (training.learning_rate, training.schedule) == (0.1, "cosine")
        assert training.warmup == ceil(0.03 * training.steps)
        # Self-labels of up to 512 tokens are kept whole.
        assert asked.encoding.max_length == 2048
        assert not asked.encoding.end_truncated


@pytest.mark.parametrize("experiment", ["full-dt", "bos-layout", "tiny-adapt-heldout"])
def test_the_paper_profile_attacks_as_struq_does(experiment: str) -> None:
    settings = CATALOG.manifest(experiment).profiles["paper"].set
    assert settings["data"]["builder"].value == STRUQ
