"""``kit plan``: what would be done, and what it takes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from kit.cli.planning import GPU_ARCH, GPU_MEMORY, plan_options, prepare

if TYPE_CHECKING:
    from collections.abc import Collection

    from kit.results.plan import Plan, Totals

PLAN_FILE = "plan.json"
"""What ``kit plan EXP --json > plan.json`` writes."""


@click.command("plan")
@plan_options
@GPU_ARCH
@GPU_MEMORY
@click.option("--json", "as_json", is_flag=True, help="The whole plan, as kit step reads it.")
@click.option(
    "--launch",
    nargs=2,
    type=(click.Choice(["slurm", "torchrun"]), str),
    metavar="slurm|torchrun STEP",
    help="The lines that start STEP on many GPUs: a batch script, or a line a node.",
)
@click.option("--nodes", type=click.IntRange(min=1), help="For --launch: nodes to share the GPUs.")
def command(
    as_json: bool,
    launch: tuple[str, str] | None,
    nodes: int | None,
    **planned: Any,
) -> None:
    """Show the steps of EXPERIMENT: how many, how many are finished, what the rest needs."""
    from kit.engine.preflight import finished
    from kit.engine.store import Store
    from kit.errors import KitError

    prepared = prepare(**planned)
    plan = prepared.plan
    if launch is not None:
        from kit.engine.launch import lines

        how, step = launch
        text = lines(plan, plan.instance(step), how, nodes=nodes, file=PLAN_FILE)
        click.echo(text, nl=False)
        return
    cached = finished(plan, Store(prepared.home))
    present: set[str] = set()
    for pin in plan.pins:
        try:
            prepared.pins.require(pin.id)
        except KitError:
            continue
        present.add(pin.id)
    totals = plan.totals(cached, present)
    if as_json:
        click.echo(_json(plan, cached, present, totals))
    else:
        _table(plan, cached, totals)


def _json(plan: Plan, cached: Collection[str], present: Collection[str], totals: Totals) -> str:
    import msgspec

    made: dict[str, Any] = msgspec.to_builtins(plan)
    for instance in made["instances"]:
        instance["cached"] = instance["id"] in cached
        instance["command"] = ["kit", "step", PLAN_FILE, instance["id"]]
    made["pins_present"] = sorted(present)
    made["totals"] = msgspec.to_builtins(totals)
    return msgspec.json.format(msgspec.json.encode(made)).decode()


def _table(plan: Plan, cached: Collection[str], totals: Totals) -> None:
    from rich.table import Table
    from rich.text import Text

    from kit.cli.state import console

    out = console()
    on_gpus = any(instance.resources.gpus for instance in plan.instances)
    gpus = ("GPUs", "GPU GB") if on_gpus or not out.is_terminal else ()
    table = Table(box=None, pad_edge=False)
    for title in ("step", "kind"):
        table.add_column(title, overflow="fold")
    for title in ("instances", "cached", *gpus, "memory GB", "minutes"):
        table.add_column(title, justify="right")
    for step, instances in plan.by_step.items():
        needs = [instance.resources for instance in instances]
        table.add_row(
            Text(step),
            Text(instances[0].kind),
            str(len(instances)),
            str(sum(instance.id in cached for instance in instances)),
            *(
                (
                    str(max(need.gpus for need in needs)),
                    f"{max(need.gpu_memory_gb for need in needs):g}",
                )
                if gpus
                else ()
            ),
            f"{max(need.memory_gb for need in needs):g}",
            f"{sum(need.minutes for need in needs):g}",
        )
    modified = ", modified" if plan.modified else ""
    title = f"{plan.experiment} {plan.version} ({plan.variant}), {plan.profile}{modified}"
    out.print(Text(title))
    out.print(table)
    out.print(
        Text(
            f"to run: {totals.to_run} of {totals.instances} steps, "
            f"{totals.cpu_hours:.2f} CPU hours, {totals.gpu_hours:.2f} GPU hours, "
            f"up to {totals.gpus} GPUs with {totals.gpu_memory_gb:g} GB each, "
            f"{totals.memory_gb:g} GB memory, {totals.disk_gb:.1f} GB disk, "
            f"{totals.download_gb:.2f} GB to download"
        )
    )
    for note in plan.notes:
        out.print(Text(f"note: {note}"))
