"""Measure planning, looking up, running from the store and exporting grids of many cells.

    python -m benchmarks.measure_grid OUT.json [CELLS...]

Every size runs in a process of its own, so that its peak memory is its own. With Snakemake in
KIT_TEST_TOOLS or on the PATH its dry run of the exported grid is timed as well.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.grid import NoPins, fill, grid

SIZES = (2_500, 5_000, 10_000, 20_000)


def timed(work: Callable[[], Any]) -> tuple[dict[str, float], Any]:
    """Seconds and result: of the clock, and of this process's computing, which other work on the
    machine does not change."""
    wall, cpu = time.perf_counter(), time.process_time()
    result = work()
    seconds = {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}
    return {name: round(value, 3) for name, value in seconds.items()}, result


def peak_gb() -> float:
    """Most memory this process has had."""
    # getrusage would give the peak of the process that started this one, if that was larger.
    (line,) = [x for x in Path("/proc/self/status").read_text().splitlines() if x[:6] == "VmHWM:"]
    return round(int(line.split()[1]) / 1024**2, 4)


def measure(cells: int, folder: Path) -> dict[str, Any]:
    """One size; the store is there already."""
    from kit.engine.export.snakefile import write_snakemake
    from kit.engine.preflight import finished
    from kit.engine.session import Options, Session
    from kit.engine.store import Store
    from kit.results.plan import read_plan

    row: dict[str, Any] = {"cells": cells}
    row["plan"], plan = timed(lambda: grid(cells))
    row["instances"] = len(plan.instances)
    home = folder / "home"
    row["check"], have = timed(lambda: finished(plan, Store(home)))
    if len(have) != len(plan.instances):
        raise SystemExit("the store is not whole")
    options = Options(runs_dir=folder / "runs")
    session = Session(plan, home=home, pins=NoPins(), options=options, argv=[])
    row["run"], _ = timed(session.run)
    row["memory_gb"] = peak_gb()
    where = folder / "snakemake"
    row["snakemake"], _ = timed(
        lambda: write_snakemake(plan, where, home=home, kit="kit", runs=folder)
    )
    row["read"], _ = timed(lambda: read_plan(where / "plan.json"))
    row["plan_bytes"] = (where / "plan.json").stat().st_size
    row["export_memory_gb"] = peak_gb()
    return row


def dry_run(folder: Path) -> dict[str, float] | None:
    """Seconds of Snakemake's dry run of an exported grid, or nothing where it is not installed."""
    places = os.pathsep.join(filter(None, [os.environ.get("KIT_TEST_TOOLS"), os.environ["PATH"]]))
    program = shutil.which("snakemake", path=places)
    if program is None:
        return None
    command = [program, "--dry-run", "--quiet", "--cores", "1"]
    before, wall = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"wall": round(time.perf_counter() - wall, 3), "cpu": round(cpu, 3)}


def machine() -> dict[str, Any]:
    """Where it ran."""
    from importlib.metadata import version

    from kit.engine import hardware

    return {
        "cpu": hardware.cpu_model(),
        "cores": hardware.cpu_count(),
        "python": sys.version.split()[0],
        "msgspec": version("msgspec"),
        "date": datetime.now(UTC).date().isoformat(),
    }


def main(out: str, *sizes: str) -> None:
    """Measure and write."""
    from kit.engine.store import Store

    rows = []
    for cells in [int(size) for size in sizes] or SIZES:
        with tempfile.TemporaryDirectory() as name:
            fill(Store(Path(name) / "home"), grid(cells))
            command = [sys.executable, "-m", "benchmarks.measure_grid", "--one", str(cells), name]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            row = json.loads(done.stdout.splitlines()[-1])
            row["snakemake_dry_run"] = dry_run(Path(name) / "snakemake")
        rows.append(row)
        print(json.dumps(row), file=sys.stderr)
    record = {"machine": machine(), "rows": rows}
    Path(out).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    if sys.argv[1] == "--one":
        print(json.dumps(measure(int(sys.argv[2]), Path(sys.argv[3]))))
    else:
        main(*sys.argv[1:])
