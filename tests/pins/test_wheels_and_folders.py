"""Pins of a released package, and of a folder of one's own."""

from __future__ import annotations

import hashlib
import zipfile
from pathlib import Path

import pytest

from kit.errors import InvalidInput, Preflight
from kit.manifest.catalog import Catalog
from kit.manifest.pin_types import Pin, PinnedFile
from kit.pins.fetcher import Fetcher
from kit.pins.retry import Retry
from kit.pins.store import PinStore

NAME = "tiny_words-1.2.0-py3-none-any.whl"


def make_wheel(folder: Path, content: str = "WORDS = 3\n") -> Path:
    """A wheel as an index has it."""
    path = folder / NAME
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr("tiny_words.py", content)
        about = "tiny_words-1.2.0.dist-info"
        wheel.writestr(
            f"{about}/METADATA", "Metadata-Version: 2.1\nName: tiny-words\nVersion: 1.2.0\n"
        )
        wheel.writestr(
            f"{about}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr(f"{about}/RECORD", "")
    return path


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only place where pip looks."""
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


def wheel_pin(sha256: str | None) -> Pin:
    """The pin of that wheel."""
    file = PinnedFile(path=NAME, sha256=sha256)
    return Pin(
        id="words", kind="wheel", title="Words", licence="CC0-1.0",
        package="tiny-words", version="1.2.0", files=[file],
    )  # fmt: skip


def test_a_wheel_comes_by_name_version_and_hash(tmp_path: Path, index: Path) -> None:
    made = make_wheel(index)
    pin = wheel_pin(hashlib.sha256(made.read_bytes()).hexdigest())
    store = PinStore(tmp_path / "home", [pin])
    assert not store.state("words").ready
    Fetcher(store).fetch("words")
    assert store.require("words").read_bytes() == made.read_bytes()
    assert store.state("words").status == "ok"
    made.unlink()
    Fetcher(store).fetch("words")  # nothing is asked of the index again


def test_another_wheel_of_that_name_is_refused(tmp_path: Path, index: Path) -> None:
    pinned = hashlib.sha256(make_wheel(index).read_bytes()).hexdigest()
    make_wheel(index, "WORDS = 4\n")
    store = PinStore(tmp_path / "home", [wheel_pin(pinned)])
    with pytest.raises(InvalidInput, match=r"tiny-words==1\.2\.0 is not tiny_words"):
        Fetcher(store).fetch("words")
    assert not store.state("words").ready


def test_a_version_that_is_not_there(tmp_path: Path, index: Path) -> None:
    store = PinStore(tmp_path / "home", [wheel_pin("0" * 64)])
    with pytest.raises(Preflight, match="No matching distribution found"):
        Fetcher(store, Retry(attempts=1)).fetch("words")
    store = PinStore(tmp_path / "home", [wheel_pin(None)])
    with pytest.raises(InvalidInput, match="a wheel is brought by its hash"):
        Fetcher(store).fetch("words")


@pytest.fixture
def paper(tmp_path: Path) -> Path:
    """A manifest's folder with data beside it."""
    (tmp_path / "mine" / "data").mkdir(parents=True)
    (tmp_path / "mine" / "data" / "prompts.json").write_text('["a"]')
    (tmp_path / "mine" / "x.yaml").write_text("{}")
    (tmp_path / "mine" / "pins.yaml").write_text(
        "schema_version: 1\npins:\n"
        "  - { id: prompts, kind: folder, title: Prompts, licence: CC0-1.0, folder: data }\n"
    )
    return tmp_path / "mine" / "x.yaml"


def test_a_folder_is_named_relative_to_the_pin_file(
    paper: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    store = PinStore(tmp_path / "home", Catalog().pins(Path("mine/x.yaml")))
    assert store.require("prompts") == paper.parent / "data"
    assert store.state("prompts").own


def test_what_changes_in_it_is_another_input(paper: Path, tmp_path: Path) -> None:
    pins = Catalog().pins(paper)
    before = PinStore(tmp_path / "home", pins).digest("prompts")
    assert PinStore(tmp_path / "home", pins).state("prompts").status == "ok"
    (paper.parent / "data" / "prompts.json").write_text('["a", "b"]')
    store = PinStore(tmp_path / "home", pins)
    assert store.state("prompts").status == "ok"
    assert store.digest("prompts") != before


def test_a_folder_that_is_not_there(paper: Path, tmp_path: Path) -> None:
    (paper.parent / "data").rename(paper.parent / "elsewhere")
    store = PinStore(tmp_path / "home", Catalog().pins(paper))
    with pytest.raises(Preflight, match="there is nothing at"):
        store.digest("prompts")
    with pytest.raises(Preflight, match="does not exist"):
        Fetcher(store).fetch("prompts")
