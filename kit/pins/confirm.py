"""Confirm at the source what ``pins.yaml`` says of fetched files, and find out what it lacks.

A large file of the hub is confirmed by the sha256 that the hub keeps for it, a small one by its
git blob id; neither is downloaded again. A plain file is read again from its address.
"""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import msgspec

from kit.durable import sha256_file
from kit.errors import InvalidInput
from kit.manifest.pin_types import Pin, PinnedFile
from kit.pins import http, hub, problems
from kit.pins.retry import Retry, Transient
from kit.pins.store import PinStore

HUB = ("hf-model", "hf-dataset")


def resolve_revision(pin: Pin, retry: Retry) -> Pin:
    """The pin with the newest commit of its repository as revision, if it had none."""
    if pin.kind not in HUB or pin.revision is not None:
        return pin
    try:
        revision = retry.run(lambda: hub.newest_revision(pin))
    except Transient as error:
        raise problems.no_network(pin, str(error), str(pin.repo)) from None
    return msgspec.structs.replace(pin, revision=revision)


def confirm(store: PinStore, id: str, retry: Retry) -> Pin:
    """The pin completed with hash and size of every file, each confirmed at the source.

    Raises:
        KitError: A file differs from what the source has, or the source cannot be asked.
    """
    pin = store.pin(id)
    state = store.state(id)
    if not state.ready or state.own:
        raise InvalidInput(
            f"pin {id!r} cannot be completed from "
            + ("a path of your own" if state.own else "here"),
            why="only what came from the pinned place says something about it",
        )
    hashes = dict(state.hashes)
    files = []
    for file in pin.files:
        path = store.folder(id) / file.path
        try:
            if pin.kind in HUB:
                retry.run(lambda f=file, p=path: _at_hub(pin, f, p, retry))  # type: ignore[misc]
            elif pin.url is not None:
                _at_address(store, pin, file, hashes[file.path], retry)
        except Transient as error:
            raise problems.no_network(pin, str(error), str(pin.repo or pin.url)) from None
        files.append(PinnedFile(path=file.path, sha256=hashes[file.path], size=path.stat().st_size))
    return msgspec.structs.replace(pin, files=files, unconfirmed=None)


def git_blob(path: Path) -> str:
    """Git's id of a file's content."""
    digest = hashlib.sha1(b"blob %d\0" % path.stat().st_size, usedforsecurity=False)
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _at_hub(pin: Pin, file: PinnedFile, path: Path, retry: Retry) -> None:
    said = hub.metadata(pin, file, retry.timeout)
    where = f"{pin.repo}@{pin.revision}"
    if said.sha256 is not None:
        digest, wanted = sha256_file(path), said.sha256
    elif said.blob is not None:
        digest, wanted = git_blob(path), said.blob
    else:
        raise InvalidInput(
            f"pin {pin.id!r}: the hub gives no identity for {file.path}", where=where
        )
    if digest != wanted:
        raise InvalidInput(
            f"pin {pin.id!r}: {file.path} here is {digest}, the hub has {wanted}",
            where=where,
            why="the pinned hash is not the hub's, or the file came from elsewhere",
        )


def _at_address(store: PinStore, pin: Pin, file: PinnedFile, have: str, retry: Retry) -> None:
    folder = store.home / "pins" / ".incoming" / f"{pin.id}.confirm"
    folder.mkdir(parents=True, exist_ok=True)
    url = str(pin.url)
    try:
        digest = retry.run(lambda: http.download(pin, file, url, folder / "part", retry.timeout))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    if digest != have:
        raise InvalidInput(
            f"pin {pin.id!r}: {file.path} here has sha256 {have}, the address has {digest}",
            where=http.bare(url),
        )
