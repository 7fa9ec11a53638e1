"""``kit step``: run one step of a plan file."""

from __future__ import annotations

from pathlib import Path

import click

from kit.cli.planning import read_planned
from kit.cli.state import state


@click.command("step")
@click.argument("plan", type=click.Path(dir_okay=False, path_type=Path))
@click.argument("step")
@click.option(
    "--events",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Append events to this file (several steps may share it).",
)
@click.option(
    "--nodes",
    type=click.IntRange(min=1),
    default=1,
    help="Nodes that the step's GPUs are on; the same command runs on each.",
)
@click.option(
    "--node-rank",
    type=click.IntRange(min=0),
    envvar="SLURM_NODEID",
    help="Number of this node, from 0. Under srun that is known.",
)
@click.option("--rendezvous", metavar="HOST:PORT", help="Where the nodes meet: on node 0.")
@click.option(
    "--link",
    type=click.Path(dir_okay=False, path_type=Path),
    help="When it is finished, make this file a link to its record in the store.",
)
def command(
    plan: Path,
    step: str,
    events: Path | None,
    nodes: int,
    node_rank: int | None,
    rendezvous: str | None,
    link: Path | None,
) -> None:
    """Run STEP, an instance id such as 'train[seed=1]', of the plan file PLAN.

    This is what SLURM and Snakemake call. The steps it reads must be finished; a step
    that is finished already is left as it is.
    """
    from kit.engine.launch import parse_nodes
    from kit.engine.one_step import link_record, run_instance
    from kit.engine.session import Options
    from kit.engine.store import Store

    prepared = read_planned(plan)
    run_instance(
        prepared.plan,
        step,
        home=prepared.home,
        pins=prepared.pins,
        options=Options(jobs=1, progress=state().mode()),
        events=events,
        nodes=parse_nodes(nodes, node_rank, rendezvous) if nodes > 1 else None,
    )
    if link is not None:
        link_record(Store(prepared.home), prepared.plan.instance(step).key, link)
