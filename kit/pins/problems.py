"""What can go wrong while fetching, each as one message with what to do."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from kit.errors import InvalidInput, KitError, Preflight
from kit.manifest.pin_types import Pin
from kit.pins.store import variable
from kit.plural import plural


def offline() -> bool:
    """Whether the user forbade the network."""
    named = (os.environ.get("HF_HUB_OFFLINE", ""), os.environ.get("KIT_OFFLINE", ""))
    return any(value.strip().lower() in ("1", "true", "yes", "on") for value in named)


def hub_page(pin: Pin) -> str:
    """The page of a hub repository, where its conditions are accepted."""
    kind = "datasets/" if pin.kind == "hf-dataset" else ""
    return f"https://huggingface.co/{kind}{pin.repo}"


def is_offline(pin: Pin, missing: int) -> Preflight:
    """Something is missing and the network is off."""
    return Preflight(
        f"pin {pin.id!r}: {plural(missing, 'file')} missing, and the network is switched off",
        why="HF_HUB_OFFLINE (or KIT_OFFLINE) is set",
        next_step="unset it and run kit fetch, or fetch on another machine and copy $KIT_HOME/pins",
    )


def gated(pin: Pin, has_token: bool, status: int) -> Preflight:
    """The hub does not let us in."""
    page = hub_page(pin)
    if has_token:
        return Preflight(
            f"pin {pin.id!r}: the hub refuses access to {pin.repo} (HTTP {status})",
            why="a token was sent, but its account has not been granted access (or the token lacks "
            "the right to read gated repositories)",
            next_step=f"accept the conditions at {page} with the account of your token, then retry",
        )
    return Preflight(
        f"pin {pin.id!r}: {pin.repo} is gated and there is no token (HTTP {status})",
        why=f"its licence ({pin.licence}) has to be accepted by a person first",
        next_step=f"accept the conditions at {page}, then: hf auth login (or set HF_TOKEN)",
    )


def bad_token(pin: Pin) -> Preflight:
    """The hub does not know the token; it then refuses what anybody may read, too."""
    return Preflight(
        f"pin {pin.id!r}: the hub does not accept your token (HTTP 401), so it refuses {pin.repo}",
        why="the token expired, was revoked or is mistyped",
        next_step="make a new one at https://huggingface.co/settings/tokens, then: hf auth login "
        "(or set HF_TOKEN)"
        + ("" if pin.gated else "; this input needs none: hf auth logout, unset HF_TOKEN"),
    )


def no_repository(pin: Pin, has_token: bool) -> Preflight:
    """The hub knows no such repository, or hides it from us."""
    return Preflight(
        f"pin {pin.id!r}: the hub has no {pin.repo}, or does not show it to you",
        why="it was moved, deleted or made private"
        + ("" if has_token else "; without a token, private and gated look the same"),
        next_step=f"look at {hub_page(pin)}; if you have the files: --pin {pin.id}=PATH",
    )


def no_revision(pin: Pin) -> InvalidInput:
    """The repository is there, the commit is not."""
    return InvalidInput(
        f"pin {pin.id!r}: {pin.repo} has no revision {pin.revision}",
        why="history was rewritten, or the revision is wrong",
        next_step=f"look at {hub_page(pin)}/commits/main and correct manifests/pins.yaml",
    )


def moved(pin: Pin, commit: str) -> InvalidInput:
    """The repository answers with another commit than the one asked for."""
    return InvalidInput(
        f"pin {pin.id!r}: asked for revision {pin.revision}, {pin.repo} answers with {commit}",
        why="the revision is a tag or branch that moved, or a proxy answers from another commit",
        next_step=f"look at {hub_page(pin)}/commits/main; pin a commit that is still there",
    )


def no_file(pin: Pin, path: str, where: str) -> InvalidInput:
    """The file is not where the pin says."""
    return InvalidInput(
        f"pin {pin.id!r}: there is no {path} (HTTP 404)",
        where=where,
        next_step="correct the path in manifests/pins.yaml, or bring the file: "
        f"--pin {pin.id}=PATH",
    )


def wrong_hash(pin: Pin, path: str, digest: str, wanted: str, where: str) -> InvalidInput:
    """Other bytes than pinned. The file is gone again when this is raised."""
    return InvalidInput(
        f"pin {pin.id!r}: {path} has sha256 {digest}, pinned is {wanted}; it was deleted",
        where=where,
        why="the source changed, or something on the way altered it",
        next_step="do not change the pin without knowing why; a proxy or a moved tag is the usual "
        "cause",
    )


def wrong_size(pin: Pin, path: str, size: int, wanted: int, where: str) -> InvalidInput:
    """Other size than pinned."""
    return InvalidInput(
        f"pin {pin.id!r}: {path} has {size:,} bytes, pinned are {wanted:,}",
        where=where,
        why="the source changed, or an error page was served in its place",
    )


def too_large(pin: Pin, path: str, limit: int, where: str) -> InvalidInput:
    """More bytes than a file of unknown size may have."""
    return InvalidInput(
        f"pin {pin.id!r}: {path} is larger than {limit:,} bytes",
        where=where,
        next_step="if this is right, write its size into manifests/pins.yaml",
    )


def no_network(pin: Pin, detail: str, where: str) -> Preflight:
    """The other side cannot be reached, or keeps failing."""
    return Preflight(
        f"pin {pin.id!r}: {detail}",
        where=where,
        why="no network, or the server has a problem; it was tried several times",
        next_step="try later; what has been fetched is kept. HTTPS_PROXY and HF_ENDPOINT are "
        "honoured",
    )


def no_space(pin: Pin, needed: int | None, free: int, folder: Path) -> Preflight:
    """The disk is (or would be) full."""
    want = f"{needed / 1e9:.1f} GB needed, " if needed is not None else ""
    return Preflight(
        f"pin {pin.id!r}: not enough disk space: {want}{free / 1e9:.1f} GB free",
        where=str(folder),
        next_step="free some space, or point KIT_HOME to a larger disk",
    )


def from_os(pin: Pin, error: OSError, folder: Path) -> KitError:
    """A failure of the local file system."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return no_space(pin, None, 0, folder)
    return Preflight(
        f"pin {pin.id!r}: cannot write: {error.strerror or type(error).__name__}",
        where=str(folder),
        next_step="check permissions, or point KIT_HOME elsewhere",
    )


def bring_your_own(pin: Pin) -> str:
    """How to give a path."""
    return f"--pin {pin.id}=PATH, or {variable(pin.id)}=PATH"
