"""A cluster for the tests of this folder; where there is none they are skipped with the reason."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.slurm.cluster import Cluster, missing, running


@pytest.fixture(scope="session")
def _cluster() -> Iterator[Cluster]:
    pytest.importorskip("submitit")
    absent = missing()
    if absent:
        pytest.skip(
            f"no SLURM here (missing: {absent}); Debian: apt-get install slurmctld slurmd "
            "slurm-client munge"
        )
    # A socket's path must be short, so this is not in pytest's own folder.
    folder = Path(tempfile.mkdtemp(prefix="kit-slurm-"))
    try:
        with running(folder) as made:
            yield made
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def cluster(_cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> Cluster:
    """The running cluster, as the commands of this test's processes find it."""
    for name, value in _cluster.environment.items():
        monkeypatch.setenv(name, value)
    return _cluster
