"""A command line over toy plans, for tests that kill it."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from kit.engine.session import Options, Session
from kit.engine.slurm.options import SlurmOptions
from kit.errors import KitError
from tests.engine.conftest import ToyPins, manifest, plan_of


def slurm_options(options: argparse.Namespace) -> SlurmOptions:
    """As the command line makes them, with less patience."""
    return SlurmOptions(
        parameters=tuple(one for one in options.slurm if one),
        max_jobs=options.max_jobs,
        gather=0.2,
        refresh=0.3,
        grace=4.0,
    )


def main() -> int:
    """Plan and run the toy experiment; errors as the kit prints them."""
    parser = argparse.ArgumentParser()
    parser.add_argument("home", type=Path)
    parser.add_argument("runs", type=Path)
    parser.add_argument("--seconds", type=float, default=0.2)
    parser.add_argument("--parts", type=int, default=4)
    parser.add_argument("--size", type=int, default=1000)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--how", help="run one toy/fail step instead")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--slurm", action="append", help="submit to SLURM, with this option")
    parser.add_argument("--max-jobs", type=int, default=256)
    parser.add_argument("--keep-going", action="store_true")
    options = parser.parse_args()
    values = {
        "seed": "${seed}",
        "seconds": options.seconds,
        "parts": options.parts,
        "size": options.size,
    }
    profile = {
        "summary": "small",
        "matrix": {"seed": list(range(options.seeds))},
        "set": {"make": values},
    }
    plan = plan_of(manifest(profiles={"mini": profile}))
    if options.how is not None:
        steps = [{"id": "f", "kind": "toy/fail", "version": 1}]
        profile = {"summary": "s", "set": {"f": {"how": options.how}}}
        plan = plan_of(manifest(steps=steps, results="f", profiles={"mini": profile}))
    session = Session(
        plan,
        home=options.home,
        pins=ToyPins(options.home),
        options=Options(
            jobs=options.jobs,
            runs_dir=options.runs,
            keep_going=options.keep_going,
            slurm=None if options.slurm is None else slurm_options(options),
        ),
        argv=sys.argv,
    )
    try:
        print(session.run())
    except KitError as error:
        print(error.render(), file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
