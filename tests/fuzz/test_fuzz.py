"""The campaign's corpus once more, and a short campaign of its own in every test run.

The invariant is in :mod:`tests.fuzz.target` and :mod:`tests.fuzz.watch`: whatever stands in a
document, it is used or refused with exit code 4 at file, line and column; nothing else is raised,
executed, written or asked for, in bounded time.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fuzz import target
from tests.fuzz.mutate import mutate
from tests.fuzz.watch import Forbidden, Watch

CORPUS = Path(__file__).parent / "corpus"
DOCUMENTS = sorted(path for path in CORPUS.iterdir() if path.is_file())
FOUND = sorted((CORPUS / "found").iterdir())
SEEDS = sorted((CORPUS / "seeds").iterdir())
WATCH = Watch(target.ROOT)


@pytest.fixture(scope="module", autouse=True)
def _everything_is_imported(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Lazy imports happen once, before anybody watches."""
    for seed in SEEDS:
        target.check(seed.read_bytes(), tmp_path_factory.mktemp("first"))


def watched(data: bytes, folder: Path) -> str:
    with WATCH.over(folder):
        return target.check(data, folder)


@pytest.mark.parametrize("path", FOUND, ids=lambda path: path.name)
def test_what_was_found_is_refused_now(path: Path, tmp_path: Path) -> None:
    assert watched(path.read_bytes(), tmp_path) == "refused"


def test_the_corpus(tmp_path: Path) -> None:
    """Every path through the loaders that the campaign reached."""
    ends = {watched(path.read_bytes(), tmp_path) for path in DOCUMENTS}
    assert ends == {"unreadable", "refused", "planned", "stated", "verified"}


@settings(
    max_examples=120,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
)
@given(st.sampled_from(SEEDS), st.integers(0, 2**32 - 1), st.integers(1, 8))
def test_mutations_of_the_real_documents(seed: Path, number: int, most: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        watched(mutate(seed.read_bytes(), number, most), Path(folder))


def test_mutations_come_through_the_schema_often_enough(tmp_path: Path) -> None:
    """A fuzzer whose documents are all refused at the door tests the door."""
    through = ("planned", "stated", "verified")
    whole = [seed for seed in SEEDS if watched(seed.read_bytes(), tmp_path) in through]
    # The demonstration's manifests have kinds of steps that only its own tests register.
    assert {seed.name.partition(".")[0] for seed in SEEDS if seed not in whole} == {
        "demo-demo",
        "demo-demo-corrected",
    }
    ends = [
        watched(mutate(seed.read_bytes(), number, 1), tmp_path)
        for seed in whole
        for number in range(8)
    ]
    assert sum(end in through for end in ends) > len(ends) / 10
    assert sum(end == "refused" for end in ends) > len(ends) / 10


def test_the_watch_sees_what_it_must(tmp_path: Path) -> None:
    """A file elsewhere, a command, a connection, code: none of it goes unnoticed."""
    import os
    import socket

    inside, outside = tmp_path / "inside", tmp_path / "outside"
    inside.mkdir()
    with WATCH.over(inside):
        (inside / "fine").write_text("x")
    for act in (
        lambda: outside.write_text("x"),
        lambda: (tmp_path / "folder").mkdir(),
        lambda: (inside / "fine").rename(tmp_path / "moved"),
        lambda: os.system("true"),
        lambda: socket.getaddrinfo("localhost", 80),
        lambda: eval("1"),
        lambda: Path("/etc/hostname").read_text(),
    ):
        with pytest.raises(Forbidden), WATCH.over(inside):
            act()  # type: ignore[no-untyped-call]


def test_the_target_sees_what_it_must(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A message without a place, another exit code, another exception: all break the invariant."""
    from kit.errors import InvalidInput, StepFailed

    for error in (InvalidInput("no place"), StepFailed("x", where="x:1:1"), ValueError("x")):

        def broken(path: Path, full: bool, error: Exception = error) -> None:
            raise error

        monkeypatch.setattr(target, "read_manifest", broken)
        with pytest.raises((target.Broken, ValueError)):
            target.check(json.dumps({"steps": []}).encode(), tmp_path)
