"""The reproduction log."""

from __future__ import annotations

import json
from hashlib import sha256
from pathlib import Path

import pytest

from kit.errors import InvalidInput
from kit.manifest import docs
from kit.report.files import read_run
from kit.report.log import add, entries, entry
from kit.report.pooled import page
from kit.verify.verdict import Interval
from tests.report.builders import cell, claim, verdict
from tests.report.extremes import HOSTILE, write_hostile
from tests.report.runs import plan, write_run


def test_entry_binds_itself_to_the_verdict(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run")
    path = add(read_run(folder), tmp_path / "log")
    written = json.loads(path.read_text())
    digest = sha256((folder / "verdict.json").read_bytes()).hexdigest()
    assert written["verdict_sha256"] == digest
    own = sha256((folder / "record.json").read_bytes()).hexdigest()
    assert path.name == f"2026-11-21-tiny-adapt-mini-{own[:8]}.json"
    assert written["verdict"] == "PARTIALLY"
    assert written["hardware"] == "AMD EPYC 9554 (2 cores, 7.8 GB)"
    assert [one["outcome"] for one in written["claims"]] == ["holds", "holds", "undetermined"]
    assert written["variant"] == "as-reported"


def test_no_name_unless_given(tmp_path: Path) -> None:
    run = read_run(write_run(tmp_path / "run"))
    assert json.loads(add(run, tmp_path / "log").read_text())["name"] is None
    named = add(run, tmp_path / "log", name="A. Reader", hardware="a laptop")
    assert json.loads(named.read_text())["name"] == "A. Reader"
    assert json.loads(named.read_text())["hardware"] == "a laptop"
    assert len(list((tmp_path / "log").iterdir())) == 1


def test_same_run_same_bytes(tmp_path: Path) -> None:
    run = read_run(write_run(tmp_path / "run"))
    first = add(run, tmp_path / "log").read_bytes()
    assert add(run, tmp_path / "log").read_bytes() == first


@pytest.mark.parametrize(
    ("word", "says"),
    [("REHEARSED", "a rehearsal is no rep"), ("NOT COMPARED", "nothing was compared with is no")],
)
def test_what_says_nothing_of_a_claim_is_refused(tmp_path: Path, word: str, says: str) -> None:
    made = verdict(verdict=word, exit_code=0)
    run = read_run(write_run(tmp_path / "run", verdict=made))
    with pytest.raises(InvalidInput, match=says):
        add(run, tmp_path / "log")
    assert not (tmp_path / "log").exists()


def test_hardware_must_be_known(tmp_path: Path) -> None:
    run = read_run(write_run(tmp_path / "run", record=None))
    with pytest.raises(InvalidInput, match="hardware"):
        add(run, tmp_path / "log")
    assert add(run, tmp_path / "log", hardware="one H100").exists()


def test_matrix(tmp_path: Path) -> None:
    log = tmp_path / "log"
    assert "Nobody" in page(log)
    add(read_run(write_run(tmp_path / "b", verdict=verdict(experiment="zeta"))), log)
    changed = verdict(modified=True, overrides=["a.b=1"])
    add(read_run(write_run(tmp_path / "a", verdict=changed)), log, name="A|B")
    lines = page(log).splitlines()
    assert lines[0].startswith("|  | Experiment | Profile | Verdict |")
    assert "| 1 | tiny-adapt 1-A | mini, as-reported | **PARTIALLY** | 2 of 3 hold |" in lines[2]
    assert "| no: changed: a.b=1 |" in lines[2]
    assert "A\\|B" in lines[2]
    assert lines[3].startswith("| 2 | zeta ")
    assert [one.experiment for one in entries(log)] == ["tiny-adapt", "zeta"]


def test_kit_docs_renders_the_matrix(tmp_path: Path) -> None:
    page = tmp_path / "docs" / "reproductions.md"
    page.parent.mkdir()
    page.write_text("# R\n\n<!-- generated:log -->\n<!-- /generated -->\n")
    (tmp_path / "manifests").mkdir()
    (tmp_path / "manifests" / "pins.yaml").write_text("schema_version: 1\npins: []\n")
    docs.write(tmp_path)
    assert "Nobody has added a reproduction yet" in page.read_text()
    add(read_run(write_run(tmp_path / "run")), tmp_path / "reproductions", name="A. Reader")
    (change,) = [one for one in docs.drift(tmp_path) if one.path == page]
    assert change.parts == ("log",)
    docs.write(tmp_path)
    assert "| 1 | tiny-adapt 1-A | mini, as-reported | **PARTIALLY** |" in page.read_text()
    assert "| A. Reader |" in page.read_text()
    assert docs.drift(tmp_path) == []


def test_the_repository_has_the_page() -> None:
    page = Path(__file__).parents[2] / "docs" / "reproductions.md"
    assert "<!-- generated:log -->" in page.read_text()


def test_damaged_entry_is_named(tmp_path: Path) -> None:
    (tmp_path / "bad.json").write_text("{")
    with pytest.raises(InvalidInput, match=r"bad\.json"):
        page(tmp_path)


def test_hostile_run_stays_in_the_folder(tmp_path: Path) -> None:
    run = read_run(write_hostile(tmp_path / "run"))
    path = add(run, tmp_path / "log", name=HOSTILE[0] * 40, hardware=HOSTILE[8])
    assert path.parent == tmp_path / "log"
    assert "<" not in page(tmp_path / "log")


def test_an_entry_has_the_numbers_of_its_primary_claims(tmp_path: Path) -> None:
    cells = [
        cell("t/a", value=2.0, value_interval=Interval(low=1.0, high=4.0, level=0.95)),
        cell("t/b", value=3.0, value_interval=None),
        cell("t/bad", verdict="invalid"),
        cell("t/none", value=None, value_interval=None),
        cell("t/other"),
    ]
    claims = [claim("c", cells=["t/a", "t/b", "t/bad", "t/none"]), claim("d", primary=False)]
    run = read_run(write_run(tmp_path / "run", verdict=verdict(cells=cells, claims=claims)))
    (made,) = entry(run).claims
    assert [(one.id, one.value, one.low, one.high) for one in made.cells] == [
        ("t/a", 2.0, 1.0, 4.0), ("t/b", 3.0, None, None),
    ]  # fmt: skip


def test_an_entry_says_what_was_changed_but_no_path_and_no_seed(tmp_path: Path) -> None:
    said = ["seed=3", "a.b=1", "compared with /home/me/x.yaml"]
    for own, changes in ((False, said[1:]),
                         (True, ["a.b=1", "compared with an expectation of its own"])):  # fmt: skip
        made = verdict(overrides=said, own_expectation=own, reasons=["other"])
        assert entry(read_run(write_run(tmp_path / "run", verdict=made))).changes == changes


def test_the_environment_of_an_entry_is_what_its_steps_say(tmp_path: Path) -> None:
    made = plan()
    first, second, *_ = made["instances"]
    first["environment"] = {"dtype": "float32", "compiled": False, "gpu": None, "fused": True}
    second["environment"] = {"dtype": "bfloat16"}
    found = entry(read_run(write_run(tmp_path / "run", plan=made)))
    assert found.environment == {"dtype": "bfloat16+float32", "fused": "True"}
