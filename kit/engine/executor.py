"""The seam between deciding what runs next (runner) and how it is run (here, or on a cluster)."""

from __future__ import annotations

from typing import Protocol

from kit.engine.events import Event
from kit.engine.job import Job
from kit.results.plan import StepInstance


class Executor(Protocol):
    """Runs jobs.

    Every started job ends with exactly one event of :data:`kit.engine.events.STEP_ENDS`; a
    ``step-failed`` carries a ``failure``.
    """

    def fits(self, instance: StepInstance) -> bool:
        """Whether it could be started now."""
        ...

    def start(self, job: Job) -> None:
        """Start a job that fits."""
        ...

    def poll(self, seconds: float) -> list[Event]:
        """Wait at most so long for events of running jobs."""
        ...

    def stop(self, *, kill: bool) -> None:
        """Ask everything running to end, or end it."""
        ...

    def close(self) -> None:
        """Give back what is held; nothing runs any more."""
        ...
