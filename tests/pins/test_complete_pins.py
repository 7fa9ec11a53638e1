"""Completing ``pins.yaml``: confirmed at the source, written without touching anything else."""

from __future__ import annotations

from pathlib import Path

import pytest

from kit.errors import InvalidInput, KitError, Preflight, UsageError
from kit.manifest.catalog import Catalog
from kit.manifest.load import read_pins
from kit.pins import Event, Retry
from kit.pins.command import confirm, fetch_experiment, git_blob, write_pins
from kit.pins.store import PinStore
from tests.demo.fixtures import sha
from tests.demo.hub_server import FakeHub, Repo
from tests.demo.hub_server import git_blob as blob_of

QUICK = Retry(attempts=2, wait=0.0, timeout=2.0)
NEW = "89abcdef0123456789abcdef0123456789abcdef"
WEIGHTS = b"w" * 1000


@pytest.fixture
def world(repo: Path, hub: FakeHub) -> FakeHub:
    """The demo repository with a hub and a plain server that have what its pins name."""
    pins = repo / "manifests" / "pins.yaml"
    text = pins.read_text().replace("https://example.org/raw", f"{hub.url}/raw")
    text = text.replace(
        "    files:\n      - path: config.json\n        sha256:",
        '    unconfirmed: "nobody looked"  # for now\n    files:\n'
        "      - {path: weights.bin}\n      - path: config.json\n        sha256:",
    )
    pins.write_text(text)
    hub.plain["/raw/0123456789012345678901234567890123456789/items.json"] = b""
    files = {"config.json": b"{}", "weights.bin": WEIGHTS}
    hub.repos["example/big-new"] = Repo(files=files, revision=NEW, lfs={"weights.bin"})
    return hub


def run(
    repo: Path, *, complete: bool = True, own: tuple[str, ...] = (), profile: str = "paper"
) -> list[Event]:
    events: list[Event] = []
    fetch_experiment(
        Catalog(repo),
        repo.parent / "home",
        "demo",
        profile,
        own=own,
        complete=complete,
        retry=QUICK,
        listener=events.append,
    )
    return events


def test_what_was_unconfirmed_is_completed(repo: Path, world: FakeHub) -> None:
    before = (repo / "manifests" / "pins.yaml").read_text()
    events = run(repo)
    assert ("big-new", "written") in [(event.pin, event.what) for event in events]
    after = (repo / "manifests" / "pins.yaml").read_text()
    (pin,) = [
        pin for pin in read_pins(repo / "manifests/pins.yaml").value.pins if pin.id == "big-new"
    ]
    assert pin.unconfirmed is None
    assert {file.path: (file.sha256, file.size) for file in pin.files} == {
        "config.json": (sha(b"{}"), 2),
        "weights.bin": (sha(WEIGHTS), len(WEIGHTS)),
    }
    assert "confirmed at the source by kit fetch on 20" in pin.source
    gone = set(before.splitlines()) - set(after.splitlines())
    assert gone == {'    unconfirmed: "nobody looked"  # for now', "      - {path: weights.bin}"}
    assert after.startswith("# Pins of the test repository. This comment must survive")
    assert "# kept by whoever made it" in after


def test_a_second_time_changes_nothing(repo: Path, world: FakeHub) -> None:
    run(repo)
    before = (repo / "manifests" / "pins.yaml").read_bytes()
    assert "written" not in [event.what for event in run(repo)]
    assert (repo / "manifests" / "pins.yaml").read_bytes() == before


def test_without_asking_nothing_is_written(repo: Path, world: FakeHub) -> None:
    before = (repo / "manifests" / "pins.yaml").read_bytes()
    run(repo, complete=False)
    assert (repo / "manifests" / "pins.yaml").read_bytes() == before


def test_a_missing_revision_is_resolved_and_written(repo: Path, world: FakeHub) -> None:
    pins = repo / "manifests" / "pins.yaml"
    pins.write_text(pins.read_text().replace(f'    revision: "{NEW}"\n', ""))
    with pytest.raises(UsageError, match="has no revision"):
        run(repo, complete=False)
    run(repo)
    assert f'    repo: example/big-new\n    revision: "{NEW}"\n' in pins.read_text()


def test_a_pin_the_hub_contradicts_is_not_confirmed(repo: Path, world: FakeHub) -> None:
    run(repo, complete=False)
    world.repos["example/big-new"].files["weights.bin"] = b"v" * 1000
    before = (repo / "manifests" / "pins.yaml").read_bytes()
    with pytest.raises(KitError) as caught:
        run(repo)
    assert "the hub has" in caught.value.render()
    assert sha(WEIGHTS) in caught.value.render()
    assert (repo / "manifests" / "pins.yaml").read_bytes() == before


def test_a_pin_its_address_contradicts_is_not_confirmed(repo: Path, world: FakeHub) -> None:
    pins = repo / "manifests" / "pins.yaml"
    text = pins.read_text().replace("        size: 0\n", "")
    text = text.replace("    source: computed", "    unconfirmed: x\n    source: computed")
    pins.write_text(text)
    run(repo, complete=False)
    world.plain["/raw/0123456789012345678901234567890123456789/items.json"] = b"other"
    with pytest.raises(KitError) as caught:
        run(repo)
    assert f"the address has {sha(b'other')}" in caught.value.render()
    (pin,) = [pin for pin in read_pins(pins).value.pins if pin.id == "tiny-data"]
    assert pin.unconfirmed == "x"


def test_small_files_are_confirmed_by_their_git_id(
    repo: Path, world: FakeHub, tmp_path: Path
) -> None:
    (tmp_path / "x").write_bytes(b"{}")
    assert git_blob(tmp_path / "x") == blob_of(b"{}") == "9e26dfeeb6e641a33dae4961196235bdb965b21b"
    run(repo, complete=False)
    gets = len(world.gets("resolve"))
    run(repo)
    assert len(world.gets("resolve")) == gets


def test_a_plain_file_is_confirmed_by_reading_it_again(repo: Path, world: FakeHub) -> None:
    pins = repo / "manifests" / "pins.yaml"
    text = pins.read_text().replace(
        "    source: computed", "    unconfirmed: not read\n    source: computed"
    )
    pins.write_text(text)
    run(repo)
    after = read_pins(pins).value.pins[0]
    assert after.unconfirmed is None
    assert after.source.startswith("computed from the file; confirmed at the source")


def test_what_is_not_here_or_ones_own_confirms_nothing(
    repo: Path, world: FakeHub, tmp_path: Path
) -> None:
    store = PinStore(tmp_path / "empty", Catalog(repo).pins())
    with pytest.raises(InvalidInput, match="cannot be completed from here"):
        confirm(store, "big-new", QUICK)
    own = tmp_path / "own"
    own.mkdir()
    (own / "config.json").write_bytes(b"{}")
    (own / "weights.bin").write_bytes(WEIGHTS)
    before = (repo / "manifests" / "pins.yaml").read_bytes()
    run(repo, own=(f"big-new={own}",))
    assert (repo / "manifests" / "pins.yaml").read_bytes() == before
    assert world.gets("resolve") == []


def test_a_hub_that_is_down_completes_nothing(repo: Path, world: FakeHub) -> None:
    run(repo, complete=False)
    world.failures["resolve"] = ["503"] * 99
    with pytest.raises(KitError) as caught:
        run(repo)
    assert "HTTP 503" in caught.value.render()


def test_own_paths_are_checked_against_the_experiment(repo: Path, world: FakeHub) -> None:
    with pytest.raises(UsageError, match=r"big-nwe: .* does not use it") as caught:
        run(repo, own=("big-nwe=/x",))
    assert caught.value.next_step == "did you mean 'big-new'?"
    with pytest.raises(UsageError, match="nothing at this path"):
        run(repo, own=("big-new=/nowhere/at/all",))
    with pytest.raises(UsageError, match="does not use it"):
        run(repo, own=("big-old=/x",))


def test_unavailable_inputs_name_the_way(repo: Path, world: FakeHub, tmp_path: Path) -> None:
    with pytest.raises(KitError) as caught:
        run(repo, profile="mini", complete=False)
    assert "--pin tiny-old=PATH" in caught.value.render()
    run(repo, profile="mini", complete=False, own=(f"tiny-old={tmp_path}",))


def test_the_file_is_left_alone_when_the_result_would_be_invalid(
    repo: Path, world: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(repo, complete=False)
    pins = repo / "manifests" / "pins.yaml"
    before = pins.read_bytes()

    def refuse(path: Path) -> None:
        raise InvalidInput("no")

    monkeypatch.setattr("kit.pins.command.read_pins", refuse)
    with pytest.raises(KitError):
        run(repo)
    assert pins.read_bytes() == before
    assert sorted(p.name for p in pins.parent.iterdir()) == ["defensive_tokens", "pins.yaml"]


def test_json_pin_files_are_not_rewritten(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="only YAML"):
        write_pins(tmp_path / "pins.json", [])


def test_the_repository_file_survives_a_round_trip(tmp_path: Path) -> None:
    """Writing one hash into the real file changes that place and nothing else."""
    import msgspec

    source = Path(__file__).parents[2] / "manifests" / "pins.yaml"
    target = tmp_path / "pins.yaml"
    target.write_text(source.read_text())
    (pin,) = [pin for pin in read_pins(source).value.pins if pin.id == "alpaca-cleaned"]
    (file,) = pin.files
    done = msgspec.structs.replace(file, sha256=sha(b"x"), size=1)
    assert write_pins(target, [msgspec.structs.replace(pin, files=[done])]) == ["alpaca-cleaned"]
    before, after = source.read_text().splitlines(), target.read_text().splitlines()
    assert [line for line in after if line not in before] == [
        f'        sha256: "{sha(b"x")}"',
        "        size: 1",
    ]
    assert len(after) == len(before) + 2


def test_offline_says_so(repo: Path, world: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(KitError) as caught:
        run(repo)
    assert "switched off" in caught.value.render()
    assert isinstance(caught.value.errors[0], Preflight)  # type: ignore[attr-defined]
