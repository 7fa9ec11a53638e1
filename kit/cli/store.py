"""``kit store``: what is kept of finished steps, and removing it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import click

from kit.cli.planning import RUNS_DIR
from kit.cli.state import JSON, console, print_json
from kit.errors import UsageError
from kit.plural import plural

if TYPE_CHECKING:
    from kit.engine.inventory import Held
    from kit.engine.store import Store


@click.group("store", invoke_without_command=True)
@RUNS_DIR
@JSON
@click.pass_context
def command(context: click.Context, runs_dir: Path, as_json: bool) -> None:
    """What the store holds, by step kind and size."""
    if context.invoked_subcommand is not None:
        return
    store, held = _held(runs_dir)
    if as_json:
        print_json(held)
        return
    out = console()
    sizes: Counter[str] = Counter()
    counts: Counter[str] = Counter()
    for output in held:
        sizes[output.kind] += round(output.gb * 1e9)
        counts[output.kind] += 1
    for kind, size in sizes.most_common():
        out.print(f"{_size(size / 1e9)}  {counts[kind]} x {kind}", markup=False)
    dropped = sum(output.dropped for output in held)
    total = _size(sum(output.gb for output in held)).strip()
    more = f", {dropped} of them dropped after use" if dropped else ""
    out.print(f"{total} in {plural(len(held), 'finished step')}{more}; {store.home}", markup=False)


@command.command("remove")
@click.option("--run", "run", metavar="NAME", help="What this run directory alone used.")
@click.option("--experiment", metavar="EXP", help="What runs of this experiment alone used.")
@click.option("--older-than", type=click.FloatRange(min=0), metavar="DAYS", help="Made before.")
@click.option("--dry-run", is_flag=True, help="Say what would go.")
@RUNS_DIR
def remove_command(
    run: str | None,
    experiment: str | None,
    older_than: float | None,
    dry_run: bool,
    runs_dir: Path,
) -> None:
    """Remove finished steps; whatever needs them makes them again.

    What a running step makes or reads is left alone, and so is what another run directory used.
    """
    from kit.engine.inventory import chosen, remove

    if run is None and experiment is None and older_than is None:
        raise UsageError(
            "say which: --run, --experiment or --older-than",
            next_step="all that is older than a month: kit store remove --older-than 30",
        )
    store, held = _held(runs_dir)
    name = Path(run).name if run is not None else None
    going = chosen(held, run=name, experiment=experiment, older_than=older_than)
    size = _size(sum(output.gb for output in going)).strip()
    if dry_run:
        click.echo(f"would remove {plural(len(going), 'step')}, {size}")
        return
    gone, busy = remove(store, [output.key for output in going])
    more = f"; {busy} are in use" if busy else ""
    click.echo(f"removed {gone} of {plural(len(going), 'step')}, {size}{more}")


def _held(runs_dir: Path) -> tuple[Store, list[Held]]:
    from kit.engine.inventory import inventory
    from kit.engine.store import Store
    from kit.manifest.home import kit_home

    store = Store(kit_home())
    return store, inventory(store, runs_dir)


def _size(gb: float) -> str:
    return f"{gb:8.2f} GB" if gb >= 1 else f"{gb * 1000:8.1f} MB"
