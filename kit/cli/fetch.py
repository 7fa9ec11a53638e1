"""``kit fetch``."""

from __future__ import annotations

import json

import click

from kit.cli.planning import PROFILE
from kit.cli.state import state
from kit.plural import plural


@click.command("fetch")
@click.argument("experiment")
@PROFILE
@click.option(
    "--pin",
    "own",
    multiple=True,
    metavar="ID=PATH",
    help="Use your own copy of a pin (repeatable).",
)
@click.option(
    "--write-pins",
    is_flag=True,
    help="Confirm unconfirmed pins at their source and complete manifests/pins.yaml.",
)
def command(experiment: str, profile: str, own: tuple[str, ...], write_pins: bool) -> None:
    """Bring and check every input of EXPERIMENT; afterwards everything works offline.

    What is present and right is not fetched again. Gated repositories need a token
    (hf auth login, or HF_TOKEN); it is never printed or stored by the kit.
    """
    from kit.manifest.catalog import Catalog
    from kit.manifest.home import kit_home
    from kit.pins import Event, hub
    from kit.pins.command import fetch_experiment

    mode = state().mode()
    if mode != "rich":
        hub.quiet()

    def tell(event: Event) -> None:
        if mode == "json":
            line = {"event": f"fetch.{event.what}", "pin": event.pin, "detail": event.detail}
            if event.bytes is not None:
                line["bytes"] = str(event.bytes)
            click.echo(json.dumps(line, ensure_ascii=False))
        else:
            size = f" ({event.bytes:,} bytes)" if event.bytes and event.what == "file" else ""
            click.echo(f"fetch {event.pin}: {event.what} {event.detail}{size}")

    done = fetch_experiment(
        Catalog(), kit_home(), experiment, profile, own=own, complete=write_pins, listener=tell
    )
    if mode != "json":
        waiting = [item.state.id for item in done if item.state.status == "unconfirmed"]
        click.echo(f"{plural(len(done), 'pin')} ready")
        if waiting:
            click.echo(f"not confirmed by anyone yet: {', '.join(waiting)}")
