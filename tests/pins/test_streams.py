"""What comes over the wire is measured; what pip says is understood; both without a network."""

from __future__ import annotations

import email.message
import io
import subprocess
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from kit.errors import InvalidInput, KitError
from kit.manifest.pin_types import Pin, PinnedFile
from kit.pins import http, wheel
from kit.pins.retry import Transient
from tests.demo.fixtures import sha

URL = "https://example.org/items.json"
PIN = Pin(id="items", kind="file", title="Items", licence="CC0-1.0", url=URL)


class Wire:
    """An answer whose blocks come at given seconds."""

    def __init__(self, blocks: Sequence[tuple[float, bytes]], length: object = None) -> None:
        self.headers = {} if length is None else {"Content-Length": str(length)}
        self.blocks = list(blocks)
        self.now = 0.0

    def read1(self, most: int) -> bytes:
        if not self.blocks:
            return b""
        self.now, block = self.blocks.pop(0)
        assert len(block) <= most
        return block


@pytest.fixture
def stream(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    def run(wire: Wire, size: int | None = None, timeout: float = 10.0) -> tuple[str, bytes]:
        monkeypatch.setattr(http, "time", SimpleNamespace(monotonic=lambda: 100.0 + wire.now))
        file = PinnedFile(path="items.json", size=size)
        target = tmp_path / "part"
        said = http._stream(PIN, file, URL, wire, target, timeout)  # type: ignore[arg-type]
        return said, target.read_bytes()

    return run


def bytes_of(count: float) -> bytes:
    return b"x" * int(count)


RATE = http.SLOWEST


@pytest.mark.parametrize(
    ("blocks", "slow"),
    [
        ([(9.9, 1)], False),  # not a whole time-out yet
        ([(10, 1)], True),
        ([(10, 10 * RATE - 1)], True),
        ([(10, 10 * RATE)], False),
        ([(20, 20 * RATE - 1)], True),
        ([(20, 20 * RATE)], False),
        ([(5, 10 * RATE), (10, 1)], False),
        ([(10, 10 * RATE), (15, 1)], False),  # the next time-out has begun
        ([(10, 50 * RATE), (20, 1)], True),  # what came before it does not count
        ([(10, 10 * RATE), (20, 10 * RATE), (30, 10 * RATE)], False),
        ([(10, 10 * RATE), (20, 10 * RATE), (30, 10 * RATE - 1)], True),
    ],
)
def test_a_transfer_below_the_lowest_rate_is_given_up(
    stream: Any, blocks: list[tuple[float, float]], slow: bool
) -> None:
    wire = Wire([(at, bytes_of(count)) for at, count in blocks])
    if slow:
        with pytest.raises(Transient, match="sends less than 1,000 bytes a second"):
            stream(wire)
    else:
        content = bytes_of(sum(count for _, count in blocks))
        assert stream(wire) == (sha(content), content)


@pytest.mark.parametrize(
    ("length", "size", "sent", "said"),
    [
        (None, None, 5, ""),
        (None, 5, 5, ""),
        (5, 5, 5, ""),
        (5, None, 5, ""),
        ("many", 5, 5, ""),
        (0, 0, 0, ""),
        (5, None, 4, "ended after 4 of 5 bytes"),
        (5, 5, 4, "ended after 4 of 5 bytes"),
        (5, 6, 5, "5 bytes, pinned are 6"),
        (6, 5, 6, "6 bytes, pinned are 5"),
        (None, 5, 6, "6 bytes, pinned are 5"),
        (None, None, 50, ""),
        (None, None, 51, "larger than 50 bytes"),
    ],
)
def test_a_body_has_the_bytes_that_were_announced_and_pinned(
    stream: Any,
    monkeypatch: pytest.MonkeyPatch,
    length: object,
    size: int | None,
    sent: int,
    said: str,
) -> None:
    monkeypatch.setattr(http, "LIMIT", 50)
    wire = Wire([(0, b"y")] * sent, length)
    if said:
        with pytest.raises((Transient, KitError)) as caught:
            stream(wire, size)
        assert said in str(getattr(caught.value, "what", caught.value))
    else:
        assert stream(wire, size)[1] == b"y" * sent


@pytest.mark.parametrize(
    ("code", "transient"),
    [(400, False), (401, False), (404, False), (407, False), (408, True), (409, False),
     (424, False), (425, True), (426, False), (428, False), (429, True), (430, False),
     (499, False), (500, True), (503, True), (599, True)],
)  # fmt: skip
def test_answers_that_may_change_are_asked_for_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, transient: bool
) -> None:
    """Time-outs (RFC 9110), too early (RFC 8470), too many (RFC 6585), the server's own faults."""

    def answer(request: object, timeout: float) -> None:
        headers = email.message.Message()
        headers["Retry-After"] = "3"
        raise urllib.error.HTTPError(URL, code, "no", headers, None)  # type: ignore[arg-type]

    monkeypatch.setattr(
        "urllib.request.build_opener", lambda *handlers: SimpleNamespace(open=answer)
    )
    with pytest.raises(Transient if transient else InvalidInput, match=f"HTTP {code}") as caught:
        http.download(PIN, PinnedFile(path="items.json"), URL, tmp_path / "part", 1.0)
    if isinstance(caught.value, Transient):
        assert caught.value.after == 3.0


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://example.org/a/b?secret=1#c", "https://example.org/a/b"),
        ("https://me:secret@example.org:8443/a", "https://example.org:8443/a"),
        ("http://127.0.0.1:9/x", "http://127.0.0.1:9/x"),
        ("https://[bad/x?secret", "https://[bad/x"),
        ("https://me:secret@[bad/x", "[bad/x"),
    ],
)
def test_an_address_is_shown_without_secrets(url: str, shown: str) -> None:
    assert http.bare(url) == shown


@pytest.mark.parametrize(
    ("url", "fine"),
    [("https://example.org/x", True), ("http://localhost:1/x", True), ("http://[::1]/x", True),
     ("http://127.0.0.1/x", True), ("ftp://localhost/x", False), ("http://example.org/x", False),
     ("ftp://example.org/x", False)],
)  # fmt: skip
def test_what_is_not_https_stays_on_this_machine(url: str, fine: bool) -> None:
    if fine:
        http.check_scheme(url)
        return
    with pytest.raises(InvalidInput, match="is not https"):
        http.check_scheme(url)


def test_a_plain_address_is_refused_before_anything_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("urllib.request.build_opener", lambda *_: pytest.fail("asked"))
    with pytest.raises(InvalidInput, match="is not https"):
        http.download(PIN, PinnedFile(path="a"), "http://example.org/a", tmp_path / "a", 1.0)


@pytest.mark.parametrize(("to", "followed"), [("http://example.org/b", False), (URL + "/b", True)])
def test_an_answer_is_closed_when_its_redirect_is_refused(to: str, followed: bool) -> None:
    answer, headers = io.BytesIO(), email.message.Message()
    request = urllib.request.Request(URL)
    redirects = http._Redirects()

    def act() -> object:
        return redirects.redirect_request(request, answer, 302, "", headers, to)  # type: ignore[arg-type]

    if followed:
        assert act() is not None
    else:
        with pytest.raises(InvalidInput, match="is not https"):
            act()
    assert answer.closed != followed


def test_an_answer_is_closed_when_its_redirect_is_no_address() -> None:
    answer, headers = io.BytesIO(), email.message.Message()
    headers["location"] = "https://[bad/x"
    request = urllib.request.Request(URL)
    with pytest.raises(ValueError, match="IPv6"):
        http._Redirects().http_error_302(request, answer, 302, "", headers)  # type: ignore[arg-type]
    assert answer.closed


WHEEL = Pin(
    id="words", kind="wheel", title="Words", licence="CC0-1.0", package="words", version="1.0"
)
FILE = PinnedFile(path="words-1.0-py3-none-any.whl", sha256="0" * 64)


@pytest.mark.parametrize(
    ("code", "brought", "stderr", "said"),
    [
        (0, FILE.path, "", ""),
        (0, FILE.path, "a warning\n", ""),
        (0, "", "one\ntwo\nthree\n", "pip: three"),
        (1, "", "only\n", "pip: only"),
        (1, "", " \n", "pip: pip said nothing"),
        (1, "", "one\nHASHES DO NOT MATCH\nthree", "is not words-1.0-py3-none-any.whl"),
        (1, "other-1.0.whl", "", "is not words-1.0-py3-none-any.whl"),
        (1, FILE.path, "", "is not words-1.0-py3-none-any.whl"),
    ],
)
def test_what_pip_brings_is_that_file_or_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, brought: str, stderr: str, said: str
) -> None:
    def pip(command: list[str], **how: object) -> object:
        if brought:
            (tmp_path / brought).write_bytes(b"w")
        assert command[-1] == str(tmp_path / "wanted.txt")
        return subprocess.CompletedProcess(command, code, "", stderr)

    monkeypatch.setattr(subprocess, "run", pip)
    if not said:
        assert wheel.download(WHEEL, FILE, tmp_path, 5.0) == tmp_path / FILE.path
        return
    wanted = Transient if said.startswith("pip") else InvalidInput
    with pytest.raises(wanted) as caught:
        wheel.download(WHEEL, FILE, tmp_path, 5.0)
    assert said in str(getattr(caught.value, "what", caught.value))
    if isinstance(caught.value, InvalidInput):
        assert caught.value.why == (f"the index gave {brought}" if brought else "three")
