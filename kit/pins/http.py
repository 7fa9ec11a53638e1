"""A small streaming downloader for plain files: retry, size limit, nothing half-written.

No credentials are ever sent. Plain http is refused except to this machine, also after a redirect.
"""

from __future__ import annotations

import hashlib
import http.client
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

from kit import __version__
from kit.errors import InvalidInput
from kit.manifest.pin_types import Pin, PinnedFile
from kit.pins import problems
from kit.pins.retry import Transient, retry_after

LIMIT = 2_000_000_000
"""Largest file that is accepted when the pin gives no size."""

SLOWEST = 1000.0
"""Bytes a second, over a whole time-out: below this a transfer is given up and tried again.
A server that sends a byte now and then would otherwise hold us for ever."""

_BLOCK = 1 << 18
_RETRIED = (408, 425, 429)


def bare(url: str) -> str:
    """The address without query, for messages: queries can hold signatures."""
    try:
        parts = urlsplit(url)
        port = f":{parts.port}" if parts.port else ""
    except ValueError:  # an address of no form at all, from a stranger's file or redirect
        return url.partition("?")[0].rpartition("@")[2]
    return f"{parts.scheme}://{parts.hostname or ''}{port}{parts.path}"


def check_scheme(url: str) -> None:
    """Refuse anything but https (http only to this machine).

    Raises:
        InvalidInput: Another scheme.
    """
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError as error:
        raise InvalidInput(f"{bare(url)} is not an address", why=str(error)) from None
    local = parts.hostname in ("127.0.0.1", "localhost", "::1")
    if parts.scheme != "https" and not (parts.scheme == "http" and local):
        raise InvalidInput(
            f"{bare(url)} is not https", why="what comes over plain http can be altered on the way"
        )


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects that stay on https."""

    def http_error_302(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: http.client.HTTPMessage,
    ) -> Any:
        """The library's own, which leaves the answer open when the new address has no form."""
        try:
            return super().http_error_302(req, fp, code, msg, headers)
        except ValueError:
            fp.close()
            raise

    http_error_301 = http_error_303 = http_error_307 = http_error_308 = http_error_302

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: http.client.HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        try:
            check_scheme(newurl)
        except InvalidInput:
            fp.close()
            raise
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def download(pin: Pin, file: PinnedFile, url: str, target: Path, timeout: float) -> str:
    """Write the content of ``url`` to ``target`` and return its sha256. One try.

    Raises:
        Transient: 5xx, 429, timeout, broken connection, short body.
        KitError: Anything that trying again will not mend.
    """
    check_scheme(url)
    request = urllib.request.Request(url, headers={"User-Agent": f"kit/{__version__}"})
    opener = urllib.request.build_opener(_Redirects)
    try:
        with opener.open(request, timeout=timeout) as response:
            return _stream(pin, file, url, response, target, timeout)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code >= 500 or error.code in _RETRIED:
            wait = retry_after(error.headers.get("Retry-After"))
            raise Transient(f"{bare(url)} answers HTTP {error.code}", wait) from None
        if error.code == 404:
            raise problems.no_file(pin, file.path, bare(url)) from None
        raise InvalidInput(
            f"pin {pin.id!r}: {bare(url)} answers HTTP {error.code}",
            next_step=f"bring the file yourself: {problems.bring_your_own(pin)}",
        ) from None
    except urllib.error.URLError as error:
        raise Transient(f"{bare(url)} cannot be reached ({error.reason})") from None
    except (TimeoutError, ConnectionError, http.client.HTTPException) as error:
        raise Transient(f"{bare(url)} broke off ({type(error).__name__})") from None
    except ValueError as error:  # urllib's, of a redirect or a header
        raise InvalidInput(
            f"pin {pin.id!r}: {bare(url)} answers with nonsense: {error}",
            next_step=f"bring the file yourself: {problems.bring_your_own(pin)}",
        ) from None


def _stream(
    pin: Pin,
    file: PinnedFile,
    url: str,
    response: http.client.HTTPResponse,
    target: Path,
    timeout: float,
) -> str:
    announced = response.headers.get("Content-Length")
    expected = int(announced) if announced is not None and announced.isdigit() else None
    if file.size is not None and expected is not None and expected != file.size:
        raise problems.wrong_size(pin, file.path, expected, file.size, bare(url))
    limit = file.size if file.size is not None else LIMIT
    digest, received = hashlib.sha256(), 0
    since, before = time.monotonic(), 0
    with target.open("wb") as out:
        while block := response.read1(_BLOCK):
            received += len(block)
            passed = time.monotonic() - since
            if passed >= timeout:
                if received - before < SLOWEST * passed:
                    raise Transient(f"{bare(url)} sends less than {SLOWEST:,.0f} bytes a second")
                since, before = since + passed, received
            if received > limit:
                if file.size is not None:
                    raise problems.wrong_size(pin, file.path, received, file.size, bare(url))
                raise problems.too_large(pin, file.path, limit, bare(url))
            digest.update(block)
            out.write(block)
    if expected is not None and received < expected:
        raise Transient(f"{bare(url)} ended after {received:,} of {expected:,} bytes")
    return digest.hexdigest()
