"""What belongs to a run: its manifest, its expectation, and the documents' own numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from kit.durable import sha256_file
from kit.manifest.catalog import Catalog
from kit.report.files import Run, read_run
from kit.report.session import expectation_of, manifest_of, published_of
from tests.report.builders import verdict
from tests.report.runs import plan, write_run

ROOT = Path(__file__).resolve().parents[2]
MINI = ROOT / "expected_results" / "defensive_tokens" / "tiny-adapt.mini.yaml"
PAPER = MINI.with_name("tiny-adapt.paper.yaml")


@pytest.fixture
def made(tmp_path: Path) -> Any:
    def make(own: str = "", **fields: Any) -> Run:
        return read_run(
            write_run(tmp_path, verdict=verdict(**fields), plan={**plan(), "manifest": own})
        )

    return make


def test_a_manifest_belongs_to_runs_of_its_version(made: Any) -> None:
    number = Catalog().manifest("tiny-adapt").version.partition("-")[0]
    same = manifest_of(made(version=f"{number}-Z"))
    assert same is not None
    assert same.id == "tiny-adapt"
    assert manifest_of(made(version=f"{number}0-A")) is None
    assert manifest_of(made(experiment="nothing-of-that-name")) is None


def test_an_expectation_is_known_by_its_hash_alone(made: Any, tmp_path: Path) -> None:
    found = expectation_of(made(expectation_sha256=sha256_file(MINI)))
    assert found is not None
    assert (found.experiment, found.profile) == ("tiny-adapt", "mini")
    assert expectation_of(made(expectation_sha256="0" * 64)) is None
    assert expectation_of(made(expectation_sha256="0" * 64, expectation="no/such/file")) is None
    other = expectation_of(
        made(expectation=str(PAPER.relative_to(ROOT)), expectation_sha256=sha256_file(PAPER))
    )
    assert other is not None, "the file that the verdict names, where the repository has another"
    assert other.profile == "paper"
    nowhere = made(experiment="no-such", expectation_sha256=sha256_file(MINI))
    assert expectation_of(nowhere) is None


def test_published_numbers_stand_over_other_profiles_only(made: Any) -> None:
    published = published_of(made())
    assert published is not None
    assert published.profile == "paper"
    assert published_of(made(profile="paper")) is None
    assert published_of(made(experiment="no-such")) is None


def test_a_manifest_of_ones_own_is_asked_by_its_path(made: Any, tmp_path: Path) -> None:
    text = Catalog().manifest_path("tiny-adapt").read_text(encoding="utf-8")
    own = tmp_path / "own" / "mine.yaml"
    own.parent.mkdir()
    own.write_text(text.replace("id: tiny-adapt\n", "id: mine\n", 1), encoding="utf-8")
    number = Catalog().manifest("tiny-adapt").version
    manifest = manifest_of(made(str(own), version=number))
    assert manifest is not None
    assert manifest.id == "mine"
