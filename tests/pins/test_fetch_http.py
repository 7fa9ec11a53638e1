"""Plain files by address, and the pieces below."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import pytest

from kit.errors import InvalidInput, KitError, Preflight
from kit.manifest.pin_types import Pin, PinnedFile
from kit.pins import Event, Fetcher, Retry, http
from kit.pins.retry import LONGEST, Transient, retry_after
from kit.pins.store import PinStore
from tests.demo.fixtures import sha
from tests.demo.hub_server import FakeHub

QUICK = Retry(attempts=3, wait=0.0, timeout=0.5)
DATA = b"0123456789" * 300


def plain(hub: FakeHub, *, path: str = "/raw/items.json", **file: object) -> Pin:
    fields: dict[str, object] = {"path": "items.json", "sha256": sha(DATA), "size": len(DATA)}
    return Pin(
        id="items",
        kind="file",
        title="Items",
        licence="CC0-1.0",
        url=hub.url + path,
        files=[PinnedFile(**{**fields, **file})],  # type: ignore[arg-type]
    )


def fetch(tmp_path: Path, pin: Pin, events: list[Event] | None = None) -> Path:
    store = PinStore(tmp_path / "home", [pin])
    Fetcher(store, QUICK, (events if events is not None else []).append).fetch(pin.id)
    return store.require(pin.id)


def nothing_left(tmp_path: Path) -> bool:
    return not [p for p in (tmp_path / "home" / "pins").rglob("*") if p.is_file()]


def test_a_file_pin_is_a_file(tmp_path: Path, hub: FakeHub) -> None:
    hub.plain["/raw/items.json"] = DATA
    assert fetch(tmp_path, plain(hub)).read_bytes() == DATA
    asked = len(hub.seen)
    fetch(tmp_path, plain(hub))
    assert len(hub.seen) == asked


def test_no_token_is_sent_to_a_plain_address(
    tmp_path: Path, hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_" + "secretsecretsecret")
    hub.plain["/raw/items.json"] = DATA
    fetch(tmp_path, plain(hub))
    assert not any(token for _, _, token in hub.seen)


@pytest.mark.parametrize(
    "failure", ["500", "503", "429", "408", "short", "slow", "close", "stall", "drip"]
)
def test_what_may_go_away_is_tried_again(tmp_path: Path, hub: FakeHub, failure: str) -> None:
    hub.plain["/raw/items.json"] = DATA
    hub.failures["items.json"] = [failure]
    events: list[Event] = []
    assert fetch(tmp_path, plain(hub), events).read_bytes() == DATA
    assert [event.what for event in events].count("retry") == 1


@pytest.mark.parametrize("failure", ["500", "short", "close", "stall", "drip"])
def test_what_does_not_go_away_leaves_nothing(tmp_path: Path, hub: FakeHub, failure: str) -> None:
    hub.plain["/raw/items.json"] = DATA
    hub.failures["items.json"] = [failure] * 9
    with pytest.raises(Preflight) as caught:
        fetch(tmp_path, plain(hub))
    assert len(hub.gets("items.json")) == QUICK.attempts
    assert "tried several times" in caught.value.why
    assert not (tmp_path / "home" / "pins" / "items" / "items.json").exists()


@pytest.mark.parametrize("status", ["400", "401", "403", "410"])
def test_what_cannot_be_mended_is_not_tried_again(
    tmp_path: Path, hub: FakeHub, status: str
) -> None:
    hub.failures["items.json"] = [status] * 3
    with pytest.raises(InvalidInput, match=f"HTTP {status}"):
        fetch(tmp_path, plain(hub))
    assert len(hub.gets("items.json")) == 1


def test_not_found(tmp_path: Path, hub: FakeHub) -> None:
    hub.failures["items.json"] = ["404"]
    with pytest.raises(InvalidInput, match=r"no items.json \(HTTP 404\)"):
        fetch(tmp_path, plain(hub))


def test_wrong_hash_shows_both_and_deletes(tmp_path: Path, hub: FakeHub) -> None:
    other = DATA[:-1] + b"x"
    hub.plain["/raw/items.json"] = other
    with pytest.raises(InvalidInput) as caught:
        fetch(tmp_path, plain(hub))
    assert sha(other) in caught.value.what
    assert sha(DATA) in caught.value.what
    assert nothing_left(tmp_path)


def test_wrong_size_is_refused_before_the_body(tmp_path: Path, hub: FakeHub) -> None:
    hub.plain["/raw/items.json"] = DATA + b"more"
    with pytest.raises(InvalidInput, match="3,004 bytes, pinned are 3,000"):
        fetch(tmp_path, plain(hub))
    assert nothing_left(tmp_path)


def test_a_file_of_unknown_size_has_a_limit(
    tmp_path: Path, hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http, "LIMIT", 1000)
    hub.plain["/raw/items.json"] = DATA
    with pytest.raises(InvalidInput, match="larger than 1,000 bytes"):
        fetch(tmp_path, plain(hub, size=None))
    assert nothing_left(tmp_path)


def test_redirects_are_followed_but_not_to_plain_http(tmp_path: Path, hub: FakeHub) -> None:
    hub.plain["/real"] = DATA
    hub.redirects["/raw/items.json"] = "/real"
    assert fetch(tmp_path, plain(hub)).read_bytes() == DATA
    hub.redirects["/raw/items.json"] = "http://example.org/items.json"
    with pytest.raises(InvalidInput, match="is not https"):
        fetch(tmp_path / "again", plain(hub))


@pytest.mark.parametrize("place", ["https://[bad/x", "https://a]b.org/x"])
def test_a_redirect_to_no_address(tmp_path: Path, hub: FakeHub, place: str) -> None:
    hub.redirects["/raw/items.json"] = place
    with pytest.raises(InvalidInput, match="answers with nonsense"):
        fetch(tmp_path, plain(hub))
    assert nothing_left(tmp_path)


@pytest.mark.parametrize("url", ["https://[bad/x?signature=s", "https://example.org:port/x"])
def test_no_address(url: str) -> None:
    assert "signature" not in http.bare(url)
    with pytest.raises(InvalidInput):
        http.check_scheme(url)


@pytest.mark.parametrize(
    "url", ["http://example.org/x", "ftp://example.org/x", "file:///etc/hosts"]
)
def test_only_https(url: str) -> None:
    with pytest.raises(InvalidInput, match="is not https"):
        http.check_scheme(url)


def test_an_unreachable_host(tmp_path: Path, hub: FakeHub) -> None:
    pin = plain(hub)
    hub_down = Pin(
        id=pin.id, kind="file", title="x", licence="x", url="http://127.0.0.1:9/x", files=pin.files
    )
    with pytest.raises(Preflight, match="cannot be reached"):
        fetch(tmp_path, hub_down)


def test_a_mirror_by_hash(tmp_path: Path, hub: FakeHub) -> None:
    hub.plain["/mirror"] = DATA
    pin = plain(hub)
    mirrored = Pin(
        id=pin.id,
        kind="file",
        title="x",
        licence="x",
        url=f"{hub.url}/gone",
        files=pin.files,
        mirrors=[f"{hub.url}/also-gone", f"{hub.url}/mirror?signature=secret"],
    )
    hub.failures["/gone"] = ["404"]
    hub.failures["/also-gone"] = ["404"]
    events: list[Event] = []
    assert fetch(tmp_path, mirrored, events).read_bytes() == DATA
    assert "secret" not in repr(events)


def test_messages_show_no_query(tmp_path: Path, hub: FakeHub) -> None:
    hub.failures["/raw"] = ["403"]
    with pytest.raises(KitError) as caught:
        fetch(tmp_path, plain(hub, path="/raw/items.json?signature=secret"))
    assert "secret" not in caught.value.render()


def test_an_interrupted_download_is_not_taken_for_the_file(
    tmp_path: Path, hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*args: object) -> str:
        target = args[3]
        assert isinstance(target, Path)
        target.write_bytes(DATA[:100])
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(http, "download", interrupted)
        with pytest.raises(KeyboardInterrupt):
            fetch(tmp_path, plain(hub))
    store = PinStore(tmp_path / "home", [plain(hub)])
    assert store.state("items").status == "absent"
    hub.plain["/raw/items.json"] = DATA
    assert fetch(tmp_path, plain(hub)).read_bytes() == DATA


def test_retry_waits_longer_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    monkeypatch.setattr("kit.pins.retry.time.sleep", pauses.append)

    def fail() -> None:
        raise Transient("no")

    with pytest.raises(Transient):
        Retry(attempts=4, wait=1.0).run(fail)
    assert pauses == [1.0, 2.0, 4.0]


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("7", 7.0),
        (" 0 ", 0.0),
        ("9" * 400, 999_999_999.0),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 0.0),
        ("Wed, 21 Oct 2015 07:28:00", None),
        ("soon", None),
        ("-5", None),
        ("", None),
        (None, None),
    ],
)
def test_retry_after(header: str | None, seconds: float | None) -> None:
    assert retry_after(header) == seconds


def test_retry_after_as_a_date_to_come() -> None:
    when = datetime.now(UTC) + timedelta(seconds=90)
    found = retry_after(format_datetime(when, usegmt=True))
    assert found is not None
    assert 80 < found <= 90


def test_a_server_s_wish_to_wait_is_honoured_within_limits(
    tmp_path: Path, hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []
    monkeypatch.setattr("kit.pins.retry.time.sleep", pauses.append)
    hub.plain["/raw/items.json"] = DATA
    hub.failures["items.json"] = ["503+7", "429+100000"]
    assert fetch(tmp_path, plain(hub)).read_bytes() == DATA
    assert pauses == [7.0, LONGEST]
