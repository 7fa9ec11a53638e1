"""What a hostile document may not make the kit do: seen by an audit hook while it is armed."""

from __future__ import annotations

import os
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

_CHANGES = {
    "os.mkdir", "os.rmdir", "os.remove", "os.rename", "os.link", "os.symlink", "os.truncate",
    "os.chmod", "os.chown", "os.utime", "shutil.rmtree", "shutil.move", "shutil.copyfile",
    "tempfile.mkstemp", "tempfile.mkdtemp",
}  # fmt: skip
_NEVER = {
    "os.system", "os.exec", "os.fork", "os.forkpty", "os.posix_spawn", "os.spawn",
    "subprocess.Popen", "socket.connect", "socket.getaddrinfo", "socket.bind", "pickle.find_class",
    "ctypes.dlopen", "code.__new__", "builtins.input", "webbrowser.open", "urllib.Request",
}  # fmt: skip
_LIBRARIES = tuple(
    {str(Path(sysconfig.get_path(name)).resolve()) for name in ("stdlib", "purelib", "platlib")}
)


class Forbidden(AssertionError):
    """Something was run, written or asked that a document has no right to."""


class Watch:
    """The hook. It cannot be taken out again, so it sleeps until :meth:`over` arms it."""

    def __init__(self, *readable: Path) -> None:
        self.readable = tuple(str(path.resolve()) for path in readable)
        self.folder: str | None = None
        self.seen: list[str] = []
        sys.addaudithook(self._hear)

    @contextmanager
    def over(self, folder: Path) -> Iterator[None]:
        """Watch; only below ``folder`` may anything be written.

        Raises:
            Forbidden: Something happened that must not.
        """
        self.folder, self.seen = str(folder.resolve()), []
        try:
            yield
        finally:
            self.folder = None
        if self.seen:
            raise Forbidden("; ".join(self.seen))

    def _hear(self, name: str, arguments: tuple[Any, ...]) -> None:
        if self.folder is None or not (
            name == "open" or name in _NEVER or name in _CHANGES or name in ("exec", "compile")
        ):
            return
        if _of_code(sys._getframe(1)):
            return
        if name in ("exec", "compile") or name in _NEVER:
            self._note(name, arguments)
        elif name == "open":
            self._opened(arguments)
        elif not all(self._below(one) for one in arguments if isinstance(one, str | os.PathLike)):
            self._note(name, arguments)

    def _opened(self, arguments: tuple[Any, ...]) -> None:
        path, mode, flags = arguments
        if not isinstance(path, str | bytes | os.PathLike) or self._below(path):
            return
        writes = any(letter in (mode or "") for letter in "wax+") or bool(
            (flags or 0) & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC)
        )
        place = os.path.realpath(os.fsdecode(path))
        if writes or not place.startswith((*self.readable, *_LIBRARIES)):
            self._note("open", arguments)

    def _below(self, path: str | bytes | os.PathLike[Any]) -> bool:
        place = os.path.realpath(os.fsdecode(path))
        return place == self.folder or place.startswith(f"{self.folder}/")

    def _note(self, name: str, arguments: tuple[Any, ...]) -> None:
        folder, self.folder = self.folder, None  # noting must not be heard
        if len(self.seen) < 5:
            self.seen.append(f"{name} {arguments!r}"[:300])
        self.folder = folder


def _of_code(frame: FrameType | None) -> bool:
    """Whether a lazy import is under way, or msgspec evaluates the annotations of a struct."""
    while frame is not None:
        name = frame.f_code.co_filename
        if name.startswith("<frozen importlib") or name.endswith("msgspec/_utils.py"):
            return True
        frame = frame.f_back
    return False
