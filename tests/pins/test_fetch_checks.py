"""Every check between a source and a file's name, without a network."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from kit.errors import InvalidInput, KitError, Many
from kit.manifest.pin_types import Pin, PinnedFile
from kit.pins import fetcher
from kit.pins.retry import Transient
from kit.pins.store import HashMemory, PinStore
from tests.demo.fixtures import sha
from tests.pins.test_written_pins import QUICK, REVISION, pin


def quiet(
    home: Path, kind: str = "hf-model", **fields: Any
) -> tuple[fetcher.Fetcher, list[fetcher.Event]]:
    events: list[fetcher.Event] = []
    files = fields.pop("files", [PinnedFile(path="a", size=1)])
    made = pin(kind=kind, files=files, **fields)
    return fetcher.Fetcher(PinStore(home, [made]), QUICK, events.append), events


@pytest.mark.parametrize(
    ("mirrors", "sha256", "goes_on"),
    [(["o/copy@" + REVISION], "0" * 64, True), (["o/copy@" + REVISION], None, False),
     ([], "0" * 64, False), ([], None, False)],
)  # fmt: skip
@pytest.mark.parametrize("error", [Transient("busy"), InvalidInput("no such file")])
def test_where_the_hub_does_not_answer_a_mirror_needs_a_hash(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    mirrors: list[str],
    sha256: str | None,
    goes_on: bool,
    error: Exception,
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr("kit.pins.hub.metadata", fail)
    file = PinnedFile(path="a", size=1, sha256=sha256)
    made, _ = quiet(tmp_path, repo="o/n", revision=REVISION, files=[file], mirrors=mirrors)
    wanted = made.store.pin("m")
    if goes_on:
        assert made._ask(wanted, file) == file
        return
    with pytest.raises(KitError, match=str(error)):
        made._ask(wanted, file)


def said(**fields: object) -> SimpleNamespace:
    return SimpleNamespace(**{"commit": REVISION, "sha256": None, "size": None, **fields})


@pytest.mark.parametrize(
    ("file", "answer", "mirrors", "match"),
    [
        ({}, said(), [], ""),
        ({}, said(commit=None), [], ""),
        ({}, said(commit="f" * 40), [], "answers with ffff"),
        ({"sha256": "a"}, said(commit="f" * 40), [], ""),
        ({"sha256": "a"}, said(sha256="a"), [], ""),
        ({"sha256": "a"}, said(sha256="b"), [], "has sha256 b"),
        ({"sha256": "a"}, said(sha256="b"), ["o/c"], ""),
        ({}, said(sha256="b"), [], ""),
        ({"size": 3}, said(size=3), [], ""),
        ({"size": 3}, said(size=4), [], "has 4 bytes"),
        ({"size": 3}, said(), [], ""),
        ({}, said(size=4), [], ""),
    ],
)
def test_what_the_hub_says_of_a_file_must_be_what_is_pinned(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    file: dict[str, Any],
    answer: Any,
    mirrors: list[str],
    match: str,
) -> None:
    monkeypatch.setattr("kit.pins.hub.metadata", lambda *_: answer)
    wanted = PinnedFile(path="a", **file)
    made, _ = quiet(tmp_path, repo="o/n", revision=REVISION, files=[wanted], mirrors=mirrors)
    if match:
        with pytest.raises(InvalidInput, match=match):
            made._ask(made.store.pin("m"), wanted)
        return
    known = made._ask(made.store.pin("m"), wanted)
    assert (known.path, known.sha256) == ("a", wanted.sha256)
    assert known.size == (wanted.size or (None if mirrors else answer.size))


def test_what_failed_is_announced_and_the_rest_is_fetched(tmp_path: Path) -> None:
    made, events = quiet(tmp_path, "unavailable", files=[], unavailable="gone")
    with pytest.raises(Many):
        made.fetch_all(["m"])
    assert [(event.pin, event.what) for event in events] == [("m", "failed")]
    assert events[0].detail


@pytest.mark.parametrize("kind", ["package", "hf-model"])
def test_what_cannot_come_from_anywhere_is_not_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """What ships with the package, and half of what a user brought: nothing is begun."""
    made, events = quiet(tmp_path, kind, repo="o/n", revision=REVISION, path="none")
    monkeypatch.setattr(made, "_bring", lambda pin: pytest.fail("begun"))
    if kind != "package":
        (tmp_path / "mine").mkdir()
        made.store.own_paths.put("m", tmp_path / "mine")
    with pytest.raises(KitError):
        made.fetch("m")
    assert events == []


@pytest.mark.parametrize(
    ("source", "where"), [("https://example.org/a", ""), (f"o/n@{REVISION}", f"o/n@{REVISION}")]
)
def test_a_source_that_broke_off_is_named_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, where: str
) -> None:
    def fail(*_: object) -> None:
        raise Transient(f"{source} broke off")

    made, _ = quiet(tmp_path)
    monkeypatch.setattr(made, "_transfer", fail)
    with pytest.raises(KitError, match="broke off") as caught:
        made._from(made.store.pin("m"), PinnedFile(path="a"), source)
    assert caught.value.where == where


@pytest.mark.parametrize(
    ("source", "where"),
    [("https://example.org/a?secret=1", "https://example.org/a"), ("o/n@r", "o/n@r")],
)
@pytest.mark.parametrize(
    ("file", "match"),
    [({"sha256": "f" * 64}, "has sha256"), ({"size": 2}, "1 bytes, pinned are 2"), ({}, "")],
)
def test_what_came_is_checked_before_it_gets_its_name(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    source: str,
    where: str,
    file: dict[str, Any],
    match: str,
) -> None:
    def bring(pin: Pin, file: PinnedFile, source: str, folder: Path) -> tuple[Path, str]:
        (folder / "part").write_bytes(b"a")
        return folder / "part", sha(b"a")

    made, events = quiet(tmp_path)
    monkeypatch.setattr(made, "_transfer", bring)
    target = made.store.folder("m") / "sub" / "a"
    if match:
        with pytest.raises(InvalidInput, match=match) as caught:
            made._from(made.store.pin("m"), PinnedFile(path="sub/a", **file), source)
        assert caught.value.where == where
        assert not target.exists()
    else:
        made._from(made.store.pin("m"), PinnedFile(path="sub/a", sha256=sha(b"a"), size=1), source)
        assert target.read_bytes() == b"a"
    assert [event.what for event in events] == ["file"]
    assert not (tmp_path / "pins" / ".incoming" / "m").exists()


def test_a_file_that_is_dropped_is_forgotten_for_good(tmp_path: Path) -> None:
    made, _ = quiet(tmp_path, repo="o/n", revision=REVISION,
                    files=[PinnedFile(path="a", size=1), PinnedFile(path="b")])  # fmt: skip
    store, folder = made.store, made.store.folder("m")
    folder.mkdir(parents=True)
    for name in "ab":
        (folder / name).write_bytes(b"1")
    assert store.state("m").ready
    store.memory("m").save()
    (folder / "a").write_bytes(b"22")
    made._drop_wrong(store.pin("m"), store.state("m"))
    assert sorted(path.name for path in folder.iterdir()) == ["b"]
    kept = HashMemory(store.memory("m").record)
    assert kept.remembered(folder / "a") is None
    assert kept.remembered(folder / "b") == sha(b"1")


def test_what_is_remembered_is_written_once(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("1")
    memory = HashMemory(tmp_path / "memory.json")
    memory.save()
    assert not (tmp_path / "memory.json").exists(), "nothing to remember"
    memory.sha256(tmp_path / "x")
    memory.save()
    (tmp_path / "memory.json").unlink()
    memory.save()
    assert not (tmp_path / "memory.json").exists()
    memory.sha256(tmp_path / "x", deep=True)
    memory.save()
    assert (tmp_path / "memory.json").exists()


def test_a_fetch_says_when_it_began_and_was_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def bring(pin: Pin, file: PinnedFile, source: str, folder: Path) -> tuple[Path, str]:
        (folder / "part").write_bytes(b"a")
        return folder / "part", sha(b"a")

    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.delenv("KIT_OFFLINE", raising=False)
    made, events = quiet(tmp_path, "file", url="https://example.org/a")
    monkeypatch.setattr(made, "_transfer", bring)
    assert made.fetch("m").brought == ("a",)
    assert [event.what for event in events] == ["size", "file", "done"]
    assert made.fetch_all(["m"])[0].brought == ()
    assert [event.what for event in events][3:] == ["present"]
