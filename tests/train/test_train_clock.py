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


def test_on_a_gpu_parts_lie_between_marks_in_its_stream(monkeypatch) -> None:
    """Events that the test times: milliseconds become seconds, only the last is waited for."""
    times, waited = iter([0.0, 2000.0, 2500.0, 4500.0, 9000.0]), []

    class Event:
        def __init__(self, *, enable_timing: bool) -> None:
            assert enable_timing

        def record(self) -> None:
            self.at = next(times)

        def synchronize(self) -> None:
            waited.append(self.at)

        def elapsed_time(self, end: "Event") -> float:
            return end.at - self.at

    monkeypatch.setattr("torch.cuda.Event", Event)
    clock = Clock("cuda")
    for part in ("inner", "outer", "inner"):
        clock.mark(part)
    assert clock.read() == {"inner": 4.0, "outer": 0.5}
    clock.mark("after")
    assert clock.read() == {"after": 4.5}
    assert clock.read() == {}
    assert waited[:2] == [4500.0, 9000.0]
