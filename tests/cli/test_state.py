"""What commands print with, on a terminal and off it."""

from __future__ import annotations

import click
import pytest

from kit.cli.state import State, console

PLACE = "x.yaml:100:5: 3 of 4 'cells' at /tmp/x"
"""Numbers, a path, quotes, and what rich would take for the picture of a hundred."""


def printed(mode: str, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    with click.Context(click.Command("x"), obj=State(progress=mode)):  # type: ignore[arg-type]
        made = console()
        with made.capture() as captured:
            made.print(PLACE, style="bold")
    return captured.get()


def test_on_a_terminal_a_line_has_the_styles_asked_for_and_no_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert printed("rich", monkeypatch) == f"\x1b[1m{PLACE}\x1b[0m\n"


def test_off_a_terminal_it_has_none_and_is_never_wrapped(monkeypatch: pytest.MonkeyPatch) -> None:
    assert printed("plain", monkeypatch) == f"{PLACE}\n"
    monkeypatch.setattr(f"{__name__}.PLACE", "word " * 500)
    assert printed("plain", monkeypatch).count("\n") == 1
