"""A run directory as its types."""

from __future__ import annotations

import json
from hashlib import sha256
from pathlib import Path

import pytest

from kit.errors import InvalidInput
from kit.results.axes import Origin
from kit.results.builder import TableBuilder
from kit.results.files import close
from kit.results.run import Run, open_run
from tests import run_files


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A finished run with one cell."""
    table = TableBuilder()
    table.at(Origin("near", "0")).proportion("asr", "lora", [1, 0], ["a", "b"])
    table.build().write(tmp_path)
    digest = sha256((tmp_path / "results.json").read_bytes()).hexdigest()
    run_files.write(tmp_path, run_files.plan(), run_files.record(results_sha256=digest))
    return tmp_path


def test_every_file_has_its_type(folder: Path) -> None:
    run = open_run(folder)
    (cell,) = run.results.cells
    assert (cell.id, cell.k) == ("near/asr/lora", 1)
    assert run.labels.get(cell.labels or "").labels == [1, 0]
    assert run.plan is not None
    assert run.record is not None
    assert (run.plan.results, run.record.status) == ("table", "finished")
    assert (run.has_labels, run.closed, run.name) == (True, False, folder.name)
    assert (run.overrides, run.rehearsal, run.notes, run.manifest) == ([], False, [], "")


def test_a_table_without_plan_and_record_can_be_read(folder: Path) -> None:
    for name in ("plan.json", "record.json"):
        (folder / name).unlink()
    run = open_run(folder)
    assert run.results.cells
    assert run.plan is None
    assert run.record is None
    assert (run.overrides, run.rehearsal, run.notes, run.manifest) == ([], False, [], "")


def test_no_directory_and_no_table_say_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="there is no such run directory"):
        Run(tmp_path / "none")
    with pytest.raises(InvalidInput, match=r"there is no results\.json here") as caught:
        open_run(tmp_path)
    assert "continues where it stopped" in caught.value.next_step


def test_another_table_than_the_record_names_is_refused(folder: Path) -> None:
    table = folder / "results.json"
    table.write_text(table.read_text().replace("50.0", "60.0"))
    with pytest.raises(InvalidInput, match="is not the table that this run wrote"):
        open_run(folder)


@pytest.mark.parametrize("name", ["plan.json", "record.json", "results.json", "labels.jsonl"])
@pytest.mark.parametrize(
    "content", [b"", b"{", b'{"schema_version": 1, "id": "\xff"}', b"[" * 100_000, b"3"]
)
def test_a_damaged_file_is_named(folder: Path, name: str, content: bytes) -> None:
    run = Run(folder)
    (folder / name).write_bytes(content)
    with pytest.raises(InvalidInput) as caught:
        _ = run.plan, run.record, run.results, run.labels.get("labels.jsonl#near/asr/lora#0")
    assert str(folder / name) in caught.value.where


def test_what_was_changed_is_said_by_record_or_plan(folder: Path) -> None:
    run_files.write(folder, run_files.record(modified=True, seed=7))
    assert Run(folder).overrides == ["seed=7"]
    run_files.write(folder, run_files.record(overrides=["train.lr=1"], modified=True))
    assert Run(folder).overrides == ["train.lr=1"]
    run_files.write(folder, run_files.record(), run_files.plan(modified=True, notes=["n"]))
    assert Run(folder).overrides == ["modified"]
    assert Run(folder).notes == ["n"]
    run_files.write(folder, run_files.plan(rehearsal=True, manifest="own.yaml"))
    assert (Run(folder).rehearsal, Run(folder).manifest) == (True, "own.yaml")


def test_a_table_of_the_first_release_is_named(tmp_path: Path) -> None:
    """The shape changed and the number of the format did not: a sentence says so."""
    cell = {"id": "loss/a/b", "unit": "loss", "value": None, "series": [[0, 0.5], [1, 0.25]]}
    table = {"schema_version": 1, "experiment": "e", "version": "1-A", "profile": "mini"}
    (tmp_path / "results.json").write_text(json.dumps(table | {"cells": [cell]}))
    with pytest.raises(InvalidInput, match=r"written by kit 0\.1\.0, in another shape") as caught:
        _ = Run(tmp_path).results
    assert caught.value.where.endswith("results.json")
    assert "kit run again" in caught.value.next_step
    # Any other strange field is no sign of age.
    (tmp_path / "results.json").write_text(json.dumps(table | {"cells": [{"id": "a", "odd": 2}]}))
    with pytest.raises(InvalidInput, match="does not have the expected shape"):
        _ = Run(tmp_path).results


def test_hashes_of_a_closed_run_hold_every_file(folder: Path) -> None:
    close(folder)
    sums = folder / "SHA256SUMS"
    assert Run(folder).closed
    Run(folder).check_sums()
    whole = sums.read_text()
    for text, said in (
        (whole + "no line\n", "no line of sha256sum"),
        (whole.replace("plan.json", "plan.jsn"), r"plan\.jsn is not there any more"),
        ("".join(whole.splitlines(keepends=True)[1:]), "was not there when the run ended"),
    ):
        sums.write_text(text)
        with pytest.raises(InvalidInput, match=said) as caught:
            Run(folder).check_sums()
    sums.write_text(whole + "no line\n")
    with pytest.raises(InvalidInput) as caught:
        Run(folder).check_sums()
    assert caught.value.where == f"{sums}:{whole.count(chr(10)) + 1}"
    sums.write_text(whole)
    (folder / "plan.json").write_text((folder / "plan.json").read_text() + " ")
    with pytest.raises(InvalidInput, match=r"plan\.json is not as it was left") as caught:
        Run(folder).check_sums()
    assert caught.value.where == str(folder / "plan.json")
    sums.unlink()
    Run(folder).check_sums()
