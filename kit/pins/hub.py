"""Files of a hub repository at a revision, through huggingface_hub.

huggingface_hub is imported inside the functions (0.2 s, and some of its settings are read at
import). The token comes from the environment or from its cache and is never looked at here.
"""

from __future__ import annotations

import errno
import importlib
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from kit.errors import KitError
from kit.manifest.pin_types import Pin, PinnedFile
from kit.pins import problems
from kit.pins.http import bare
from kit.pins.retry import Transient, retry_after

T = TypeVar("T")

_TRANSIENT_NAMES = {"TimeoutException", "NetworkError", "RemoteProtocolError", "TransportError"}
"""Classes of the hub's http client; by name, because the client differs between its versions."""

_BAD_TOKEN = "Invalid credentials in Authorization header"
"""``X-Error-Message`` for a token that expired, was revoked or mistyped."""

_SHA256 = re.compile(r"[0-9a-f]{64}")
_SHA1 = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True)
class HubFile:
    """What the hub says about a file without sending it.

    Attributes:
        size: Bytes, when it says so.
        sha256: Of the content, for large files.
        blob: Git blob id, for small files.
        commit: The commit that the revision stands for.
    """

    size: int | None
    sha256: str | None
    blob: str | None
    commit: str | None


def repo_type(pin: Pin) -> str:
    """``model`` or ``dataset``."""
    return "dataset" if pin.kind == "hf-dataset" else "model"


def endpoint() -> str | None:
    """``$HF_ENDPOINT``, read at call time."""
    return os.environ.get("HF_ENDPOINT") or None


def has_token() -> bool:
    """Whether a token is configured."""
    from huggingface_hub import get_token

    return bool(get_token())


def cached(pin: Pin, file: PinnedFile) -> Path | None:
    """The file in the user's hub cache, if it is there at this revision."""
    from huggingface_hub import try_to_load_from_cache

    path = try_to_load_from_cache(
        str(pin.repo), file.path, revision=pin.revision, repo_type=repo_type(pin)
    )
    return Path(path) if isinstance(path, str) and Path(path).is_file() else None


def metadata(pin: Pin, file: PinnedFile, timeout: float) -> HubFile:
    """Size and identity of a file at the pinned revision. One try."""
    from huggingface_hub import get_hf_file_metadata, hf_hub_url

    url = hf_hub_url(
        str(pin.repo),
        file.path,
        repo_type=repo_type(pin),
        revision=pin.revision,
        endpoint=endpoint(),
    )
    metadata = _call(pin, file, lambda: get_hf_file_metadata(url, timeout=timeout))
    etag = metadata.etag or ""
    return HubFile(
        size=metadata.size,
        sha256=etag if _SHA256.fullmatch(etag) else None,
        blob=etag if _SHA1.fullmatch(etag) else None,
        commit=metadata.commit_hash,
    )


def download(
    pin: Pin, file: PinnedFile, folder: Path, timeout: float, *, fresh: bool = False
) -> Path:
    """Bring a file at the pinned revision into ``folder``. One try (the library's own on top).

    ``fresh`` passes by the user's hub cache, which the library would otherwise copy from.
    """
    from huggingface_hub import hf_hub_download

    def bring() -> Path:
        path = hf_hub_download(
            str(pin.repo),
            file.path,
            revision=pin.revision,
            repo_type=repo_type(pin),
            local_dir=folder,
            endpoint=endpoint(),
            etag_timeout=timeout,
            force_download=fresh,
        )
        return Path(str(path))

    return _call(pin, file, bring)


def newest_revision(pin: Pin) -> str:
    """The commit at the head of the repository's main branch."""
    from huggingface_hub import HfApi

    info: Any = _call(
        pin,
        None,
        lambda: HfApi(endpoint=endpoint()).repo_info(str(pin.repo), repo_type=repo_type(pin)),
    )
    return str(info.sha)


def check_access(pin: Pin) -> None:
    """Ask the hub whether the configured token may read the repository.

    Raises:
        KitError: It may not, or cannot be asked.
        Transient: The hub cannot be reached.
    """
    from huggingface_hub import HfApi

    _call(
        pin,
        None,
        lambda: HfApi(endpoint=endpoint()).auth_check(str(pin.repo), repo_type=repo_type(pin)),
    )


def quiet() -> None:
    """No progress bars and no log lines from the hub library (they can show signed addresses)."""
    utils: Any = importlib.import_module("huggingface_hub.utils")
    utils.disable_progress_bars()
    utils.logging.set_verbosity_error()


def _call(pin: Pin, file: PinnedFile | None, action: Callable[[], T]) -> T:
    """Run one call of the library and put its errors into the kit's words."""
    from huggingface_hub import errors

    try:
        return action()
    except errors.OfflineModeIsEnabled:
        raise problems.is_offline(pin, 1) from None
    except errors.LocalEntryNotFoundError as error:
        # "Not found locally" hides why it could not be found remotely.
        cause = error.__cause__ or error.__context__
        if cause is None:
            raise Transient(f"{_endpoint()} cannot be reached") from None
        raise _translated(pin, file, cause) from None
    except Exception as error:
        raise _translated(pin, file, error) from None


def _translated(pin: Pin, file: PinnedFile | None, error: BaseException) -> Exception:
    from huggingface_hub import errors

    status = _status(error)
    path = file.path if file is not None else ""
    if isinstance(error, errors.OfflineModeIsEnabled):
        return problems.is_offline(pin, 1)
    if isinstance(error, errors.RevisionNotFoundError):
        return problems.no_revision(pin)
    if isinstance(error, errors.EntryNotFoundError):
        return problems.no_file(pin, path, f"{pin.repo}@{pin.revision}")
    if status == 401 and _said(error) == _BAD_TOKEN:  # the hub's answer for public files too
        return problems.bad_token(pin)
    if isinstance(error, errors.GatedRepoError) or status == 403:
        return problems.gated(pin, has_token(), status or 403)
    if isinstance(error, errors.RepositoryNotFoundError) or status == 401:
        if pin.gated:
            return problems.gated(pin, has_token(), status or 401)
        return problems.no_repository(pin, has_token())
    if status is not None and (status >= 500 or status in (408, 425, 429)):
        return Transient(f"{_endpoint()} answers HTTP {status}", _after(error))
    if _TRANSIENT_NAMES & {kind.__name__ for kind in type(error).__mro__}:
        return Transient(f"{_endpoint()} cannot be reached ({type(error).__name__})")
    if isinstance(error, OSError) and status is None:  # the library's answers are OSErrors too
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS):
            return error
        return Transient(
            f"{_endpoint()}: the download of {path} broke off ({type(error).__name__})"
        )
    if isinstance(error, KitError):
        return error
    shown = f" (HTTP {status})" if status is not None else ""
    return problems.no_network(
        pin, f"{type(error).__name__}{shown} from {_endpoint()}", str(pin.repo)
    )


def _status(error: BaseException) -> int | None:
    response = getattr(error, "response", None)
    status = getattr(response, "status_code", None)
    return status if isinstance(status, int) else None


def _said(error: BaseException) -> str:
    """The hub's own words."""
    headers = getattr(getattr(error, "response", None), "headers", None) or {}
    return str(headers.get("X-Error-Message") or "")


def _after(error: BaseException) -> float | None:
    """What the hub's ``Retry-After`` says."""
    headers = getattr(getattr(error, "response", None), "headers", None) or {}
    return retry_after(headers.get("Retry-After"))


def _endpoint() -> str:
    return bare(endpoint() or "https://huggingface.co")
