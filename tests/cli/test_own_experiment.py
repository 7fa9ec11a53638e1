"""A paper of somebody's own, outside of the repository: step kinds, manifest, expectation."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.typed import typed

ROOT = Path(__file__).parents[2]
STEPS = """
import json
import random

from msgspec import Struct

from kit.engine.context import StepContext
from kit.engine.registry import REGISTRY, NoParams, StepKind


class Flip(Struct, frozen=True, forbid_unknown_fields=True):
    seed: int
    n: int


def flip(context: StepContext, params: Flip) -> None:
    coin = random.Random(params.seed)
    k = sum(coin.random() < 0.5 for _ in range(params.n))
    context.canary("both-sides", 0 < k < params.n, f"{k} of {params.n}")
    made = {"seed": str(params.seed), "k": k, "n": params.n, "value": 100 * k / params.n}
    (context.out / "count.json").write_text(json.dumps(made))


def table(context: StepContext, params: NoParams) -> None:
    seeds = [json.loads((one.path / "count.json").read_text()) for one in context.steps("flips")]
    mean = sum(one["value"] for one in seeds) / len(seeds)
    cell = {"id": "coin/heads", "unit": "percent", "value": mean, "seeds": seeds}
    made = {"schema_version": 1, "experiment": "", "version": "", "profile": "", "cells": [cell]}
    (context.out / "results.json").write_text(json.dumps(made))


REGISTRY.add(StepKind("coins/flip", 1, Flip, flip, {}, ("count.json",)))
REGISTRY.add(StepKind("coins/table", 1, NoParams, table, {"flips": "steps"}, ("results.json",)))
"""
MANIFEST = """
schema_version: 1
id: coin
family: coins
version: 1-A
title: "A fair coin"
summary: "Coins are flipped."
variant: as-reported
documents:
  - { id: paper, title: "On coins", cite: "arXiv 2601.00001v1" }
steps:
  - { id: flip, kind: coins/flip, version: 1, each: [seed] }
  - { id: table, kind: coins/table, version: 1, inputs: { flips: { step: flip } } }
axes: { seed: replicate }
results: table
profiles:
  mini:
    summary: "Five seeds."
    matrix: { seed: [1, 2, 3, 4, 5] }
    set:
      flip: { seed: "${seed}", n: 1000 }
"""
EXPECTATION = """
schema_version: 1
experiment: coin
profile: mini
version: 1-A
cells:
  - id: coin/heads
    status: reported
    value: "50.1"
    unit: percent
    n: 1000
    direction: none
    place: "paper, table 1"
    tolerance: { kind: seeds, margin: "5", source: "author", reason: "convention" }
claims:
  - id: fair
    kind: threshold
    primary: true
    sentence: "Heads come up at least 40 % of the time."
    tested: "heads come up {0} of the time"
    place: "paper, abstract"
    cells: [coin/heads]
    value: "40"
    side: at_least
"""
Type = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def paper(tmp_path: Path) -> Path:
    """A folder with a package of step kinds, a manifest and its expectation."""
    folder = tmp_path / "my paper"
    folder.mkdir()
    (tmp_path / "coin_steps.py").write_text(STEPS)
    (tmp_path / "pyproject.toml").write_text('[tool.kit]\nsteps = ["coin_steps"]\n')
    (folder / "coin.yaml").write_text(MANIFEST)
    (folder / "coin.mini.expected.yaml").write_text(EXPECTATION)
    return folder


@pytest.fixture
def kit(tmp_path: Path, paper: Path) -> Type:
    """The command line as another process, beside that folder."""

    def call(*arguments: str) -> subprocess.CompletedProcess[str]:
        return typed(tmp_path, *arguments, KIT_HOME=str(tmp_path / "home"))

    return call


def test_from_validate_to_report(kit: Type, paper: Path) -> None:
    found = kit("validate", "my paper")
    assert found.returncode == 0, found.stdout
    assert "2 files: 0 errors" in found.stdout
    found = kit("reproduce", "my paper/coin.yaml")
    assert found.returncode == 0, found.stderr
    said = " ".join(found.stdout.split())
    assert "(1 of 1 primary claims); published numbers: not run" in said, said[-400:]
    report = paper.parent / found.stdout.splitlines()[-1]
    text = report.read_text()
    assert "A fair coin" in text
    assert "On coins" in text
    assert "convention" in text  # out of the expectation
    run = report.parent
    assert json.loads((run / "verdict.json").read_text())["expectation"].startswith("coin.mini")
    found = kit("verify", str(run))
    assert found.returncode == 0, found.stderr


def test_its_record_of_reference_runs_stands_beside_its_expectation(kit: Type, paper: Path) -> None:
    before = sorted((ROOT / "expected_results").rglob("*"))
    run = kit("run", "my paper/coin.yaml").stdout.splitlines()[-1]
    found = kit("reference", "my paper/coin.yaml", run)
    assert found.returncode == 0, found.stderr
    assert (paper / "coin.mini.reference.jsonl").is_file()
    assert "record: coin.mini.reference.jsonl" in (paper / "coin.mini.expected.yaml").read_text()
    assert sorted((ROOT / "expected_results").rglob("*")) == before


def test_an_id_of_the_repository_does_not_borrow_its_numbers(kit: Type, paper: Path) -> None:
    manifest = paper / "tiny-adapt.yaml"
    manifest.write_text(MANIFEST.replace("id: coin", "id: tiny-adapt"))
    run = kit("run", "my paper/tiny-adapt.yaml").stdout.splitlines()[-1]
    found = kit("verify", run)
    assert found.returncode == 3
    assert "NOT COMPARED" in found.stdout
    assert "(no expectation; 1 cell measured)" in found.stdout
    found = kit("report", run)
    assert found.returncode == 0, found.stderr
    text = (paper.parent / run / "report.html").read_text()
    assert "No expectation says what should have come out" in text
    assert "coin" in text
    assert "heads" in text
    (paper / "tiny-adapt.mini.expected.yaml").write_text(
        EXPECTATION.replace("experiment: coin", "experiment: tiny-adapt")
    )
    found = kit("report", run)  # what is in the run is no verdict on the new expectation
    assert found.returncode == 4
    assert "the verdict does not follow from the files beside it" in found.stderr
    assert kit("verify", run).returncode == 0
    manifest.unlink()
    found = kit("verify", run)
    assert found.returncode == 4
    assert "the manifest that was run is not here any more" in found.stderr


def test_what_is_missing_is_fetched_by_the_path_of_the_manifest(kit: Type, paper: Path) -> None:
    steps = paper.parent / "coin_steps.py"
    steps.write_text(STEPS.replace("flip, {}", 'flip, {"data": "pin"}'))
    (paper / "coin.yaml").write_text(
        MANIFEST.replace("each: [seed] }", "each: [seed], inputs: { data: { pin: sheet } } }")
    )
    (paper / "pins.yaml").write_text(
        "schema_version: 1\npins:\n  - { id: sheet, kind: file, title: Sheet, licence: CC0-1.0, "
        f"url: 'https://example.org/{'0' * 40}/s', "
        f"files: [{{ path: s, sha256: '{'0' * 64}' }}] }}\n"
    )
    found = kit("run", "my paper/coin.yaml")
    assert found.returncode == 4
    assert f"next: kit fetch '{paper}/coin.yaml' --profile mini" in found.stderr


@pytest.mark.parametrize(
    ("project", "says"),
    [
        (
            '[tool.kit]\nsteps = ["nobody.has_this"]',
            "pyproject.toml: the step module 'nobody.has_th",
        ),
        (
            '[tool.kit]\nsteps = ["broken_steps"]',
            "broken_steps.py:2: the step module 'broken_steps'",
        ),
        ('[tool.kit]\nsteps = "coin_steps"', "steps is no list of module names"),
        ("[tool.kit", "pyproject.toml: it cannot be read"),
        ("", 'kinds of your own: [tool.kit] steps = ["your.module"]'),
    ],
)
def test_step_modules_that_cannot_be_had(kit: Type, paper: Path, project: str, says: str) -> None:
    (paper.parent / "broken_steps.py").write_text("import json\n1 / 0\n")
    (paper.parent / "pyproject.toml").write_text(project)
    found = kit("plan", "my paper/coin.yaml")
    assert found.returncode == 4
    assert says in found.stderr
    assert "fault of the kit" not in found.stderr


def test_of_a_folder_its_own_files_are_checked_and_nothing_else(kit: Type, paper: Path) -> None:
    (paper / "runs" / "x").mkdir(parents=True)
    (paper / "runs" / "x" / "results.json").write_text('{"cells": []}')
    (paper / "data.json").write_text("[1, 2]")
    (paper / "mkdocs.yml").write_text("site_name: x\n")
    expectation = paper / "coin.mini.expected.yaml"
    expectation.write_text(EXPECTATION.replace("profile: mini", "profile: maxi"))
    found = kit("validate", "my paper")
    assert found.returncode == 4
    assert "coin.mini.expected.yaml:4:10: error: 'coin' has no profile 'maxi'" in found.stdout
    assert "2 files: " in found.stdout
    expectation.unlink()
    (paper / "coin.yaml").rename(paper / "coin.txt")
    found = kit("validate", "my paper")
    assert found.returncode == 4
    assert "no manifest, pins or expectation in this folder" in found.stderr
