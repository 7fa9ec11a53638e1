"""Blind runs: what should come out cannot be read until the results are hashed."""

from __future__ import annotations

import os
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import pytest

from kit.engine import blind
from kit.errors import StepFailed, UsageError
from kit.manifest.catalog import Catalog
from kit.results.run import Run
from tests.engine.conftest import manifest, plan_of
from tests.engine.test_session import failing, record

EXPECTED = Catalog().root / "expected_results" / "defensive_tokens" / "tiny-adapt.mini.yaml"
RECORD = EXPECTED.parents[1] / "reference" / "tiny-adapt.mini.jsonl"


def test_the_record_and_every_report_say_so(run_toy: Callable[..., Path]) -> None:
    folder = run_toy(blind=True)
    made = record(folder)
    assert made["blind"] == {"from_store": 0}
    assert made["results_sha256"] == sha256((folder / "results.json").read_bytes()).hexdigest()
    again = Run(run_toy(blind=True)).record
    assert again is not None
    assert again.blind is not None
    assert again.blind.words == (
        f"results hashed before the expectation was read; {len(again.steps)} steps cached"
    )
    assert record(run_toy())["blind"] is None


@pytest.mark.parametrize("path", [EXPECTED, RECORD])
def test_a_step_that_looks_it_up_fails(run_toy: Callable[..., Path], path: Path) -> None:
    plan = failing(f"read {path}")
    with pytest.raises(StepFailed, match="the run is blind") as caught:
        run_toy(plan, blind=True)
    assert path.name in str(caught.value)
    assert EXPECTED.read_bytes(), "open again, also after a failure"
    assert blind.VARIABLE not in os.environ
    step = {"id": "f", "kind": "toy/fail", "version": 1}
    profile = {"summary": "s", "set": {"f": {"how": f"read {path}"}}}
    made = plan_of(manifest(steps=[step], results="f", profiles={"mini": profile}))
    with pytest.raises(StepFailed, match=r"left no results\.json"):  # it could read, and went on
        run_toy(made)


def test_a_link_does_not_lead_around_it(tmp_path: Path) -> None:
    link = tmp_path / "innocent"
    link.symlink_to(EXPECTED.parent, target_is_directory=True)
    blind.close([EXPECTED.parents[1]], {})
    try:
        with pytest.raises(PermissionError, match="the run is blind"):
            (link / EXPECTED.name).read_bytes()
        with pytest.raises(PermissionError):
            os.open(EXPECTED, os.O_RDONLY)
        assert (Catalog().root / "pyproject.toml").read_bytes()
    finally:
        blind.open_again({})
    assert (link / EXPECTED.name).read_bytes()


def test_an_expectation_of_ones_own_is_closed_as_well(repo: Path, tmp_path: Path) -> None:
    shipped = repo / "expected_results"
    assert blind.closed_paths("demo", "mini") == [shipped]
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "demo.yaml").write_bytes(Catalog().manifest_path("demo").read_bytes())
    (folder / "demo.mini.reference.jsonl").touch()
    expected = folder / "demo.mini.expected.yaml"
    expected.touch()
    assert blind.closed_paths(folder / "demo.yaml", "mini") == [
        shipped,
        expected,
        folder / "demo.mini.reference.jsonl",
    ]


def test_not_on_a_cluster() -> None:
    from kit.cli.planning import chosen_options

    with pytest.raises(UsageError, match="--blind"):
        chosen_options(
            executor="slurm", slurm_parameters=(), max_jobs=None, jobs=None, check=False, blind=True
        )


@pytest.mark.parametrize("closed", [True, False])
def test_the_processes_of_steps_refuse_what_the_run_refuses(tmp_path: Path, closed: bool) -> None:
    """Two paths; a path that only begins alike is open, and what has no path is not asked for."""
    for name in ("a", "b", "ab"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text(name)
    environ = {blind.VARIABLE: os.pathsep.join([str(tmp_path / "a"), str(tmp_path / "b" / "file")])}
    blind.close_if_blind(environ if closed else {blind.VARIABLE: ""})
    try:
        for file in (tmp_path / "a" / "file", tmp_path / "b" / "file"):
            if closed:
                with pytest.raises(PermissionError, match="the run is blind"):
                    file.read_text()
                with pytest.raises(PermissionError, match="the run is blind"):
                    os.open(os.fsencode(file), os.O_RDONLY)
            else:
                assert file.read_text()
        assert (tmp_path / "ab" / "file").read_text() == "ab"
        with os.fdopen(os.open(tmp_path / "ab" / "file", os.O_RDONLY)) as file:
            assert file.read() == "ab"
    finally:
        blind.open_again({})
    assert blind.VARIABLE not in os.environ
