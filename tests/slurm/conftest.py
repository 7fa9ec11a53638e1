"""A cluster for the tests of this folder; where there is none they are skipped with the reason."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.slurm.cluster import Cluster, missing, running


@contextlib.contextmanager
def started(nodes: int) -> Iterator[Cluster]:
    """A cluster, or a skip that says what is missing."""
    pytest.importorskip("submitit", reason="needs the extra: pip install '.[slurm]'")
    absent = missing()
    if absent:
        pytest.skip(
            f"no SLURM here (missing: {absent}); Debian: apt-get install slurmctld slurmd "
            "slurm-client munge"
        )
    # A socket's path must be short, so this is not in pytest's own folder.
    folder = Path(tempfile.mkdtemp(prefix="kit-slurm-"))
    try:
        with running(folder, nodes=nodes) as made:
            yield made
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def _cluster() -> Iterator[Cluster]:
    with started(1) as made:
        yield made


@pytest.fixture
def cluster(_cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> Cluster:
    """The running cluster, as the commands of this test's processes find it."""
    for name, value in _cluster.environment.items():
        monkeypatch.setenv(name, value)
    return _cluster


@pytest.fixture
def two_nodes(monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    """A cluster of two nodes, both this machine, each with a GPU that SLURM believes in."""
    with started(2) as made:
        for name, value in made.environment.items():
            monkeypatch.setenv(name, value)
        yield made
