"""What the hub or its library says, in the kit's words: tried again, or with what to do."""

from __future__ import annotations

import errno
import os
from types import SimpleNamespace
from typing import Any

import pytest
from huggingface_hub import errors

from kit.errors import InvalidInput, KitError, Preflight
from kit.manifest.pin_types import Pin, PinnedFile
from kit.pins import hub, problems
from kit.pins.retry import Transient

FILE = PinnedFile(path="config.json")


@pytest.fixture(autouse=True)
def _no_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_ENDPOINT", raising=False)
    monkeypatch.setattr(hub, "has_token", lambda: False)


def pin(kind: Any = "hf-model", gated: bool = False) -> Pin:
    return Pin(
        id="m", kind=kind, title="M", licence="L", repo="a/b", revision="0" * 40, gated=gated
    )


def answer(kind: type[Exception], status: int | None = None, **headers: str) -> Exception:
    """An error of the library's, made without its request."""
    error = kind.__new__(kind, "said")
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    error.response = (  # type: ignore[attr-defined]
        None if status is None else SimpleNamespace(status_code=status, headers=named)
    )
    return error


HTTP = errors.HfHubHTTPError
BAD_TOKEN = {"X_Error_Message": "Invalid credentials in Authorization header"}
NAMED = {name: type(name, (Exception,), {})
         for name in ("TimeoutException", "NetworkError", "RemoteProtocolError",
                      "TransportError")}  # fmt: skip


def said(error: Exception, gated: bool = False) -> Exception:
    def action() -> None:
        raise error

    with pytest.raises(Exception) as caught:  # noqa: PT011
        hub._call(pin(gated=gated), FILE, action)
    return caught.value


@pytest.mark.parametrize(
    ("error", "kind", "words"),
    [
        (errors.OfflineModeIsEnabled("x"), Preflight, "the network is switched off"),
        (answer(errors.RevisionNotFoundError, 404), InvalidInput, "a/b has no revision 000"),
        (answer(errors.EntryNotFoundError, 404), InvalidInput, "there is no config.json"),
        (answer(HTTP, 401, **BAD_TOKEN), Preflight, "the hub does not accept your token"),
        (answer(errors.GatedRepoError, 401), Preflight, r"gated and there is no token \(HTTP 401"),
        (answer(errors.GatedRepoError), Preflight, r"gated and there is no token \(HTTP 403"),
        (answer(HTTP, 403), Preflight, r"a/b is gated and there is no token \(HTTP 403"),
        (answer(HTTP, 401), Preflight, "the hub has no a/b, or does not show it"),
        (answer(errors.RepositoryNotFoundError, 404), Preflight, "the hub has no a/b"),
        (answer(HTTP, 400), Preflight, r"HfHubHTTPError \(HTTP 400\) from https://huggingface.co"),
        (answer(HTTP, 499), Preflight, r"\(HTTP 499\)"),
        (RuntimeError("odd"), Preflight, "RuntimeError from https://huggingface.co"),
        (InvalidInput("of the kit"), InvalidInput, "^of the kit$"),
    ],
)  # fmt: skip
def test_what_trying_again_will_not_mend(
    error: Exception, kind: type[KitError], words: str
) -> None:
    made = said(error)
    assert type(made) is kind
    with pytest.raises(kind, match=words):
        raise made


@pytest.mark.parametrize("status", [408, 425, 429, 500, 503])
def test_what_may_go_away_says_when(status: int) -> None:
    made = said(answer(HTTP, status, Retry_After="7"))
    assert isinstance(made, Transient)
    assert str(made) == f"https://huggingface.co answers HTTP {status}"
    assert made.after == 7
    bare = said(answer(HTTP, status))
    assert isinstance(bare, Transient)
    assert bare.after is None


@pytest.mark.parametrize("name", [*NAMED, "ConnectionResetError"])
def test_a_connection_that_broke_may_come_back(name: str) -> None:
    kind = NAMED.get(name, ConnectionResetError)
    sub = type("Of", (kind,), {})
    for error in (kind("x"), sub("x")):
        made = said(error)
        assert isinstance(made, Transient)
        assert str(made).startswith("https://huggingface.co")
        assert type(error).__name__ in str(made)


@pytest.mark.parametrize("name", ["ENOSPC", "EDQUOT", "EACCES", "EROFS"])
def test_a_disk_that_refuses_is_no_matter_of_the_network(name: str) -> None:
    number = getattr(errno, name)
    error = OSError(number, os.strerror(number))
    assert said(error) is error


@pytest.mark.parametrize("chained", ["__cause__", "__context__"])
def test_behind_not_found_locally_stands_why(chained: str) -> None:
    error = answer(errors.LocalEntryNotFoundError)
    assert isinstance(said(error), Transient)
    setattr(error, chained, answer(errors.RevisionNotFoundError, 404))
    assert isinstance(said(error), InvalidInput)
    setattr(error, chained, errors.OfflineModeIsEnabled("x"))
    assert "switched off" in str(said(error))


def test_a_gated_pin_is_hidden_rather_than_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    hidden = answer(errors.RepositoryNotFoundError, 404)
    assert "is gated and there is no token (HTTP 404)" in str(said(hidden, gated=True))
    assert "(HTTP 401)" in str(said(answer(errors.RepositoryNotFoundError), gated=True))
    monkeypatch.setattr(hub, "has_token", lambda: True)
    assert "refuses access to a/b (HTTP 404)" in str(said(hidden, gated=True))
    assert "the hub has no a/b" in str(said(hidden))


@pytest.mark.parametrize("token", [True, False])
@pytest.mark.parametrize("gated", [True, False])
def test_advice_fits_who_asks_for_what(token: bool, gated: bool) -> None:
    asked = problems.gated(pin("hf-dataset"), token, 403)
    assert "https://huggingface.co/datasets/a/b" in asked.next_step
    assert ("hf auth login" in asked.next_step) == (not token)
    assert ("licence (L)" in asked.why) == (not token)
    assert ("private and gated look the same" in problems.no_repository(pin(), token).why) == (
        not token
    )
    assert "https://huggingface.co/a/b;" in problems.no_repository(pin(), token).next_step
    wrong = problems.bad_token(pin(gated=gated))
    assert ("this input needs none" in wrong.next_step) == (not gated)


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        (None, "https://huggingface.co"),
        ("", "https://huggingface.co"),
        ("https://hub.example.org/x?signature=1", "https://hub.example.org/x"),
    ],
)
def test_messages_name_the_hub_that_was_asked(
    monkeypatch: pytest.MonkeyPatch, address: str | None, shown: str
) -> None:
    if address is not None:
        monkeypatch.setenv("HF_ENDPOINT", address)
    assert str(said(answer(HTTP, 500))) == f"{shown} answers HTTP 500"


@pytest.mark.parametrize("name", ["HF_HUB_OFFLINE", "KIT_OFFLINE"])
@pytest.mark.parametrize(
    ("value", "off"), [("1", True), (" Yes ", True), ("on", True), ("true", True), ("0", False),
                       ("", False), ("no", False)],
)  # fmt: skip
def test_the_network_is_off_where_somebody_says_so(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, off: bool
) -> None:
    for each in ("HF_HUB_OFFLINE", "KIT_OFFLINE"):
        monkeypatch.delenv(each, raising=False)
    monkeypatch.setenv(name, value)
    assert problems.offline() == off


def test_a_full_disk_says_how_much_is_wanted_and_another_fault_does_not(tmp_path: Any) -> None:
    assert "2.0 GB needed, 1.0 GB free" in problems.no_space(pin(), 2 * 10**9, 10**9, tmp_path).what
    full = problems.from_os(pin(), OSError(errno.ENOSPC, "full"), tmp_path)
    assert "not enough disk space: 0.0 GB free" in full.what
    other = problems.from_os(pin(), OSError("odd"), tmp_path)
    assert "cannot write: OSError" in other.what
    assert other.where == full.where == str(tmp_path)
