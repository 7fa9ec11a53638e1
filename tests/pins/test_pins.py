"""The pin store: paths, identities, checks, and paths of one's own."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from io import BufferedReader
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from kit.durable import write_json
from kit.errors import InvalidInput, Preflight, UsageError
from kit.manifest.catalog import Catalog
from kit.manifest.pin_types import Pin, PinnedFile
from kit.pins.command import parse_assignment
from kit.pins.store import PACKAGE, HashMemory, OwnPaths, PinState, PinStore, not_ready, variable
from tests.demo.fixtures import sha

REVISION = "0123456789abcdef0123456789abcdef01234567"


def hub_pin(**changes: object) -> Pin:
    fields: dict[str, object] = {
        "id": "model",
        "kind": "hf-model",
        "title": "A model",
        "licence": "x",
        "repo": "example/model",
        "revision": REVISION,
        "files": [
            PinnedFile(path="config.json", sha256=sha(b"{}"), size=2),
            PinnedFile(path="sub/weights.bin", sha256=sha(b"w")),
        ],
    }
    return Pin(**{**fields, **changes})  # type: ignore[arg-type]


def put(store: PinStore, files: dict[str, bytes], id: str = "model") -> None:
    for name, data in files.items():
        place = store.folder(id) / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(data)


RIGHT = {"config.json": b"{}", "sub/weights.bin": b"w"}


def test_a_complete_pin_is_ok(tmp_path: Path) -> None:
    store = PinStore(tmp_path, [hub_pin()])
    put(store, RIGHT)
    state = store.state("model")
    assert (state.status, state.ready, state.path) == ("ok", True, tmp_path / "pins" / "model")
    assert dict(state.hashes) == {"config.json": sha(b"{}"), "sub/weights.bin": sha(b"w")}
    store.require("model")
    assert store.require("model") == store.path("model")


def test_what_is_missing(tmp_path: Path) -> None:
    store = PinStore(tmp_path, [hub_pin()])
    assert store.state("model").status == "absent"
    put(store, {"config.json": b"{}"})
    state = store.state("model")
    assert [file.path for file in state.missing] == ["sub/weights.bin"]
    with pytest.raises(Preflight, match=r"sub/weights\.bin is missing") as caught:
        store.require("model")
    assert "kit fetch" in caught.value.next_step


@pytest.mark.parametrize(("count", "more"), [(3, ""), (4, " (and 1 more)"), (9, " (and 6 more)")])
@pytest.mark.parametrize("status", ["absent", "wrong"])
def test_three_problems_of_a_pin_are_named(count: int, more: str, status: Any) -> None:
    problems = tuple(f"f{i} is bad" for i in range(count))
    made = not_ready(PinState("p", status, Path("x"), problems))
    assert made.what.endswith(f": f0 is bad; f1 is bad; f2 is bad{more}")
    own = not_ready(PinState("p", status, Path("x"), problems, own=True))
    assert ("--pin" in own.next_step, "kit fetch" in made.next_step) == (True, True)


def test_what_is_wrong(tmp_path: Path) -> None:
    store = PinStore(tmp_path, [hub_pin()])
    put(store, {**RIGHT, "config.json": b"[]"})
    with pytest.raises(InvalidInput) as caught:
        store.require("model")
    assert sha(b"[]") in caught.value.what
    assert sha(b"{}") in caught.value.what


def test_a_wrong_size_alone(tmp_path: Path) -> None:
    pin = hub_pin(unconfirmed="u", files=[PinnedFile(path="config.json", size=3)])
    store = PinStore(tmp_path, [pin])
    put(store, {"config.json": b"{}"})
    assert store.state("model").problems == ("config.json has 2 bytes, not 3",)
    assert store.state("model").status == "wrong"


def test_an_unconfirmed_file_may_not_change_once_seen(tmp_path: Path) -> None:
    pin = hub_pin(unconfirmed="u", files=[PinnedFile(path="config.json")])
    store = PinStore(tmp_path, [pin])
    put(store, {"config.json": b"{}"})
    assert store.state("model").status == "unconfirmed"
    place = store.folder("model") / "config.json"
    place.write_bytes(b"[1]")
    again = PinStore(tmp_path, [pin]).state("model")
    assert again.status == "wrong"
    assert "changed since it was first seen" in again.problems[0]
    twice = PinStore(tmp_path, [pin])
    assert [twice.state("model").status for _ in range(2)] == ["wrong", "wrong"]
    with pytest.raises(InvalidInput, match="changed since"):
        twice.require("model")
    assert PinStore(tmp_path, [pin]).state("model").status == "wrong"


def test_files_of_ones_own_may_change(tmp_path: Path) -> None:
    pin = hub_pin(unconfirmed="u", files=[PinnedFile(path="config.json")])
    store = PinStore(tmp_path / "home", [pin])
    store.own_paths.put("model", tmp_path)
    seen = []
    for content in (b"{}", b"[1]"):
        (tmp_path / "config.json").write_bytes(content)
        assert store.state("model").ready
        seen.append(store.digest("model"))
    assert len({*seen}) == 2


def test_unchanged_files_are_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = PinStore(tmp_path, [hub_pin()])
    put(store, RIGHT)
    assert store.state("model").ready
    read: list[str] = []
    digest = hashlib.file_digest

    def counted(handle: BufferedReader, name: str) -> Any:
        read.append(handle.name)
        return digest(handle, name)

    monkeypatch.setattr("kit.pins.store.hashlib.file_digest", counted)
    fresh = PinStore(tmp_path, [hub_pin()])
    assert fresh.state("model").ready
    assert read == []
    assert fresh.state("model", deep=True).ready
    assert len(read) == 2


def test_a_deep_check_sees_through_a_forged_time(tmp_path: Path) -> None:
    store = PinStore(tmp_path, [hub_pin()])
    put(store, RIGHT)
    assert store.state("model").ready
    place = store.folder("model") / "config.json"
    times = place.stat()
    place.write_bytes(b"[]")
    os.utime(place, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert store.state("model").ready
    assert store.state("model", deep=True).status == "wrong"


def test_the_digest_needs_no_file_and_follows_the_declaration(tmp_path: Path) -> None:
    store = PinStore(tmp_path, [hub_pin()])
    before = store.digest("model")
    put(store, RIGHT)
    assert store.digest("model") == before
    entries = [["config.json", sha(b"{}")], ["sub/weights.bin", sha(b"w")]]
    assert before == sha(json.dumps(entries, separators=(",", ":")).encode())
    turned = hub_pin(files=list(reversed(hub_pin().files)))
    assert PinStore(tmp_path, [turned]).digest("model") == before
    other = hub_pin(files=[hub_pin().files[0]])
    assert PinStore(tmp_path, [other]).digest("model") != before


def test_the_digest_of_an_unconfirmed_pin_is_its_revision(tmp_path: Path) -> None:
    files = [PinnedFile(path="config.json")]
    one = PinStore(tmp_path, [hub_pin(unconfirmed="u", files=files)])
    before = one.digest("model")
    put(one, {"config.json": b"anything"})
    assert one.digest("model") == before
    other = hub_pin(unconfirmed="u", files=files, revision="f" * 40)
    assert PinStore(tmp_path, [other]).digest("model") != before


def test_package_pins_are_hashed_from_the_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kit.pins.store.PACKAGE", tmp_path / "kit")
    folder = tmp_path / "kit" / "mini"
    (folder / "__pycache__").mkdir(parents=True)
    (folder / "__pycache__" / "x.pyc").write_bytes(b"no")
    (folder / "a.json").write_text("1")
    pin = Pin(id="p", kind="package", title="t", licence="l", path="mini")
    before = PinStore(tmp_path / "h", [pin]).digest("p")
    assert PinStore(tmp_path / "h", [pin]).state("p").status == "ok"
    (folder / "__pycache__" / "x.pyc").write_bytes(b"changed")
    assert PinStore(tmp_path / "h", [pin]).digest("p") == before
    (folder / "a.json").write_text("22")
    assert PinStore(tmp_path / "h", [pin]).digest("p") != before
    assert PinStore(tmp_path / "h", [pin]).path("p") == folder


def test_package_pins_with_hashes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kit.pins.store.PACKAGE", tmp_path)
    (tmp_path / "one.json").write_text("1")
    file = Pin(
        id="p",
        kind="package",
        title="t",
        licence="l",
        path="one.json",
        files=[PinnedFile(path="one.json", sha256=sha(b"1"))],
    )
    store = PinStore(tmp_path / "h", [file])
    assert store.state("p").status == "ok"
    assert store.path("p") == tmp_path / "one.json"
    (tmp_path / "one.json").write_text("2")
    assert PinStore(tmp_path / "h", [file]).state("p").status == "wrong"
    (tmp_path / "one.json").unlink()
    assert PinStore(tmp_path / "h", [file]).state("p").status == "absent"


def test_an_unavailable_pin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pin = Pin(id="gone", kind="unavailable", title="t", licence="l", unavailable="never released")
    store = PinStore(tmp_path, [pin])
    assert store.state("gone").status == "unavailable"
    for call in (store.path, store.require):
        with pytest.raises(Preflight, match="cannot be fetched by anyone"):
            call("gone")
    # A plan can be shown; what is brought has another identity.
    planned = store.digest("gone")
    assert planned != PinStore(tmp_path, [replace(pin, id="other")]).digest("other")
    own = tmp_path / "mine.json"
    own.write_text("1")
    monkeypatch.setenv(variable("gone"), str(own))
    assert store.state("gone").ready
    assert store.path("gone") == own
    before = store.digest("gone")
    assert before != planned
    own.write_text("22")
    assert PinStore(tmp_path, [pin]).digest("gone") != before


def test_a_path_of_ones_own_must_have_the_pinned_content(tmp_path: Path) -> None:
    store = PinStore(tmp_path / "home", [hub_pin()])
    mine = tmp_path / "mine"
    (mine / "sub").mkdir(parents=True)
    (mine / "config.json").write_bytes(b"{}")
    (mine / "sub" / "weights.bin").write_bytes(b"w")
    declared = store.digest("model")
    store.own_paths.put("model", mine)
    assert store.state("model").own
    assert store.path("model") == mine
    assert store.digest("model") == declared
    (mine / "config.json").write_bytes(b"[]")
    with pytest.raises(InvalidInput, match="is not what it must be") as caught:
        store.require("model")
    assert "--pin" in caught.value.next_step
    assert store.own_paths.put("model", None) == mine
    assert not store.state("model").own


def test_own_content_that_nobody_pinned_gives_its_own_digest(tmp_path: Path) -> None:
    pin = hub_pin(unconfirmed="u", files=[PinnedFile(path="config.json")])
    store = PinStore(tmp_path / "home", [pin])
    before = store.digest("model")
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "config.json").write_bytes(b"{}")
    store.own_paths.put("model", mine)
    assert store.digest("model") != before
    (mine / "config.json").unlink()
    with pytest.raises(Preflight, match="is missing"):
        store.digest("model")
    mine.rmdir()
    with pytest.raises(Preflight, match="there is nothing at"):
        store.digest("model")
    assert store.state("model").status == "absent"


def test_a_file_pin_brought_as_folder_or_file(tmp_path: Path) -> None:
    pin = Pin(
        id="f",
        kind="file",
        title="t",
        licence="l",
        url="https://example.org/x.json",
        files=[PinnedFile(path="x.json", sha256=sha(b"1"))],
    )
    (tmp_path / "x.json").write_bytes(b"1")
    store = PinStore(tmp_path / "home", [pin])
    for own in (tmp_path, tmp_path / "x.json"):
        store.own_paths.put("f", own)
        assert store.require("f") == tmp_path / "x.json"


def test_unknown_pins_suggest(catalog: Catalog, tmp_path: Path) -> None:
    store = PinStore(tmp_path, catalog.pins())
    with pytest.raises(InvalidInput, match="no pin 'tiny-nwe'") as caught:
        store.pin("tiny-nwe")
    assert caught.value.next_step == "did you mean 'tiny-new'?"


@pytest.mark.parametrize("text", ["x", "=y", "x=", " = "])
def test_assignments_that_are_none(text: str) -> None:
    with pytest.raises(UsageError, match="is not ID=PATH"):
        parse_assignment(text)


def test_assignments(tmp_path: Path) -> None:
    assert parse_assignment("a=/x=y") == ("a", Path("/x=y"))
    assert variable("llama-3.1-8b") == "KIT_PIN_LLAMA_3_1_8B"


def test_a_damaged_memory_is_forgotten(tmp_path: Path) -> None:
    record = tmp_path / "memory.json"
    record.write_text("{broken")
    memory = HashMemory(record)
    (tmp_path / "x").write_text("1")
    assert memory.sha256(tmp_path / "x") == sha(b"1")
    memory.save()
    assert HashMemory(record).remembered(tmp_path / "x") == sha(b"1")
    OwnPaths(tmp_path).record.parent.mkdir()
    OwnPaths(tmp_path).record.write_text("[1]")
    assert OwnPaths(tmp_path).get("x") is None


def test_writing_json_leaves_no_half_file(tmp_path: Path) -> None:
    with pytest.raises(TypeError):
        write_json(tmp_path / "x.json", {"a": object()})
    assert list(tmp_path.iterdir()) == []


def test_a_home_that_cannot_be_written_only_costs_time(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    memory = HashMemory(tmp_path / "file" / "memory.json")
    (tmp_path / "x").write_text("1")
    assert memory.sha256(tmp_path / "x") == sha(b"1")
    memory.save()


STRANGERS = {
    "model.safetensors.index.json": b'{"weight_map": {"x": "other.safetensors"}}',
    "other.safetensors": b"other",
    "sub/special_tokens_map.json": b"{}",
}


def visible(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


@pytest.mark.parametrize("own", [False, True])
def test_a_step_sees_listed_files_only(tmp_path: Path, own: bool) -> None:
    """An index of weights or a tokenizer's file beside the pinned ones is not there for a step."""
    store = PinStore(tmp_path / "home", [hub_pin()])
    put(store, RIGHT)
    folder = store.folder("model")
    if own:
        folder = folder.rename(tmp_path / "mine")
        store.own_paths.put("model", folder)
    assert store.require("model") == folder, "nothing to keep out, nothing in between"
    before = store.digest("model")
    for name, content in STRANGERS.items():
        (folder / name).write_bytes(content)
    assert store.digest("model") == before
    assert visible(store.require("model")) == RIGHT
    given = store.path("model")
    assert given == store.path("model") != folder
    # What is put into the folder of links does not stay there, and a link that leads elsewhere.
    (given / "model.safetensors.index.json").write_bytes(b"{}")
    assert visible(store.path("model")) == RIGHT
    (given / "config.json").unlink()
    (given / "config.json").symlink_to(folder / "other.safetensors")
    assert visible(store.path("model")) == RIGHT
    assert sorted(given.parent.iterdir()) == [given], "no half-made folder is left"


def test_a_stranger_is_named_where_it_cannot_be_kept_out(tmp_path: Path) -> None:
    store = PinStore(tmp_path, [hub_pin()])
    put(store, {**RIGHT, "tokenizer_config.json": b"{}"})
    store.state("model")
    (tmp_path / "pins" / ".listed").write_text("no folder")
    with pytest.raises(Preflight, match=r"tokenizer_config\.json is not listed in the pin"):
        store.require("model")


def test_an_unlisted_index_does_not_redirect_what_is_loaded(tmp_path: Path) -> None:
    """The attack as it was found: other weights through an index that no pin lists."""
    import torch
    from safetensors.torch import load_file, save_file

    from kit.lm.files import read_embeddings
    from kit.lm.load import load_model, load_tokenizer

    pin = next(pin for pin in Catalog().pins().pins if pin.id == "mini-source-0")
    mine = tmp_path / "mine"
    shutil.copytree(PACKAGE / str(pin.path), mine)
    store = PinStore(tmp_path / "home", [pin])
    store.own_paths.put(pin.id, mine)
    weights = load_file(mine / "model.safetensors")
    save_file({n: w * 2 for n, w in weights.items()}, mine / "twice.safetensors", {"format": "pt"})
    index = {"metadata": {}, "weight_map": dict.fromkeys(weights, "twice.safetensors")}
    (mine / "model.safetensors.index.json").write_text(json.dumps(index))
    (mine / "added_tokens.json").write_text('{"the": 0}')
    true_rows = weights["model.embed_tokens.weight"]
    assert torch.equal(read_embeddings(mine), 2 * true_rows), "the attack works"
    given = store.require(pin.id)
    assert torch.equal(read_embeddings(given), true_rows)
    assert torch.equal(load_model(given).get_input_embeddings().weight, true_rows.float())
    true = load_tokenizer(PACKAGE / str(pin.path))
    assert load_tokenizer(given).get_vocab() == true.get_vocab()
