"""Read manifests, pins and expectations, with every problem of a file reported at once.

Order of the checks: characters, syntax, then the types. The types decide through msgspec (strict;
a millisecond); jsonschema is imported only when they refuse, to find *everything* that is wrong,
or when ``full`` asks for both. A test holds the two to the same verdict.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import msgspec

from kit.errors import InvalidInput, Many
from kit.manifest.expand import expand
from kit.manifest.expectation_types import Expectation, ExpectationFile
from kit.manifest.matrix import profile_faults
from kit.manifest.pin_types import Pins, Register
from kit.manifest.reference_record import with_references
from kit.manifest.source import Node, Problems, Source, shown
from kit.manifest.text import check_characters, read_text
from kit.manifest.types import Manifest
from kit.manifest.yaml_nodes import parse_yaml

T = TypeVar("T", bound=msgspec.Struct)


@dataclass(frozen=True)
class Loaded(Generic[T]):
    """A document and where each of its values stands.

    Attributes:
        value: The typed document.
        source: Its positions.
    """

    value: T
    source: Source

    def placed(self, error: InvalidInput) -> InvalidInput:
        """An error that was noticed in use, at its place in the file."""
        position = self.locate(error.path)
        error.where = f"{position}: {error.where}" if error.where else position
        return error

    def locate(self, path: tuple[str | int, ...] = (), *, key: bool = False) -> str:
        """``file:line:column`` of the value (or its key) at ``path``."""
        return self.source.locate(path, key=key)


def read_manifest(path: Path | str, *, full: bool = False) -> Loaded[Manifest]:
    """A manifest with positions.

    Args:
        path: YAML or JSON file.
        full: Run the JSON Schema too, even if the types accept the document.

    Raises:
        Many: Everything that is wrong with the file, in file order.
    """
    loaded = _read(Path(path), Manifest, "manifest", full)
    problems = Problems(loaded.source.name)
    for name, profile in loaded.value.profiles.items():
        for key_path, fault in profile_faults(name, profile):
            problems.add(*loaded.source.position(key_path), fault)
    if problems.errors:
        raise Many(problems.sorted())
    return loaded


def read_pins(path: Path | str, *, full: bool = False) -> Loaded[Pins]:
    """Pins with positions; see :func:`read_manifest`."""
    return _read(Path(path), Pins, "pins", full)


def read_register(path: Path | str, *, full: bool = False) -> Loaded[Register]:
    """A register of external kits with positions; see :func:`read_manifest`."""
    return _read(Path(path), Register, "register", full)


def read_expectation(
    path: Path | str, *, full: bool = False, references: bool = True
) -> Loaded[Expectation]:
    """An expectation, written out, with positions; see :func:`read_manifest`.

    Args:
        path: YAML or JSON file.
        full: Run the JSON Schema too.
        references: Read the record of reference runs; without, it need not be there yet.

    Raises:
        Many: As above.
        InvalidInput: The record of reference runs that it names is absent or damaged.
    """
    file = _read(Path(path), ExpectationFile, "expectation", full)
    problems = Problems(file.source.name)
    source = Source(file.source.name, file.source.path, expand(file.source.root, problems))
    if not problems.errors:
        value = _typed(source, Expectation, problems)
        if value is not None:
            record = value.record if references else ""
            cells = with_references(value.cells, Path(path).parent, record)
            return Loaded(msgspec.structs.replace(value, cells=cells), source)
    raise Many(problems.sorted())


def load_expectation(path: Path | str) -> Expectation:
    """The expectation in a file."""
    return read_expectation(path).value


def parse(path: Path | str) -> Source:
    """The tree of any YAML or JSON file under the rules of this package, without a schema.

    Raises:
        InvalidInput: Absent, too large, not UTF-8.
        Many: Bad characters or syntax.
    """
    path = Path(path)
    return parse_text(read_text(path), path)


def parse_text(text: str, path: Path) -> Source:
    """Like :func:`parse`, for text at hand; ``path`` names it in messages."""
    root, problems = _tree(text, path)
    if problems.errors or root is None:
        raise Many(problems.sorted())
    return Source(problems.name, path, root)


def _tree(text: str, path: Path) -> tuple[Node | None, Problems]:
    """The tree as far as it can be read, and what was wrong on the way."""
    problems = Problems(shown(path))
    check_characters(text, problems)
    return (None if problems.errors else parse_yaml(text, problems)), problems


def _read(path: Path, kind: type[T], name: str, full: bool) -> Loaded[T]:
    root, problems = _tree(read_text(path), path)
    if root is None:
        raise Many(problems.sorted())
    return _convert(Source(problems.name, path, root), problems, kind, name, full)


def _convert(source: Source, problems: Problems, kind: type[T], name: str, full: bool) -> Loaded[T]:
    """The typed document of a tree, unless something was or is wrong with it."""
    data = source.root.plain()
    typed: T | None = None
    try:
        typed = msgspec.convert(data, kind)
    except UnicodeEncodeError:  # half a character as a key, which the reader has noted already
        pass
    except msgspec.ValidationError as error:
        faults = _schema_problems(data, source, name)
        if not faults.errors:
            _type_problem(error, source, faults)
        problems.merge(faults)
    else:
        if full:
            problems.merge(_schema_problems(data, source, name))
    if problems.errors or typed is None:
        raise Many(problems.sorted())
    return Loaded(typed, source)


def _typed(source: Source, kind: type[T], problems: Problems) -> T | None:
    """The typed document of a tree whose fields the schema has checked."""
    try:
        return msgspec.convert(source.root.plain(), kind)
    except msgspec.ValidationError as error:
        _type_problem(error, source, problems)
        return None


def _schema_problems(data: Any, source: Source, name: str) -> Problems:
    from kit.manifest.explain import explain, validator

    problems = Problems(source.name)
    for error in validator(name).iter_errors(data):
        explain(error, source, problems)
    return problems


def _type_problem(error: msgspec.ValidationError, source: Source, problems: Problems) -> None:
    """Place msgspec's own message, for the case that the schema let something through."""
    said, _, where = str(error).partition(" - at `")
    path: list[str | int] = [
        int(index) if index else key
        for key, index in re.findall(r"\.([^.\[\]`]+)|\[(\d+)\]", where)
    ]
    problems.add(*source.position(path), said)
