"""What ``kit fetch`` does, without the printing."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from kit.errors import KitError, Many, UsageError
from kit.manifest.catalog import Catalog
from kit.manifest.names import nearest
from kit.manifest.pin_types import Pin
from kit.pins.confirm import HUB, confirm, resolve_revision
from kit.pins.fetcher import Event, Fetched, Fetcher, Listener
from kit.pins.retry import Retry
from kit.pins.store import PinStore, not_ready
from kit.pins.write_pins import write_pins


def fetch_experiment(
    catalog: Catalog,
    home: Path,
    experiment: str,
    profile: str,
    *,
    own: Sequence[str] = (),
    complete: bool = False,
    retry: Retry | None = None,
    listener: Listener | None = None,
) -> list[Fetched]:
    """Bring every pin a profile needs.

    Args:
        catalog: Where the experiment is described.
        home: The kit's home.
        experiment: Id or path of the manifest.
        profile: Profile name.
        own: ``ID=PATH`` of inputs the user brings.
        complete: Confirm unconfirmed pins at their source and write them into ``pins.yaml``.
        retry: Patience with the network.
        listener: Told of every step.

    Raises:
        KitError: What could not be fetched; everything else is there.
    """
    patience = retry or Retry()
    tell = listener or (lambda event: None)
    pins = catalog.pins(experiment)
    ids = catalog.needed_pins(experiment, profile)
    store = PinStore(home, pins)
    for id, path in map(parse_assignment, own):
        if id not in ids:
            raise UsageError(
                f"--pin {id}: {experiment} ({profile}) does not use it",
                next_step=nearest(id, ids) or f"its pins: {', '.join(ids)}",
            )
        if not path.expanduser().exists():
            raise UsageError(f"--pin {id}={path}: there is nothing at this path")
        before = store.own_paths.put(id, path)
        state = store.state(id)
        if not state.ready:  # a wrong path that is remembered would stop every later run
            store.own_paths.put(id, before)
            raise not_ready(state)
    _revisions(store, ids, complete, patience)
    done = Fetcher(store, patience, tell).fetch_all(ids)
    if complete:
        _complete(catalog, experiment, store, ids, patience, tell)
    return done


def parse_assignment(text: str) -> tuple[str, Path]:
    """``ID=PATH`` of ``--pin``.

    Raises:
        UsageError: Not of that form.
    """
    id, equals, path = text.partition("=")
    if not equals or not id.strip() or not path.strip():
        raise UsageError(f"--pin {text!r} is not ID=PATH", next_step="--pin some-model=/data/model")
    return id.strip(), Path(path.strip())


def _revisions(store: PinStore, ids: Sequence[str], complete: bool, retry: Retry) -> None:
    for id in ids:
        pin = store.pin(id)
        if pin.kind not in HUB or pin.revision is not None or store.own(id):
            continue
        if not complete:
            raise UsageError(
                f"pin {id!r} has no revision",
                next_step="kit fetch EXPERIMENT --write-pins takes the newest and writes it down",
            )
        store.pins[id] = resolve_revision(pin, retry)


def _complete(
    catalog: Catalog,
    experiment: str,
    store: PinStore,
    ids: Sequence[str],
    retry: Retry,
    tell: Listener,
) -> None:
    completed: list[Pin] = []
    failed: list[KitError] = []
    for id in ids:
        pin = store.pin(id)
        if pin.kind not in (*HUB, "file") or store.own(id) is not None:
            continue
        if not pin.unconfirmed and all(file.sha256 for file in pin.files):
            continue
        try:
            completed.append(confirm(store, id, retry))
        except KitError as error:
            failed.append(error)
    for path in catalog.pin_files(experiment):
        for id in write_pins(path, completed):
            tell(Event(id, "written", catalog.relative(path)))
    if failed:
        raise Many(failed)
