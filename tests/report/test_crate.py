"""The Process Run Crate, read back by rocrate and by the rules of its profile."""

from __future__ import annotations

import json
import re
import sys
import zipfile
from datetime import datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from kit.errors import InvalidInput, Preflight
from kit.report.crate import PROFILE, export_crate, later
from kit.report.files import read_run
from tests.report.extremes import HOSTILE, write_hostile
from tests.report.runs import plan, write_run


@pytest.fixture
def crate(tmp_path: Path) -> Path:
    folder = write_run(tmp_path / "run")
    (folder / "report.html").write_text("<p>")
    (folder / "responses.jsonl").write_text('{"response": "harmful"}\n')
    return export_crate(read_run(folder), tmp_path / "out.zip", agent="A. Reader")


def graph(path: Path) -> dict[str, dict[str, Any]]:
    with zipfile.ZipFile(path) as archive:
        document = json.loads(archive.read("ro-crate-metadata.json"))
    terms = {"environment": "https://w3id.org/ro/terms/workflow-run#environment"}
    assert document["@context"] == ["https://w3id.org/ro/crate/1.3/context", terms]
    return {entity["@id"]: entity for entity in document["@graph"]}


def refs(value: Any) -> list[str]:
    values = value if isinstance(value, list) else [value]
    return [one["@id"] for one in values if isinstance(one, dict)]


def actions(entities: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    return [one for one in entities.values() if one["@type"] == "CreateAction"]


def test_root_names_profile_licence_and_author(crate: Path) -> None:
    root = graph(crate)["./"]
    assert refs(root["conformsTo"]) == [PROFILE]
    assert graph(crate)[PROFILE]["@type"] == ["CreativeWork", "Profile"]
    assert (PROFILE.rpartition("/")[2], graph(crate)[PROFILE]["version"]) == ("0.6", "0.6")
    assert refs(root["license"])
    assert refs(root["author"]) == ["#agent"]
    assert root["datePublished"] == "2026-11-21T09:01:31.000+00:00"
    assert "PARTIALLY" in root["name"]


def test_every_reference_has_its_entity(crate: Path) -> None:
    entities = graph(crate)
    for entity in entities.values():
        for key, value in entity.items():
            if not key.startswith("@"):
                assert set(refs(value)) - {"https://w3id.org/ro/crate/1.3"} <= set(entities), key


def test_every_step_is_an_action_with_instrument_object_result_agent(crate: Path) -> None:
    entities = graph(crate)
    made = actions(entities)
    assert len(made) == len(plan()["instances"]) + 2
    assert set(refs(entities["./"]["mentions"])) == {one["@id"] for one in made}
    for action in made:
        (instrument,) = refs(action["instrument"])
        assert entities[instrument]["@type"] == "SoftwareApplication"
        assert refs(action["agent"]) == ["#agent"]
        assert action["endTime"] >= action["startTime"]
        assert action["actionStatus"].endswith("CompletedActionStatus")
        assert refs(action["result"])
    assert entities["#agent"]["name"] == "A. Reader"


def test_the_table_of_the_profile_is_met(crate: Path) -> None:
    """MUST and SHOULD of "Requirements" in Process Run Crate 0.6 (2026-09-07), line by line."""
    entities = graph(crate)
    tools = [e for e in entities.values() if e["@type"] == "SoftwareApplication"]
    assert len(tools) >= 3
    for tool in tools:
        assert tool["name"]
        assert tool["url"].startswith(("https://", "pkg:"))
        assert tool["version"]
        assert "softwareVersion" not in tool  # "SHOULD NOT specify both"
        assert not re.search(r" v\d+$", tool["name"])  # the tool in general
    for action in actions(entities):
        assert set(refs(action["instrument"])) <= {tool["@id"] for tool in tools}
        assert action["name"]
        assert action["description"].startswith("kit ")  # command line and settings
        assert datetime.fromisoformat(action["endTime"])
        assert entities[refs(action["agent"])[0]]["@type"] in ("Person", "Organization")
        assert "error" not in action
        for used in (*refs(action.get("object", [])), *refs(action["result"])):
            assert entities[used]["@type"] in ("File", "CreativeWork"), used
    assert "environment" not in entities["#step-0"]  # from the store: made in an earlier run
    step = entities["#step-1"]
    assert step["description"].endswith(" with {}")
    settings = {entities[id]["name"]: entities[id] for id in refs(step["environment"])}
    assert settings["TOKENIZERS_PARALLELISM"]["@type"] == "PropertyValue"
    assert settings["TOKENIZERS_PARALLELISM"]["value"] == "false"
    libraries = {entities[id]["name"] for id in refs(entities["#kit"]["softwareRequirements"])}
    assert "torch" in libraries


def test_results_of_one_step_are_objects_of_the_next(crate: Path) -> None:
    entities = graph(crate)
    first, second = entities["#step-0"], entities["#step-1"]
    assert refs(first["object"]) == ["plan.json", "#input-0"]
    assert refs(second["object"]) == ["plan.json", *refs(first["result"])]
    (output,) = refs(first["result"])
    assert entities[output]["identifier"] == "sha256 " + "b4" * 32
    assert "taken from the store" in first["name"]


def test_results_and_verdict_are_files_made_by_actions(crate: Path) -> None:
    entities = graph(crate)
    assert "results.json" in refs(entities[f"#step-{len(plan()['instances']) - 1}"]["result"])
    assert refs(entities["#verdict"]["object"]) == ["results.json"]
    assert refs(entities["#verdict"]["result"]) == ["verdict.json"]
    assert entities["#report"]["result"] == {"@id": "report.html"}
    assert refs(entities["#report"]["object"]) == ["verdict.json"]
    for name in ("#verdict", "#report"):  # made at once when the run had ended
        times = {entities[name][key] for key in ("startTime", "endTime")}
        assert times == {"2026-11-21T09:01:31.000+00:00"}
    step = next(one for one in actions(entities) if one["@id"] == "#step-1")
    begun, ended = (datetime.fromisoformat(step[key]) for key in ("startTime", "endTime"))
    assert (ended - begun).total_seconds() == 8.4


def test_files_are_those_of_the_run_and_responses_stay_out(crate: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(crate) as archive:
        names = set(archive.namelist())
        assert archive.testzip() is None
        for name in names - {"ro-crate-metadata.json"}:
            original = (tmp_path / "run" / name).read_bytes()
            assert sha256(archive.read(name)).digest() == sha256(original).digest()
    assert names == {
        "results.json", "verdict.json", "plan.json", "record.json", "report.html",
        "ro-crate-metadata.json",
    }  # fmt: skip
    assert {i for i, e in graph(crate).items() if e["@type"] == "File"} | {
        "ro-crate-metadata.json"
    } == names


def test_rocrate_reads_it_back(crate: Path) -> None:
    from rocrate.rocrate import ROCrate

    again = ROCrate(str(crate))
    assert len(again.get_by_type("CreateAction")) == len(actions(graph(crate)))
    assert [each.id for each in again.root_dataset["conformsTo"]] == [PROFILE]
    assert {entity.id for entity in again.data_entities} >= {"results.json", "verdict.json"}


def test_inputs_carry_licences_and_unconfirmed_remarks(crate: Path) -> None:
    entities = graph(crate)
    pin = next(e for e in entities.values() if e.get("name") == "Llama 3.1 8B Instruct")
    assert entities[refs(pin["license"])[0]]["name"] == "Llama 3.1 Community"
    assert pin["version"] == "0e" * 20
    assert "gated" in pin["description"]


def test_agent_and_licence_are_only_what_was_said(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run")
    entities = graph(export_crate(read_run(folder), tmp_path / "a.zip"))
    assert entities["#agent"]["name"] == "not stated"
    assert "No licence was chosen" in entities["#licence-of-outputs"]["name"]
    address = "https://spdx.org/licenses/CC-BY-4.0"
    entities = graph(export_crate(read_run(folder), tmp_path / "b.zip", licence=address))
    assert refs(entities["./"]["license"]) == [address]


def test_steps_that_did_not_run_are_no_actions(tmp_path: Path) -> None:
    run = read_run(write_run(tmp_path / "run"))
    assert run.record is not None
    run.record.steps["table"].state = "blocked"
    run.record.steps["evaluate[pair=newer-1]"].state = "failed"
    made = actions(graph(export_crate(run, tmp_path / "a.zip")))
    assert not any(action["name"] == "table" for action in made)
    failed = [a["name"] for a in made if a["actionStatus"].endswith("FailedActionStatus")]
    assert failed == ["evaluate[pair=newer-1]"]


def test_hostile_text_is_no_identifier(tmp_path: Path) -> None:
    run = read_run(write_hostile(tmp_path / "run"))
    entities = graph(export_crate(run, tmp_path / "h.zip", agent=HOSTILE[8], licence=HOSTILE[0]))
    assert all(
        i.startswith(("#", "./", "https://w3id.org/")) or i.endswith(".json") for i in entities
    )
    assert "\x1b" not in json.dumps(entities, ensure_ascii=False)


@pytest.mark.parametrize("part", ["plan", "record"])
def test_plan_and_record_are_needed(tmp_path: Path, part: str) -> None:
    run = read_run(write_run(tmp_path / "run", **{part: None}))
    with pytest.raises(InvalidInput, match=f"a crate needs {part}.json"):
        export_crate(run, tmp_path / "out.zip")
    assert not (tmp_path / "out.zip").exists()


def test_missing_library_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rocrate.rocrate", None)
    with pytest.raises(Preflight) as caught:
        export_crate(read_run(write_run(tmp_path / "run")), tmp_path / "out.zip")
    assert "safety-repro-kit[report]" in caught.value.render()


def test_times_that_are_none_stay_as_they_are() -> None:
    assert later("yesterday", 3) == "yesterday"
    assert later("2026-01-01T00:00:59.500Z", 1.5) == "2026-01-01T00:01:01.000+00:00"
