"""``kit doctor``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from kit.cli.planning import GPU_MEMORY, GPUS, PROFILE
from kit.cli.state import JSON, console, print_json
from kit.errors import EXIT_INVALID, EXIT_OK
from kit.plural import plural

if TYPE_CHECKING:
    from kit.doctor import Check
    from kit.doctor.overview import Runnable

_STYLE = {"OK": "green", "WARN": "yellow", "FAIL": "red"}


@click.command("doctor")
@click.argument("experiment", required=False)
@PROFILE
@GPUS
@GPU_MEMORY
@JSON
def command(
    experiment: str | None,
    profile: str,
    gpus: int | None,
    gpu_gb: float | None,
    as_json: bool,
) -> int:
    """Can this machine run EXPERIMENT? Without one: what can it run at all?

    Looks at python, packages, GPUs and their driver, who else is on them, memory, disk, shared
    memory, containers, the inputs and the access to gated repositories. What stands in the way
    comes first, each with what mends it. Steps that share a model over GPUs are fitted to those
    that --gpus and --gpu-memory name. Leaves with 4 if anything is FAIL.
    """
    from kit.doctor import Needs, examine
    from kit.doctor.overview import lines, overview
    from kit.doctor.sharing import needs_of
    from kit.manifest.catalog import Catalog
    from kit.manifest.home import kit_home
    from kit.pins.store import PinStore

    catalog, home = Catalog(), kit_home()
    needs, ids = Needs(), None
    store = PinStore(home, catalog.pins(experiment))
    if experiment is not None:
        ids = catalog.needed_pins(experiment, profile)
        needs = needs_of(catalog, experiment, profile, store, gpus=gpus, gpu_gb=gpu_gb)
    checks = list(
        examine(
            root=catalog.root,
            store=store,
            needs=needs,
            experiment=experiment,
            profile=profile,
            ids=ids,
        )
    )
    failed = any(check.level == "FAIL" for check in checks)
    fitting = overview(catalog, home, only=experiment) if failed or experiment is None else []
    if as_json:
        named = profile if experiment is not None else None
        about = {"experiment": experiment, "profile": named, "can_run": not failed}
        print_json({**about, "checks": checks, "fitting": fitting})
    else:
        shown = checks + list(lines(fitting)) if experiment is None else checks
        _print(_headline(experiment, profile, checks), shown)
        _closing(experiment, shown, fitting)
    return EXIT_INVALID if failed else EXIT_OK


def _headline(experiment: str | None, profile: str, checks: list[Check]) -> str:
    failures = sum(check.level == "FAIL" for check in checks)
    if experiment is None:
        return f"this machine: {_count(failures)} wrong with it" if failures else "this machine"
    what = f"{experiment} --profile {profile}"
    if failures:
        return f"{what}: cannot run here, {_count(failures)} in the way"
    return f"{what}: can run here"


def _count(failures: int) -> str:
    return plural(failures, "thing is", "things are")


def _print(headline: str, checks: list[Check]) -> None:
    """What stands in the way first; within a level in the order of looking."""
    order = list(reversed(_STYLE))
    console().print(headline, style="bold", markup=False, soft_wrap=True)
    for check in sorted(checks, key=lambda check: order.index(check.level)):
        style = _STYLE[check.level]
        console().print(check.render(), style=style, markup=False, soft_wrap=True)


def _closing(experiment: str | None, checks: list[Check], fitting: list[Runnable]) -> None:
    able = [runnable for runnable in fitting if runnable.runs]
    if experiment is not None and able:
        click.echo(f"can run here: kit reproduce {experiment} --profile {able[0].profile}")
    levels = [check.level for check in checks]
    failures, warnings = levels.count("FAIL"), levels.count("WARN")
    click.echo(f"{plural(failures, 'failure')}, {plural(warnings, 'warning')}")
