"""Seconds by part: sums, and nothing twice."""

import time

from kit.train.clock import Clock


def test_parts_add_up_to_the_time_between_readings() -> None:
    begun = time.perf_counter()
    clock = Clock()
    for part in ("inner", "outer", "inner"):
        time.sleep(0.02)
        clock.mark(part)
    seconds = clock.read()
    assert list(seconds) == ["inner", "outer"]
    assert seconds["inner"] >= 0.04
    assert 0.02 <= seconds["outer"] <= sum(seconds.values()) <= time.perf_counter() - begun


def test_a_reading_forgets_what_it_gave() -> None:
    clock = Clock()
    clock.mark("before")
    clock.read()
    time.sleep(0.01)
    clock.mark("after")
    assert clock.read().keys() == {"after"}
    assert clock.read() == {}
