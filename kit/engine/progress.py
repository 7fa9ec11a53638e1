"""What the user sees while steps run: three renderers fed by the same events.

``rich`` is a live table for terminals, ``plain`` one greppable line an event for logs
(``[step] state elapsed eta``), ``json`` the events themselves. The first two write to stderr, so
that stdout keeps its last line, the run directory, also in a pipe.
"""

from __future__ import annotations

import sys
from typing import IO, TYPE_CHECKING, Literal, Protocol

from kit.engine.events import Event, encode
from kit.engine.tally import Tally, short_time
from kit.unseen import visible

if TYPE_CHECKING:
    from rich.console import RenderableType

Mode = Literal["rich", "plain", "json"]
PLAIN_PROGRESS_SECONDS = 10.0
_REFRESH_SECONDS = 0.25
_MAX_ROWS = 24


class Renderer(Protocol):
    """Shows a run."""

    def show(self, item: Event) -> None:
        """Take an event (the tally has seen it already)."""
        ...

    def tick(self) -> None:
        """Called often; redraw what moves by itself."""
        ...

    def close(self) -> None:
        """The run has ended."""
        ...


def renderer(mode: Mode, tally: Tally) -> Renderer:
    """The renderer of a mode."""
    if mode == "json":
        return JsonRenderer(sys.stdout)
    if mode == "plain":
        return PlainRenderer(tally, sys.stderr)
    return RichRenderer(tally)


class JsonRenderer:
    """Events as they are, one object a line."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream

    def show(self, item: Event) -> None:
        """Print the event."""
        self._stream.write(encode(item).decode("utf-8"))
        self._stream.flush()

    def tick(self) -> None:
        """Nothing moves."""

    def close(self) -> None:
        """Nothing is held."""


class PlainRenderer:
    """``[step] state elapsed eta``, then what there is to say."""

    def __init__(self, tally: Tally, stream: IO[str]) -> None:
        self._tally, self._stream = tally, stream
        self._last: dict[str, float] = {}

    def show(self, item: Event) -> None:
        """Print the event unless it is a point of a curve or too soon after the last."""
        step, name = item.get("step", "run"), item["event"]
        if name == "metric":
            return
        if name == "progress":
            now = self._tally.clock()
            if now - self._last.setdefault(step, now) < PLAIN_PROGRESS_SECONDS:
                return
            self._last[step] = now
        state = name.removeprefix("step-").removeprefix("run-")
        running = self._tally.running.get(step)
        elapsed = item.get("seconds")
        if elapsed is None:
            elapsed = (
                self._tally.clock() - running.since
                if running is not None
                else self._tally.elapsed()
            )
        line = f"[{step}] {state} {short_time(elapsed)} {short_time(self._tally.left())}"
        detail = describe(item)
        # One line an event, whatever a message contains.
        whole = visible(f"{line} {detail}" if detail else line)
        self._stream.write(whole.replace("\n", " | ") + "\n")
        self._stream.flush()

    def tick(self) -> None:
        """Nothing moves between events."""

    def close(self) -> None:
        """Nothing is held."""


def describe(item: Event) -> str:
    """The part of an event that is meant for people."""
    name = item["event"]
    if name == "progress":
        return f"{item['done']}/{item['total']} {item.get('unit', '')}".strip()
    if name == "note":
        return str(item["text"])
    if name == "canary":
        return f"{item['id']} {'passed' if item['passed'] else 'FAILED'}: {item['detail']}"
    if name == "step-waiting":
        return f"waiting for {item['holder']}, which works on the same step"
    if name == "step-damaged":
        return f"finished before, but {item['problem']}; moved to tmp/{item['moved_to']}, redoing"
    for field in ("message", "reason", "summary"):
        if field in item:
            return str(item[field])
    return ""


class RichRenderer:
    """A live table: a line a step, and the instances that run now."""

    def __init__(self, tally: Tally) -> None:
        from rich.console import Console
        from rich.live import Live

        self._tally = tally
        self._last = 0.0
        self._console = Console(stderr=True, highlight=False)
        self._live = Live(
            console=self._console, auto_refresh=False, redirect_stdout=False, redirect_stderr=False
        )
        self._live.start()

    def show(self, item: Event) -> None:
        """Print what should stay above the table."""
        loud = item["event"] in ("note", "step-waiting", "step-damaged", "step-failed")
        if loud or (item["event"] == "canary" and not item["passed"]):
            from rich.text import Text

            step = item.get("step", "")
            line = f"[{step}] {describe(item)}" if step else describe(item)
            self._console.print(Text(visible(line)))

    def tick(self) -> None:
        """Redraw at most four times a second."""
        now = self._tally.clock()
        if now - self._last >= _REFRESH_SECONDS:
            self._last = now
            self._live.update(self._table(), refresh=True)

    def close(self) -> None:
        """Leave the last state of the table on the screen."""
        self._live.update(self._table(), refresh=True)
        self._live.stop()

    def _table(self) -> RenderableType:
        from rich.console import Group
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        tally = self._tally
        total = len(tally.plan.instances)
        table = Table.grid(padding=(0, 2))
        rows = list(tally.steps.items())
        for step, counts in rows[:_MAX_ROWS]:
            now = [run for run in tally.running.values() if run.instance.step == step]
            words = ", ".join(
                run.instance.id.removeprefix(step).strip("[]")
                + (f" {run.done}/{run.total} {run.unit}" if run.total else "")
                for run in now[:3]
            )
            if counts.failed:
                words = f"{counts.failed} failed  {words}"
            share = counts.finished + sum(run.fraction for run in now)
            table.add_row(
                Text(step),
                ProgressBar(total=max(1, counts.total), completed=share, width=20),
                Text(f"{counts.finished}/{counts.total}"),
                Text(short_time(counts.seconds) if counts.run else "cached" * bool(counts.cached)),
                Text(visible(words)),
            )
        head = f"{tally.plan.experiment} {tally.plan.profile}  {tally.finished}/{total} steps"
        times = f"  {short_time(tally.elapsed())} elapsed, about {short_time(tally.left())} left"
        more = f"... and {len(rows) - _MAX_ROWS} more" if len(rows) > _MAX_ROWS else ""
        return Group(Text(head + times, style="bold"), table, Text(more))
