"""Steps as the log counts them, and where the coefficients begin and end."""

from __future__ import annotations

import pytest

from kit.methods.checkpoint_transfer.counting import Coefficients, coefficients, count_steps


@pytest.mark.parametrize(
    ("examples", "world", "epochs", "micro", "optimizer", "last"),
    [
        (1024, 1, 1, 256, 32, 224),
        (2048, 1, 1, 512, 64, 480),
        (8192, 1, 1, 2048, 256, 2016),
        (1024, 4, 1, 64, 32, 32),
        (1024, 4, 10, 640, 320, 608),
        (1024, 4, 100, 6400, 3200, 6368),
    ],
)
def test_the_logs_rows(
    examples: int, world: int, epochs: int, micro: int, optimizer: int, last: int
) -> None:
    """Reference page, section 1.12: micro-batches, optimizer steps, the last logged micro-batch."""
    count = count_steps(examples, 4, world, epochs=epochs)
    assert (count.micro_batches, count.optimizer_steps) == (micro, optimizer)
    assert count.last_logged == last
    assert count.ramp * epochs == micro
    assert count.accumulation * 4 * world == 32


@pytest.mark.parametrize(
    ("numbers", "match"),
    [((1024, 5, 1), "do not divide"), ((1000, 4, 1), "do not fill"), ((0, 4, 1), "at least 1")],
)
def test_batches_that_would_be_rounded_are_refused(
    numbers: tuple[int, int, int], match: str
) -> None:
    with pytest.raises(ValueError, match=match):
        count_steps(*numbers)


def test_ramp_endpoints() -> None:
    """s(0) = 0, s(one epoch) = 1, and no further; remove never falls below three quarters."""
    at = [coefficients(k, retain=5, remove=8, ramp=256) for k in (0, 128, 256, 9999)]
    assert at[0] == Coefficients(0.0, 8.0)
    assert at[1] == Coefficients(2.5, 7.0)
    assert at[2] == at[3] == Coefficients(5.0, 6.0)


def test_other_schedules_endpoints() -> None:
    for k in (0, 10):
        constant = coefficients(k, retain=5, remove=8, ramp=10, schedule="constant")
        assert constant == Coefficients(5, 8)
    first, last = (
        coefficients(k, retain=5, remove=8, ramp=10, schedule="circuit-breakers") for k in (0, 10)
    )
    assert (first, last) == (Coefficients(0, 8), Coefficients(5, 0))


def test_bad_schedules_are_refused() -> None:
    with pytest.raises(ValueError, match="unknown coefficient schedule"):
        coefficients(0, retain=1, remove=1, ramp=1, schedule="cosine")
    with pytest.raises(ValueError, match="not negative"):
        coefficients(0, retain=-1, remove=1, ramp=1)
