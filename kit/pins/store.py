"""Pins on this machine: where they are, whether they are what they must be, their identity.

A pin's digest is its declared identity: paths and sha256, or for a file whose hash nobody could
confirm yet the repository and revision. It is therefore known before anything is fetched, and it
changes only when ``pins.yaml`` does. What a user brings, and what ships with the package, is
hashed from its content.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from kit.durable import write_json
from kit.errors import InvalidInput, KitError, Preflight
from kit.manifest.pin_types import Pin, PinnedFile, Pins
from kit.manifest.source import nearest

Status = Literal["ok", "unconfirmed", "absent", "wrong", "unavailable"]
HUB = ("hf-model", "hf-dataset")
SINGLE = ("file", "wheel")
"""Kinds of pins that are one file; a step gets its path."""
PACKAGE = Path(__file__).resolve().parents[1]
"""The folder ``kit/`` of the running package; ``path`` of a ``package`` pin starts here."""


@dataclass(frozen=True)
class PinState:
    """What :meth:`PinStore.state` found.

    Attributes:
        id: Pin id.
        status: ``ok``; ``unconfirmed`` (all there, but some hash is not known to anyone yet);
            ``absent`` (something is missing); ``wrong`` (something differs); ``unavailable``
            (private or gone, and no path was given).
        path: Where it is or would be.
        problems: One sentence a file that is missing or wrong.
        missing: Files that have to be fetched.
        hashes: Path -> sha256 of what is there.
        own: The user brought it.
    """

    id: str
    status: Status
    path: Path | None
    problems: tuple[str, ...] = ()
    missing: tuple[PinnedFile, ...] = ()
    hashes: tuple[tuple[str, str], ...] = ()
    own: bool = False

    @property
    def ready(self) -> bool:
        """Whether steps can use it."""
        return self.status in ("ok", "unconfirmed")


class PinStore:
    """Pins below ``<home>/pins``.

    Args:
        home: The kit's home (:func:`kit.manifest.home.kit_home`).
        pins: The catalog's pins, or a list of pins (as a plan carries them).
    """

    def __init__(self, home: Path, pins: Pins | Iterable[Pin]) -> None:
        self.home = Path(home).absolute()
        listed = pins.pins if isinstance(pins, Pins) else list(pins)
        self.pins = {pin.id: pin for pin in listed}
        self.own_paths = OwnPaths(self.home)
        self._memories: dict[str, HashMemory] = {}

    def pin(self, id: str) -> Pin:
        """A pin by id.

        Raises:
            InvalidInput: Unknown id; the message suggests the nearest.
        """
        if id not in self.pins:
            raise InvalidInput(
                f"there is no pin {id!r}",
                next_step=nearest(id, self.pins) or "add it to manifests/pins.yaml",
            )
        return self.pins[id]

    def folder(self, id: str) -> Path:
        """Where fetched files of a pin go."""
        return self.home / "pins" / id

    def path(self, id: str) -> Path:
        """What steps are given: a folder, or for a single file the file. It need not exist.

        A folder with files that the pin does not list is not given itself: an index of weights or
        a tokenizer's settings beside the pinned files would change what a step reads, under the
        same key. A folder of links to the listed files takes its place.

        Raises:
            Preflight: The pin is unavailable and no path was given for it, or the links cannot be
                made.
        """
        pin, base = self.pin(id), self._base(id)
        listed = {file.path for file in pin.files}
        if not listed or not base.is_dir():
            return base
        others = sorted({file.path for file in _listing(base)} - listed)
        return self._links(id, base, listed, others[0]) if others else base

    def own(self, id: str) -> Path | None:
        """The path that a user brought for a pin, or that the pin itself names."""
        named = self.pin(id).folder
        return self.own_paths.get(id) or (None if named is None else Path(named))

    def _base(self, id: str) -> Path:
        """Where a pin's files are, or would be."""
        pin = self.pin(id)
        own = self.own(id)
        if own is not None:
            only = pin.files[0].path if pin.kind in SINGLE and pin.files else None
            return own / only if only is not None and own.is_dir() else own
        if pin.kind == "package":
            return PACKAGE / (pin.path or "")
        if pin.kind == "unavailable":
            raise unavailable(pin)
        if pin.kind in SINGLE and pin.files:
            return self.folder(id) / pin.files[0].path
        return self.folder(id)

    def digest(self, id: str) -> str:
        """Identity of the pin: sha256 over its sorted (path, sha256) pairs.

        An unavailable pin that nobody brought stands in a plan by its name: what a run would cost
        can be seen without it. :meth:`require` refuses before anything starts.

        Raises:
            Preflight: A path with nothing at it.
        """
        pin = self.pin(id)
        if pin.kind == "unavailable" and self.own(id) is None:
            entries = [("", f"unavailable:{id}")]
        elif self.own(id) is not None or pin.kind in ("package", "unavailable"):
            entries = self._content(pin)
        else:
            origin = f"{pin.repo}@{pin.revision}" if pin.repo else str(pin.url)
            entries = [
                (file.path, file.sha256 or f"unconfirmed:{origin}:{file.path}")
                for file in pin.files
            ]
        text = json.dumps(sorted(entries), separators=(",", ":"), ensure_ascii=False)
        return hashlib.sha256(text.encode()).hexdigest()

    def state(self, id: str, *, deep: bool = False) -> PinState:
        """Compare what is on disk with the pin.

        Args:
            id: Pin id.
            deep: Read every file again, even if its size and time are unchanged.
        """
        pin = self.pin(id)
        own = self.own(id) is not None
        try:
            base = self._base(id)
        except Preflight as error:
            return PinState(id, "unavailable", None, (error.what,))
        if not base.exists() and (own or pin.kind == "package"):
            return PinState(id, "absent", base, (f"{base} does not exist",), own=own)
        return self._compare(pin, base, own, deep)

    def require(self, id: str) -> Path:
        """The path of a pin that is there and right.

        Raises:
            Preflight: It is not there.
            InvalidInput: It is not what it must be.
        """
        state = self.state(id)
        if state.ready:
            return self.path(id)
        if state.status == "unavailable":
            raise unavailable(self.pin(id))
        raise not_ready(state)

    def _links(self, id: str, base: Path, listed: set[str], other: str) -> Path:
        """A folder of links to the listed files of ``base``, which also holds ``other``."""
        wanted = {path: str(base / path) for path in sorted(listed) if (base / path).is_file()}
        name = hashlib.sha256(json.dumps(wanted).encode()).hexdigest()[:16]
        folder = self.home / "pins" / ".listed" / f"{id}-{name}"
        there = {
            path.relative_to(folder).as_posix(): str(path.readlink()) if path.is_symlink() else ""
            for path in folder.rglob("*")
            if path.is_symlink() or not path.is_dir()
        }
        if wanted and there == wanted:
            return folder
        made = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}")
        try:
            for path, target in wanted.items():
                (made / path).parent.mkdir(parents=True, exist_ok=True)
                (made / path).symlink_to(target)
            if folder.exists():
                folder.rename(made.with_name(f"{made.name}.old"))
            made.rename(folder)
        except OSError as error:
            raise Preflight(
                f"pin {id!r}: {other} is not listed in the pin, and the listed files cannot be set "
                f"apart from it: {error.strerror}",
                where=str(base),
                next_step=f"remove {other}, or point KIT_HOME to a folder you may write to",
            ) from None
        finally:
            for rest in folder.parent.glob(f"{made.name}*"):
                shutil.rmtree(rest, ignore_errors=True)
        return folder

    def memory(self, id: str) -> HashMemory:
        """The remembered hashes of a pin's files."""
        if id not in self._memories:
            self._memories[id] = HashMemory(self.home / "pins" / ".checked" / f"{id}.json")
        return self._memories[id]

    def _compare(self, pin: Pin, base: Path, own: bool, deep: bool) -> PinState:
        memory = self.memory(pin.id)
        problems: list[str] = []
        missing: list[PinnedFile] = []
        hashes: list[tuple[str, str]] = []
        wrong = unconfirmed = False
        for file in pin.files or _listing(base):
            path = base if base.is_file() or pin.kind in SINGLE else base / file.path
            if not path.is_file():
                missing.append(file)
                problems.append(f"{file.path} is missing")
                continue
            before = memory.remembered(path)
            digest = memory.sha256(path, deep=deep)
            hashes.append((file.path, digest))
            # What changes in files of one's own is another input, and no damage.
            expected = file.sha256 or (None if own else before)
            unconfirmed |= file.sha256 is None and bool(pin.files)
            if expected is not None and digest != expected:
                wrong = True
                since = "" if file.sha256 else " (it changed since it was first seen)"
                problems.append(f"{file.path} has sha256 {digest}, not {expected}{since}")
            elif file.size is not None and path.stat().st_size != file.size:
                wrong = True
                problems.append(f"{file.path} has {path.stat().st_size:,} bytes, not {file.size:,}")
        if not wrong and pin.kind != "package":
            memory.save()
        status: Status = "absent" if missing else "unconfirmed" if unconfirmed else "ok"
        if wrong:
            status = "wrong"
        return PinState(pin.id, status, base, tuple(problems), tuple(missing), tuple(hashes), own)

    def _content(self, pin: Pin) -> list[tuple[str, str]]:
        base = self._base(pin.id)
        if not base.exists():
            raise Preflight(
                f"pin {pin.id!r}: there is nothing at {base}",
                next_step=f"give its path: --pin {pin.id}=PATH or {variable(pin.id)}=PATH"
                + ", or mend 'folder' in its pin" * (pin.kind == "folder"),
            )
        memory = self.memory(pin.id)
        entries = []
        for file in pin.files or _listing(base):
            path = base if base.is_file() else base / file.path
            if not path.is_file():
                raise Preflight(
                    f"pin {pin.id!r}: {path} is missing",
                    next_step="check the path you gave with --pin"
                    if self.own(pin.id) is not None
                    else "bring this installation's files back: pip install -e . in the repository",
                )
            entries.append((file.path, memory.sha256(path)))
        return entries


def _listing(base: Path) -> list[PinnedFile]:
    """Every file of a folder (or the one file), for pins that list none."""
    if base.is_file():
        return [PinnedFile(path=base.name)]
    return [
        PinnedFile(path=path.relative_to(base).as_posix())
        for path in sorted(base.rglob("*"))
        if path.is_file() and "__pycache__" not in path.parts
    ]


def unavailable(pin: Pin) -> Preflight:
    """The error for an input that is private or gone."""
    return Preflight(
        f"pin {pin.id!r} ({pin.title}) cannot be fetched by anyone",
        why=pin.unavailable or "",
        next_step=f"if you have it: kit fetch EXPERIMENT --pin {pin.id}=PATH, or set "
        f"{variable(pin.id)}=PATH",
    )


def not_ready(state: PinState) -> KitError:
    """The error for a pin that is absent or wrong."""
    shown = "; ".join(state.problems[:3])
    more = f" (and {len(state.problems) - 3} more)" if len(state.problems) > 3 else ""
    if state.status == "wrong":
        return InvalidInput(
            f"pin {state.id!r} is not what it must be: {shown}{more}",
            where=str(state.path),
            why="a result from other bytes would not be about the published inputs",
            next_step="give the right path with --pin"
            if state.own
            else "kit fetch brings it again",
        )
    return Preflight(
        f"pin {state.id!r} is not here: {shown}{more}",
        where=str(state.path),
        next_step="check the path you gave with --pin" if state.own else "kit fetch EXPERIMENT",
    )


def variable(id: str) -> str:
    """The environment variable that gives a pin's path: ``KIT_PIN_LLAMA_3_8B_INSTRUCT``."""
    return "KIT_PIN_" + re.sub(r"[^A-Z0-9]", "_", id.upper())


class OwnPaths:
    """Pin id -> a path that the user brings instead of a download.

    From the environment, or remembered below the kit's home by ``kit fetch EXP --pin ID=PATH``.

    Args:
        home: The kit's home.
    """

    def __init__(self, home: Path) -> None:
        self.record = home / "pins" / "own-paths.json"

    def get(self, id: str) -> Path | None:
        """The user's path for a pin; the environment wins."""
        named = os.environ.get(variable(id), "").strip()
        if named:
            return Path(named).expanduser().absolute()
        path = self._read().get(id)
        return Path(path) if path is not None else None

    def put(self, id: str, path: Path | None) -> Path | None:
        """Remember a path, or forget it; returns the one that was remembered before."""
        known = self._read()
        before = known.pop(id, None)
        if path is not None:
            known[id] = str(path.expanduser().absolute())
        write_json(self.record, known)
        return Path(before) if before is not None else None

    def _read(self) -> dict[str, str]:
        try:
            loaded = json.loads(self.record.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
            return {}
        return {str(k): str(v) for k, v in loaded.items()} if isinstance(loaded, dict) else {}


class HashMemory:
    """Hashes of the files below one folder, remembered in a JSON file.

    A forged modification time would be believed; the memory saves minutes on 16 GB of weights and
    ``deep`` checks ignore it.

    Args:
        record: Where to remember; a folder that cannot be written only costs time.
    """

    def __init__(self, record: Path) -> None:
        self.record = record
        try:
            loaded = json.loads(record.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
            loaded = {}
        known = loaded.items() if isinstance(loaded, dict) else ()
        self._known: dict[str, list[int | str]] = {
            path: entry for path, entry in known if isinstance(entry, list) and len(entry) == 3
        }
        self._first = {path: str(entry[2]) for path, entry in self._known.items()}
        self._changed = False

    def sha256(self, path: Path, *, deep: bool = False) -> str:
        """Hash of a file, read only if it changed since the last time or if ``deep``."""
        status = path.stat()
        entry = self._known.get(str(path))
        if entry is not None and entry[:2] == [status.st_size, status.st_mtime_ns] and not deep:
            return str(entry[2])
        with path.open("rb") as handle:
            value = hashlib.file_digest(handle, "sha256").hexdigest()
        self._known[str(path)] = [status.st_size, status.st_mtime_ns, value]
        self._first.setdefault(str(path), value)
        self._changed = True
        return value

    def remembered(self, path: Path) -> str | None:
        """The hash that was first seen, however often a file that changed since was looked at."""
        return self._first.get(str(path))

    def forget(self, path: Path) -> None:
        """Drop what is known of a file."""
        self._first.pop(str(path), None)
        self._changed |= self._known.pop(str(path), None) is not None

    def save(self) -> None:
        """Remember for the next process."""
        if not self._changed:
            return
        try:
            write_json(self.record, self._known)
        except OSError:
            return
        self._changed = False
