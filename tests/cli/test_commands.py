"""list, show, validate, fetch, doctor, docs on the demo repository."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kit.engine.registry import Registry
from tests.cli.conftest import Kit
from tests.demo.fixtures import sha
from tests.demo.hub_server import FakeHub, Repo

NEW = "89abcdef0123456789abcdef0123456789abcdef"


@pytest.fixture(autouse=True)
def _kinds(monkeypatch: pytest.MonkeyPatch, registry: Registry) -> None:
    monkeypatch.setattr("kit.engine.registry.load_registry", lambda: registry)


@pytest.fixture
def served(repo: Path, hub: FakeHub) -> FakeHub:
    """A hub and a server with the inputs of the paper profile."""
    pins = repo / "manifests" / "pins.yaml"
    pins.write_text(pins.read_text().replace("https://example.org/raw", f"{hub.url}/raw"))
    hub.plain["/raw/0123456789012345678901234567890123456789/items.json"] = b""
    hub.repos["example/big-new"] = Repo(files={"config.json": b"{}"}, revision=NEW)
    return hub


def test_list(kit: Kit, repo: Path) -> None:
    found = kit("list")
    assert found.code == 0
    head, *rows = found.out.splitlines()
    assert head.split() == ["experiment", "family", "variant", "profiles", "recorded", "title"]
    assert rows[1].split()[:5] == ["demo", "defensive_tokens", "as-reported", "mini,paper", "-"]


def test_list_as_json(kit: Kit, repo: Path) -> None:
    for found in (kit("list", "--json"), kit("--progress", "json", "list")):
        listed = {item["id"]: item for item in json.loads(found.out)}
        assert listed["demo"]["profiles"][1]["primary_claims"] == 1


def test_list_rich(kit: Kit, repo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "160")
    found = kit("--progress", "rich", "list")
    assert "demo-corrected" in found.out
    assert "\x1b[3" not in found.out


def test_list_on_a_narrow_terminal_keeps_what_one_types_in_one_piece(
    kit: Kit, repo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = repo / "manifests" / "defensive_tokens" / "demo.yaml"
    long = path.with_stem("a-name-of-many-words-x")
    long.write_text(path.read_text().replace("id: demo", f"id: {long.stem}"))
    monkeypatch.setenv("COLUMNS", "80")
    found = kit("--progress", "rich", "list")
    assert long.stem in found.out
    assert all(len(line) <= 80 for line in found.out.splitlines())


def test_list_opens_no_expectation(kit: Kit, repo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kit.manifest.catalog.read_expectation", None)
    (repo / "expected_results" / "reference").mkdir(exist_ok=True)
    (repo / "expected_results" / "reference" / "demo.mini.jsonl").touch()
    rows = [line.split() for line in kit("list").out.splitlines()]
    assert [row[4] for row in rows if row[0] == "demo"] == ["mini"]


def test_list_shows_what_cannot_be_read(kit: Kit, repo: Path) -> None:
    (repo / "manifests" / "defensive_tokens" / "bad.yaml").write_text("a: [")
    found = kit("list")
    assert found.code == 0
    assert "cannot be read: manifests/defensive_tokens/bad.yaml:" in found.out


def test_show(kit: Kit, repo: Path) -> None:
    out = kit("show", "demo").out
    for text in (
        "demo: A small experiment for the tests",
        "[primary] adapted-is-low",
        '"adaptation brings attack success below five percent" (note, abstract)',
        "example/big-new @ 89abcdef",
        "licence: Apache-2.0",
        "unavailable: never released",
        "needs 1 GPU x 24 GB, 32 GB memory, 10 min, 1 GB disk (estimate)",
        "learning_rate = 0.1  [note, section 2]",
        "4 times over pair, seed",
        "note: The note does not say which data it used.",
    ):
        assert text in out, text


def test_show_names_what_ships_with_the_kit_on_one_line() -> None:
    from kit.cli.show import _inputs

    about = {"kind": "package", "licence": "Apache-2.0", "unconfirmed": None, "unavailable": None}
    pins = [{**about, "id": f"mini-{i}"} for i in range(19)]
    assert [text for text, _ in _inputs(pins)] == [
        "    mini-0, mini-1, ..., mini-18 (19 inputs, in the kit)",
        "      licence: Apache-2.0",
    ]


def test_show_one_profile_and_json(kit: Kit, repo: Path) -> None:
    found = json.loads(kit("show", "demo", "--profile", "paper", "--json").out)
    assert list(found["profiles"]) == ["paper"]
    step = found["profiles"]["paper"]["steps"][0]
    assert step["set"]["steps"] == {"value": 200, "source": "note, section 2"}
    assert found["profiles"]["paper"]["inputs"][0]["licence"] == "Apache-2.0"
    assert kit("show", "demo", "--profile", "huge").code == 2


def test_show_a_manifest_of_ones_own(kit: Kit, repo: Path, tmp_path: Path) -> None:
    source = repo / "manifests" / "defensive_tokens" / "demo.yaml"
    (tmp_path / "mine.yaml").write_text(source.read_text().replace("tiny-data", "not-pinned"))
    found = kit("show", str(tmp_path / "mine.yaml"))
    assert found.code == 0
    assert "not-pinned: there is no such pin" in found.out
    assert kit("show", "./none.yaml").code == 2


def test_show_names_the_place_of_a_reference_that_leads_nowhere(kit: Kit, repo: Path) -> None:
    manifest = repo / "manifests" / "defensive_tokens" / "demo.yaml"
    text = manifest.read_text()
    assert "${pair.target}" in text
    manifest.write_text(text.replace("${pair.target}", "${pair.trget}", 1))
    for command in ("show", "fetch", "doctor"):
        done = kit(command, "demo")
        assert done.code == 4, done.err
        assert "demo.yaml:" in done.err
        assert "has no field 'trget'" in done.err
        line = int(done.err.split("demo.yaml:")[1].split(":")[0])
        assert "${pair.trget}" in manifest.read_text().splitlines()[line - 1]


def test_show_text_is_not_markup(kit: Kit, repo: Path) -> None:
    path = repo / "manifests" / "defensive_tokens" / "demo.yaml"
    path.write_text(path.read_text().replace("title: A small", "title: '[red]A[/red] [bold' #"))
    assert "demo: [red]A[/red] [bold\n" in kit("show", "demo").out


def test_line_numbers_are_not_taken_for_pictures(kit: Kit, repo: Path) -> None:
    (repo / "manifests" / "pins.x.yaml").write_text("#\n" * 99 + "a: [\n")
    assert "pins.x.yaml:101:1: error:" in kit("validate", "manifests/pins.x.yaml").out
    (repo / "manifests" / "pins.x.yaml").write_text("#\n" * 99 + "pins: &x 1\n")
    assert "pins.x.yaml:100:7: error:" in kit("validate", "manifests/pins.x.yaml").out


def test_validate_everything(kit: Kit, repo: Path) -> None:
    found = kit("validate")
    assert found.code == 0
    assert "4 files: 0 errors, 0 warnings," in found.out


def test_validate_reports_every_error_with_its_place(kit: Kit, repo: Path) -> None:
    path = repo / "manifests" / "defensive_tokens" / "demo.yaml"
    path.write_text(
        path.read_text().replace("version: 2", "version: 3").replace("[1, 2]", "[1, 1]")
    )
    found = kit("validate", "manifests/defensive_tokens/demo.yaml")
    assert found.code == 4
    lines = found.out.splitlines()
    assert any(":14:14: error:" in line and "[step-kind]" in line for line in lines)
    assert any(":40:17: error:" in line and "[axis-values]" in line for line in lines)
    assert "1 file: 2 errors" in lines[-1]


def test_validate_a_file_the_schema_refuses(kit: Kit, repo: Path) -> None:
    path = repo / "manifests" / "pins.yaml"
    path.write_text(path.read_text().replace("kind: file", "kind: fiel"))
    found = kit("validate", "manifests/pins.yaml", "--json")
    assert found.code == 4
    (finding,) = [f for f in json.loads(found.out) if f["level"] == "error"]
    assert finding["rule"] == "schema"
    assert "did you mean 'file'?" in finding["next_step"]


def test_validate_something_else(kit: Kit, repo: Path) -> None:
    (repo / "other.yaml").write_text("a: 1\n")
    found = kit("validate", "other.yaml", "none.yaml")
    assert found.code == 4
    assert "neither a manifest, nor pins, nor an expectation" in found.out
    assert "none.yaml: error: no such file" in found.out


def test_validate_quietly(kit: Kit, repo: Path) -> None:
    assert kit("validate", "-q").out.splitlines() == [
        kit("validate").out.splitlines()[-1],
    ]


def test_fetch_and_then_offline(kit: Kit, served: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    found = kit("fetch", "demo", "--profile", "paper")
    assert found.code == 0
    assert "fetch big-new: size 1 file, 2 bytes" in found.out
    assert found.out.splitlines()[-1] == "2 pins ready"
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    again = kit("fetch", "demo", "--profile", "paper")
    assert again.code == 0
    assert "fetch big-new: present ok" in again.out


def test_fetch_as_json(kit: Kit, served: FakeHub) -> None:
    found = kit("--progress", "json", "fetch", "demo", "--profile", "paper")
    events = [json.loads(line) for line in found.out.splitlines()]
    assert {event["event"] for event in events} >= {"fetch.size", "fetch.file", "fetch.done"}


def test_fetch_what_fails_and_what_does_not(kit: Kit, served: FakeHub, repo: Path) -> None:
    served.plain["/raw/0123456789012345678901234567890123456789/items.json"] = b"other"
    found = kit("fetch", "demo", "--profile", "paper")
    assert found.code == 4
    assert "5 bytes, pinned are 0" in found.err
    assert "fetch big-new: done" in found.out


def test_fetch_with_paths_of_ones_own(kit: Kit, served: FakeHub, tmp_path: Path) -> None:
    own = tmp_path / "own"
    own.mkdir()
    (own / "config.json").write_bytes(b"{}")
    found = kit("fetch", "demo", "--profile", "paper", "--pin", f"big-new={own}")
    assert found.code == 0
    assert served.gets("resolve") == []
    assert kit("fetch", "demo", "--profile", "paper", "--pin", "x").code == 2


def test_a_wrong_path_of_ones_own_is_not_remembered(
    kit: Kit, served: FakeHub, tmp_path: Path
) -> None:
    """Every later run would stop at it, and nothing takes a path back."""
    empty = tmp_path / "empty"
    empty.mkdir()
    found = kit("fetch", "demo", "--profile", "paper", "--pin", f"big-new={empty}")
    assert found.code == 4
    assert "check the path you gave with --pin" in found.err
    assert str(empty) not in kit("fetch", "demo", "--profile", "paper").err


def test_fetch_completes_pins(kit: Kit, served: FakeHub, repo: Path) -> None:
    pins = repo / "manifests" / "pins.yaml"
    text = pins.read_text()
    listed = text[text.rindex("        sha256:") : text.rindex("        size:")]
    pins.write_text(
        text.replace(listed, "").replace(f'"{NEW}"\n', f'"{NEW}"\n    unconfirmed: not seen\n')
    )
    first = kit("fetch", "demo", "--profile", "paper")
    assert "not confirmed by anyone yet: big-new" in first.out
    found = kit("fetch", "demo", "--profile", "paper", "--write-pins")
    assert found.code == 0
    assert "fetch big-new: written manifests/pins.yaml" in found.out
    assert f'sha256: "{sha(b"{}")}"' in pins.read_text()


def test_doctor(kit: Kit, served: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kit.engine.hardware.gpus", lambda: [])
    found = kit("doctor", "demo", "--profile", "paper")
    assert found.code == 4
    lines = found.out.splitlines()
    assert lines[0].startswith("demo --profile paper: cannot run here, ")
    # What stands in the way comes first, and the way out last.
    kinds = [line[:4] for line in lines if line[:4] in ("FAIL", "WARN", "OK  ")]
    assert kinds == sorted(kinds, key=["FAIL", "WARN", "OK  "].index)
    assert "FAIL  gpus: 1 of 24 GB needed" in found.out
    assert "WARN  inputs: 2 still to fetch" in found.out
    assert "mend: kit fetch demo --profile paper" in found.out
    assert "can run here: kit reproduce demo --profile mini" in lines
    for line, after in zip(lines, [*lines[1:], ""], strict=True):
        if line[:4] in ("FAIL", "WARN"):
            assert after.startswith("      mend: "), line
    assert kit("doctor", "dmo").code == 2


def test_doctor_of_what_can_run(kit: Kit, served: FakeHub) -> None:
    found = kit("doctor", "demo")
    assert "demo --profile mini: can" in found.out
    assert ("can run here" in found.out.splitlines()[0]) == (found.code == 0)


def test_doctor_of_the_machine(kit: Kit, repo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kit.engine.hardware.gpus", lambda: [])
    found = kit("doctor")
    assert found.code == 0
    assert found.out.startswith("this machine\n")
    assert "OK    profile mini: can run here: demo" in found.out
    assert "cannot run here: demo" in found.out
    told = json.loads(kit("doctor", "--json").out)
    assert told["can_run"] is True
    assert told["experiment"] is None
    assert {item["level"] for item in told["checks"]} <= {"OK", "WARN", "FAIL"}
    runs = {(one["experiment"], one["profile"]): one["runs"] for one in told["fitting"]}
    assert runs["demo", "mini"]
    assert not runs["demo", "paper"]


def test_doctor_in_json_of_one_that_cannot_run(
    kit: Kit, served: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kit.engine.hardware.gpus", lambda: [])
    found = kit("doctor", "demo", "--profile", "paper", "--json")
    assert found.code == 4
    told = json.loads(found.out)
    assert (told["experiment"], told["profile"], told["can_run"]) == ("demo", "paper", False)
    assert all(check["mend"] for check in told["checks"] if check["level"] != "OK")


def test_docs(kit: Kit, repo: Path) -> None:
    assert kit("docs", "--check").code == 4
    found = kit("docs")
    assert found.code == 0
    assert "written: manifests/schema/pins.json (schema)" in found.out
    again = kit("docs", "--check")
    assert again.code == 0
    assert again.out == "everything generated is up to date\n"


def test_outside_of_a_repository_the_checkout_serves(
    kit: Kit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("KIT_ROOT", raising=False)
    monkeypatch.chdir(tmp_path)
    assert "tiny-adapt" in kit("list").out
