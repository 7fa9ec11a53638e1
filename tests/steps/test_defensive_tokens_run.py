"""Every DefensiveTokens step through the real engine, on shipped miniature models."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.steps import small


def _run(manifest: Path, folder: Path, *extra: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "kit.cli.main", "--progress", "plain", "run", str(manifest)]
    environment = {**os.environ, "KIT_HOME": str(folder / "home")}
    return subprocess.run(
        [*command, "--runs-dir", str(folder / "runs"), "--jobs", "1", *extra],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )


def _results(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    assert done.returncode == 0, done.stderr
    run = Path(done.stdout.splitlines()[-1])
    results: dict[str, Any] = json.loads((run / "results.json").read_text())
    return results


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("small")
    return folder, _results(_run(small.write(folder), folder))


def test_all_token_sets_are_measured(finished: tuple[Path, dict[str, Any]]) -> None:
    cells = {cell["id"] for cell in finished[1]["cells"]}
    sets = ("undefended", "native", "procrustes", "copy", "adapt-2", "adapt-6", "scratch-6")
    for name in sets:
        for metric in ("asr-max", "asr-ignore", "refusal", "accuracy"):
            assert f"other-seed/{metric}/{name}" in cells
        for name_of_statistic in ("empty-rate", "truncated-rate", "refusal-rate"):
            assert f"stats/other-seed/{name}/{name_of_statistic}" in cells
    assert "other-seed/gap-closed/adapt-6" in cells
    assert "other-seed/alignment/residual" in {c.rsplit("@")[0] for c in cells}


def test_proportions_carry_their_items(finished: tuple[Path, dict[str, Any]]) -> None:
    for cell in finished[1]["cells"]:
        if "/asr-" in cell["id"] and cell["id"].startswith("other-seed"):
            assert cell["n"] == 208
            assert cell["value"] == pytest.approx(100 * cell["k"] / 208)


def test_every_canary_passed(finished: tuple[Path, dict[str, Any]]) -> None:
    canaries = {canary["id"]: canary for canary in finished[1]["canaries"]}
    expected = {
        "map-is-orthogonal",
        "test-word-leak",
        "labels-are-answers",
        "prefix-moved",
        "model-is-frozen",
        "attack-present",
        "prefix-in-place",
        "labels-differ-between-sets",
    }
    assert expected <= canaries.keys()
    assert all(canary["passed"] for canary in canaries.values())


def test_undefended_falls_and_released_tokens_defend(
    finished: tuple[Path, dict[str, Any]],
) -> None:
    value = {cell["id"]: cell["value"] for cell in finished[1]["cells"]}
    assert value["other-seed/asr-max/undefended"] >= 60
    assert value["other-seed/asr-max/native"] <= 5


def test_two_runs_with_one_seed_give_equal_tables(
    finished: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    again = _results(_run(small.write(tmp_path), tmp_path))
    assert again["cells"] == finished[1]["cells"]


def test_a_second_run_takes_everything_from_the_store(
    finished: tuple[Path, dict[str, Any]],
) -> None:
    folder, results = finished
    done = _run(folder / "small.json", folder)
    assert _results(done)["cells"] == results["cells"]
    assert "8 cached" in done.stdout + done.stderr


def test_the_held_out_mixture_contains_no_test_word(tmp_path: Path) -> None:
    path = small.write(tmp_path, **{"data.builder": "proper", "labels.empty_data": "no-turn"})
    results = _results(_run(path, tmp_path))
    leak = next(c for c in results["canaries"] if c["id"] == "test-word-leak")
    assert leak["passed"]
    assert leak["detail"].startswith("0 of")
