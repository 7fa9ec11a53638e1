"""What is written into a pin file, entry by entry, and how the file is replaced."""

from __future__ import annotations

import io
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from kit.errors import InvalidInput, Preflight
from kit.manifest.catalog import Catalog
from kit.manifest.pin_types import Pin, PinnedFile
from kit.pins import Retry, command, fetcher
from kit.pins.command import _at_hub, _fill_in, _replace, _yaml, confirm, resolve_revision
from kit.pins.retry import Transient
from kit.pins.store import HashMemory, PinStore, _listing
from tests.demo.fixtures import sha

REVISION = "0123456789abcdef0123456789abcdef01234567"
QUICK = Retry(attempts=1, wait=0.0, timeout=2.0)


def pin(**fields: Any) -> Pin:
    about: dict[str, Any] = {"id": "m", "kind": "hf-model", "title": "M", "licence": "x"}
    return Pin(**{**about, "unconfirmed": "u", **fields})


def filled(entry: str, made: Pin) -> tuple[bool, str]:
    yaml = _yaml()
    document = yaml.load(entry)
    changed = _fill_in(document, made)
    out = io.StringIO()
    yaml.dump(document, out)
    return changed, out.getvalue()


FILES = [PinnedFile(path="a", sha256="aa", size=1), PinnedFile(path="b", sha256="bb", size=2)]


@pytest.mark.parametrize(
    ("entry", "made", "after"),
    [
        ("id: m\nrepo: o/n\n", pin(repo="o/n"), None),
        ("id: m\nrepo: o/n\nrevision: r\n", pin(repo="o/n", revision="r"), None),
        ("id: m\nurl: u\n", pin(url="u", revision="r"), None),
        ("id: m\nrepo: o/n\nx: 1\n", pin(repo="o/n", revision="r"),
         'id: m\nrepo: o/n\nrevision: "r"\nx: 1\n'),
        ("files:\n  - path: a\n    size: 1\n", pin(files=FILES),
         'files:\n  - path: a\n    sha256: "aa"\n    size: 1\n'),
        ('files:\n  - path: a\n    sha256: "aa"\n', pin(files=FILES),
         'files:\n  - path: a\n    sha256: "aa"\n    size: 1\n'),
        ("files:\n  - path: c\n  - path: b\n", pin(files=FILES),
         'files:\n  - path: c\n  - path: b\n    sha256: "bb"\n    size: 2\n'),
        ("files:\n  - path: a\n", pin(files=[PinnedFile(path="a")]), None),
        ('files:\n  - path: a\n    sha256: "zz"\n    size: 9\n', pin(files=FILES), None),
        ("unconfirmed: u\n", pin(), None),
        ("id: m\n", pin(unconfirmed=None), None),
        ("id: m\n" + "title: " + "word " * 900 + "word\nrepo: o/n\n",
         pin(repo="o/n", revision="r"),
         "id: m\n" + "title: " + "word " * 900 + 'word\nrepo: o/n\nrevision: "r"\n'),
    ],
)  # fmt: skip
def test_an_entry_gets_what_it_lacks_and_nothing_else(
    entry: str, made: Pin, after: str | None
) -> None:
    changed, text = filled(entry, made)
    assert changed == (after is not None)
    assert text.replace("  - ", "- ").replace("    ", "  ") == (after or entry).replace(
        "  - ", "- "
    ).replace("    ", "  ")


@pytest.mark.parametrize(("source", "begins"), [("", "confirmed at"), ("source: s\n", "s; conf")])
def test_what_was_confirmed_says_when(source: str, begins: str) -> None:
    changed, text = filled(f"id: m\nunconfirmed: u\n{source}", pin(unconfirmed=None))
    assert changed
    assert "unconfirmed" not in text
    assert text.splitlines()[1].startswith(f"source: {begins}")


def test_a_pin_file_keeps_who_may_read_it_and_reaches_the_disk_whole(
    repo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = repo / "manifests" / "pins.yaml"
    path.chmod(0o640)
    sizes: list[int] = []
    monkeypatch.setattr(command.os, "fsync", lambda fd: sizes.append(os.fstat(fd).st_size))
    text = path.read_text() + "# more\n"
    _replace(path, text)
    assert path.read_text() == text
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert sizes == [len(text.encode())]
    with pytest.raises(InvalidInput, match="cannot be written: No such file"):
        _replace(repo / "none" / "pins.yaml", text)


@pytest.mark.parametrize(
    ("said", "match"),
    [
        ({"sha256": None, "blob": None}, "gives no identity for a"),
        ({"sha256": "0" * 64, "blob": None}, "the hub has 0000"),
        ({"sha256": None, "blob": "0" * 40}, "the hub has 0000"),
        ({"sha256": sha(b"a"), "blob": "0" * 40}, ""),
        ({"sha256": None, "blob": "2e65efe2a145dda7ee51d1741299f848e5bf752e"}, ""),
    ],
)
def test_a_file_is_what_the_hub_says_by_hash_or_else_by_blob(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: dict[str, Any], match: str
) -> None:
    """The blob id is git's of the content ``a``: ``printf a | git hash-object --stdin``."""
    (tmp_path / "a").write_bytes(b"a")
    monkeypatch.setattr("kit.pins.hub.metadata", lambda *_: SimpleNamespace(**said))
    model = pin(repo="o/n", revision=REVISION)

    def act() -> None:
        _at_hub(model, PinnedFile(path="a"), tmp_path / "a", QUICK)

    if not match:
        act()
        return
    with pytest.raises(InvalidInput, match=match):
        act()


def test_a_confirmation_goes_on_after_what_an_earlier_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = pin(kind="file", url="https://example.org/a", files=[PinnedFile(path="a")])
    store = PinStore(tmp_path, [plain])
    store.folder("m").mkdir(parents=True)
    (store.folder("m") / "a").write_bytes(b"a")
    left = tmp_path / "pins" / ".incoming" / "m.confirm"
    for folder_goes in (False, True):
        left.mkdir(parents=True)

        def answer(*args: Any, goes: bool = folder_goes) -> str:
            if goes:  # somebody tidied up meanwhile
                left.rmdir()
            return sha(b"a")

        monkeypatch.setattr("kit.pins.http.download", answer)
        done = confirm(store, "m", QUICK)
        assert done.files == [PinnedFile(path="a", sha256=sha(b"a"), size=1)]
        assert done.unconfirmed is None
        assert not left.exists()


@pytest.mark.parametrize(
    ("made", "asked"),
    [
        (pin(repo="o/n"), True),
        (pin(repo="o/n", revision=REVISION), False),
        (pin(kind="file", url="https://example.org/a"), False),
    ],
)
def test_only_a_repository_without_revision_is_asked_for_its_newest(
    monkeypatch: pytest.MonkeyPatch, made: Pin, asked: bool
) -> None:
    monkeypatch.setattr("kit.pins.hub.newest_revision", lambda pin: "f" * 40)
    assert resolve_revision(made, QUICK).revision == ("f" * 40 if asked else made.revision)


def test_a_hub_that_does_not_answer_gives_no_revision(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: Pin) -> str:
        raise Transient("busy")

    monkeypatch.setattr("kit.pins.hub.newest_revision", fail)
    with pytest.raises(Preflight, match="busy") as caught:
        resolve_revision(pin(repo="o/n"), QUICK)
    assert caught.value.where == "o/n"


def test_a_file_that_was_forgotten_is_seen_for_the_first_time(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_text("1")
    memory = HashMemory(tmp_path / "memory.json")
    memory.sha256(path)
    memory.forget(path)
    assert memory.remembered(path) is None
    path.write_text("22")
    memory.sha256(path)
    assert memory.remembered(path) == sha(b"22")
    memory.save()
    kept = HashMemory(tmp_path / "memory.json")
    kept.forget(path)
    kept.save()
    assert HashMemory(tmp_path / "memory.json").remembered(path) is None


def test_a_folder_is_listed_by_name_without_caches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("b/c", "a", "b/a", "__pycache__/x"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("")
    whole = Path.rglob

    def backwards(self: Path, pattern: str) -> Iterator[Path]:
        return iter(sorted(whole(self, pattern), reverse=True))

    monkeypatch.setattr(Path, "rglob", backwards)
    assert [file.path for file in _listing(tmp_path)] == ["a", "b/a", "b/c"]
    assert [file.path for file in _listing(tmp_path / "a")] == ["a"]


@pytest.mark.parametrize(("free", "fits"), [(200, True), (199, False), (10_000, True)])
def test_the_disk_must_have_what_will_come_and_some_more(
    repo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: int, fits: bool
) -> None:
    monkeypatch.setattr(fetcher, "SPARE", 2)
    usage = SimpleNamespace(free=free)
    monkeypatch.setattr("kit.pins.fetcher.shutil.disk_usage", lambda folder: usage)
    made = fetcher.Fetcher(PinStore(tmp_path, Catalog(repo).pins()))
    files = [PinnedFile(path="a", size=60), PinnedFile(path="b"), PinnedFile(path="c", size=40)]
    plain = pin(kind="file", url="https://example.org/a", files=files)
    if fits:
        assert made._measured(plain, files) == files
        return
    with pytest.raises(Exception, match="not enough disk space"):
        made._measured(plain, files)


@pytest.mark.parametrize("revision", ["", "None"])
def test_another_repository_is_named_with_a_revision(revision: str) -> None:
    with pytest.raises(InvalidInput, match="is named without a revision"):
        fetcher._at(pin(), "o/n", revision)
    made = fetcher._at(pin(), "o/n", REVISION)
    assert (made.repo, made.revision) == ("o/n", REVISION)
