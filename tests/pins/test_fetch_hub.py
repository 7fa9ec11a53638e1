"""Fetching from a hub that misbehaves in every way a real one does."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from kit.errors import InvalidInput, KitError, Many, Preflight
from kit.manifest.pin_types import Pin, PinnedFile
from kit.pins import Event, Fetcher, Retry
from kit.pins.hub import check_access
from kit.pins.store import PinStore
from tests.demo.fixtures import sha
from tests.demo.hub_server import REVISION, TOKEN, FakeHub, Repo

QUICK = Retry(attempts=3, wait=0.0, timeout=0.6)
CONFIG, WEIGHTS = b'{"a": 1}', b"w" * 5000


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """The hub library's own pauses between tries."""
    monkeypatch.setattr("huggingface_hub.file_download.time.sleep", lambda seconds: None)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DOWNLOAD_TIMEOUT", 0.6)


def model(**changes: object) -> Pin:
    fields: dict[str, object] = {
        "id": "model",
        "kind": "hf-model",
        "title": "A model",
        "licence": "Example Licence",
        "repo": "example/model",
        "revision": REVISION,
        "files": [
            PinnedFile(path="config.json", sha256=sha(CONFIG), size=len(CONFIG)),
            PinnedFile(path="model.safetensors", sha256=sha(WEIGHTS), size=len(WEIGHTS)),
        ],
    }
    return Pin(**{**fields, **changes})  # type: ignore[arg-type]


def repository(**changes: object) -> Repo:
    files = {"config.json": CONFIG, "model.safetensors": WEIGHTS, "unused.bin": b"never"}
    return Repo(files=files, lfs={"model.safetensors"}, **changes)  # type: ignore[arg-type]


def fetch(tmp_path: Path, pin: Pin, events: list[Event] | None = None) -> PinStore:
    store = PinStore(tmp_path / "home", [pin])
    Fetcher(store, QUICK, (events if events is not None else []).append).fetch(pin.id)
    return store


def leftovers(tmp_path: Path) -> list[str]:
    """Files below the pins folder that are neither the pin nor the kit's own notes."""
    home = tmp_path / "home" / "pins"
    found = [p.relative_to(home).as_posix() for p in home.rglob("*") if p.is_file()]
    return [path for path in found if not path.startswith((".checked", ".incoming"))]


def test_only_listed_files_come_and_nothing_comes_twice(tmp_path: Path, hub: FakeHub) -> None:
    hub.repos["example/model"] = repository()
    store = fetch(tmp_path, model())
    assert store.state("model").status == "ok"
    assert (store.path("model") / "config.json").read_bytes() == CONFIG
    assert sorted(leftovers(tmp_path)) == ["model/config.json", "model/model.safetensors"]
    assert not hub.gets("unused")
    asked = len(hub.seen)
    events: list[Event] = []
    fetch(tmp_path, model(), events)
    assert len(hub.seen) == asked
    assert [event.what for event in events] == ["present"]


def test_a_dataset_comes_by_the_same_route(tmp_path: Path, hub: FakeHub) -> None:
    hub.repos["example/data"] = Repo(files={"items.json": b"[]"})
    pin = model(
        kind="hf-dataset",
        repo="example/data",
        files=[PinnedFile(path="items.json", sha256=sha(b"[]"))],
    )
    assert fetch(tmp_path, pin).state("model").status == "ok"
    assert all(path.startswith("/datasets/") for path in hub.gets("resolve"))


def test_sizes_are_asked_before_anything_is_downloaded(tmp_path: Path, hub: FakeHub) -> None:
    hub.repos["example/model"] = repository()
    events: list[Event] = []
    fetch(tmp_path, model(), events)
    assert events[0].what == "size"
    assert events[0].bytes == len(CONFIG) + len(WEIGHTS)
    heads = [method for method, path, _ in hub.seen if "resolve" in path]
    assert heads[:2] == ["HEAD", "HEAD"]


def test_an_unconfirmed_pin_is_fetched_and_stays_unconfirmed(tmp_path: Path, hub: FakeHub) -> None:
    hub.repos["example/model"] = repository()
    pin = model(unconfirmed="no hash", files=[PinnedFile(path="config.json")])
    store = fetch(tmp_path, pin)
    assert store.state("model").status == "unconfirmed"
    assert store.state("model").ready


def test_gated_without_a_token_says_where_to_go(tmp_path: Path, hub: FakeHub) -> None:
    hub.repos["example/model"] = repository(gated=True)
    with pytest.raises(Preflight) as caught:
        fetch(tmp_path, model(gated=True))
    text = caught.value.render()
    assert "gated and there is no token" in text
    assert "https://huggingface.co/example/model" in text
    assert "hf auth login" in text
    assert "Example Licence" in text
    assert leftovers(tmp_path) == []


def test_gated_with_a_token_that_was_not_granted(
    tmp_path: Path, hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.repos["example/model"] = repository(gated=True)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    with pytest.raises(Preflight) as caught:
        fetch(tmp_path, model(gated=True))
    assert "403" in caught.value.render()
    assert "has not been granted access" in caught.value.render()
    assert TOKEN not in caught.value.render()


@pytest.mark.parametrize("gated", [False, True])
def test_a_token_that_expired(
    tmp_path: Path, hub: FakeHub, monkeypatch: pytest.MonkeyPatch, gated: bool
) -> None:
    """The hub then refuses public files too: they were neither deleted nor made private."""
    hub.repos["example/model"] = repository(gated=gated)
    hub.refuses_tokens = True
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    with pytest.raises(Preflight, match="does not accept your token") as caught:
        fetch(tmp_path, model(gated=gated))
    text = caught.value.render()
    assert "hf auth login" in text
    assert ("unset HF_TOKEN" in text) == (not gated)
    assert "deleted or made" not in text
    assert TOKEN not in text
    with pytest.raises(Preflight, match="does not accept your token"):
        check_access(model(gated=gated))


def test_gated_and_granted(tmp_path: Path, hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.repos["example/model"] = repository(gated=True, granted=True)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    events: list[Event] = []
    assert fetch(tmp_path, model(gated=True), events).state("model").status == "ok"
    assert TOKEN not in repr(events)
    kept = [p.read_text() for p in (tmp_path / "home").rglob("*.json") if p.is_file()]
    assert TOKEN not in "".join(kept)


def test_no_such_repository(tmp_path: Path, hub: FakeHub) -> None:
    with pytest.raises(Preflight, match="the hub has no example/model"):
        fetch(tmp_path, model())


def test_no_such_revision(tmp_path: Path, hub: FakeHub) -> None:
    hub.repos["example/model"] = repository(revision="f" * 40)
    with pytest.raises(InvalidInput, match=f"has no revision {REVISION}"):
        fetch(tmp_path, model())


def test_no_such_file(tmp_path: Path, hub: FakeHub) -> None:
    hub.repos["example/model"] = Repo(files={"config.json": CONFIG})
    with pytest.raises(InvalidInput, match=r"there is no model\.safetensors"):
        fetch(tmp_path, model())


def test_a_large_file_with_another_hash_is_not_even_downloaded(
    tmp_path: Path, hub: FakeHub
) -> None:
    hub.repos["example/model"] = repository()
    hub.repos["example/model"].files["model.safetensors"] = b"x" * 5000
    with pytest.raises(InvalidInput) as caught:
        fetch(tmp_path, model())
    assert sha(WEIGHTS) in caught.value.what
    assert sha(b"x" * 5000) in caught.value.what
    assert not hub.gets("model.safetensors")


def test_a_small_file_with_another_hash_is_deleted(tmp_path: Path, hub: FakeHub) -> None:
    hub.repos["example/model"] = repository()
    hub.repos["example/model"].files["config.json"] = b'{"a": 2}'
    with pytest.raises(InvalidInput) as caught:
        fetch(tmp_path, model())
    assert sha(CONFIG) in caught.value.what
    assert sha(b'{"a": 2}') in caught.value.what
    assert leftovers(tmp_path) == []


def test_another_size_is_noticed_before_the_download(tmp_path: Path, hub: FakeHub) -> None:
    hub.repos["example/model"] = repository()
    hub.repos["example/model"].files["config.json"] = b"much longer than pinned"
    with pytest.raises(InvalidInput, match="23 bytes, pinned are 8"):
        fetch(tmp_path, model())


def test_server_errors_are_waited_out(tmp_path: Path, hub: FakeHub) -> None:
    hub.repos["example/model"] = repository()
    hub.failures["config.json"] = ["503", "502"]
    events: list[Event] = []
    assert fetch(tmp_path, model(), events).state("model").status == "ok"
    assert "retry" in [event.what for event in events]


def test_a_server_that_keeps_failing_is_given_up(tmp_path: Path, hub: FakeHub) -> None:
    hub.repos["example/model"] = repository()
    hub.failures["config.json"] = ["503"] * 50
    with pytest.raises(Preflight, match="HTTP 503"):
        fetch(tmp_path, model())


def test_a_short_body_is_completed(tmp_path: Path, hub: FakeHub) -> None:
    hub.repos["example/model"] = repository()
    hub.failures["model.safetensors"] = ["GET:short"]
    assert fetch(tmp_path, model()).state("model").status == "ok"


def test_a_body_that_always_breaks_off_leaves_no_file(tmp_path: Path, hub: FakeHub) -> None:
    hub.repos["example/model"] = repository()
    hub.failures["model.safetensors"] = ["GET:close"] * 500
    with pytest.raises(Preflight, match="pin 'model'"):
        fetch(tmp_path, model())
    assert leftovers(tmp_path) == ["model/config.json"]


def test_slow_answers_time_out_and_are_tried_again(tmp_path: Path, hub: FakeHub) -> None:
    hub.repos["example/model"] = repository()
    hub.failures["config.json"] = ["slow"]
    assert fetch(tmp_path, model()).state("model").status == "ok"
    hub.failures["model.safetensors"] = ["GET:slow"]
    fetch(tmp_path / "again", model())
    assert len(hub.gets("model.safetensors")) >= 3


def test_a_body_that_falls_silent_is_tried_again(tmp_path: Path, hub: FakeHub) -> None:
    """The headers came, half the body came, then nothing more within the time-out."""
    hub.repos["example/model"] = repository()
    hub.failures["model.safetensors"] = ["GET:stall"]
    store = fetch(tmp_path, model())
    assert (store.path("model") / "model.safetensors").read_bytes() == WEIGHTS


def test_a_body_that_always_falls_silent_is_given_up(
    tmp_path: Path, hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DOWNLOAD_TIMEOUT", 0.1)
    hub.repos["example/model"] = repository()
    hub.failures["model.safetensors"] = ["GET:stall"] * 500
    events: list[Event] = []
    with pytest.raises(Preflight) as caught:
        fetch(tmp_path, model(), events)
    assert "tried several times" in caught.value.why
    assert [event.what for event in events].count("retry") == QUICK.attempts - 1
    assert leftovers(tmp_path) == ["model/config.json"]


@pytest.mark.parametrize("status", ["429", "500", "502", "503", "504"])
def test_the_hub_s_wish_to_wait_is_honoured(
    tmp_path: Path, hub: FakeHub, monkeypatch: pytest.MonkeyPatch, status: str
) -> None:
    pauses: list[float] = []
    monkeypatch.setattr("kit.pins.retry.time.sleep", pauses.append)
    hub.repos["example/model"] = repository()
    hub.failures["config.json"] = [f"{status}+7"] * 2
    assert fetch(tmp_path, model()).state("model").status == "ok"
    assert pauses == [7.0, 7.0]


def test_a_revision_that_moved_under_a_pin_without_hashes(tmp_path: Path, hub: FakeHub) -> None:
    """The hub answers, but from another commit: nothing else could tell."""
    hub.repos["example/model"] = repository(answers="f" * 40)
    pin = model(unconfirmed="no hash", files=[PinnedFile(path="config.json")])
    with pytest.raises(InvalidInput, match=f"asked for revision {REVISION}, .* {'f' * 40}"):
        fetch(tmp_path, pin)
    assert leftovers(tmp_path) == []


def test_a_revision_that_moved_with_other_content(tmp_path: Path, hub: FakeHub) -> None:
    hub.repos["example/model"] = repository(answers="f" * 40)
    hub.repos["example/model"].files["model.safetensors"] = b"v" * 5000
    with pytest.raises(InvalidInput, match="has sha256"):
        fetch(tmp_path, model())


def test_no_network(tmp_path: Path, hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(Preflight) as caught:
        fetch(tmp_path, model())
    assert "cannot be reached" in caught.value.render()
    assert "what has been fetched is kept" in caught.value.render()


def test_offline_fetches_nothing(
    tmp_path: Path, hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.repos["example/model"] = repository()
    fetch(tmp_path, model())
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    asked = len(hub.seen)
    assert fetch(tmp_path, model()).state("model").ready
    (tmp_path / "home/pins/model/config.json").unlink()
    with pytest.raises(Preflight, match="the network is switched off"):
        fetch(tmp_path, model())
    assert len(hub.seen) == asked


def test_a_damaged_file_is_found_and_fetched_again(tmp_path: Path, hub: FakeHub) -> None:
    hub.repos["example/model"] = repository()
    store = fetch(tmp_path, model())
    place = store.path("model") / "config.json"
    place.write_bytes(b"damaged!")
    assert PinStore(tmp_path / "home", [model()]).state("model").status == "wrong"
    assert fetch(tmp_path, model()).state("model").status == "ok"
    assert place.read_bytes() == CONFIG
    assert len(hub.gets("model.safetensors")) == 1


def test_the_hub_cache_is_used_without_the_network(
    tmp_path: Path, hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "hub-cache" / "models--example--model" / "snapshots" / REVISION
    folder.mkdir(parents=True)
    (folder / "config.json").write_bytes(CONFIG)
    (folder / "model.safetensors").write_bytes(WEIGHTS)
    monkeypatch.setenv("KIT_OFFLINE", "1")
    store = fetch(tmp_path, model())
    assert store.state("model").status == "ok"
    assert hub.seen == []
    assert (folder / "config.json").stat().st_nlink == 2


def test_a_wrong_file_in_the_hub_cache_is_not_believed(tmp_path: Path, hub: FakeHub) -> None:
    hub.repos["example/model"] = repository()
    folder = tmp_path / "hub-cache" / "models--example--model" / "snapshots" / REVISION
    folder.mkdir(parents=True)
    (folder / "config.json").write_bytes(b"poisoned")
    assert fetch(tmp_path, model()).state("model").status == "ok"


def test_a_full_disk_is_seen_before_the_download(
    tmp_path: Path, hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.repos["example/model"] = repository()
    usage = type("Usage", (), {"free": 100})
    monkeypatch.setattr("kit.pins.fetcher.shutil.disk_usage", lambda folder: usage)
    with pytest.raises(Preflight, match="not enough disk space"):
        fetch(tmp_path, model())
    assert not hub.gets("resolve")


def test_a_mirror_serves_when_the_hub_does_not(tmp_path: Path, hub: FakeHub) -> None:
    hub.plain["/mirror/config.json"] = CONFIG
    pin = model(
        files=[PinnedFile(path="config.json", sha256=sha(CONFIG))],
        mirrors=[f"{hub.url}/mirror/"],
    )
    events: list[Event] = []
    assert fetch(tmp_path, pin, events).state("model").status == "ok"
    assert "mirror" in [event.what for event in events]


def test_a_mirror_repository(tmp_path: Path, hub: FakeHub) -> None:
    hub.repos["other/copy"] = repository()
    pin = model(mirrors=[f"other/copy@{REVISION}"])
    assert fetch(tmp_path, pin).state("model").status == "ok"


def test_a_mirror_with_other_bytes_is_refused(tmp_path: Path, hub: FakeHub) -> None:
    hub.plain["/mirror/config.json"] = b"something else"
    pin = model(
        files=[PinnedFile(path="config.json", sha256=sha(CONFIG))],
        mirrors=[f"{hub.url}/mirror/config.json"],
    )
    with pytest.raises(KitError, match="the hub has no"):
        fetch(tmp_path, pin)
    assert leftovers(tmp_path) == []


def test_a_mirror_is_never_used_for_a_file_without_hash(tmp_path: Path, hub: FakeHub) -> None:
    hub.plain["/mirror/config.json"] = CONFIG
    pin = model(files=[PinnedFile(path="config.json")], mirrors=[f"{hub.url}/mirror/config.json"])
    with pytest.raises(KitError):
        fetch(tmp_path, pin)
    assert not hub.gets("mirror")


def test_one_failing_pin_does_not_stop_the_others(tmp_path: Path, hub: FakeHub) -> None:
    hub.repos["example/model"] = repository()
    gone = model(id="gone", repo="example/gone")
    store = PinStore(tmp_path / "home", [gone, model()])
    with pytest.raises(Many) as caught:
        Fetcher(store, QUICK).fetch_all(["gone", "model"])
    assert len(caught.value.errors) == 1
    assert store.state("model").ready


def test_unavailable_inputs_say_how_to_bring_them(tmp_path: Path, hub: FakeHub) -> None:
    pin = Pin(
        id="private",
        kind="unavailable",
        title="Private data",
        licence="none",
        unavailable="never released by its authors",
    )
    with pytest.raises(Preflight) as caught:
        fetch(tmp_path, pin)
    assert "never released" in caught.value.render()
    assert "--pin private=PATH" in caught.value.render()
    own = tmp_path / "mine"
    own.mkdir()
    (own / "items.json").write_text("[]")
    store = PinStore(tmp_path / "home", [pin])
    store.own_paths.put("private", own)
    assert Fetcher(store, QUICK).fetch("private").state.ready
    assert store.path("private") == own


@pytest.mark.parametrize(
    ("name", "said", "advice"),
    [
        ("ENOSPC", "not enough disk space", "free some space"),
        ("EDQUOT", "not enough disk space", "free some space"),
        ("EACCES", "cannot write: Permission denied", "check permissions"),
    ],
)
def test_a_disk_that_fails_while_writing(
    tmp_path: Path, hub: FakeHub, monkeypatch: pytest.MonkeyPatch, name: str, said: str, advice: str
) -> None:
    import errno

    def full(*args: object, **kwargs: object) -> str:
        raise OSError(getattr(errno, name), os.strerror(getattr(errno, name)))

    hub.repos["example/model"] = repository()
    monkeypatch.setattr("huggingface_hub.hf_hub_download", full)
    with pytest.raises(Preflight) as caught:
        fetch(tmp_path, model())
    assert said in caught.value.what
    assert advice in caught.value.next_step
    assert "KIT_HOME" in caught.value.next_step
    assert leftovers(tmp_path) == []


def test_one_process_fetches_a_pin_at_a_time(
    tmp_path: Path, hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever comes second waits: its lock is not to be had while the first one downloads."""
    import fcntl

    from huggingface_hub import hf_hub_download as real

    free: list[bool] = []

    def downloading(*args: Any, **kwargs: Any) -> str:
        with (tmp_path / "home" / "locks" / "pin-model").open("w") as second:
            try:
                fcntl.flock(second, fcntl.LOCK_EX | fcntl.LOCK_NB)
                free.append(True)
            except BlockingIOError:
                free.append(False)
        return str(real(*args, **kwargs))

    hub.repos["example/model"] = repository()
    monkeypatch.setattr("huggingface_hub.hf_hub_download", downloading)
    fetch(tmp_path, model())
    assert free
    assert not any(free)
    with (tmp_path / "home" / "locks" / "pin-model").open("w") as afterwards:
        fcntl.flock(afterwards, fcntl.LOCK_EX | fcntl.LOCK_NB)


PINNED = {"sha256": sha(CONFIG), "size": len(CONFIG)}


@pytest.mark.parametrize(
    ("pinned", "here"),
    [(PINNED, b'{"b": 1}'), (PINNED, b"longer than that"), ({"size": len(CONFIG)}, b"longer"),
     ({"size": len(CONFIG)}, b'{"b": 1}'), ({}, b"changed since")],
    ids=["hash", "hash and size", "size", "since first seen", "nothing pinned"],
)  # fmt: skip
def test_a_file_that_is_wrong_in_any_way_is_fetched_again_and_no_other(
    tmp_path: Path, hub: FakeHub, pinned: dict[str, Any], here: bytes
) -> None:
    hub.repos["example/model"] = repository()
    files = [PinnedFile(path="config.json", **pinned), model().files[1]]
    pin = model(files=files, unconfirmed="u")
    store = fetch(tmp_path, pin)
    folder = store.folder("model")
    (folder / "config.json").write_bytes(here)
    before = len(hub.gets("config.json"))
    assert fetch(tmp_path, pin).state("model").ready
    assert (folder / "config.json").read_bytes() == CONFIG
    assert len(hub.gets("config.json")) == before + 1
    assert len(hub.gets("model.safetensors")) == 1


def test_across_disks_the_hub_cache_is_linked_to(
    tmp_path: Path, hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    def apart(*args: object) -> None:
        raise OSError("another disk")

    folder = tmp_path / "hub-cache" / "models--example--model" / "snapshots" / REVISION
    folder.mkdir(parents=True)
    (folder / "config.json").write_bytes(CONFIG)
    (folder / "model.safetensors").write_bytes(WEIGHTS)
    monkeypatch.setattr("kit.pins.fetcher.os.link", apart)
    events: list[Event] = []
    place = fetch(tmp_path, model(), events).path("model") / "config.json"
    assert place.resolve() == (folder / "config.json").resolve()
    assert [event.detail for event in events if event.what == "file"] == [
        "config.json from the hub cache",
        "model.safetensors from the hub cache",
    ]
    assert hub.seen == []


def test_what_happens_is_announced_in_order(tmp_path: Path, hub: FakeHub) -> None:
    hub.repos["example/model"] = repository()
    events: list[Event] = []
    store = fetch(tmp_path, model(), events)
    whole = len(CONFIG) + len(WEIGHTS)
    assert [(event.what, event.bytes) for event in events] == [
        ("size", whole), ("file", len(CONFIG)), ("file", len(WEIGHTS)), ("done", None),
    ]  # fmt: skip
    assert events[0].detail == f"2 files, {whole:,} bytes"
    events.clear()
    fetch(tmp_path, model(), events)
    assert [(event.what, event.detail) for event in events] == [("present", "ok")]
    assert Fetcher(store).fetch("model").brought == ()
    (store.folder("model") / "config.json").unlink()
    assert Fetcher(store, QUICK).fetch("model").brought == ("config.json",)


@pytest.mark.parametrize(("spare", "fits"), [(0, False), (1, False), (200, True)])
def test_a_disk_wants_a_little_more_than_the_bytes(
    tmp_path: Path, hub: FakeHub, monkeypatch: pytest.MonkeyPatch, spare: int, fits: bool
) -> None:
    hub.repos["example/model"] = repository()
    usage = type("Usage", (), {"free": len(CONFIG) + len(WEIGHTS) + spare})
    monkeypatch.setattr("kit.pins.fetcher.shutil.disk_usage", lambda folder: usage)
    if fits:
        assert fetch(tmp_path, model()).state("model").ready
    else:
        with pytest.raises(Preflight, match="not enough disk space"):
            fetch(tmp_path, model())


def test_ones_own_path_that_is_not_right_is_not_fetched(tmp_path: Path, hub: FakeHub) -> None:
    hub.repos["example/model"] = repository()
    store = PinStore(tmp_path / "home", [model()])
    store.own_paths.put("model", tmp_path / "nothing")
    with pytest.raises(KitError, match="does not exist"):
        Fetcher(store, QUICK).fetch("model")
    assert hub.seen == []


def test_a_mirror_needs_a_revision(tmp_path: Path, hub: FakeHub) -> None:
    pin = model(files=[PinnedFile(path="config.json", sha256=sha(CONFIG))], mirrors=["other/copy"])
    hub.repos["other/copy"] = repository()
    with pytest.raises(KitError):
        fetch(tmp_path, pin)
    assert not hub.gets("other/copy")
