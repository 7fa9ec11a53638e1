"""Types of ``manifests/pins.yaml``, every input exactly, and of a register of others' kits."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

from kit.manifest.types import Identifier

AttributeValue = bool | int | float | str | dict[str, Any]
Revision = Annotated[str, Meta(pattern=r"^[0-9a-f]{40}$(?!\n)")]
_PART = "[A-Za-z0-9._@+=,() -]{1,200}"
RelativePath = Annotated[
    str, Meta(pattern=rf"^(?!.*(^|/)\.\.?(/|$)){_PART}(/{_PART}){{0,15}}$(?!\n)")
]
"""A path with ``/`` that stays below its folder: not absolute, no ``.`` or ``..`` among its parts,
nothing that a file system could refuse to name."""

Repository = Annotated[
    str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,95}/[A-Za-z0-9][A-Za-z0-9._-]{0,95}$(?!\n)")
]
"""A hub repository, ``owner/name``."""

Sha256 = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}$(?!\n)")]


class PinnedFile(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One file of a pin."""

    path: RelativePath
    """Below the pin's folder."""
    sha256: Sha256 | None = None
    """``None`` only while the pin is ``unconfirmed``."""
    size: Annotated[int, Meta(ge=0)] | None = None
    """Bytes."""


class Pin(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """An exact input.

    ``hf-model`` and ``hf-dataset`` name a hub repository at a revision, ``file`` a plain file at a
    URL that contains its revision, ``wheel`` a released Python package by version and hash (a step
    gets the wheel file), ``folder`` a folder or file of one's own, ``package`` files that ship
    inside the kit, ``unavailable`` an input that is private or gone (the reason is mandatory; a
    user may bring a path of their own).
    """

    id: Identifier
    kind: Literal["hf-model", "hf-dataset", "file", "wheel", "folder", "package", "unavailable"]
    title: Annotated[str, Meta(min_length=1)]
    licence: Annotated[str, Meta(min_length=1)]
    repo: Repository | None = None
    revision: Revision | None = None
    url: str | None = None
    """For ``file``: the address, with the revision in it."""
    path: RelativePath | None = None
    """For ``package``: folder or file inside the package, relative to ``kit/``."""
    package: Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$(?!\n)")] | None = None
    version: Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9.+!_-]{0,63}$(?!\n)")] | None = (
        None
    )
    """For ``wheel``: the name and version that ``pip`` knows."""
    folder: Annotated[str, Meta(min_length=1)] | None = None
    """For ``folder``: where it is, relative to the pin file. Its content is in the keys."""
    files: list[PinnedFile] = []
    """Every file used. Nothing else is downloaded. Of a ``folder`` without a list, all are."""
    gated: bool = False
    unconfirmed: str | None = None
    """What nobody could confirm, and why. Repeated in every report."""
    unavailable: str | None = None
    mirrors: list[str] = []
    """Other repositories or addresses with the same content, accepted by hash only."""
    attributes: dict[str, AttributeValue] = {}
    """Facts steps need (chat format, architecture, parameter count). A chat format or an
    architecture can be spelled out as a mapping instead of being named."""
    source: str = ""
    """Where revision and hashes come from."""

    @property
    def origin(self) -> str:
        """Where it comes from, in a word."""
        if self.package is not None:
            return f"{self.package}=={self.version}"
        return self.url or self.path or self.repo or self.folder or "not available"


class Pins(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The file."""

    schema_version: Literal[1]
    pins: list[Pin]


class ExternalKit(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A repository with manifests of its own, such as `kit new` begins."""

    id: Identifier
    title: Annotated[str, Meta(min_length=1)]
    repository: Annotated[str, Meta(pattern=r"^https://[^\s/@]+/\S+$(?!\n)")]
    """Address that ``git clone`` takes."""
    commit: Revision
    experiments: Annotated[list[str], Meta(min_length=1)]
    """Manifests in it, as paths that ``kit reproduce`` takes."""
    licence: str = ""


class Register(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The file."""

    schema_version: Literal[1]
    kits: list[ExternalKit]
