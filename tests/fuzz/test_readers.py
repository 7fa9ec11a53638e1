"""Every reader of JSON against garbage: some of it in every run, a minute of it in the slow tests.

What must hold stands in :mod:`tests.fuzz.readers`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from kit.errors import InvalidInput, StepFailed
from tests.fuzz import hour, readers, target
from tests.fuzz.watch import Watch

FOUND = sorted((Path(__file__).parent / "corpus" / "found-by-readers").iterdir())
WATCH = Watch(target.ROOT)


@pytest.mark.parametrize("name", readers.READERS)
def test_a_reader_reads_its_own_and_survives_garbage(name: str, tmp_path: Path) -> None:
    """Both ends are reached, and nothing is run, asked for or written elsewhere."""
    reader = readers.READERS[name]
    assert readers.check(name, reader.seed, tmp_path) == "read"
    ends = set()
    for number in range(25):
        with WATCH.over(tmp_path):
            ends.add(readers.check(name, readers.garbage(reader, number), tmp_path))
    never = {
        "events",
        "events of a whole run",
        "lock",
        "own paths",
        "hash memory",
        "step",
        "compared",
    }
    assert "refused" in ends or name in never


@pytest.mark.parametrize("path", FOUND, ids=lambda path: path.name)
def test_what_was_found_is_refused_now(path: Path, tmp_path: Path) -> None:
    """A document for each kind of failure that the campaigns met."""
    assert readers.check(path.name.partition("-")[0], path.read_bytes(), tmp_path) in (
        "read",
        "refused",
    )


@pytest.mark.parametrize("name", readers.READERS)
@pytest.mark.parametrize("content", [b"[" * 50_000, b'{"a":' * 50_000, b'{"a": "\xff"}', b""])
def test_depth_and_bytes_that_are_no_text(name: str, content: bytes, tmp_path: Path) -> None:
    """What most readers failed on when they were first looked at."""
    assert readers.check(name, content, tmp_path) in ("read", "refused")


@pytest.mark.parametrize(
    "error",
    [InvalidInput("no file is named"), StepFailed("x"), ValueError("x"), KeyError("x")],
    ids=lambda error: type(error).__name__,
)
def test_the_check_sees_what_it_must(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No file in the message, another exit code, another exception: each breaks the invariant."""

    def broken(path: Path) -> Iterator[None]:
        raise error

    for science in (False, True):
        reader = readers.Reader("x.json", b"{}", broken, science)
        monkeypatch.setitem(readers.READERS, "planted", reader)
        with pytest.raises((readers.Broken, ValueError, KeyError)):
            readers.check("planted", b"{}", tmp_path)


@pytest.mark.slow
def test_a_minute_of_garbage(tmp_path: Path) -> None:
    """All readers and the documents of the repository, for a minute."""
    made = hour.campaign(tmp_path, 60, first=1_000_000)
    assert not made["crashes"], min(path.read_text() for path in tmp_path.glob("*.txt"))
    ends = sum((Counter(of) for of in made["by_reader"].values()), Counter())
    assert ends["read"] > 100
    assert ends["refused"] > 100


def test_a_campaign_keeps_what_breaks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first document of a kind, its traceback and its number; processes are added up."""

    def broken(path: Path) -> None:
        raise KeyError("planted")

    monkeypatch.setattr(readers, "READERS", {"planted": readers.Reader("x.json", b"{}", broken)})
    legs = [hour.campaign(tmp_path, 0.01, first=first) for first in (0, 7)]
    made = hour.together(legs)
    (kind,) = made["crashes"]
    assert kind.startswith("planted-KeyError-test_readers-")
    assert sorted(path.name for path in tmp_path.iterdir()) == [kind, f"{kind}.txt"]
    assert "planted" in (tmp_path / f"{kind}.txt").read_text()
    assert [first for first, _ in made["numbers"]] == [0, 7]
    rounds = sum(last - first + 1 for first, last in made["numbers"])
    assert made["by_reader"]["planted"] == {"broken": rounds}
    assert made["documents"] == 2 * rounds
