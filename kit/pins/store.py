"""Pins on this machine: where they are, whether they are what they must be, their identity.

A pin's digest is its declared identity: paths and sha256, or for a file whose hash nobody could
confirm yet the repository and revision. It is therefore known before anything is fetched, and it
changes only when ``pins.yaml`` does. What a user brings, and what ships with the package, is
hashed from its content.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from kit.errors import InvalidInput, KitError, Preflight, UsageError
from kit.manifest.names import nearest
from kit.manifest.pin_types import Pin, PinnedFile, Pins
from kit.pins.hashing import HashMemory
from kit.pins.own_paths import OwnPaths, variable
from kit.pins.package import package_folder

Status = Literal["ok", "unconfirmed", "absent", "wrong", "unavailable"]


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

        Raises:
            Preflight: The pin is unavailable and no path was given for it.
        """
        pin = self.pin(id)
        own = self.own_paths.get(id)
        if own is not None:
            only = pin.files[0].path if pin.kind == "file" and pin.files else None
            return own / only if only is not None and own.is_dir() else own
        if pin.kind == "package":
            return package_folder() / (pin.path or "")
        if pin.kind == "unavailable":
            raise unavailable(pin)
        if pin.kind == "file" and pin.files:
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
        if pin.kind == "unavailable" and self.own_paths.get(id) is None:
            entries = [("", f"unavailable:{id}")]
        elif self.own_paths.get(id) is not None or pin.kind in ("package", "unavailable"):
            entries = self._content(pin)
        else:
            place = f"{pin.repo}@{pin.revision}" if pin.repo else str(pin.url)
            entries = [
                (file.path, file.sha256 or f"unconfirmed:{place}:{file.path}") for file in pin.files
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
        own = self.own_paths.get(id) is not None
        try:
            base = self.path(id)
        except Preflight as error:
            return PinState(id, "unavailable", None, (error.what,))
        if not base.exists() and (own or pin.kind == "package"):
            return PinState(id, "absent", base, (f"{base} does not exist",), own=own)
        return self._compare(pin, base, own, deep)

    def check(self, id: str) -> None:
        """Return quietly if the pin is there and right.

        Raises:
            Preflight: It is not there.
            InvalidInput: It is not what it must be.
        """
        self.require(id)

    def require(self, id: str) -> Path:
        """The path of a pin that is there and right.

        Raises:
            Preflight: It is not there.
            InvalidInput: It is not what it must be.
        """
        state = self.state(id)
        if state.ready and state.path is not None:
            return state.path
        if state.status == "unavailable":
            raise unavailable(self.pin(id))
        raise not_ready(state)

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
            place = base if base.is_file() or pin.kind == "file" else base / file.path
            if not place.is_file():
                missing.append(file)
                problems.append(f"{file.path} is missing")
                continue
            before = memory.remembered(place)
            found = memory.sha256(place, deep=deep)
            hashes.append((file.path, found))
            expected = file.sha256 or before
            unconfirmed |= file.sha256 is None and bool(pin.files)
            if expected is not None and found != expected:
                wrong = True
                since = "" if file.sha256 else " (it changed since it was first seen)"
                problems.append(f"{file.path} has sha256 {found}, not {expected}{since}")
            elif file.size is not None and place.stat().st_size != file.size:
                wrong = True
                problems.append(
                    f"{file.path} has {place.stat().st_size:,} bytes, not {file.size:,}"
                )
        if not wrong and pin.kind != "package":
            memory.save()
        status: Status = "absent" if missing else "unconfirmed" if unconfirmed else "ok"
        if wrong:
            status = "wrong"
        return PinState(pin.id, status, base, tuple(problems), tuple(missing), tuple(hashes), own)

    def _content(self, pin: Pin) -> list[tuple[str, str]]:
        base = self.path(pin.id)
        if not base.exists():
            raise Preflight(
                f"pin {pin.id!r}: there is nothing at {base}",
                next_step=f"give its path: --pin {pin.id}=PATH or {variable(pin.id)}=PATH",
            )
        memory = self.memory(pin.id)
        entries = []
        for file in pin.files or _listing(base):
            place = base if base.is_file() else base / file.path
            if not place.is_file():
                raise Preflight(
                    f"pin {pin.id!r}: {place} is missing",
                    next_step="check the path you gave with --pin"
                    if self.own_paths.get(pin.id) is not None
                    else "bring this installation's files back: pip install -e . in the repository",
                )
            entries.append((file.path, memory.sha256(place)))
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


def own_path_pins(ids: Iterable[str], pins: Pins) -> None:
    """Refuse ``--pin`` for ids that no experiment uses.

    Raises:
        UsageError: Unknown id.
    """
    known = {pin.id for pin in pins.pins}
    for id in ids:
        if id not in known:
            raise UsageError(f"--pin: there is no pin {id!r}", next_step=nearest(id, known))
