"""A verified run where others look for results: Every Eval Ever, and the hub's ``.eval_results``.

Every Eval Ever (evaleval/every_eval_ever, schema 0.3.0) has a record for each model under
evaluation; here that is each row of the table (a defence, an attack, a configuration), with its
metrics, their intervals, and a line for each item. What a model was shown and said stays out: items
under no licence of ours are named by id. The hub's format holds a number for a benchmark that is a
dataset of the hub, so only cells measured on such a dataset stand in it.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from datetime import datetime
from hashlib import sha256
from pathlib import Path
from typing import Any
from uuid import UUID

import msgspec
from msgspec.structs import replace

from kit.errors import InvalidInput
from kit.manifest.pin_types import Pin
from kit.report.files import Run, write_file
from kit.results.asks import split
from kit.results.ids import parse, row_of
from kit.results.labels import LabelFiles
from kit.results.types import Cell
from kit.verify.verdict import CellReport

EEE_VERSION = "0.3.0"
_RANGES = {"percent": (0, 100), "fraction": (0, 1)}
_LEFT_OUT = "(not included; the item is named by sample_id)"


def export_eee(run: Run, folder: Path, *, organization: str) -> list[Path]:
    """Write a record and its items for each row of the run's table.

    Args:
        run: A verified run.
        folder: Below it they stand as in the repository of the format,
            ``data/<experiment>/safety-repro-kit/<row>/<uuid>.json``.
        organization: Who made the run.

    Returns:
        The records.

    Raises:
        InvalidInput: A rehearsal, or a run none of whose cells has a better direction.
    """
    _refuse_rehearsal(run)
    rows: dict[str, list[CellReport]] = {}
    for report in run.verdict.cells:
        if report.value is not None and report.direction != "none":
            rows.setdefault(_row(split(report.id)[0]), []).append(report)
    if not rows:
        raise InvalidInput(
            "no measured cell of this run says which direction is better", where=str(run.path)
        )
    cells = _measured(run)
    written = []
    for row, reports in rows.items():
        model = _model(run, row, cells[reports[0].id])
        head = f"{run.verdict.experiment}/{model['id']}/{_epoch(run)}"
        name = UUID(bytes=sha256(f"{head}/{run.results_sha256}".encode()).digest()[:16], version=4)
        relative = Path("data", run.verdict.experiment, *model["id"].split("/"), f"{name}.json")
        path, samples = folder / relative, relative.with_name(f"{name}_samples.jsonl")
        path.parent.mkdir(parents=True, exist_ok=True)
        items = b"".join(_items(run, reports, cells, head, model["id"]))
        record = {
            "schema_version": EEE_VERSION,
            "evaluation_id": head,
            "retrieved_timestamp": _epoch(run),
            "source_metadata": {
                "source_name": f"{run.verdict.experiment}, profile {run.verdict.profile}",
                "source_type": "evaluation_run",
                "source_organization_name": organization,
                "evaluator_relationship": "third_party",
                "additional_details": {
                    "verdict": run.verdict.headline or run.verdict.verdict,
                    "results_sha256": run.results_sha256,
                },
            },
            "eval_library": {"name": "safety-repro-kit", "version": run.verdict.kit_version},
            "model_info": model,
            "evaluation_results": [_result(run, report, cells[report.id]) for report in reports],
        }
        if items:
            write_file(folder / samples, items)
            record["detailed_evaluation_results"] = {
                "format": "jsonl",
                "file_path": samples.as_posix(),
                "hash_algorithm": "sha256",
                "checksum": sha256(items).hexdigest(),
                "total_rows": items.count(b"\n"),
            }
        write_file(path, msgspec.json.format(msgspec.json.encode(record), indent=1) + b"\n")
        written.append(path)
    return written


def export_hub(run: Run, output: Path, *, url: str) -> int:
    """Write the hub's ``.eval_results/<name>.yaml``; returns how many numbers stand in it.

    Args:
        run: A verified run.
        output: The file.
        url: Where the run can be looked at.

    Raises:
        InvalidInput: A rehearsal, or no cell was measured on a dataset of the hub.
    """
    from huggingface_hub import EvalResultEntry, eval_result_entries_to_yaml
    from ruamel.yaml import YAML

    _refuse_rehearsal(run)
    cells = _measured(run)
    entries = []
    for report in run.verdict.cells:
        if report.value is None or report.direction == "none":
            continue
        entries += [
            EvalResultEntry(
                dataset_id=pin.repo,
                task_id=report.id,
                value=report.value,
                dataset_revision=pin.revision,
                date=run.record.ended if run.record is not None else None,
                source_url=url,
                source_name="safety-repro-kit",
                notes=f"{report.unit}; {run.verdict.headline or run.verdict.verdict}",
            )
            for pin in _datasets(run, cells[report.id])
            if pin.repo is not None
        ]
    if not entries:
        raise InvalidInput(
            "no cell of this run was measured on a dataset of the hub",
            where=str(run.path),
            why="the hub lists results by benchmark, which is a dataset there",
            next_step="kit export eee RUN names data of any source",
        )
    out = io.StringIO()
    YAML().dump(eval_result_entries_to_yaml(entries), out)
    write_file(output, out.getvalue())
    return len(entries)


def _refuse_rehearsal(run: Run) -> None:
    if run.verdict.verdict == "REHEARSED":
        raise InvalidInput(
            "a rehearsal has no results", where=str(run.path), why="it ran on stand-in data"
        )


def _measured(run: Run) -> dict[str, Cell]:
    """The cell behind each id of the verdict; what is asked of a curve rests on its cell."""
    cells = {cell.id: cell for cell in run.results.cells}
    asked = [report.id for report in run.verdict.cells if report.id not in cells]
    curves = {id: cells.get(split(id)[0]) for id in asked}
    return cells | {
        id: replace(cell, seeds=[], labels=None) for id, cell in curves.items() if cell is not None
    }


def _row(id: str) -> str:
    """Group, row and setting of a cell: what the table calls a model under evaluation."""
    try:
        return f"{parse(id).group}/{row_of(id)}"
    except ValueError:  # a table from elsewhere, whose ids are its own
        return row_of(id)


def _epoch(run: Run) -> str:
    """When the run ended, as Unix time; 0 where no record says it."""
    ended = run.record.ended if run.record is not None else None
    return str(int(datetime.fromisoformat(ended).timestamp())) if ended else "0"


def _pins(run: Run, cell: Cell) -> list[Pin]:
    """Every pin that the step of a cell, or a step before it, read."""
    if run.plan is None or cell.step not in run.plan.by_id:
        return list(run.plan.pins) if run.plan is not None else []
    wanted, ids = {cell.step}, set()
    for instance in reversed(run.plan.instances):  # each stands after what it reads
        if instance.id in wanted:
            wanted.update(instance.upstream())
            ids |= {use.pin for use in instance.pins.values()}
    return [pin for pin in run.plan.pins if pin.id in ids]


def _datasets(run: Run, cell: Cell) -> list[Pin]:
    return [pin for pin in _pins(run, cell) if pin.kind in ("hf-dataset", "file")]


def _model(run: Run, row: str, cell: Cell) -> dict[str, Any]:
    """A row is rarely a model of the hub alone: the pins say what it was made from."""
    versions = run.record.versions if run.record is not None else {}
    engine = "vllm" if versions.get("vllm") else "transformers"
    pins = [f"{pin.repo or pin.id}@{pin.revision or 'kit'}" for pin in _pins(run, cell)]
    return {
        "name": row,
        "id": f"safety-repro-kit/{run.verdict.experiment}-{row.replace('/', '-')}",
        "inference_engine": {"name": engine, "version": versions.get(engine, "unknown")},
        "additional_details": {
            "deployment_type": "self_deployed",
            "model_availability": "open_weights",
            "scale": run.verdict.scale,
            "made_from": ", ".join(pins),
        },
    }


def _result(run: Run, report: CellReport, cell: Cell) -> dict[str, Any]:
    config: dict[str, Any] = {
        "evaluation_description": report.title or report.id,
        "metric_id": report.id,
        "metric_unit": report.unit,
        "lower_is_better": report.direction == "lower_is_better",
    }
    if report.unit in _RANGES:
        low, high = _RANGES[report.unit]
        config |= {"score_type": "continuous", "min_score": low, "max_score": high}
    details: dict[str, Any] = {
        "score": report.value,
        "details": {"verdict": report.verdict, "detail": report.detail},
    }
    if report.value_interval is not None:
        interval = report.value_interval
        details["uncertainty"] = {
            "confidence_interval": {
                "lower": interval.low,
                "upper": interval.high,
                "confidence_level": interval.level,
            },
            "num_samples": report.seeds or report.n or 1,
        }
    return {
        "evaluation_result_id": report.id,
        "evaluation_name": report.id,
        "source_data": _source(run, cell),
        "metric_config": config,
        "score_details": details,
    }


def _source(run: Run, cell: Cell) -> dict[str, Any]:
    for pin in _datasets(run, cell):
        if pin.repo is not None:
            return {"dataset_name": pin.title, "source_type": "hf_dataset", "hf_repo": pin.repo}
        if pin.url is not None:
            return {"dataset_name": pin.title, "source_type": "url", "url": [pin.url]}
    return {
        "dataset_name": f"{run.verdict.experiment} {run.verdict.profile}",
        "source_type": "other",
    }


def _items(
    run: Run, reports: list[CellReport], cells: dict[str, Cell], head: str, model: str
) -> Iterator[bytes]:
    """A line for each item of each replicate that kept labels."""
    labels = LabelFiles(run.path)
    for report in reports:
        cell = cells[report.id]
        sources = [(seed.seed, seed.labels) for seed in cell.seeds] or [("", cell.labels)]
        for seed, reference in sources:
            if reference is None:
                continue
            line = labels.get(reference)
            names = line.items or range(line.n)
            for name, label in zip(names, line.labels, strict=True):
                good = bool(label) != (report.direction == "lower_is_better")
                yield (
                    msgspec.json.encode(
                        {
                            "schema_version": EEE_VERSION,
                            "evaluation_id": head,
                            "evaluation_result_id": report.id,
                            "model_id": model,
                            "evaluation_name": report.id,
                            "sample_id": str(name),
                            "interaction_type": "single_turn",
                            "input": {"raw": _LEFT_OUT, "reference": []},
                            "output": {"raw": []},
                            "messages": None,
                            "answer_attribution": [],
                            "evaluation": {"score": int(label), "is_correct": good},
                            "metadata": {"seed": seed},
                        }
                    )
                    + b"\n"
                )
