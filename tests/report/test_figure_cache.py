"""Figures are drawn once for the same data, and again for other data."""

from __future__ import annotations

from pathlib import Path

import pytest

from kit.report.figures.cache import drawn


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KIT_HOME", str(tmp_path / "home"))


def test_the_same_data_are_drawn_once() -> None:
    calls: list[int] = []

    def make(_: dict[str, int]) -> str:
        calls.append(1)
        return f"<svg>{len(calls)}</svg>"

    def other(data: dict[str, int]) -> str:
        return make(data)

    assert drawn(make, {"a": 1}) == "<svg>1</svg>"
    assert drawn(make, {"a": 1}) == "<svg>1</svg>"
    assert drawn(make, {"a": 2}) == "<svg>2</svg>"
    assert drawn(other, {"a": 1}) == "<svg>3</svg>"


def test_a_cache_that_cannot_be_written_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    monkeypatch.setenv("KIT_HOME", str(blocked))
    assert drawn(lambda _: "<svg/>", 1) == "<svg/>"
