"""Reference blocks of an expectation from runs of this kit.

``kit reference EXP RUN...`` rewrites the ``reference:`` blocks and nothing else, and keeps a
compact record of the runs beside the expectations, so that every number has a pedigree.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction
from io import StringIO
from pathlib import Path
from typing import Any

import msgspec

from kit.durable import write_output
from kit.errors import InvalidInput
from kit.manifest.expectation_types import Expectation, Reference
from kit.results.asks import with_answers
from kit.results.run import Run
from kit.verify.measurement import Measurement, measure
from kit.verify.preconditions import check_pair
from kit.verify.seeds import group

HOST_FIELDS = frozenset(
    {"host", "hostname", "user", "username", "cwd", "home", "kit_home", "argv", "path"}
)
"""Fields of a record that say where it ran and not what ran."""


def references(expected: Expectation, runs: Sequence[Run], record: str) -> dict[str, Reference]:
    """Mean, sd and values of every cell over the seeds of all runs.

    Args:
        expected: Whose cells.
        runs: Finished runs; their seeds are put together.
        record: Path of the committed record, relative to the repository.

    Raises:
        InvalidInput: A seed in two runs, a run of another experiment, a rehearsal, an overridden
            run.
    """
    values: dict[str, dict[str, Fraction]] = {}
    for run in runs:
        where = str(run.path / "results.json")
        # Other seeds are what a reference is made of; other parameters are another experiment.
        changed = [text for text in run.overrides if not text.startswith("seed=")]
        if run.rehearsal or changed:
            what = "a rehearsal" if run.rehearsal else f"modified ({', '.join(changed)})"
            raise InvalidInput(f"the run is {what}", where=str(run.path), why="no reference")
        check_pair(expected, run.results, where, expected.experiment)
        found, _ = with_answers(run.results, [cell.id for cell in expected.cells])
        for cell in expected.cells:
            if cell.id in found and found[cell.id].not_run is None:
                series = run.results.series
                measured = measure(found[cell.id], cell.unit, where, run.labels, series)
                for seed, value in _replicates(measured, found[cell.id].seeds, run.path.name):
                    mine = values.setdefault(cell.id, {})
                    if seed in mine:
                        raise InvalidInput(
                            f"cell {cell.id}: seed {seed!r} is in two runs", where=where
                        )
                    mine[seed] = value
    return {id: _reference(found, record) for id, found in values.items()}


def _replicates(cell: Measurement, seeds: Sequence[Any], run: str) -> list[tuple[str, Fraction]]:
    if cell.value is None:  # a curve, or a crossing that some seeds never came to
        return []
    if cell.seeds:
        return [(seed.id, seed.value) for seed in cell.seeds]
    return [(seeds[0].seed if seeds else run, cell.value)]


def _reference(values: Mapping[str, Fraction], record: str) -> Reference:
    found = group(list(values.values()))
    return Reference(
        mean=_number(found.mean),
        sd=_number(found.sd),
        n_seeds=found.size,
        values=[_number(value) for value in values.values()],
        seeds=list(values),
        record=record,
    )


def _number(value: float | Fraction) -> str:
    """Twelve significant digits, as expectations print numbers."""
    return f"{float(value):.12g}"


def rewrite(text: str, found: Mapping[str, Reference], where: str) -> str:
    """The expectation's text with its ``reference:`` blocks replaced, comments and order kept.

    Raises:
        InvalidInput: The file is not a mapping with ``cells``.
    """
    from ruamel.yaml import YAML

    yaml = YAML()
    yaml.preserve_quotes = True
    yaml.width = 10_000
    yaml.indent(mapping=2, sequence=4, offset=2)
    if not any(line.startswith("  - ") for line in text.splitlines()):
        yaml.indent(mapping=2, sequence=2, offset=0)
    document = yaml.load(text)
    if not isinstance(document, dict) or not isinstance(document.get("cells"), list):
        raise InvalidInput("field 'cells' must be a list", where=where)
    from ruamel.yaml.scalarstring import DoubleQuotedScalarString as Quoted

    for cell in document["cells"]:
        reference = found.get(cell["id"])
        if reference is not None:
            cell["reference"] = {
                "mean": Quoted(reference.mean),
                "sd": Quoted(reference.sd),
                "n_seeds": reference.n_seeds,
                "values": _flow(Quoted(value) for value in reference.values),
                "seeds": _flow(Quoted(seed) for seed in reference.seeds),
                "record": reference.record,
            }
    out = StringIO()
    yaml.dump(document, out)
    return out.getvalue()


def _flow(items: Iterable[str]) -> Any:
    """A list on one line: a block of twenty lines a cell would bury the cell."""
    from ruamel.yaml.comments import CommentedSeq

    line = CommentedSeq(items)
    line.fa.set_flow_style()
    return line


def compact_record(expected: Expectation, runs: Sequence[Run]) -> bytes:
    """Records (without host names) and the expectation's cells of the runs, as JSON lines.

    The first line of a run is its record with the sha256 of its whole ``results.json``; a cell
    follows on a line of its own, so that a change shows as such in a diff.
    """
    wanted = [cell.id for cell in expected.cells]
    lines: list[Any] = []
    for run in runs:
        record = without_host(msgspec.to_builtins(run.record) or {})
        head = {"run": run.path.name, "results_sha256": run.results_sha256, "record": record}
        cells, _ = with_answers(run.results, wanted)
        lines += [head, *(cell for id, cell in cells.items() if id in set(wanted))]
    return b"".join(msgspec.json.encode(line) + b"\n" for line in lines)


def without_host(record: Any) -> Any:
    """The record without the fields in :data:`HOST_FIELDS`, at any depth."""
    if isinstance(record, dict):
        return {k: without_host(v) for k, v in record.items() if k.lower() not in HOST_FIELDS}
    if isinstance(record, list):
        return [without_host(item) for item in record]
    return record


def update(path: Path, expected: Expectation, runs: Sequence[Run], root: Path) -> tuple[Path, int]:
    """Rewrite an expectation file and write the record; returns the record and how many cells.

    Both are prepared before either is written. The record of an expectation that stands outside
    of the repository is put beside it.
    """
    name = f"expected_results/reference/{expected.experiment}.{expected.profile}.jsonl"
    if not path.resolve().is_relative_to(root.resolve() / "expected_results"):
        name, root = f"{expected.experiment}.{expected.profile}.reference.jsonl", path.parent
    found = references(expected, runs, name)
    text = rewrite(path.read_text(encoding="utf-8"), found, str(path))
    record, target = compact_record(expected, runs), root / name
    target.parent.mkdir(parents=True, exist_ok=True)
    write_output(target, record)
    write_output(path, text.encode())
    return target, len(found)
