"""``kit export snakemake``: a Snakefile, the plan, and what each job asks for.

The Snakefile is the same for every plan: it makes one rule a step and one job an instance from
``jobs.json``. Nothing of the plan becomes code, so no id or label has to be quoted for Python.
"""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Any

import msgspec

from kit.engine.durable import explain, write_atomic
from kit.engine.export.names import file_name
from kit.engine.export.needs import ask, require_architecture
from kit.engine.plan import Plan

SNAKEFILE, PLAN_FILE, JOBS_FILE = "Snakefile", "plan.json", "jobs.json"


def jobs(plan: Plan) -> dict[str, dict[str, dict[str, Any]]]:
    """Step -> file name -> instance, files it comes after, and what it asks for.

    Instances of equal key are one job: the first of them does the work of all.
    """
    first: dict[str, str] = {}  # key -> finished file
    made: dict[str, dict[str, dict[str, Any]]] = {}
    for one in plan.instances:
        if one.key in first:
            continue
        name = file_name(one)
        first[one.key] = f"finished/{one.step}/{name}"
        after = dict.fromkeys(first[plan.by_id[id].key] for id in one.upstream())
        made.setdefault(one.step, {})[name] = {
            "instance": one.id,
            "after": list(after),
            **msgspec.structs.asdict(ask(one.resources)),
        }
    return made


def write_snakemake(plan: Plan, folder: Path, *, home: Path, kit: str, runs: Path) -> Path:
    """Write the three files.

    Args:
        plan: What to export.
        folder: Where to; made if it is not there.
        home: Kit home that the jobs use unless ``KIT_HOME`` says otherwise.
        kit: The program to call.
        runs: Where the run directory shall be made.

    Returns:
        The Snakefile.

    Raises:
        UsageError: GPU steps without an architecture.
        Preflight: The folder cannot be written to.
    """
    require_architecture(plan)
    text = (resources.files(__package__) / "templates" / SNAKEFILE).read_text(encoding="utf-8")
    values = {"@KIT@": kit, "@HOME@": str(home.absolute()), "@RUNS@": str(runs.absolute())}
    for mark, value in values.items():
        text = text.replace(mark, repr(value))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_atomic(folder / PLAN_FILE, plan.to_json())
        write_atomic(folder / JOBS_FILE, msgspec.json.format(msgspec.json.encode(jobs(plan))))
        write_atomic(folder / SNAKEFILE, text.encode())
    except OSError as error:
        raise explain(error, where=str(folder), path=folder) from error
    return folder / SNAKEFILE
