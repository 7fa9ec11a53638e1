"""The curves of an event log for people who look at curves elsewhere.

``events.jsonl`` stays the only truth; these are copies, made offline. Nothing is uploaded.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from kit.engine.events import read_events
from kit.engine.rundir import EVENTS, RECORD
from kit.errors import InvalidInput, Preflight


@dataclass(frozen=True)
class Point:
    """One point of a curve.

    Attributes:
        curve: ``<step instance>/<metric>``.
        step: The x value.
        value: The y value; may be NaN or infinite.
        time: Seconds since 1970.
    """

    curve: str
    step: int
    value: float
    time: float


def points(run: Path) -> Iterator[Point]:
    """All points that the steps of a run logged.

    Raises:
        InvalidInput: Not a run directory.
    """
    path = run / EVENTS
    if not path.is_file():
        raise InvalidInput(
            f"there is no {EVENTS}", where=str(run), next_step="name a run directory"
        )
    for item in read_events(path):
        if item.get("event") == "metric":
            yield Point(
                curve=f"{item['step']}/{item['name']}",
                step=int(item["at"]),
                value=float(item["value"]),
                time=datetime.fromisoformat(item["time"]).timestamp(),
            )


def _need(module: str, package: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise Preflight(
            f"this export needs {package}, which is not installed",
            why=str(error),
            next_step=f"pip install {package}",
        ) from None


def to_tensorboard(run: Path, folder: Path) -> int:
    """Write an event file that TensorBoard reads; returns the number of points."""
    writers = _need("tensorboard.summary.writer.event_file_writer", "tensorboard")
    event_pb2 = _need("tensorboard.compat.proto.event_pb2", "tensorboard")
    summary_pb2 = _need("tensorboard.compat.proto.summary_pb2", "tensorboard")
    found = list(points(run))
    writer = writers.EventFileWriter(str(folder))
    try:
        for point in found:
            value = summary_pb2.Summary.Value(tag=point.curve, simple_value=point.value)
            summary = summary_pb2.Summary(value=[value])
            writer.add_event(
                event_pb2.Event(wall_time=point.time, step=point.step, summary=summary)
            )
    finally:
        writer.close()
    return len(found)


def to_wandb(run: Path, folder: Path) -> int:
    """Write an offline wandb run; returns the number of points.

    ``wandb sync`` can upload it later, if somebody decides to.
    """
    import json

    wandb = _need("wandb", "wandb")
    found = list(points(run))
    record = json.loads((run / RECORD).read_text(encoding="utf-8"))
    config = {name: record[name] for name in ("experiment", "version", "profile", "overrides")}
    folder.mkdir(parents=True, exist_ok=True)
    before = os.environ.get("WANDB_MODE")
    os.environ["WANDB_MODE"] = "offline"  # not "disabled", which writes nothing at all
    try:
        with wandb.init(
            project=record["experiment"],
            name=run.name,
            dir=str(folder),
            config=config,
            mode="offline",
        ) as target:
            for curve in dict.fromkeys(point.curve for point in found):
                # Every curve has an x axis of its own: wandb's single step must never go back.
                target.define_metric(curve, step_metric=f"{curve}/at")
            for point in found:
                target.log({point.curve: point.value, f"{point.curve}/at": point.step})
    finally:
        if before is None:
            os.environ.pop("WANDB_MODE", None)
        else:
            os.environ["WANDB_MODE"] = before
    return len(found)
