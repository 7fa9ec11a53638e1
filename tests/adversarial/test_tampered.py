"""A run directory that says what is not so: caught, by which word and exit code."""

from __future__ import annotations

import json
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from kit.cli.main import run as kit
from kit.verify.tampered import TAMPERINGS, Tampering, try_all
from tests import run_files
from tests.adversarial import whole_run


def outcome(run: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """Exit code of ``kit verify`` and all that it says."""
    capsys.readouterr()
    code = kit(["verify", str(run)])
    said = capsys.readouterr()
    return code, said.out + said.err


def test_the_run_itself_is_reproduced(run_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, said = outcome(run_dir, capsys)
    assert (code, said.splitlines()[0]) == (0, "REPRODUCED (2 of 2 primary claims)")


def test_a_replicate_in_which_a_ratio_is_undefined_is_not_absent(
    repo: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = whole_run.write(repo / "runs" / "made-mini-2", without_gap="far-3")
    code, said = outcome(run, capsys)
    table = json.loads((run / "results.json").read_text())
    seeds = {cell["id"]: len(cell["seeds"]) for cell in table["cells"]}
    assert (seeds["far/gap-closed/adapted"], seeds["far/asr-max/full"]) == (4, 5)
    assert (code, "not whole" in said) == (0, False)


@pytest.mark.parametrize("way", TAMPERINGS, ids=lambda way: way.name)
def test_each_way_is_caught(
    way: Tampering, run_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = tmp_path / "copy"
    assert way.copy(run_dir, copy)
    code, said = outcome(copy, capsys)
    assert code == (4 if way.refused else 3)
    assert way.says in said
    if not way.refused:
        verdict: dict[str, Any] = json.loads((copy / "verdict.json").read_text())
        assert verdict["verdict"] == "INCOMPLETE"
        assert any(way.says in reason for reason in verdict["reasons"])


def test_the_selftest_does_the_same_to_a_readers_own_run(
    run_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path: path.read_bytes() for path in run_dir.iterdir()}
    assert kit(["verify", str(run_dir), "--selftest", "--all"]) == 0
    said = [line for line in capsys.readouterr().out.splitlines() if "selftest run, " in line]
    assert len(said) == len(TAMPERINGS)
    assert all(f"{way.name}: caught (" in line for way, line in zip(TAMPERINGS, said, strict=True))
    assert {path: path.read_bytes() for path in run_dir.iterdir()} == before


def test_what_gets_through_and_what_cannot_be_done_are_said(run_dir: Path) -> None:
    """The selftest can fail: a way whose traces nobody looks for, and one without a target."""
    harmless = Tampering("a note in the record", lambda run: True, "nobody says this")
    absent = Tampering("nothing", lambda run: False, "")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("kit.verify.tampered.TAMPERINGS", (harmless, absent))
        through, undone = try_all(run_dir)
    assert (through.caught, through.says) == (False, "REPRODUCED; 2 of 2 primary claims hold")
    assert undone.caught is None


@pytest.mark.parametrize(("seeds", "whole"), [(10, True), (9, False)])
def test_a_statistic_over_several_steps_names_none_and_has_all_replicates_of_some(
    seeds: int, whole: bool, repo: Path, run_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    expectation = repo / "expected_results/family/made.mini.yaml"
    listed = whole_run.EXPECTATION.replace("present:\n", 'present:\n  - "all/mean-over-arm/none"\n')
    expectation.write_text(listed)
    table = json.loads((run_dir / "results.json").read_text())
    names = [f"{arm}-{i}" for arm in ("near", "far") for i in range(5)][:seeds]
    values = [{"seed": name, "value": 50.0} for name in names]
    pooled = {"id": "all/mean-over-arm/none", "unit": "percent", "value": 50.0, "seeds": values}
    table["cells"].append(pooled)
    (run_dir / "results.json").write_text(json.dumps(table))
    digest = sha256((run_dir / "results.json").read_bytes()).hexdigest()
    record = json.loads((run_dir / "record.json").read_text())
    record["results_sha256"] = record["steps"]["table"]["outputs"]["results.json"]["sha256"] = (
        digest
    )
    (run_dir / "record.json").write_text(json.dumps(record))
    run_files.close(run_dir)
    _, said = outcome(run_dir, capsys)
    assert ("no step of plan.json: all/mean-over-arm/none" not in said) is whole
    assert ("not whole" not in said) is whole
