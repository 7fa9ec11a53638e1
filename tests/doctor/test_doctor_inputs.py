"""The doctor on inputs and licences; the hub is played by a local server."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from kit.doctor import inputs
from kit.doctor.core import Check
from kit.errors import InvalidInput
from kit.manifest.catalog import Catalog
from kit.manifest.pin_types import Pin, PinnedFile, Pins
from kit.pins import hub as hub_client
from kit.pins.retry import Transient
from kit.pins.store import PinStore
from tests.demo.hub_server import TOKEN, FakeHub, Repo


def look(store: PinStore, *ids: str) -> dict[str, Check]:
    return {check.what: check for check in inputs.inputs(store, list(ids), "demo", "mini")}


def test_what_is_here_absent_and_unavailable(catalog: Catalog, tmp_path: Path) -> None:
    store = PinStore(tmp_path / "home", catalog.pins())
    found = list(
        inputs.inputs(store, ["tiny-new", "tiny-old", "tiny-data", "big-old"], "demo", "mini")
    )
    lines = [(check.level, check.what, check.mend) for check in found]
    assert ("OK", "inputs", "") in lines
    assert ("WARN", "inputs", "kit fetch demo --profile mini") in lines
    assert ("FAIL", "input tiny-old", "kit fetch demo --profile mini --pin tiny-old=PATH") in lines
    (absent,) = [check for check in found if check.level == "WARN"]
    assert "2 still to fetch, " in absent.detail
    assert "1 file of unknown size: " in absent.detail
    assert absent.detail.endswith("tiny-data, big-old")


def test_what_nobody_confirmed_is_said_once(catalog: Catalog, tmp_path: Path) -> None:
    store = PinStore(tmp_path / "home", catalog.pins())
    files = store.folder("big-old")
    files.mkdir(parents=True)
    (files / "config.json").write_bytes(b"{}")
    (files / "model.safetensors").write_bytes(b"w" * 1000)
    found = look(store, "tiny-new", "big-old")
    assert found["inputs"].detail == "2 here: tiny-new, big-old"
    one = found["unconfirmed inputs"]
    assert (one.level, one.mend) == ("WARN", "kit fetch demo --profile mini --write-pins")
    assert one.detail.endswith("never confirmed: big-old")
    assert "unconfirmed inputs" not in look(store, "tiny-new")


def test_what_is_unknown_is_not_called_small() -> None:
    assert inputs.Download(unknown=3).words() == "3 files of unknown size"
    assert inputs.Download(size=1000).words() == "less than 50 MB"
    assert inputs.Download(size=2 * 10**9, unknown=1).words() == (
        "2.0 GB and 1 file of unknown size"
    )


def test_without_a_network_what_is_absent_stays_so(
    catalog: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    found = look(PinStore(tmp_path / "home", catalog.pins()), "tiny-data")["inputs"]
    assert found.level == "FAIL"
    assert found.mend == "unset HF_HUB_OFFLINE; kit fetch demo --profile mini"


def test_wrong_files_and_your_own(
    catalog: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = PinStore(tmp_path / "home", catalog.pins())
    place = store.path("tiny-data")
    place.parent.mkdir(parents=True)
    place.write_text("wrong")
    found = look(store, "tiny-data")["input tiny-data"]
    assert (found.level, found.mend) == ("FAIL", "kit fetch demo --profile mini")
    assert "has sha256" in found.detail
    place.write_text("")
    assert look(store, "tiny-data")["inputs"].level == "OK"

    own = tmp_path / "mine"
    own.write_text("something else")
    monkeypatch.setenv("KIT_PIN_TINY_DATA", str(own))
    found = look(store, "tiny-data")["input tiny-data"]
    assert found.mend == "kit fetch demo --profile mini --pin tiny-data=PATH"
    own.write_text("")
    assert "tiny-data (your own)" in look(store, "tiny-data")["inputs"].detail


def test_a_file_of_the_kit_that_was_changed(catalog: Catalog, tmp_path: Path) -> None:
    pins = catalog.pins()
    broken = [
        msgspec.structs.replace(
            pin,
            files=[PinnedFile(path="attacks.json", sha256="0" * 64)],
            path="mini/injection/data",
        )
        if pin.id == "tiny-new"
        else pin
        for pin in pins.pins
    ]
    store = PinStore(tmp_path, Pins(schema_version=1, pins=broken))
    found = look(store, "tiny-new")["input tiny-new"]
    assert found.level == "FAIL"
    assert "install the kit again" in found.mend


def test_sizes_still_to_fetch(catalog: Catalog, tmp_path: Path) -> None:
    """One unknown size must not hide the known ones: that would call a full disk large enough."""
    store = PinStore(tmp_path, catalog.pins())
    known = inputs.download(store, ["tiny-data", "big-new", "tiny-new"])
    assert (known.size, known.unknown) == (2, 0)
    both = inputs.download(store, ["tiny-data", "big-new", "big-old"])
    assert both.size >= 2
    assert both.unknown > 0
    assert [pin.id for pin in inputs.gated_missing(store, ["big-old", "big-new"])] == ["big-old"]


PINS = [Pin(id=i, kind="hf-model", title="t", licence="l", repo=f"a/{i}", gated=True) for i in "pq"]


def licences(token: bool, ask: Callable[[Pin], None]) -> dict[str, Check]:
    return {check.what: check for check in inputs.access(PINS, lambda: token, ask)}


def test_licences(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(pin: Pin) -> None:
        if pin.id == "q":
            raise InvalidInput("refused", next_step="ask")

    def unreachable(pin: Pin) -> None:
        raise Transient("HTTP 503")

    assert list(inputs.access([], lambda: False, refuse)) == []
    none = licences(False, refuse)["licences"]
    assert none.level == "FAIL"
    for page in ("https://huggingface.co/a/p", "https://huggingface.co/a/q", "hf auth login"):
        assert page in none.mend
    some = licences(True, refuse)
    assert some["licences"].detail == "access granted: a/p"
    assert (some["licence of a/q"].level, some["licence of a/q"].mend) == ("FAIL", "ask")
    assert licences(True, unreachable)["licence of a/p"].level == "WARN"
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert "not asked" in licences(True, refuse)["licences"].detail


def test_a_licence_that_was_not_accepted(
    hub: FakeHub, catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A token without access, then with it, through the hub's own client."""
    pin = next(pin for pin in catalog.pins().pins if pin.id == "big-old")
    hub.repos[str(pin.repo)] = Repo(files={}, gated=True)

    def look_again() -> Check:
        (check,) = inputs.access([pin], hub_client.has_token, hub_client.check_access)
        return check

    assert "there is no token" in look_again().detail
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    refused = look_again()
    assert refused.level == "FAIL"
    assert "refuses access to example/big-old (HTTP 403)" in refused.detail
    assert f"accept the conditions at https://huggingface.co/{pin.repo}" in refused.mend
    hub.repos[str(pin.repo)].granted = True
    assert look_again().level == "OK"
