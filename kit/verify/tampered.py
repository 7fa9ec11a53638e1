"""Ways in which a run directory is made to say what it does not: each must be caught.

The same table serves ``kit verify --selftest`` on a reader's own run and the tests. After a plant
all hashes are made to fit again, as somebody who knows of them would do, except where the plant is
about the hashes.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from msgspec import Struct

from kit.durable import sha256_file
from kit.errors import KitError
from kit.results.files import CLOSED, EVENTS, LABELS, PLAN, RECORD, RESULTS, SUMS, close
from kit.results.ids import EXTRA
from kit.verify.basis import read_basis, verdict_of

Json = dict[str, Any]
Change = Callable[[Path], bool]


@dataclass(frozen=True)
class Tampering:
    """One way.

    Attributes:
        name: What was done.
        change: Does it to a run directory; False where there is nothing to do it to.
        says: Words of the verdict or the refusal that name it.
        refused: Whether there is no verdict at all (exit 4), and not one of at most ``INCOMPLETE``.
        fitted: Whether the hashes are made to fit afterwards.
    """

    name: str
    change: Change
    says: str
    refused: bool = False
    fitted: bool = True

    def copy(self, run: Path, target: Path) -> bool:
        """Make a changed copy of a run; False where there is nothing to change."""
        target.mkdir()
        for name in (*CLOSED, SUMS):
            if (run / name).is_file():
                shutil.copyfile(run / name, target / name)
        done = self.change(target)
        if done and self.fitted:
            fit(target)
        return done


class Outcome(Struct, frozen=True, kw_only=True):
    """What became of a tampered copy of a run."""

    name: str
    caught: bool | None
    """None where the run has nothing to do it to."""
    says: str
    """The reason or the refusal that names it; else the verdict."""


def try_all(run: Path, expectation: Path | None = None) -> Iterator[Outcome]:
    """Tamper with copies of a run in every way and verify each.

    Args:
        run: A run directory; not altered.
        expectation: Instead of the repository's.
    """
    for way in TAMPERINGS:
        with TemporaryDirectory() as scratch:
            copy = Path(scratch) / run.resolve().name
            done = way.copy(run, copy)
            said = _said(copy, expectation) if done else []
        named = next((line for line in said[1:] if way.says in line), "")
        caught = bool(named) and said[0] not in ("REPRODUCED", "PARTIALLY") if done else None
        yield Outcome(name=way.name, caught=caught, says=named or "; ".join(said[:2]))


def _said(run: Path, expectation: Path | None) -> list[str]:
    """The verdict and its reasons, or ``refused`` and the refusal."""
    try:
        verdict = verdict_of(read_basis(str(run), expectation=expectation))
    except KitError as error:
        return ["refused", str(error).replace(f"{run}/", "")]
    return [verdict.verdict, *verdict.reasons]


def fit(run: Path, *, named: bool = True) -> None:
    """Make the hashes in a run directory those of its files; the record names that of the table."""
    if (run / RECORD).is_file():
        digest = sha256_file(run / RESULTS) if named else ""
        _write(run / RECORD, _read(run / RECORD) | {"results_sha256": digest})
    if (run / SUMS).is_file():
        close(run)


def _read(path: Path) -> Json:
    content: Json = json.loads(path.read_bytes())
    return content


def _write(path: Path, content: Json) -> None:
    path.write_text(json.dumps(content))


def _file(name: str, change: Callable[[Json], None]) -> Change:
    """A change of one JSON file."""

    def changed(run: Path) -> bool:
        if not (run / name).is_file():
            return False
        content, before = _read(run / name), _read(run / name)
        change(content)
        _write(run / name, content)
        return content != before

    return changed


def _removed(name: str) -> Change:
    def changed(run: Path) -> bool:
        done = (run / name).is_file()
        (run / name).unlink(missing_ok=True)
        return done

    return changed


def _listed(table: Json) -> list[Json]:
    return [cell for cell in table["cells"] if not cell["id"].startswith(EXTRA)]


def _without_canary(table: Json) -> None:
    """One of one step."""
    table["canaries"] = table.get("canaries", [])[:-1]


def _without_statistics(table: Json) -> None:
    table["cells"] = _listed(table)


def _stripped(*fields: str) -> Callable[[Json], None]:
    """Fields of every cell and replicate are gone."""

    def change(table: Json) -> None:
        for cell in _listed(table):
            for part in (cell, *(cell.get("seeds") or [])):
                for field in fields:
                    if part.get(field) is not None:
                        del part[field]

    return change


def _keep(cell: Json, seeds: list[Json]) -> None:
    cell["seeds"] = seeds
    cell["value"] = sum(seed["value"] for seed in seeds) / len(seeds)


def _without_replicates(table: Json) -> None:
    """Two of each group, everywhere."""
    groups: dict[str, list[str]] = {}
    for cell in table["cells"]:
        group = cell["id"].removeprefix(EXTRA).partition("/")[0]
        names = groups.setdefault(group, [])
        names += [seed["seed"] for seed in cell.get("seeds") or [] if seed["seed"] not in names]
    gone = {name for names in groups.values() for name in names[:2] if len(names) > 3}
    for cell in table["cells"]:
        seeds = cell.get("seeds") or []
        left = [seed for seed in seeds if seed["seed"] not in gone]
        if left and len(left) < len(seeds) and cell.get("value") is not None:
            _keep(cell, left)


def _fewer_seeds(table: Json) -> None:
    """Half of them, in the first cell that has several."""
    for cell in _listed(table):
        seeds = cell.get("seeds") or []
        if len(seeds) > 3 and cell.get("value") is not None:
            _keep(cell, seeds[: len(seeds) // 2])
            return


def _labels(change: Callable[[Json], None]) -> Change:
    """A change of every line of the labels."""

    def changed(run: Path) -> bool:
        path = run / LABELS
        if not path.is_file():
            return False
        lines = [json.loads(line) for line in path.read_bytes().splitlines()]
        before = json.dumps(lines)
        for line in lines:
            change(line)
        path.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
        return json.dumps(lines) != before

    return changed


def _shuffled(line: Json) -> None:
    """As many ones, on other items."""
    line["labels"] = line["labels"][1:] + line["labels"][:1]


def _renamed(line: Json) -> None:
    line["items"] = [f"x{i}" for i, _ in enumerate(line.get("items", []))]


def _set(**fields: Any) -> Callable[[Json], None]:
    return lambda content: content.update(fields)


def _three_steps(record: Json) -> None:
    record["steps"] = dict(list(record["steps"].items())[:3])


def _other_keys(record: Json) -> None:
    for step in record["steps"].values():
        step["key"] = sha256(step["key"].encode()).hexdigest()


def _other_pins(record: Json) -> None:
    for pin in record["pins"].values():
        pin["digest"] = sha256(pin.get("digest", "").encode()).hexdigest()


def _unfinished_step(record: Json) -> None:
    for step in list(record["steps"].values())[:1]:
        step["state"] = "failed"


def _unknown_step(table: Json) -> None:
    """One cell that no step of the plan measured."""
    cells = [cell for cell in _listed(table) if cell.get("step")]
    if len(cells) > 1:
        cells[0]["step"] = "by-hand"


def _without_hash(run: Path) -> bool:
    """The record does not name the table."""
    fit(run, named=False)
    return (run / RECORD).is_file()


TAMPERINGS = (
    Tampering("all canaries removed", _file(RESULTS, _set(canaries=[])), "canary "),
    Tampering("one canary of one step removed", _file(RESULTS, _without_canary), "canary "),
    Tampering("statistics removed", _file(RESULTS, _without_statistics), "beside the listed"),
    Tampering("k and n removed", _file(RESULTS, _stripped("k", "n")), "counts (k of n)"),
    Tampering("k removed", _file(RESULTS, _stripped("k")), "counts (k of n)"),
    Tampering("references to labels removed", _file(RESULTS, _stripped("labels")), "labels of"),
    Tampering("labels moved to other items", _labels(_shuffled), f"{LABELS} is not what"),
    Tampering("items of labels renamed", _labels(_renamed), f"{LABELS} is not what"),
    Tampering("two replicates removed", _file(RESULTS, _without_replicates), "replicates of"),
    Tampering("half the seeds of a cell removed", _file(RESULTS, _fewer_seeds), "replicates of 1"),
    Tampering(
        "record of another experiment",
        _file(RECORD, _set(experiment="another")),
        "of another experiment",
    ),
    Tampering("record of a failed run", _file(RECORD, _set(status="failed")), "recorded as failed"),
    Tampering("record of three steps", _file(RECORD, _three_steps), f"steps are not in {RECORD}"),
    Tampering("record with other keys", _file(RECORD, _other_keys), "under another key"),
    Tampering("record with other pins", _file(RECORD, _other_pins), f"not as {RECORD} has it"),
    Tampering(
        "record of an older run with uncommitted changes",
        _file(RECORD, _set(started="2019-03-04T05:06:07.000Z", commit="0" * 40, dirty=True)),
        "knows no run that began",
    ),
    Tampering("a failed step in the record", _file(RECORD, _unfinished_step), "did not finish"),
    Tampering("plan of another seed", _file(PLAN, _set(seed=987654321)), "differ in seed"),
    Tampering("a cell of no step", _file(RESULTS, _unknown_step), f"no step of {PLAN}"),
    Tampering("no hash of the table", _without_hash, "does not name the sha256", fitted=False),
    Tampering("events removed", _removed(EVENTS), "knows no run that began"),
    Tampering("record removed", _removed(RECORD), f"{RECORD} is not there"),
    Tampering("plan removed", _removed(PLAN), f"{PLAN} is not there"),
    Tampering("hashes removed", _removed(SUMS), f"{SUMS} is not there"),
    Tampering(
        "table edited, hashes left",
        _file(RESULTS, _set(canaries=[])),
        "is not as it was left",
        refused=True,
        fitted=False,
    ),
    Tampering(
        "record removed, hashes left",
        _removed(RECORD),
        "is not there any more",
        refused=True,
        fitted=False,
    ),
)
"""All of them, at least one a line of what a whole run has (:mod:`kit.verify.whole`)."""
