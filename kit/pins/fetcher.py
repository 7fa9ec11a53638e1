"""Bring pins to ``$KIT_HOME/pins``: what is there and right is not touched, what comes is checked
before it gets its name, and afterwards nothing needs the network."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec

from kit.durable import sha256_file
from kit.errors import InvalidInput, KitError, Many
from kit.manifest.pin_types import Pin, PinnedFile
from kit.pins import http, hub, problems, wheel
from kit.pins.retry import Retry, Transient
from kit.pins.store import HUB, PinState, PinStore, not_ready, unavailable
from kit.plural import plural

SPARE = 1.02
"""Disk space asked for, relative to the bytes that will come."""


@dataclass(frozen=True)
class Event:
    """One thing that happened, for whoever shows progress.

    Attributes:
        pin: Pin id.
        what: ``present``, ``size``, ``file``, ``retry``, ``mirror``, ``done``, ``failed``.
        detail: Human text.
        bytes: Bytes concerned, where known.
    """

    pin: str
    what: str
    detail: str
    bytes: int | None = None


Listener = Callable[[Event], None]


@dataclass(frozen=True)
class Fetched:
    """A pin after fetching.

    Attributes:
        state: As :meth:`PinStore.state` sees it now.
        brought: Files that were downloaded by this call.
    """

    state: PinState
    brought: tuple[str, ...] = ()


class Fetcher:
    """Fetches pins of a store.

    Args:
        store: Where they go.
        retry: Patience.
        listener: Told of every step.
    """

    def __init__(
        self, store: PinStore, retry: Retry | None = None, listener: Listener | None = None
    ) -> None:
        self.store = store
        self.retry = retry or Retry()
        self.listener = listener or (lambda event: None)
        self._distrusted: set[tuple[str, str]] = set()

    def fetch_all(self, ids: Iterable[str]) -> list[Fetched]:
        """Fetch pins one after the other; a failing one does not stop the others.

        Raises:
            Many: Everything that failed (the rest is there).
        """
        done: list[Fetched] = []
        failed: list[KitError] = []
        for id in ids:
            try:
                done.append(self.fetch(id))
            except KitError as error:
                self.listener(Event(id, "failed", error.what))
                failed.append(error)
        if failed:
            raise Many(failed)
        return done

    def fetch(self, id: str) -> Fetched:
        """Fetch one pin.

        Raises:
            KitError: With the reason and what to do; nothing half-written stays.
        """
        pin = self.store.pin(id)
        state = self.store.state(id)
        if state.ready:
            self.listener(Event(id, "present", state.status))
            return Fetched(state)
        if pin.kind == "unavailable" and not state.own:
            raise unavailable(pin)
        if state.own or pin.kind in ("package", "unavailable"):
            raise not_ready(state)
        try:
            with self._lock(id):
                return self._bring(pin)
        except OSError as error:
            raise problems.from_os(pin, error, self.store.folder(id)) from None

    def _bring(self, pin: Pin) -> Fetched:
        state = self.store.state(pin.id)
        if state.status == "wrong":
            self._drop_wrong(pin, state)
            state = self.store.state(pin.id)
        missing = [file for file in state.missing if not self._from_cache(pin, file)]
        if missing:
            if problems.offline():
                raise problems.is_offline(pin, len(missing))
            missing = self._measured(pin, missing)
            for file in missing:
                self._file(pin, file)
        state = self.store.state(pin.id)
        if not state.ready:
            raise not_ready(state)
        self.listener(Event(pin.id, "done", state.status))
        return Fetched(state, tuple(file.path for file in missing))

    def _drop_wrong(self, pin: Pin, state: PinState) -> None:
        """Delete fetched files that are not what they must be; they are fetched again."""
        have = dict(state.hashes)
        memory = self.store.memory(pin.id)
        for file in pin.files:
            path = self.store.folder(pin.id) / file.path
            wrong = file.sha256 is not None and have.get(file.path) not in (None, file.sha256)
            changed = file.sha256 is None and any(p.startswith(file.path) for p in state.problems)
            sized = file.size is not None and path.exists() and path.stat().st_size != file.size
            if wrong or changed or sized:
                path.unlink(missing_ok=True)
                memory.forget(path)
        memory.save()

    def _from_cache(self, pin: Pin, file: PinnedFile) -> bool:
        """Take a file from the user's hub cache: a hard link, or across disks a symbolic one."""
        if pin.repo is None or pin.revision is None:
            return False
        cached = hub.cached(pin, file)
        if cached is None:
            return False
        if file.sha256 is not None and sha256_file(cached) != file.sha256:
            self._distrusted.add((pin.id, file.path))
            return False
        target = self.store.folder(pin.id) / file.path
        target.parent.mkdir(parents=True, exist_ok=True)
        source = cached.resolve()
        target.unlink(missing_ok=True)
        try:
            os.link(source, target)
        except OSError:
            target.symlink_to(source)
        self.listener(Event(pin.id, "file", f"{file.path} from the hub cache", file.size))
        return True

    def _measured(self, pin: Pin, missing: list[PinnedFile]) -> list[PinnedFile]:
        """Sizes first: refuse what does not fit, and a large file that is already known wrong."""
        measured = []
        for file in missing:
            if pin.kind in HUB:
                file = self._ask(pin, file)
            measured.append(file)
        known = [file.size for file in measured if file.size is not None]
        whole = sum(known)
        detail = f"{plural(len(measured), 'file')}, {plural(whole, 'byte')}"
        self.listener(Event(pin.id, "size", detail, whole))
        folder = self.store.home
        folder.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(folder).free
        if whole * SPARE > free:
            raise problems.no_space(pin, whole, free, folder)
        return measured

    def _ask(self, pin: Pin, file: PinnedFile) -> PinnedFile:
        try:
            said = self.retry.run(
                lambda: hub.metadata(pin, file, self.retry.timeout), self._announcer(pin)
            )
        except (Transient, KitError) as error:
            if pin.mirrors and file.sha256:
                return file
            if isinstance(error, Transient):
                raise problems.no_network(pin, str(error), str(pin.repo)) from None
            raise
        where = f"{pin.repo}@{pin.revision}"
        if said.commit is not None and said.commit != pin.revision and not file.sha256:
            raise problems.moved(pin, said.commit)  # with a hash, the content decides
        if file.sha256 and said.sha256 and said.sha256 != file.sha256:
            if not pin.mirrors:
                raise problems.wrong_hash(pin, file.path, said.sha256, file.sha256, where)
            return file
        if file.size is not None and said.size is not None and said.size != file.size:
            raise problems.wrong_size(pin, file.path, said.size, file.size, where)
        return PinnedFile(path=file.path, sha256=file.sha256, size=file.size or said.size)

    def _file(self, pin: Pin, file: PinnedFile) -> None:
        """Bring one file from the pinned place, or by hash from a mirror."""
        sources = [*self._primary(pin), *(pin.mirrors if file.sha256 else [])]
        first: KitError | None = None
        for source in sources:
            if first is not None:
                self.listener(Event(pin.id, "mirror", f"{file.path} from {http.bare(source)}"))
            try:
                self._from(pin, file, source)
            except KitError as error:
                first = first or error
                continue
            return
        assert first is not None
        raise first

    @staticmethod
    def _primary(pin: Pin) -> list[str]:
        return [pin.url] if pin.url is not None else [f"{pin.repo or pin.origin}@{pin.revision}"]

    def _from(self, pin: Pin, file: PinnedFile, source: str) -> None:
        incoming = self.store.home / "pins" / ".incoming" / pin.id
        incoming.mkdir(parents=True, exist_ok=True)
        self.listener(Event(pin.id, "file", file.path, file.size))
        try:
            part, digest = self._transfer(pin, file, source, incoming)
            if file.sha256 is not None and digest != file.sha256:
                raise problems.wrong_hash(pin, file.path, digest, file.sha256, _shown(source))
            size = part.stat().st_size
            if file.size is not None and size != file.size:
                raise problems.wrong_size(pin, file.path, size, file.size, _shown(source))
            target = self.store.folder(pin.id) / file.path
            target.parent.mkdir(parents=True, exist_ok=True)
            with part.open("rb") as stream:
                os.fsync(stream.fileno())
            part.replace(target)
        except Transient as error:
            # What the hub library has so far stays, so that the next call goes on from there.
            shown = "" if "://" in source else source  # an address is in the message already
            raise problems.no_network(pin, str(error), shown) from None
        except (KitError, OSError):
            shutil.rmtree(incoming, ignore_errors=True)
            raise
        shutil.rmtree(incoming, ignore_errors=True)

    def _transfer(
        self, pin: Pin, file: PinnedFile, source: str, incoming: Path
    ) -> tuple[Path, str]:
        say = self._announcer(pin)
        if pin.kind == "wheel" and "://" not in source:
            timeout = self.retry.timeout
            made = self.retry.run(lambda: wheel.download(pin, file, incoming, timeout), say)
            return made, sha256_file(made)
        if "://" in source:
            url = source + file.path if source.endswith("/") else source
            part = incoming / "part"
            digest = self.retry.run(
                lambda: http.download(pin, file, url, part, self.retry.timeout), say
            )
            return part, digest
        repo, _, revision = source.partition("@")
        at = _at(pin, repo, revision)
        fresh = (pin.id, file.path) in self._distrusted
        path = self.retry.run(
            lambda: hub.download(at, file, incoming, self.retry.timeout, fresh=fresh), say
        )
        return path, sha256_file(path)

    def _announcer(self, pin: Pin) -> Callable[[str], None]:
        return lambda text: self.listener(Event(pin.id, "retry", text))

    @contextlib.contextmanager
    def _lock(self, id: str) -> Iterator[None]:
        """One process fetches a pin at a time."""
        folder = self.store.home / "locks"
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / f"pin-{id}").open("w") as handle:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield


def _at(pin: Pin, repo: str, revision: str) -> Pin:
    """The pin at another repository."""
    if not revision or revision == "None":
        raise InvalidInput(
            f"pin {pin.id!r}: {repo} is named without a revision",
            next_step="write owner/name@<40 hexadecimal digits>",
        )
    return msgspec.structs.replace(pin, repo=repo, revision=revision)


def _shown(source: str) -> str:
    return http.bare(source) if "://" in source else source
