"""The table that opens the README."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from kit.report.main_claims import _rehearsed, block
from kit.verify.published import verdict_on_reference

ROOT = Path(__file__).parents[2]
MINI = ROOT / "expected_results" / "defensive_tokens" / "tiny-adapt.mini.yaml"


@pytest.fixture(scope="module")
def rows() -> dict[str, list[str]]:
    lines = block(ROOT).splitlines()[2:]
    cells = [[part.strip() for part in line.strip("| ").split(" | ")] for line in lines]
    return {row[0].strip("`"): row[1:] for row in cells}


def test_each_scale_has_its_own_column(rows: dict[str, list[str]]) -> None:
    row = rows["tiny-adapt"]
    assert row[0] == "\u201c200 steps of tiny-adapt reduces this to 1.9%\u201d"
    assert row[1] == "carried"
    assert row[2].startswith("**holds**: 200 steps bring ASR from 94.2 % to 10.0 %")
    assert row[3].endswith("; not run")
    assert row[4].startswith("1 x H200")
    assert row[5] == "not run"
    assert rows["tar-bio"][3] == "-"


def test_a_rehearsal_counts_for_its_own_scale(tmp_path: Path) -> None:
    folder = tmp_path / "benchmarks"
    folder.mkdir()
    for profile, card in (("paper", "H200"), ("small", "RTX 4090")):
        record = {"experiment": "e", "profile": profile, "hardware": {"gpus": [{"name": card}]}}
        (folder / f"rehearsal-e-{profile}.json").write_text(json.dumps(record))
    assert _rehearsed(tmp_path, "e", small=False) == "1 x H200"
    assert _rehearsed(tmp_path, "e", small=True) == "1 x RTX"
    assert _rehearsed(tmp_path, "other", small=True) == "no"


def test_only_what_a_document_did_stands_in_it(rows: dict[str, list[str]]) -> None:
    assert "tiny-adapt-heldout" not in rows  # corrected
    assert {"tiny-adapt", "ct-coefficient-grid", "tar-bio"} <= rows.keys()


def test_a_record_that_says_otherwise_changes_the_outcome(tmp_path: Path) -> None:
    """The outcome is computed from the values of the record, not written anywhere."""
    folder = tmp_path / "expected_results" / "defensive_tokens"
    folder.mkdir(parents=True)
    yaml = YAML()
    content = yaml.load(MINI.read_text())
    record = (MINI.parent / content["record"]).read_text().splitlines()
    lines = [json.loads(line) for line in record]
    for line in lines:
        new = {"adapt-200": 97.0, "procrustes": 20.0}.get(line.get("id", "").split("/")[-1])
        if new is not None and line["id"].startswith("newer-version/asr-max/"):
            for seed in line["seeds"]:
                seed.update(value=new, k=None)
            line.update(value=new, k=None)
    content["record"] = "record.jsonl"
    yaml.dump(content, folder / MINI.name)
    (folder / "record.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))

    def outcome(path: Path) -> str:
        verdict = verdict_on_reference(path)
        assert verdict is not None
        return next(claim.outcome for claim in verdict.claims if claim.id == content["main"])

    assert outcome(MINI) == "holds"
    assert outcome(folder / MINI.name) == "fails"


@pytest.mark.parametrize("id", ["newer-version/asr-max/adapt-200", "other-seed/asr-max/adapt-200"])
def test_replicates_of_all_runs_are_put_together(id: str) -> None:
    verdict = verdict_on_reference(MINI)
    assert verdict is not None
    record = MINI.parent / "../reference/tiny-adapt.mini.jsonl"
    lines = [json.loads(line) for line in record.read_text().splitlines()]
    values = [s["value"] for line in lines if line.get("id") == id for s in line["seeds"]]
    cell = next(cell for cell in verdict.cells if cell.id == id)
    assert cell.value is not None
    assert len(values) > 5
    assert cell.value == pytest.approx(sum(values) / len(values), rel=1e-9)
