"""Rules over a manifest's place among the others: file, counterpart, expectation."""

from __future__ import annotations

from collections.abc import Iterator

from kit.engine.wiring import Hit
from kit.errors import KitError
from kit.lint.core import MANIFEST, ManifestContext
from kit.manifest.names import nearest


@MANIFEST.rule("file-name")
def file_name(context: ManifestContext) -> Iterator[Hit]:
    """A manifest of the repository is ``manifests/<family>/<id>.yaml``."""
    path = context.loaded.source.path.resolve()
    if path not in [file.resolve() for file in context.catalog.files().values()]:
        return
    manifest = context.manifest
    if path.stem != manifest.id:
        yield Hit(("id",), f"the file is named {path.stem!r}, the experiment {manifest.id!r}")
    if path.parent.name != manifest.family:
        yield Hit(
            ("family",), f"the folder is {path.parent.name!r}, the family {manifest.family!r}"
        )


@MANIFEST.rule("counterpart")
def counterpart(context: ManifestContext) -> Iterator[Hit]:
    """The counterpart exists, is the other variant, and points back."""
    manifest = context.manifest
    other_id = manifest.counterpart
    if other_id is None:
        return
    ids = context.catalog.ids()
    if other_id not in ids:
        yield Hit(("counterpart",), f"there is no experiment {other_id!r}", nearest(other_id, ids))
        return
    try:
        other = context.catalog.manifest(other_id)
    except KitError as error:
        yield Hit(("counterpart",), f"the counterpart cannot be read: {error}")
        return
    if other.counterpart != manifest.id:
        yield Hit(
            ("counterpart",),
            f"{other_id!r} does not point back: its counterpart is {other.counterpart!r}",
        )
    if other.variant == manifest.variant:
        yield Hit(("counterpart",), f"{other_id!r} is {other.variant} too, not the other variant")
    if other.family != manifest.family:
        yield Hit(("counterpart",), f"{other_id!r} is of another family, {other.family!r}")


@MANIFEST.rule("no-expectation", "info")
def no_expectation(context: ManifestContext) -> Iterator[Hit]:
    """Every profile has numbers to compare with."""
    path = context.loaded.source.path
    for profile in context.manifest.profiles:
        if context.catalog.expectation_path(path, profile) is None:
            yield Hit(
                ("profiles", profile),
                f"no expectation for profile {profile!r}: a run can be made but not verified",
                key=True,
            )
