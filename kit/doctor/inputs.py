"""Pinned inputs: which are here, what is still to be fetched, and whether the hub lets us."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from msgspec import Struct

from kit.doctor.core import Check, fail, ok, warn
from kit.errors import KitError
from kit.manifest.pin_types import Pin
from kit.pins.problems import hub_page, offline
from kit.pins.retry import Transient
from kit.pins.store import PinStore
from kit.plural import plural
from kit.verify.numbers import some


class Download(Struct, frozen=True, kw_only=True):
    """What is still to be fetched."""

    size: int = 0
    """Bytes of the files whose size is known."""
    unknown: int = 0
    """Files whose size nobody could confirm."""

    def words(self) -> str:
        """How much that is, as far as it is known."""
        known = f"{self.size / 1e9:.1f} GB" if self.size > 5e7 else "less than 50 MB"
        if not self.unknown:
            return known
        files = f"{plural(self.unknown, 'file')} of unknown size"
        return f"{known} and {files}" if self.size else files


def download(store: PinStore, ids: list[str]) -> Download:
    """What is still to be fetched for these pins."""
    sizes = [
        file.size
        for id in ids
        if store.pin(id).kind not in ("package", "unavailable")
        for file in store.state(id).missing
    ]
    return Download(size=sum(size or 0 for size in sizes), unknown=sizes.count(None))


def inputs(store: PinStore, ids: list[str], experiment: str, profile: str) -> Iterator[Check]:
    """Which pins are here and right: one line for all of a kind, one for each that is not."""
    command = f"kit fetch {experiment} --profile {profile}"
    here: list[str] = []
    unconfirmed: list[str] = []
    absent: list[str] = []
    for id in ids:
        pin, state = store.pin(id), store.state(id)
        if state.ready:
            here.append(f"{id} (your own)" if state.own else id)
            if state.status != "ok":
                unconfirmed.append(id)
        elif state.status == "unavailable":
            yield fail(f"input {id}", str(pin.unavailable), f"{command} --pin {id}=PATH")
        elif pin.kind == "package":
            problem = "; ".join(state.problems[:2])
            yield fail(f"input {id}", problem, "git restore kit, or install the kit again")
        elif state.own:
            yield fail(f"input {id}", "; ".join(state.problems[:2]), f"{command} --pin {id}=PATH")
        elif state.status == "wrong":
            yield fail(f"input {id}", "; ".join(state.problems[:2]), command)
        else:
            absent.append(id)
    if here:
        yield ok("inputs", f"{len(here)} here: {some(here, 6)}")
    if unconfirmed:
        yield warn(
            "unconfirmed inputs",
            f"here, but a revision or hash was never confirmed: {some(unconfirmed, 6)}",
            f"{command} --write-pins",
        )
    if absent:
        still = download(store, absent).words()
        detail = f"{len(absent)} still to fetch, {still}: {some(absent, 6)}"
        if offline():
            yield fail(
                "inputs", f"{detail}; the network is off", f"unset HF_HUB_OFFLINE; {command}"
            )
        else:
            yield warn("inputs", detail, command)


def access(
    pins: list[Pin], has_token: Callable[[], bool], ask: Callable[[Pin], None]
) -> Iterator[Check]:
    """Gated repositories open to the configured token. Asked only with a token and online."""
    if not pins:
        return
    names = ", ".join(str(pin.repo) for pin in pins)
    if not has_token():
        pages = " and ".join(hub_page(pin) for pin in pins)
        yield fail(
            "licences",
            plural(len(pins), "gated repository", "gated repositories")
            + f", and there is no token: {names}",
            f"accept the conditions at {pages}; then: hf auth login",
        )
        return
    if offline():
        yield warn(
            "licences",
            f"a token is there; not asked, the network is off: {names}",
            "kit fetch asks",
        )
        return
    granted: list[str] = []
    for pin in pins:
        try:
            ask(pin)
        except Transient as error:
            yield warn(f"licence of {pin.repo}", f"could not ask: {error}", "check the network")
        except KitError as error:
            yield fail(f"licence of {pin.repo}", error.what, error.next_step)
        else:
            granted.append(str(pin.repo))
    if granted:
        yield ok("licences", f"access granted: {', '.join(granted)}")


def gated_missing(store: PinStore, ids: list[str]) -> list[Pin]:
    """Gated pins that still have to be fetched."""
    pins = [store.pin(id) for id in ids]
    return [pin for pin in pins if pin.gated and not store.state(pin.id).ready]
