"""How far a run is, how long it still takes, and what the user sees of it.

The plan's minutes are a guess for a machine nobody knows; every finished step corrects it. An
instance is expected to take what finished instances of the same step took, or else its planned
minutes times the ratio that measured and planned times had so far.

Three renderers are fed by the same events. ``rich`` is a live table for terminals, ``plain`` one
greppable line an event for logs (``[step] state elapsed eta``), ``json`` the events themselves. The
first two write to stderr, so that stdout keeps its last line, the run directory, also in a pipe.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Literal

from kit.engine.events import STEP_ENDS, Event, encode
from kit.results.plan import Plan, StepInstance
from kit.visible import visible

if TYPE_CHECKING:
    from rich.console import RenderableType

Mode = Literal["rich", "plain", "json"]
PLAIN_PROGRESS_SECONDS = 10.0
LOUD = ("note", "step-waiting", "step-damaged", "step-repeated", "step-failed")
"""Events that stay above the live table."""
_REFRESH_SECONDS = 0.25
_MAX_ROWS = 24
_TRUSTED_FRACTION = 0.03
"""Below this a running step's own progress says little about its duration."""


@dataclass
class Counts:
    """Counts of one step over its instances."""

    total: int = 0
    cached: int = 0
    run: int = 0
    failed: int = 0
    seconds: float = 0.0

    @property
    def finished(self) -> int:
        """Instances with outputs."""
        return self.cached + self.run


@dataclass
class Running:
    """A running instance."""

    instance: StepInstance
    since: float
    done: int = 0
    total: int = 0
    unit: str = ""

    @property
    def fraction(self) -> float:
        """Share that it reports as done."""
        return self.done / self.total if self.total > 0 else 0.0


class Progress:
    """Fed with events, asked for counts and time left.

    Args:
        plan: The plan that is run.
        jobs: CPU steps at once.
        gpus: GPUs in use.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        plan: Plan,
        *,
        jobs: int = 1,
        gpus: int = 0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.plan, self.jobs, self.gpus, self.clock = plan, max(1, jobs), gpus, clock
        self.started = clock()
        self.steps: dict[str, Counts] = {}
        self.running: dict[str, Running] = {}
        self._rest: dict[str, list[float]] = {}  # step -> [instances left, planned seconds left]
        self._gpu_steps = {instance.step for instance in plan.instances if instance.resources.gpus}
        self._planned = self._measured = 0.0
        for instance in plan.instances:
            self.steps.setdefault(instance.step, Counts()).total += 1
            rest = self._rest.setdefault(instance.step, [0, 0.0])
            rest[0] += 1
            rest[1] += instance.resources.minutes * 60

    @property
    def finished(self) -> int:
        """Instances that are done."""
        return sum(step.finished for step in self.steps.values())

    def elapsed(self) -> float:
        """Seconds since the run began."""
        return self.clock() - self.started

    def update(self, item: Event) -> None:
        """Take one event into account."""
        instance = self.plan.by_id.get(item.get("step", ""))
        if instance is None:
            return
        name, counts = item["event"], self.steps[instance.step]
        if name == "step-started":
            self.running[instance.id] = Running(instance, self.clock())
        elif name == "progress" and instance.id in self.running:
            running = self.running[instance.id]
            running.done, running.total = item["done"], item["total"]
            running.unit = item.get("unit", "")
        elif name in STEP_ENDS:
            self.running.pop(instance.id, None)
            rest = self._rest[instance.step]
            planned = instance.resources.minutes * 60
            rest[0] -= 1
            rest[1] -= planned
            if name == "step-done":
                counts.run += 1
                counts.seconds += item["seconds"]
                self._planned += planned
                self._measured += item["seconds"]
            elif name == "step-cached":
                counts.cached += 1
            else:
                counts.failed += 1

    def _ratio(self) -> float:
        return self._measured / self._planned if self._planned > 0 else 1.0

    def expected(self, instance: StepInstance) -> float:
        """Seconds an instance is expected to take."""
        counts = self.steps[instance.step]
        if counts.run:
            return counts.seconds / counts.run
        return instance.resources.minutes * 60 * self._ratio()

    def left(self) -> float:
        """Seconds until everything is done, as far as one can tell."""
        work = {False: 0.0, True: 0.0}
        count = {False: 0.0, True: 0.0}
        for step, (instances, planned) in self._rest.items():
            counts, on_gpu = self.steps[step], step in self._gpu_steps
            if counts.run:
                work[on_gpu] += counts.seconds / counts.run * instances
            else:
                work[on_gpu] += planned * self._ratio()
            count[on_gpu] += instances
        longest = 0.0
        for running in self.running.values():
            expected = self.expected(running.instance)
            elapsed = self.clock() - running.since
            rest = max(0.0, expected - elapsed)
            if running.fraction > _TRUSTED_FRACTION:
                rest = elapsed / running.fraction - elapsed
            work[bool(running.instance.resources.gpus)] += rest - expected
            longest = max(longest, rest)
        cpu = work[False] / max(1.0, min(self.jobs, count[False]))
        gpu = work[True] / max(1.0, min(self.gpus, count[True]))
        return max(longest, cpu, gpu, 0.0)


def short_time(seconds: float) -> str:
    """``4.2s``, ``3m05s``, ``2h10m``."""
    if seconds < 60:
        return f"{seconds:.1f}s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes}m{rest:02d}s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes:02d}m"


class Renderer:
    """Shows a run: nothing, unless a subclass does."""

    def show(self, item: Event) -> None:
        """Take an event; the progress has seen it already."""

    def tick(self) -> None:
        """Called often; redraw what moves by itself."""

    def close(self) -> None:
        """The run has ended."""


def renderer(mode: Mode, progress: Progress) -> Renderer:
    """The renderer of a mode."""
    if mode == "json":
        return JsonRenderer(sys.stdout)
    if mode == "plain":
        return PlainRenderer(progress, sys.stderr)
    return RichRenderer(progress)


class JsonRenderer(Renderer):
    """Events as they are, one object a line."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream

    def show(self, item: Event) -> None:
        """Print the event."""
        self._stream.write(encode(item).decode("utf-8"))
        self._stream.flush()


class PlainRenderer(Renderer):
    """``[step] state elapsed eta``, then what there is to say."""

    def __init__(self, progress: Progress, stream: IO[str]) -> None:
        self._progress, self._stream = progress, stream
        self._last: dict[str, float] = {}

    def show(self, item: Event) -> None:
        """Print the event unless it is a point of a curve or too soon after the last."""
        step, name = item.get("step", "run"), item["event"]
        if name == "metric":
            return
        if name == "progress":
            now = self._progress.clock()
            if now - self._last.setdefault(step, now) < PLAIN_PROGRESS_SECONDS:
                return
            self._last[step] = now
        state = name.removeprefix("step-").removeprefix("run-")
        running = self._progress.running.get(step)
        elapsed = item.get("seconds")
        if elapsed is None:
            elapsed = (
                self._progress.clock() - running.since
                if running is not None
                else self._progress.elapsed()
            )
        line = f"[{step}] {state} {short_time(elapsed)} {short_time(self._progress.left())}"
        detail = describe(item)
        # One line an event, whatever a message contains.
        whole = visible(f"{line} {detail}" if detail else line)
        self._stream.write(whole.replace("\n", " | ") + "\n")
        self._stream.flush()


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


class RichRenderer(Renderer):
    """A live table: a line a step, and the instances that run now."""

    def __init__(self, progress: Progress) -> None:
        from rich.console import Console
        from rich.live import Live

        self._progress = progress
        self._last = 0.0
        self._console = Console(stderr=True)
        self._live = Live(
            console=self._console, auto_refresh=False, redirect_stdout=False, redirect_stderr=False
        )
        self._live.start()

    def show(self, item: Event) -> None:
        """Print what should stay above the table."""
        if item["event"] in LOUD or (item["event"] == "canary" and not item["passed"]):
            from rich.text import Text

            step = item.get("step", "")
            line = f"[{step}] {describe(item)}" if step else describe(item)
            self._console.print(Text(visible(line)))

    def tick(self) -> None:
        """Redraw at most four times a second."""
        now = self._progress.clock()
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

        progress = self._progress
        total = len(progress.plan.instances)
        table = Table.grid(padding=(0, 2))
        rows = list(progress.steps.items())
        for step, counts in rows[:_MAX_ROWS]:
            now = [run for run in progress.running.values() if run.instance.step == step]
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
                ProgressBar(total=counts.total, completed=share, width=20),
                Text(f"{counts.finished}/{counts.total}"),
                Text(short_time(counts.seconds) if counts.run else "cached" * bool(counts.cached)),
                Text(visible(words)),
            )
        head = (
            f"{progress.plan.experiment} {progress.plan.profile}  {progress.finished}/{total} steps"
        )
        times = (
            f"  {short_time(progress.elapsed())} elapsed, about {short_time(progress.left())} left"
        )
        more = f"... and {len(rows) - _MAX_ROWS} more" if len(rows) > _MAX_ROWS else ""
        return Group(Text(head + times, style="bold"), table, Text(more))
