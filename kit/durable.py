"""Writing so that a crash leaves either the old state or the new one.

A file counts as written once it and its directory were fsynced; a rename within one file system is
atomic. The cost is one fsync a file, which for the kit's few and large files does not matter.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import secrets
import shutil
from pathlib import Path

from kit.errors import KitError, Preflight, StepFailed

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_READ_ONLY = {errno.EROFS, errno.EACCES, errno.EPERM}


def fsync_file(path: Path) -> None:
    """Flush a file's content to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def fsync_dir(path: Path) -> None:
    """Flush a directory's entries to the disk."""
    fsync_file(path)


def write_atomic(path: Path, content: bytes) -> None:
    """Replace a file's content; readers see the old or the new bytes, never a mixture."""
    if not path.name:
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with temporary.open("wb") as handle:
            handle.write(content)
            handle.flush()
            os.fsync(handle.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    fsync_dir(path.parent)


def write_text(path: Path, text: str) -> None:
    """Write text like :func:`write_atomic`, in a folder that is made if there is none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, text.encode("utf-8"))


def write_json(path: Path, value: object) -> None:
    """Write JSON like :func:`write_text`; equal values give equal bytes."""
    write_text(path, json.dumps(value, indent=1, sort_keys=True))


def make_home(folder: Path, *, next_step: str) -> None:
    """Make a folder that everything else goes into, or say at once that it cannot be.

    Raises:
        Preflight: The operating system refuses.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise Preflight(
            f"the folder cannot be made: {error.strerror}", where=str(folder), next_step=next_step
        ) from error


def write_output(path: Path, content: bytes, *, next_step: str = "choose another place") -> None:
    """Write a file that somebody asked for: whole, or an error that names it.

    Args:
        path: The file.
        content: Its bytes.
        next_step: What to type for another place.

    Raises:
        KitError: The folder is absent or not writable, or the disk is full.
    """
    if path.is_dir() or not path.parent.is_dir():
        wrong = "this is a folder" if path.is_dir() else f"there is no folder {path.parent}"
        raise Preflight(wrong, where=str(path), next_step=next_step)
    try:
        write_atomic(path, content)
    except OSError as error:
        failure = explain(error, where=str(path), path=path.parent)
        failure.why, failure.next_step = "", next_step
        raise failure from error


def is_full(error: OSError) -> bool:
    """Whether the disk (or quota, or file size limit) is exhausted."""
    return error.errno in _FULL


def sha256_file(path: Path) -> str:
    """sha256 of a file's content, in hexadecimal."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def existing(folder: Path) -> Path:
    """The folder, or its nearest parent that exists."""
    return next(path for path in (folder, *folder.absolute().parents) if path.exists())


def free(folder: Path) -> int:
    """Bytes left on the file system of a folder, which need not exist yet."""
    return shutil.disk_usage(existing(folder)).free


def explain(error: OSError, *, where: str, path: Path) -> KitError:
    """The clear message for a failed write.

    Args:
        error: What the operating system said.
        where: Step id or file the message is about.
        path: The place that was written to.
    """
    name = error.filename or path
    if is_full(error):
        return StepFailed(
            f"the disk is full: {error.strerror} ({name})",
            where=where,
            why="nothing half-written was kept; finished steps are safe",
            next_step=f"free space on the file system of {path}, or set KIT_HOME to a larger one; "
            "then run the same command again",
        )
    if error.errno in _READ_ONLY:
        return Preflight(
            f"cannot write: {error.strerror} ({name})",
            where=where,
            why="finished steps are kept in the store, which must be writable",
            next_step="set KIT_HOME to a folder you may write to",
        )
    return StepFailed(f"input/output error: {error.strerror or error} ({name})", where=where)
