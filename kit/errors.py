"""One tree of errors; each class knows its exit code.

Every message answers four questions: what went wrong, where (``file:line:column`` or a step id),
why it matters, and what to type next. The command line prints :meth:`KitError.render` and leaves
with :attr:`KitError.exit_code`; nothing else in the kit calls ``sys.exit``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from kit.plural import plural
from kit.visible import shorten, visible

EXIT_OK = 0
EXIT_CLAIM_FAILED = 1
EXIT_USAGE = 2
EXIT_INCOMPLETE = 3
EXIT_INVALID = 4
EXIT_FAILED = 5
EXIT_INTERRUPTED = 130

LONGEST = 4000
"""Characters of one part of a message; a row of data can have ten million."""


class KitError(Exception):
    """Base of everything the kit raises on purpose.

    Args:
        what: One sentence: what went wrong.
        where: File with line and column, step id, or pin id.
        why: Why it matters or what caused it.
        next_step: What the reader can type or do about it.
    """

    exit_code = EXIT_INVALID
    trace = ""
    """Traceback of a step that failed in another process, for ``--debug``."""

    def __init__(self, what: str, *, where: str = "", why: str = "", next_step: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.where = where
        self.why = why
        self.next_step = next_step

    def render(self) -> str:
        """The message as printed: one line each for where, what, why and what to do.

        Parts of it may come from a stranger's file; nothing in them acts on the terminal.
        """
        head = f"{self.where}: {self.what}" if self.where else self.what
        lines = [f"error: {_printable(head)}"]
        if self.why:
            lines.append(f"  why:  {_printable(self.why)}")
        if self.next_step:
            lines.append(f"  next: {_printable(self.next_step)}")
        return "\n".join(lines)

    def __str__(self) -> str:
        return f"{self.where}: {self.what}" if self.where else self.what


def _printable(text: str) -> str:
    return shorten(visible(text), LONGEST)


class UsageError(KitError):
    """The command was called wrongly (unknown experiment, bad override)."""

    exit_code = EXIT_USAGE


class InvalidInput(KitError):
    """A manifest, expectation, table or pinned file is not what it must be.

    Args:
        what: One sentence: what went wrong.
        path: Keys and indices from the root of the document to the value in question, where that
            is known; whoever read the document from a file turns it into line and column.
        **said: As of :class:`KitError`.
    """

    def __init__(self, what: str, *, path: tuple[str | int, ...] = (), **said: str) -> None:
        super().__init__(what, **said)
        self.path = path


@contextmanager
def at(*path: str | int) -> Iterator[None]:
    """Invalid input that is noticed inside is at this place of a document, or below it."""
    try:
        yield
    except InvalidInput as error:
        error.path = (*path, *error.path)
        raise


class Preflight(KitError):
    """This machine cannot run what was asked (no GPU, no token, no disk)."""


class StepFailed(KitError):
    """A step ended without its outputs. The run can be resumed once the cause is mended."""

    exit_code = EXIT_FAILED


class Interrupted(KitError):
    """Stopped by a signal; finished steps are kept."""

    exit_code = EXIT_INTERRUPTED


class Many(KitError):
    """Several errors of one document, reported together instead of one a call."""

    def __init__(self, errors: Sequence[KitError]) -> None:
        if not errors:
            raise ValueError("Many needs at least one error")
        super().__init__(plural(len(errors), "problem"))
        self.errors = tuple(errors)
        self.exit_code = max(error.exit_code for error in self.errors)

    def render(self) -> str:
        return "\n".join(error.render() for error in self.errors)


def raise_all(errors: Sequence[KitError]) -> None:
    """Raise what is wrong, if anything is: an error as it is, several together."""
    if errors:
        raise errors[0] if len(errors) == 1 else Many(errors)
