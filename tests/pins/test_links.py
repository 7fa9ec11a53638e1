"""Folders of links to listed files, and what is there of a pin that is not."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from kit.errors import Preflight
from kit.manifest.pin_types import Pin, PinnedFile
from kit.pins import fetcher
from kit.pins.store import PinStore
from tests.demo.fixtures import sha

NAMES = ("a", "b", "sub/c", "sub/d")
REVISION = "0123456789abcdef0123456789abcdef01234567"


def store_of(home: Path, kind: str = "hf-model", **fields: str) -> PinStore:
    files = [PinnedFile(path=name, sha256=sha(name.encode())) for name in NAMES]
    return PinStore(
        home,
        [Pin(id="m", kind=kind, title="M", licence="x", files=files, **fields)],  # type: ignore[arg-type]
    )


def filled(home: Path) -> PinStore:
    store = store_of(home, repo="o/n", revision=REVISION)
    for name in NAMES:
        path = store.folder("m") / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())
    return store


def test_a_folder_of_links_is_made_once_while_it_is_right(tmp_path: Path) -> None:
    store = filled(tmp_path)
    (store.folder("m") / "stranger").touch()
    made = store.require("m")
    assert made != store.folder("m")
    found = {p.relative_to(made).as_posix() for p in made.rglob("*") if p.is_symlink()}
    assert found == set(NAMES)
    number = made.stat().st_ino
    assert store.path("m").stat().st_ino == number, "it was not made again"
    (made / "sub" / "c").unlink()
    again = store.path("m")
    assert again == made
    assert (again / "sub" / "c").read_bytes() == b"sub/c"
    (made / "put").write_text("x")
    assert not (store.path("m") / "put").exists()
    assert [path.name for path in made.parent.iterdir()] == [made.name]


def test_the_first_stranger_by_name_is_named(tmp_path: Path) -> None:
    store = filled(tmp_path)
    store.state("m")
    for i in range(12, 0, -1):
        (store.folder("m") / f"stranger-{i:02}").touch()
    (tmp_path / "pins" / ".listed").write_text("no folder")
    with pytest.raises(Preflight, match="stranger-01 is not listed") as caught:
        store.require("m")
    assert "remove stranger-01" in caught.value.next_step


@pytest.mark.parametrize("kind", ["package", "hf-model"])
@pytest.mark.parametrize("own", [False, True])
def test_what_is_not_there_is_absent_as_a_whole_or_file_by_file(
    tmp_path: Path, kind: str, own: bool
) -> None:
    store = store_of(tmp_path / "home", kind, path="none/at/all")
    if own:
        store.own_paths.put("m", tmp_path / "mine")
    state = store.state("m")
    assert (state.status, state.own) == ("absent", own)
    if own or kind == "package":
        assert state.problems == (f"{state.path} does not exist",)
        assert state.missing == ()
    else:
        assert [file.path for file in state.missing] == list(NAMES)


def test_a_home_that_is_not_there_is_made_before_its_disk_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def usage(folder: Path) -> SimpleNamespace:
        assert folder.is_dir()
        return SimpleNamespace(free=10)

    monkeypatch.setattr("kit.pins.fetcher.shutil.disk_usage", usage)
    store = store_of(tmp_path / "new" / "home", "file", url="https://example.org/a")
    files = [PinnedFile(path="a", size=1)]
    assert fetcher.Fetcher(store)._measured(store.pin("m"), files) == files
