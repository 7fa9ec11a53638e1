"""Rules over pins."""

from __future__ import annotations

import re
from collections.abc import Iterator
from urllib.parse import urlsplit

from kit.engine.wiring import duplicates
from kit.lint.core import PINS, PinsContext
from kit.manifest.source import Hit
from kit.pins.store import HUB, PACKAGE, SINGLE

FETCHED = (*HUB, *SINGLE)
_BELONGS = {
    "repo": HUB,
    "revision": (*HUB, "file"),
    "url": ("file",),
    "path": ("package",),
    "package": ("wheel",),
    "version": ("wheel",),
    "folder": ("folder",),
    "unavailable": ("unavailable",),
}
_NEEDED = {field: kinds for field, kinds in _BELONGS.items() if field != "revision"}


@PINS.rule("duplicate-pin")
def duplicate_pin(context: PinsContext) -> Iterator[Hit]:
    """Pin ids are unique."""
    for index, id in duplicates(pin.id for pin in context.pins):
        yield Hit(("pins", index, "id"), f"a second pin {id!r}")


@PINS.rule("pin-fields")
def pin_fields(context: PinsContext) -> Iterator[Hit]:
    """A pin has the fields its kind needs, and none of another kind."""
    for index, pin in enumerate(context.pins):
        for field, kinds in _BELONGS.items():
            given = getattr(pin, field) is not None
            if not given and pin.kind in _NEEDED.get(field, ()):
                yield Hit(("pins", index), f"pin {pin.id!r}: {pin.kind} needs {field!r}")
            if given and pin.kind not in kinds:
                yield Hit(("pins", index, field), f"pin {pin.id!r}: {pin.kind} has no {field!r}")
        if pin.kind in FETCHED and not pin.files:
            yield Hit(("pins", index), f"pin {pin.id!r} lists no files; only listed ones are used")
        if pin.kind in SINGLE and len(pin.files) > 1:
            yield Hit(("pins", index, "files"), f"pin {pin.id!r}: a {pin.kind!r} pin is one file")


@PINS.rule("unpinned")
def unpinned(context: PinsContext) -> Iterator[Hit]:
    """A hub input has a revision; a plain file's address contains one, or its hash is known."""
    for index, pin in enumerate(context.pins):
        if pin.kind in HUB and pin.revision is None:
            yield Hit(
                ("pins", index),
                f"pin {pin.id!r} has no revision: the repository can change under it",
                'add revision: "<40 hexadecimal digits>"',
            )
        if pin.kind == "file" and pin.url is not None:
            hashed = bool(pin.files) and all(file.sha256 for file in pin.files)
            if not re.search(r"[0-9a-f]{40}", pin.url) and not hashed:
                yield Hit(
                    ("pins", index, "url"), f"pin {pin.id!r}: no revision in the address, no hash"
                )
            if pin.revision is not None and pin.revision not in pin.url:
                yield Hit(
                    ("pins", index, "url"),
                    f"pin {pin.id!r}: the address does not contain the revision",
                )


@PINS.rule("missing-sha256")
def missing_sha256(context: PinsContext) -> Iterator[Hit]:
    """A file without sha256 stands only in a pin that says what is unconfirmed."""
    for index, pin in enumerate(context.pins):
        if pin.kind not in FETCHED or pin.unconfirmed:
            continue
        for position, file in enumerate(pin.files):
            if file.sha256 is None:
                yield Hit(
                    ("pins", index, "files", position),
                    f"pin {pin.id!r}: {file.path} has no sha256",
                    "kit fetch --write-pins completes it; until then say why in 'unconfirmed'",
                )


@PINS.rule("address")
def address(context: PinsContext) -> Iterator[Hit]:
    """Addresses are https without credentials; mirrors need known hashes."""
    for index, pin in enumerate(context.pins):
        named = [(("url",), pin.url)] if pin.url is not None else []
        places = [*named, *((("mirrors", i), m) for i, m in enumerate(pin.mirrors))]
        for key, text in places:
            if "://" not in text and key[0] == "mirrors":
                continue
            try:
                parts = urlsplit(text)
                _ = parts.port
            except ValueError as error:
                yield Hit(("pins", index, *key), f"pin {pin.id!r}: {text!r} is no address: {error}")
                continue
            if parts.scheme != "https" or not parts.hostname:
                yield Hit(("pins", index, *key), f"pin {pin.id!r}: {text!r} is not https")
            if parts.username or parts.password:
                yield Hit(("pins", index, *key), f"pin {pin.id!r}: credentials in an address")
        if pin.mirrors and not all(file.sha256 for file in pin.files):
            yield Hit(
                ("pins", index, "mirrors"),
                f"pin {pin.id!r}: a mirror is accepted by hash only, and not all hashes are known",
                level="warning",
            )


@PINS.rule("file-path")
def file_path(context: PinsContext) -> Iterator[Hit]:
    """Files are listed once."""
    for index, pin in enumerate(context.pins):
        for position, path in duplicates(file.path for file in pin.files):
            yield Hit(("pins", index, "files", position), f"pin {pin.id!r}: {path} twice")


@PINS.rule("own-folder")
def own_folder(context: PinsContext) -> Iterator[Hit]:
    """What a folder pin names is there."""
    for index, pin in enumerate(context.pins):
        if pin.folder is not None:
            folder = context.loaded.source.path.parent / pin.folder
            for path in [folder / file.path for file in pin.files] or [folder]:
                if not path.exists():
                    yield Hit(
                        ("pins", index, "folder"), f"pin {pin.id!r}: there is nothing at {path}"
                    )


@PINS.rule("package-files")
def package_files(context: PinsContext) -> Iterator[Hit]:
    """What a package pin names ships with the kit."""
    for index, pin in enumerate(context.pins):
        if pin.kind != "package" or pin.path is None:
            continue
        base = PACKAGE / pin.path
        if not base.exists():
            yield Hit(("pins", index, "path"), f"pin {pin.id!r}: kit/{pin.path} does not exist")
            continue
        for position, file in enumerate(pin.files):
            if not (base / file.path).is_file() and base.name != file.path:
                yield Hit(
                    ("pins", index, "files", position),
                    f"pin {pin.id!r}: kit/{pin.path}/{file.path} does not exist",
                )


@PINS.rule("unconfirmed", "info")
def unconfirmed(context: PinsContext) -> Iterator[Hit]:
    """What nobody could confirm yet."""
    for index, pin in enumerate(context.pins):
        if pin.unconfirmed:
            yield Hit(
                ("pins", index, "unconfirmed"),
                f"pin {pin.id!r}: {pin.unconfirmed}",
                "" if pin.kind == "package" else "kit fetch EXP --write-pins, where the hub is",
            )


@PINS.rule("pin-source", "info")
def pin_source(context: PinsContext) -> Iterator[Hit]:
    """A fetched pin says where its revision and hashes come from."""
    for index, pin in enumerate(context.pins):
        if pin.kind in FETCHED and not pin.source:
            yield Hit(
                ("pins", index), f"pin {pin.id!r} does not say where revision and hashes come from"
            )
