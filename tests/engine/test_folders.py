"""What is written into folders: they are made, however deep, and may be there already."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from kit.engine.export.snakefile import write_snakemake
from kit.engine.local import WorkerProcess
from kit.engine.locks import key_lock
from kit.engine.one_step import link_record
from kit.engine.process import worker_environment
from kit.engine.session import new_run_dir
from kit.engine.slurm.cluster import Cluster
from kit.engine.slurm.executor import SlurmExecutor
from kit.engine.slurm.options import SlurmOptions
from kit.engine.store import Store
from kit.engine.worker import output_to
from kit.errors import KitError
from kit.mini.facts.files import write_world
from kit.train.checkpoints import CheckpointFolder
from tests.engine.conftest import plan_of
from tests.engine.test_store import KEY, put


def _locked(folder: Path) -> None:
    with key_lock(folder / "k"):
        pass


def _printed(folder: Path) -> None:
    with output_to(folder / "log"):
        pass


def _worker(folder: Path) -> None:
    environ = worker_environment(os.environ, threads=1, gpus=[])
    WorkerProcess(environ, gpus=[], errors=folder / "log").close()


def _set_aside(folder: Path) -> None:
    put(Store(folder))
    Store(folder).set_aside(KEY)


WRITERS: dict[str, Callable[[Path], object]] = {
    "lock": _locked,
    "log": _printed,
    "worker": _worker,
    "store": lambda folder: put(Store(folder)),
    "set aside": _set_aside,
    "scratch": lambda folder: Store(folder).begin_scratch(KEY, {}),
    "link": lambda folder: link_record(Store(folder), KEY, folder / "a" / "b"),
    "run": lambda folder: new_run_dir(folder, "toy", "mini"),
    "snakemake": lambda folder: write_snakemake(
        plan_of(), folder, home=folder, kit="kit", runs=folder
    ),
    "cluster": lambda folder: Cluster(folder),
    "executor": lambda folder: SlurmExecutor(folder, SlurmOptions()),
    "checkpoints": lambda folder: CheckpointFolder(folder),
    "world": lambda folder: write_world(folder, 0),
}


@pytest.mark.parametrize("name", WRITERS)
def test_a_folder_is_made_and_may_be_there(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "deep" / "down" / name
    for _ in range(2):
        WRITERS[name](folder)
        assert folder.is_dir()


@pytest.mark.parametrize("name", ["link", "run", "snakemake"])
def test_a_folder_that_cannot_be_made_is_an_error_in_words(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(KitError) as caught:
        WRITERS[name](tmp_path / "file" / "below")
    assert str(tmp_path / "file") in caught.value.where
