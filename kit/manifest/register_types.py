"""Types of a register: kits of other people, each at a commit."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct

from kit.manifest.pin_types import Revision
from kit.manifest.types import Identifier


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
