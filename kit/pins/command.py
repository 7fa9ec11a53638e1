"""What ``kit fetch`` does, without the printing; with ``--write-pins`` it completes ``pins.yaml``.

What the file says of fetched files is confirmed at the source. A large file of the hub is confirmed
by the sha256 that the hub keeps for it, a small one by its git blob id; neither is downloaded
again. A plain file is read again from its address. Written back, nothing else is touched: comments,
order, quoting and line breaks stay, and the new text is read back before it replaces the old.
"""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import sys
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
from ruamel.yaml import YAML
from ruamel.yaml.scalarstring import DoubleQuotedScalarString

from kit.durable import sha256_file
from kit.errors import InvalidInput, KitError, Many, UsageError
from kit.manifest.catalog import Catalog
from kit.manifest.load import read_pins
from kit.manifest.pin_types import Pin, PinnedFile
from kit.manifest.source import nearest
from kit.manifest.text import read_text
from kit.pins import http, hub, problems
from kit.pins.fetcher import Event, Fetched, Fetcher, Listener
from kit.pins.retry import Retry, Transient
from kit.pins.store import HUB, PinStore, not_ready


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


def write_pins(path: Path, completed: Sequence[Pin]) -> list[str]:
    """Fill in revision, hashes and sizes of completed pins; drop their ``unconfirmed``.

    Args:
        path: The pin file.
        completed: Pins as :func:`confirm` returns them.

    Returns:
        Ids of the pins that changed.

    Raises:
        InvalidInput: The result would not be a valid pin file (the file is then left alone), or
            the file is JSON, or cannot be written.
    """
    if path.suffix == ".json":
        raise InvalidInput("only YAML pin files can be completed", where=str(path))
    yaml = _yaml()
    document: Any = yaml.load(read_text(path))
    by_id = {pin.id: pin for pin in completed}
    changed = [
        entry["id"]
        for entry in document["pins"]
        if entry["id"] in by_id and _fill_in(entry, by_id[entry["id"]])
    ]
    if not changed:
        return []
    out = io.StringIO()
    yaml.dump(document, out)
    _replace(path, out.getvalue())
    return changed


def _yaml() -> YAML:
    yaml = YAML()
    yaml.preserve_quotes = True
    yaml.width = sys.maxsize
    yaml.indent(mapping=2, sequence=4, offset=2)
    return yaml


def _fill_in(entry: Any, pin: Pin) -> bool:
    changed = False
    if pin.revision is not None and entry.get("revision") != pin.revision and pin.repo:
        index = list(entry).index("repo") + 1
        entry.insert(index, "revision", DoubleQuotedScalarString(pin.revision))
        changed = True
    known = {file.path: file for file in pin.files}
    for listed in entry.get("files", []):
        file = known.get(listed["path"])
        if file is None:
            continue
        if file.sha256 is not None and "sha256" not in listed:
            listed.insert(1, "sha256", DoubleQuotedScalarString(file.sha256))
            changed = True
        if file.size is not None and "size" not in listed:
            listed["size"] = file.size
            changed = True
    if pin.unconfirmed is None and "unconfirmed" in entry:
        del entry["unconfirmed"]
        day = f"{datetime.now(UTC):%Y-%m-%d}"
        said = f"confirmed at the source by kit fetch on {day}"
        before = str(entry.get("source", "")).strip()
        entry["source"] = f"{before}; {said}" if before else said
        changed = True
    return changed


def _replace(path: Path, text: str) -> None:
    """Put the new text in place of the old, if it is a valid pin file."""
    try:
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=path.suffix)
    except OSError as error:
        raise InvalidInput(f"cannot be written: {error.strerror}", where=str(path)) from None
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        read_pins(temporary)
        Path(temporary).chmod(path.stat().st_mode & 0o777)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def fetch_experiment(
    catalog: Catalog,
    home: Path,
    experiment: str,
    profile: str,
    *,
    own: Sequence[str] = (),
    complete: bool = False,
    retry: Retry | None = None,
    listener: Listener | None = None,
) -> list[Fetched]:
    """Bring every pin a profile needs.

    Args:
        catalog: Where the experiment is described.
        home: The kit's home.
        experiment: Id or path of the manifest.
        profile: Profile name.
        own: ``ID=PATH`` of inputs the user brings.
        complete: Confirm unconfirmed pins at their source and write them into ``pins.yaml``.
        retry: Patience with the network.
        listener: Told of every step.

    Raises:
        KitError: What could not be fetched; everything else is there.
    """
    patience = retry or Retry()
    tell = listener or (lambda event: None)
    pins = catalog.pins(experiment)
    ids = catalog.needed_pins(experiment, profile)
    store = PinStore(home, pins)
    for id, path in map(parse_assignment, own):
        if id not in ids:
            raise UsageError(
                f"--pin {id}: {experiment} ({profile}) does not use it",
                next_step=nearest(id, ids) or f"its pins: {', '.join(ids)}",
            )
        if not path.expanduser().exists():
            raise UsageError(f"--pin {id}={path}: there is nothing at this path")
        before = store.own_paths.put(id, path)
        state = store.state(id)
        if not state.ready:  # a wrong path that is remembered would stop every later run
            store.own_paths.put(id, before)
            raise not_ready(state)
    _revisions(store, ids, complete, patience)
    done = Fetcher(store, patience, tell).fetch_all(ids)
    if complete:
        _complete(catalog, experiment, store, ids, patience, tell)
    return done


def parse_assignment(text: str) -> tuple[str, Path]:
    """``ID=PATH`` of ``--pin``.

    Raises:
        UsageError: Not of that form.
    """
    id, equals, path = text.partition("=")
    if not equals or not id.strip() or not path.strip():
        raise UsageError(f"--pin {text!r} is not ID=PATH", next_step="--pin some-model=/data/model")
    return id.strip(), Path(path.strip())


def _revisions(store: PinStore, ids: Sequence[str], complete: bool, retry: Retry) -> None:
    for id in ids:
        pin = store.pin(id)
        if pin.kind not in HUB or pin.revision is not None or store.own(id):
            continue
        if not complete:
            raise UsageError(
                f"pin {id!r} has no revision",
                next_step="kit fetch EXPERIMENT --write-pins takes the newest and writes it down",
            )
        store.pins[id] = resolve_revision(pin, retry)


def _complete(
    catalog: Catalog,
    experiment: str,
    store: PinStore,
    ids: Sequence[str],
    retry: Retry,
    tell: Listener,
) -> None:
    completed: list[Pin] = []
    failed: list[KitError] = []
    for id in ids:
        pin = store.pin(id)
        if pin.kind not in (*HUB, "file") or store.own(id) is not None:
            continue
        if not pin.unconfirmed and all(file.sha256 for file in pin.files):
            continue
        try:
            completed.append(confirm(store, id, retry))
        except KitError as error:
            failed.append(error)
    for path in catalog.pin_files(experiment):
        for id in write_pins(path, completed):
            tell(Event(id, "written", catalog.relative(path)))
    if failed:
        raise Many(failed)
