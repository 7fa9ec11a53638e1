"""Finished step outputs, addressed by key.

A step's outputs are built in ``tmp/``, flushed, described by ``step.json`` (written last) and moved
into place by one rename. A folder in the store is therefore whole or absent; what can still
happen to it later (a truncated disk, an edited file) is found by sizes and hashes on reading.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import msgspec
from msgspec import Struct

from kit import jsonfile
from kit.durable import fsync_dir, sha256_file, write_atomic
from kit.engine.keys import digest
from kit.engine.locks import key_lock, lock_if_free, shared_lock
from kit.errors import InvalidInput, Preflight, StepFailed
from kit.plural import plural
from kit.results.files import stored
from kit.results.record import FileRecord
from kit.results.types import Canary

STORE_VERSION = 1
SMALL = 64 * 1024 * 1024
"""Files below this are hashed whenever they are looked at, larger ones only by ``--check``."""
_AT_ONCE = 4
"""Files of a step that are hashed at a time: states of checkpoint transfer are 80 GiB in many."""
KEEP_DAMAGED_DAYS = 7
RECORD = "step.json"
CANARIES = "canaries.json"
SCRATCH_INPUTS = ".inputs.json"

Level = Literal["sizes", "small", "all"]


class StoredStep(Struct, frozen=True, kw_only=True):
    """``step.json``: what a finished step was, and what it left."""

    schema_version: int = STORE_VERSION
    kind: str
    version: int
    instance: str
    """The instance that made it first; others with the same key share it."""
    params: dict[str, Any]
    inputs: dict[str, list[str]] = {}
    """Input -> upstream keys in plan order, or the pin's digest."""
    input_digests: dict[str, list[str]] = {}
    """Input -> digests of the upstream outputs that were really read, sorted."""
    environment: dict[str, Any] = {}
    code: str = ""
    """Digest of the code that made it (:mod:`kit.engine.code`); older records have none."""
    files: dict[str, FileRecord]
    started: str
    seconds: float
    peak_memory_gb: float = 0.0
    peak_gpu_memory_gb: float = 0.0
    canaries: list[Canary] = []
    dropped: bool = False
    """The files are gone, because nothing was left to read them; what they were is still known."""

    @property
    def digest(self) -> str:
        """Over the outputs' paths and hashes (canaries tell of the run, readers never see them)."""
        return digest({p: file.sha256 for p, file in self.files.items() if p != CANARIES})


@dataclass(frozen=True)
class Look:
    """What the store holds under a key.

    Attributes:
        entry: The step, when it is there and whole.
        problem: What is wrong with it, when it is damaged; empty when it is simply absent.
        outdated: Why it cannot be used although nothing is wrong with it.
    """

    entry: StoredStep | None = None
    problem: str = ""
    outdated: str = ""


class Store:
    """The store under one kit home. Any number of processes may use it at once."""

    def __init__(self, home: Path) -> None:
        self.home = home.absolute()  # a step may change the working directory

    def path(self, key: str) -> Path:
        """Where the outputs of this key are."""
        return stored(self.home / "store", key)

    def scratch(self, key: str) -> Path:
        """Where a long step keeps its checkpoints; survives a kill."""
        return self.home / "scratch" / key

    def look(self, key: str, level: Level = "small") -> Look:
        """Find a finished step and check it as far as ``level`` says.

        Raises:
            Preflight: A newer kit wrote it. What this one would put in its place the other could
                not use, so each would undo the work of the other.
        """
        folder = self.path(key)
        try:
            content = (folder / RECORD).read_bytes()
        except FileNotFoundError:
            return Look(problem=f"{RECORD} is missing" if folder.is_dir() else "")
        except OSError as error:
            return Look(problem=f"{RECORD}: {error.strerror}")
        try:
            made = jsonfile.decode(content, dict[str, Any], where=RECORD).get("schema_version")
            if isinstance(made, int) and made > STORE_VERSION:
                raise _newer(self.home, made)
            if made != STORE_VERSION:
                return Look(outdated=f"an older kit made it (format {made} of {STORE_VERSION})")
            entry = jsonfile.decode(content, StoredStep, where=RECORD)
        except InvalidInput as error:
            return Look(problem=str(error))
        for name, record in entry.files.items() if not entry.dropped else ():
            problem = _check(folder / name, record, level)
            if problem:
                return Look(problem=f"{name}: {problem}")
        stray = _stray(folder, entry) if level != "sizes" else ""
        return Look(problem=stray) if stray else Look(entry=entry)

    def lock(
        self, key: str, waiting: Callable[[str], None] | None = None
    ) -> contextlib.AbstractContextManager[None]:
        """The lock of a key; ``waiting`` hears who holds it."""
        return key_lock(self._lock_path(key), waiting=waiting)

    @contextlib.contextmanager
    def reading(self, keys: Iterable[str]) -> Iterator[None]:
        """While a step reads these outputs, nobody drops or removes them."""
        with contextlib.ExitStack() as stack:
            for key in sorted(set(keys)):
                stack.enter_context(shared_lock(self._reading_path(key)))
            yield

    def _reading_path(self, key: str) -> Path:
        return self.home / "locks" / f"{key}.reading"

    @contextlib.contextmanager
    def _alone(self, key: str) -> Iterator[bool]:
        """Whether nobody makes or reads the outputs of a key, and then nobody begins to."""
        with (
            lock_if_free(self._lock_path(key)) as made,
            lock_if_free(self._reading_path(key)) as read,
        ):
            yield made and read

    def drop(self, key: str) -> bool:
        """Remove the files of a finished step and keep its record; not while a step holds them."""
        with self._alone(key) as alone:
            entry = self.look(key, "sizes").entry if alone else None
            if entry is None or entry.dropped:
                return False
            # The mark first: killed in between, the files are of no use and do no harm.
            dropped = msgspec.structs.replace(entry, dropped=True)
            record = self.path(key) / RECORD
            write_atomic(record, msgspec.json.format(msgspec.json.encode(dropped)))
            _remove_files(record.parent)
            return True

    def remove(self, key: str) -> bool:
        """Remove a finished step with its record; not while a step holds it."""
        with self._alone(key) as alone:
            if alone:
                shutil.rmtree(self.path(key), ignore_errors=True)
            return alone

    def finished(self) -> Iterator[str]:
        """Keys of everything that is finished."""
        for record in sorted((self.home / "store").glob(f"*/*/{RECORD}")):
            yield record.parent.name

    def _lock_path(self, key: str) -> Path:
        return self.home / "locks" / key

    @contextlib.contextmanager
    def workspace(self, key: str) -> Iterator[Path]:
        """An empty folder to build outputs in; removed unless it was committed.

        Use it only while holding the key's lock: that is how stale ones are told from live ones.
        """
        folder = self.home / "tmp" / f"{key}.{secrets.token_hex(4)}"
        folder.mkdir(parents=True)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def commit(self, key: str, folder: Path, entry: Callable[..., StoredStep]) -> StoredStep:
        """Make a workspace's content the outputs of ``key``.

        Args:
            key: The step's key, whose lock the caller holds.
            folder: The workspace's output folder, complete.
            entry: Called with ``files=`` to make the record.
        """
        files: dict[str, Path] = {}
        for path in sorted(folder.rglob("*")):
            name = path.relative_to(folder).as_posix()
            if path.is_symlink() or not (path.is_file() or path.is_dir()):
                raise StepFailed(
                    f"the output {name} is a link or a special file",
                    why="outputs must stay whole when the store is moved",
                )
            if path.is_file():
                files[name] = path
        with ThreadPoolExecutor(_AT_ONCE) as threads:
            sealed = dict(zip(files, threads.map(_seal, files.values()), strict=True))
        record = entry(files=sealed)
        write_atomic(folder / RECORD, msgspec.json.format(msgspec.json.encode(record)))
        for path in (p for p in folder.rglob("*") if p.is_dir()):
            fsync_dir(path)
        target = self.path(key)
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.exists():
            before = self.look(key, "sizes").entry
            if before is not None and before.dropped:
                shutil.rmtree(target)
            else:
                self.set_aside(key)
        folder.rename(target)
        fsync_dir(target.parent)
        fsync_dir(target.parent.parent)
        shutil.rmtree(self.scratch(key), ignore_errors=True)
        return record

    def set_aside(self, key: str) -> Path:
        """Move a damaged or outdated entry out of the way, to be looked at for a week."""
        aside = self.home / "tmp" / f"damaged-{key}.{secrets.token_hex(4)}"
        aside.parent.mkdir(parents=True, exist_ok=True)
        self.path(key).rename(aside)
        os.utime(aside)
        return aside

    def begin_scratch(self, key: str, made_from: dict[str, list[str]]) -> Path:
        """The scratch folder of a step that begins now, whose lock the caller holds.

        Checkpoints of a killed try are kept if that read the same inputs. Those of other inputs are
        removed: an upstream step that was redone may have come out differently under its old key.

        Args:
            key: The step's key.
            made_from: Input -> digests of the upstream outputs that are read now.
        """
        folder, content = self.scratch(key), msgspec.json.encode(made_from, order="sorted")
        stamp = folder / SCRATCH_INPUTS
        if folder.is_dir() and (not stamp.is_file() or stamp.read_bytes() != content):
            shutil.rmtree(folder)
        folder.mkdir(parents=True, exist_ok=True)
        if not stamp.exists():
            write_atomic(stamp, content)
        return folder

    def clean(self) -> int:
        """Remove what killed runs left in ``tmp/``, and the scratch of finished steps.

        Returns:
            How many folders of ``tmp/``.
        """
        for path in _folders(self.home / "scratch"):
            # A kill between the rename and the removal of the scratch leaves it behind.
            if (self.path(path.name) / RECORD).is_file():
                self._remove_if_free(path, path.name)
        oldest, removed = time.time() - KEEP_DAMAGED_DAYS * 86400, 0
        for path in _folders(self.home / "tmp"):
            if not path.name.startswith("damaged-"):
                removed += self._remove_if_free(path, path.name.partition(".")[0])
                continue
            with contextlib.suppress(OSError):
                if path.stat().st_mtime < oldest:
                    shutil.rmtree(path, ignore_errors=True)
        return removed

    def _remove_if_free(self, path: Path, key: str) -> bool:
        """Remove a folder unless a process holds the lock of its key."""
        with contextlib.suppress(OSError), lock_if_free(self._lock_path(key)) as free:
            if free:
                shutil.rmtree(path, ignore_errors=True)
            return free
        return False


def _folders(parent: Path) -> list[Path]:
    return sorted(parent.iterdir()) if parent.is_dir() else []


def _stray(folder: Path, entry: StoredStep) -> str:
    """A file that no step wrote in an output folder: whoever loads the folder would load it too."""
    for name in {name.partition("/")[0] for name in entry.files if "/" in name}:
        for path in (folder / name).rglob("*"):
            inside = path.relative_to(folder).as_posix()
            if inside not in entry.files and not path.is_dir():
                return f"{inside}: the step did not write it"
    return ""


def _remove_files(folder: Path) -> None:
    """Everything of an entry but its record."""
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        elif path.name != RECORD:
            path.unlink(missing_ok=True)


def _newer(home: Path, made: int) -> Preflight:
    return Preflight(
        f"the store was written by a newer kit: format {made}, this one knows {STORE_VERSION}",
        where=str(home),
        why="finished steps of the two cannot be told apart safely",
        next_step="update this kit, or set KIT_HOME to another folder",
    )


def _seal(path: Path) -> FileRecord:
    """Put a file on the disk, hash it and make it read-only."""
    with path.open("rb") as handle, ThreadPoolExecutor(1) as disk:
        # Of a model of 32 GB either takes half a minute.
        written = disk.submit(os.fsync, handle.fileno())
        sha256 = hashlib.file_digest(handle, "sha256").hexdigest()
        size = handle.tell()
        written.result()
    path.chmod(0o444)
    return FileRecord(sha256=sha256, size=size)


def _check(path: Path, record: FileRecord, level: Level) -> str:
    """What is wrong with an output file, or nothing."""
    try:
        size = path.stat().st_size
        if size != record.size:
            return f"has {plural(size, 'byte')}, {record.size} were written"
        if level == "all" or (level == "small" and size < SMALL):
            sha256 = sha256_file(path)
            if sha256 != record.sha256:
                return f"has sha256 {sha256[:12]}..., {record.sha256[:12]}... was written"
    except FileNotFoundError:
        return "is gone"
    except OSError as error:
        return error.strerror or str(error)
    return ""
