"""What the commands that plan and run share: options, and the way from a name to a plan."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from kit.engine.session import Options, Session
    from kit.manifest.load import Loaded
    from kit.manifest.types import Manifest
    from kit.pins.store import PinStore
    from kit.results.plan import Plan


Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


@dataclass(frozen=True)
class Prepared:
    """A plan and what it takes to run it."""

    plan: Plan
    home: Path
    pins: PinStore

    def session(self, options: Options) -> Session:
        """What runs it."""
        import sys

        from kit.engine.session import Session

        return Session(self.plan, home=self.home, pins=self.pins, options=options, argv=sys.argv)


def prepare(
    experiment: str,
    profile: str,
    *,
    seed: int | None = None,
    overrides: Sequence[str] = (),
    rehearsal: bool = False,
    fraction: float | None = None,
    gpu_arch: str | None = None,
    gpus: int | None = None,
    trials: int | None = None,
    only: Sequence[str] = (),
    gpu_gb: float | None = None,
) -> Prepared:
    """Read the experiment and plan it.

    Args:
        experiment: Id, or path of a manifest.
        profile: Profile name.
        seed: Moves all seeds of the matrix.
        overrides: ``step.param=value`` each.
        rehearsal: Plan for stand-in weights and data.
        fraction: Value for every parameter called ``fraction`` (shorter rehearsals).
        gpu_arch: Plan for GPUs of this architecture.
        gpus: GPUs for steps that share a batch among several.
        trials: Attacks of each search.
        only: ``axis=id,id`` each: values of an axis that are kept.
        gpu_gb: Memory of a GPU, instead of this machine's.
    """
    from kit.engine.environment import this_machine
    from kit.engine.planner import fraction_overrides
    from kit.engine.registry import load_registry
    from kit.manifest.catalog import Catalog
    from kit.manifest.home import kit_home
    from kit.pins.store import PinStore

    catalog, home = Catalog(), kit_home()
    loaded = catalog.load(experiment)
    pins = catalog.pins(experiment)
    store = PinStore(home, pins)
    registry = load_registry()
    chosen = list(overrides)
    if fraction is not None:
        chosen += fraction_overrides(loaded.value, profile, registry, fraction)
    machine = this_machine(gpu_arch)
    if rehearsal and gpus is None and any(gpu.memory_gb for gpu in machine.gpus):
        gpus = len(machine.gpus)
    plan = plan_of(
        loaded,
        profile,
        pins={pin.id: pin for pin in pins.pins},
        digests=store,
        registry=registry,
        machine=machine,
        overrides=chosen,
        seed=seed,
        rehearsal=rehearsal,
        gpus=gpus,
        trials=trials,
        fraction=fraction,
        only=only,
        gpu_gb=gpu_gb,
    )
    plan.manifest = str(catalog.own_path(experiment) or "")
    return Prepared(plan=plan, home=home, pins=store)


def plan_of(loaded: Loaded[Manifest], profile: str, **arguments: Any) -> Plan:
    """:func:`kit.engine.planner.make_plan`; what is wrong with the manifest names its place.

    Raises:
        UsageError: What the user typed does not fit.
        InvalidInput: The manifest cannot be planned; with file, line and column.
    """
    from kit.engine.planner import make_plan
    from kit.errors import InvalidInput

    try:
        return make_plan(loaded.value, profile, **arguments)
    except InvalidInput as error:
        raise loaded.placed(error) from None


def read_planned(file: Path) -> Prepared:
    """The plan of a file, as ``kit plan EXP --json`` writes it."""
    from kit.manifest.home import kit_home, open_folder
    from kit.pins.store import PinStore
    from kit.results.plan import read_plan

    plan, home = read_plan(file), kit_home()
    if plan.manifest:
        open_folder(Path(plan.manifest))
    return Prepared(plan=plan, home=home, pins=PinStore(home, plan.pins))


def _together(*options: Decorator) -> Decorator:
    """Options of several commands as one decorator; help shows them in this order."""

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        return functools.reduce(lambda made, option: option(made), reversed(options), function)

    return decorate


GPU_ARCH = click.option(
    "--gpu-arch",
    metavar="ARCH",
    help="Plan for GPUs of this architecture (sm_90), on a machine that has none.",
)


def _meant(context: click.Context, _: click.Parameter, named: str | None) -> str:
    """The profile that is meant; by now click has read the experiment if there is one."""
    from kit.manifest.catalog import Catalog

    experiment = context.params.get("experiment")
    if named is not None or experiment is None:
        return named or "mini"
    has = list(Catalog().manifest(experiment).profiles)
    return has[0] if has and "mini" not in has else "mini"


PROFILE = click.option(
    "--profile",
    callback=_meant,
    help="Which profile; kit show EXP lists them.  [default: mini, or the first there is]",
)
GPUS = click.option(
    "--gpus",
    type=click.IntRange(min=1),
    help="GPUs for steps that share a batch among several; the published batch is "
    "split anew. Default: as many as published.",
)
GPU_MEMORY = click.option(
    "--gpu-memory",
    "gpu_gb",
    type=click.FloatRange(min=1),
    help="Plan for GPUs with so many GiB each, instead of this machine's.",
)
plan_options = _together(
    click.argument("experiment"),
    PROFILE,
    click.option(
        "--seed",
        type=click.IntRange(0, 2**31 - 1),
        help="Move all seeds so that the smallest becomes this.",
    ),
    click.option(
        "--set",
        "overrides",
        multiple=True,
        metavar="STEP.PARAM=VALUE",
        help="Change a parameter; the run is then marked as modified.",
    ),
    GPUS,
)
"""Options that decide what is planned."""


RUNS_DIR = click.option(
    "--runs-dir",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("runs"),
    show_default=True,
    help="The folder of run directories.",
)
run_options = _together(
    click.option(
        "--executor",
        type=click.Choice(["local", "slurm"]),
        default="local",
        show_default=True,
        help="Where steps run: on this machine, or as SLURM jobs.",
    ),
    click.option(
        "--slurm",
        "slurm_parameters",
        multiple=True,
        metavar="KEY=VALUE",
        help="An option of sbatch, such as partition=gpu; cpu.KEY and gpu.KEY are for "
        "steps without and with GPUs alone. Recorded; changes no number.",
    ),
    click.option(
        "--max-jobs",
        type=click.IntRange(min=1),
        help="SLURM jobs submitted at once, waiting ones included.",
    ),
    click.option(
        "--jobs",
        type=click.IntRange(min=1),
        help="CPU steps at once. Default: one a core, as memory allows.",
    ),
    click.option(
        "--threads",
        type=click.IntRange(min=1),
        default=1,
        show_default=True,
        help="Threads of a CPU step. More can change the last digits of a result.",
    ),
    RUNS_DIR,
    click.option(
        "--fresh", is_flag=True, help="Make finished steps again whose code has changed since."
    ),
    click.option("--check", is_flag=True, help="Hash all finished outputs, large ones too."),
    click.option(
        "--keep-going",
        is_flag=True,
        help="After a failure, go on with the steps that do not depend on it.",
    ),
    click.option(
        "--blind",
        is_flag=True,
        help="Hash the results before the expectation is read; no step can open it. Record and "
        "verdict say so.",
    ),
    click.option(
        "--keep-intermediate",
        is_flag=True,
        help="Keep outputs that are dropped otherwise once every step has read them.",
    ),
)
"""Options that decide how a plan is run, and change no number: see :func:`chosen_options`."""


def chosen(given: Mapping[str, Any]) -> tuple[dict[str, Any], Options]:
    """What a command was given by :func:`plan_options` and by :func:`run_options`."""
    named = inspect.signature(prepare).parameters
    planned = {name: value for name, value in given.items() if name in named}
    return planned, chosen_options(**{n: v for n, v in given.items() if n not in named})


def chosen_options(
    *,
    executor: str,
    slurm_parameters: tuple[str, ...],
    max_jobs: int | None,
    jobs: int | None,
    check: bool,
    **others: Any,
) -> Options:
    """What the options of :func:`run_options` say together.

    Args:
        executor: ``local`` or ``slurm``.
        slurm_parameters: Options of sbatch.
        max_jobs: SLURM jobs at once.
        jobs: Steps at once on this machine.
        check: Whether all finished outputs are hashed.
        **others: Fields of :class:`kit.engine.session.Options` under their own names.

    Raises:
        UsageError: Options that mean nothing together.
    """
    from kit.cli.state import state
    from kit.engine.session import Options
    from kit.engine.slurm.options import MAX_JOBS, SlurmOptions
    from kit.errors import UsageError

    slurm = None
    if executor == "slurm":
        slurm = SlurmOptions(parameters=slurm_parameters, max_jobs=max_jobs or MAX_JOBS)
        if jobs is not None:
            raise UsageError(
                "--jobs is about steps on this machine", next_step="on SLURM say --max-jobs N"
            )
        if others.get("blind"):
            raise UsageError(
                "--blind closes files to processes of this machine",
                next_step="leave out --executor slurm",
            )
    elif slurm_parameters or max_jobs is not None:
        raise UsageError(
            "--slurm and --max-jobs mean nothing to the local executor",
            next_step="add --executor slurm, or say --jobs N",
        )
    return Options(
        jobs=jobs,
        check="all" if check else "small",
        progress=state().mode(),
        slurm=slurm,
        **others,
    )
