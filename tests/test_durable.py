"""Writing: whole or not at all, and nothing stays open."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from kit import durable
from kit.errors import KitError, Preflight, StepFailed


def test_writing_a_file_leaves_nothing_open_and_nothing_beside_it(tmp_path: Path) -> None:
    before = len([*Path("/proc/self/fd").iterdir()])
    for content in (b"1", b"2"):
        durable.write_atomic(tmp_path / "a", content)
        durable.fsync_file(tmp_path / "a")
    assert len([*Path("/proc/self/fd").iterdir()]) == before
    assert [(file.name, file.read_bytes()) for file in tmp_path.iterdir()] == [("a", b"2")]


def test_what_is_made_lasting_is_the_whole_content(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = []
    lasting = os.fsync
    monkeypatch.setattr(
        durable.os, "fsync", lambda fd: (sizes.append(os.fstat(fd).st_size), lasting(fd))
    )
    durable.write_atomic(tmp_path / "a", b"12345")
    assert sizes[0] == 5


def test_what_cannot_be_put_in_its_place_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "a" / "in").mkdir(parents=True)
    with pytest.raises(OSError, match="irectory"):
        durable.write_atomic(tmp_path / "a", b"1")
    assert [file.name for file in tmp_path.iterdir()] == ["a"]
    with pytest.raises(IsADirectoryError):
        durable.write_atomic(Path("/"), b"1")


def test_text_and_json_make_their_folder_and_equal_values_equal_bytes(tmp_path: Path) -> None:
    for name, value in (("a", {"x": 1, "y": [2]}), ("b", {"y": [2], "x": 1})):
        durable.write_json(tmp_path / "new" / name, value)
        durable.write_json(tmp_path / "new" / name, value)
    a, b = ((tmp_path / "new" / name).read_bytes() for name in "ab")
    assert a == b
    durable.write_text(tmp_path / "other" / "new" / "t", "\u00e9")
    assert (tmp_path / "other" / "new" / "t").read_bytes() == "\u00e9".encode()


def test_a_home_is_made_with_its_parents_or_named(tmp_path: Path) -> None:
    for _ in range(2):
        durable.make_home(tmp_path / "a" / "b", next_step="n")
        assert (tmp_path / "a" / "b").is_dir()
    (tmp_path / "file").touch()
    with pytest.raises(Preflight, match="the folder cannot be made") as caught:
        durable.make_home(tmp_path / "file" / "b", next_step="n")
    assert (caught.value.where, caught.value.next_step) == (str(tmp_path / "file" / "b"), "n")


def test_a_file_that_was_asked_for_is_written_or_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    durable.write_output(tmp_path / "a", b"1")
    assert (tmp_path / "a").read_bytes() == b"1"
    for path, said in ((tmp_path, "this is a folder"), (tmp_path / "no" / "a", "there is no")):
        with pytest.raises(Preflight, match=said) as caught:
            durable.write_output(path, b"1", next_step="n")
        assert (caught.value.where, caught.value.next_step) == (str(path), "n")

    def full(path: Path, content: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left", str(path))

    monkeypatch.setattr(durable, "write_atomic", full)
    with pytest.raises(StepFailed, match="the disk is full") as failed:
        durable.write_output(tmp_path / "b", b"1", next_step="n")
    assert (failed.value.why, failed.value.next_step) == ("", "n"), "it is no step's output"


@pytest.mark.parametrize(
    ("number", "kind", "full"),
    [
        ("ENOSPC", StepFailed, True), ("EDQUOT", StepFailed, True), ("EFBIG", StepFailed, True),
        ("EROFS", Preflight, False), ("EACCES", Preflight, False), ("EPERM", Preflight, False),
        ("EIO", StepFailed, False),
    ],
)  # fmt: skip
def test_what_the_system_refuses_names_file_and_way_out(
    tmp_path: Path, number: str, kind: type[KitError], full: bool
) -> None:
    code = getattr(errno, number)
    for name in (None, str(tmp_path / "named")):
        error = OSError(code, os.strerror(code), name) if name else OSError(code, os.strerror(code))
        made = durable.explain(error, where="step", path=tmp_path)
        assert type(made) is kind
        assert durable.is_full(error) == full
        assert (name or str(tmp_path)) in made.what
        assert os.strerror(code) in made.what
        assert ("KIT_HOME" in made.next_step) == (number != "EIO")
        assert made.where == "step"


def test_room_is_asked_where_a_folder_will_be(tmp_path: Path) -> None:
    there = tmp_path / "a"
    there.mkdir()
    assert durable.existing(there) == there
    assert durable.existing(there / "b" / "c") == there
    assert durable.free(there / "b" / "c") > 0
