"""``kit doctor``."""

from __future__ import annotations

import click
import msgspec

from kit.cli.state import console, state
from kit.errors import EXIT_INVALID, EXIT_OK

_STYLE = {"OK": "green", "WARN": "yellow", "FAIL": "red"}


@click.command("doctor")
@click.argument("experiment", required=False)
@click.option("--profile", default="mini", show_default=True, help="Which profile is to be run.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
def command(experiment: str | None, profile: str, as_json: bool) -> int:
    """Can this machine run EXPERIMENT? Without one, look at the machine alone.

    Looks at python, packages, GPUs and their driver, memory, disk, shared memory, the inputs and
    the access to gated repositories. Leaves with 4 if anything is FAIL.
    """
    from kit.manifest.catalog import Catalog, needed_pins
    from kit.manifest.doctor import Needs, examine
    from kit.manifest.home import kit_home
    from kit.manifest.needs import estimate
    from kit.manifest.pins import PinStore

    catalog = Catalog()
    needs, ids = Needs(), None
    if experiment is not None:
        ids = needed_pins(catalog.manifest(experiment), profile)
        needs = estimate(catalog.manifest(experiment), profile)
    store = PinStore(kit_home(), catalog.pins(experiment))
    plain = not (as_json or state().mode() == "json")
    found = []
    for check in examine(
        root=catalog.root, store=store, needs=needs, experiment=experiment, profile=profile, ids=ids
    ):
        found.append(check)
        if plain:
            style = _STYLE[check.level]
            console().print(check.render(), style=style, markup=False, soft_wrap=True)
    levels = [check.level for check in found]
    if plain:
        click.echo(f"{levels.count('FAIL')} failures, {levels.count('WARN')} warnings")
    else:
        click.echo(msgspec.json.format(msgspec.json.encode(found), indent=2).decode())
    return EXIT_INVALID if "FAIL" in levels else EXIT_OK
