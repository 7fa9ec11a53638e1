"""``kit export snakemake`` and ``kit export k8s``: a plan for another engine."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from kit.cli.planning import plan_options, prepare

ARCHITECTURE = click.option(
    "--gpu-arch",
    metavar="ARCH",
    help="Plan for GPUs of this architecture (sm_90), on a machine that has none.",
)
FOLDER = click.option(
    "-o",
    "--output",
    type=click.Path(file_okay=False, path_type=Path),
    help="The folder; by default called after the experiment.",
)


def this_program() -> str:
    """The ``kit`` that was called, so that another engine's jobs find it without an activated
    environment; the bare name when it was not called by a script of that name."""
    called = Path(sys.argv[0])
    return str(called.absolute()) if called.name == "kit" and called.is_file() else "kit"


@click.command("snakemake")
@plan_options
@ARCHITECTURE
@click.option(
    "--runs-dir",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("runs"),
    show_default=True,
    help="Where the last rule makes the run directory.",
)
@FOLDER
def snakemake(
    experiment: str,
    profile: str,
    seed: int | None,
    overrides: tuple[str, ...],
    gpus: int | None,
    gpu_arch: str | None,
    runs_dir: Path,
    output: Path | None,
) -> None:
    """A Snakefile with the plan of EXPERIMENT: a rule a step, a job an instance.

    Its last rule makes the run directory and writes its path to run.txt.
    """
    from kit.engine.export.snakefile import write_snakemake

    made = prepare(
        experiment, profile, seed=seed, overrides=overrides, gpus=gpus, gpu_arch=gpu_arch
    )
    folder = output or Path(f"{made.plan.experiment}-{profile}-snakemake")
    written = write_snakemake(made.plan, folder, home=made.home, kit=this_program(), runs=runs_dir)
    click.echo(str(written))


def cluster_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """What a cluster has to be told, besides the plan."""
    for option in reversed(
        (
            click.option("--image", required=True, help="Image whose program is kit."),
            click.option(
                "--claim",
                default="safety-repro-kit",
                show_default=True,
                help="PersistentVolumeClaim for store, inputs and runs; all nodes must reach it.",
            ),
            click.option(
                "--storage", metavar="SIZE", help="Write that claim too, of this size (200Gi)."
            ),
            click.option("--storage-class", metavar="NAME", help="With --storage."),
            click.option(
                "--token-secret",
                metavar="NAME",
                help="Secret whose key 'token' is the hub token; only the fetching Job sees it.",
            ),
            click.option(
                "--uid",
                type=click.IntRange(min=1),
                default=1000,
                show_default=True,
                help="User and group that everything runs as.",
            ),
            click.option(
                "--node-selector",
                "selectors",
                multiple=True,
                metavar="LABEL=VALUE",
                help="Nodes for GPU steps (repeatable).",
            ),
            click.option(
                "--parallel",
                type=click.IntRange(min=1),
                default=32,
                show_default=True,
                help="Most pods of one Job at once.",
            ),
        )
    ):
        function = option(function)
    return function


@click.command("k8s")
@plan_options
@ARCHITECTURE
@cluster_options
@FOLDER
def k8s(
    experiment: str,
    profile: str,
    seed: int | None,
    overrides: tuple[str, ...],
    gpus: int | None,
    gpu_arch: str | None,
    image: str,
    claim: str,
    storage: str | None,
    storage_class: str | None,
    token_secret: str | None,
    uid: int,
    selectors: tuple[str, ...],
    parallel: int,
    output: Path | None,
) -> None:
    """Kubernetes Jobs for the plan of EXPERIMENT, and a script that applies them in order.

    Make the export with the image that runs it: library versions are part of every key.
    """
    from kit.engine.export.k8s import write_k8s
    from kit.engine.export.pods import Cluster
    from kit.errors import UsageError

    wrong = [one for one in selectors if "=" not in one]
    if wrong:
        raise UsageError(
            f"{wrong[0]!r} is no LABEL=VALUE",
            next_step="--node-selector nvidia.com/gpu.product=H100",
        )
    made = prepare(
        experiment, profile, seed=seed, overrides=overrides, gpus=gpus, gpu_arch=gpu_arch
    )
    folder = output or Path(f"{made.plan.experiment}-{profile}-k8s")
    cluster = Cluster(
        image=image,
        claim=claim,
        storage=storage,
        storage_class=storage_class,
        token_secret=token_secret,
        uid=uid,
        node_selector=dict(one.split("=", 1) for one in selectors),
        parallel=parallel,
    )
    click.echo(str(write_k8s(made.plan, folder, cluster)))
