"""SLURM's commands as one small program, for tests of how jobs are submitted and followed.

``install`` puts it on the path as sbatch, srun, squeue, scancel and scontrol. Jobs really run, as
processes of this machine; their state is a file each. What only the real SLURM does (limits,
queues, preemption) is tested in ``tests/slurm``.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

NAMES = ("sbatch", "srun", "squeue", "scancel", "scontrol")


def install(folder: Path) -> Path:
    """Write the commands into a folder; returns it, to be put in front of PATH."""
    commands = folder / "bin"
    commands.mkdir(parents=True)
    (folder / "jobs").mkdir()
    for name in NAMES:
        path = commands / name
        path.write_text(
            f"#!{sys.executable} -S\nimport sys\n"
            f"sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
            f"import fake_slurm\nfake_slurm.main({name!r}, {str(folder / 'jobs')!r})\n"
        )
        path.chmod(0o755)
    return commands


def main(name: str, jobs: str) -> None:
    """Do as the command of this name."""
    {"sbatch": sbatch, "srun": srun, "squeue": squeue, "scancel": scancel, "scontrol": scontrol}[
        name
    ](Path(jobs), sys.argv[1:])


def sbatch(jobs: Path, arguments: list[str]) -> None:
    """Start every element of a batch script and keep its environment's names."""
    text = Path(arguments[0]).read_text()
    if "partition=nowhere" in text:
        sys.exit("sbatch: error: invalid partition specified: nowhere")
    busy = jobs / "busy"
    if busy.exists():
        busy.unlink()
        sys.exit("sbatch: error: Batch job submission failed: Socket timed out")
    number = len(list(jobs.glob("*.sh"))) + 1
    # Jobs run this copy, as SLURM's do: submitit renames its own file as soon as sbatch is back.
    script = jobs / f"{number}.sh"
    script.write_text(text)
    (jobs / f"{number}.environment").write_text("\n".join(os.environ))
    array = re.search(r"--array=0-(\d+)", text)
    for index in range(int(array[1]) + 1 if array else 1):
        id = f"{number}_{index}" if array else str(number)
        own = {"SLURM_JOB_ID": str(1000 * number + index) if array else id}
        if array:
            own |= {"SLURM_ARRAY_JOB_ID": str(number), "SLURM_ARRAY_TASK_ID": str(index)}
        start(jobs, id, script, {**os.environ, **own})
    print(f"Submitted batch job {number}")


def start(jobs: Path, id: str, script: Path, environ: dict[str, str]) -> None:
    """Run a script in a session of its own and note how it ended."""
    (jobs / f"{id}.state").write_text("RUNNING")
    wrapped = (
        f'echo $$ > "{jobs}/{id}.pid"; bash "{script.resolve()}"; code=$?; '
        f'grep -q RUNNING "{jobs}/{id}.state" && '
        f'if [ $code = 0 ]; then echo COMPLETED; else echo "FAILED $code"; fi '
        f'> "{jobs}/{id}.new" && mv "{jobs}/{id}.new" "{jobs}/{id}.state"'
    )
    subprocess.Popen(
        ["setsid", "bash", "-c", wrapped],
        env=environ,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def srun(jobs: Path, arguments: list[str]) -> None:
    """Become the command behind srun's own options."""
    paths = {}
    while arguments[0].startswith("--"):
        option = arguments.pop(0)
        if option in ("--output", "--error"):
            paths[option] = arguments.pop(0)
    array, element = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    job = os.environ["SLURM_JOB_ID"]
    for number, option in ((1, "--output"), (2, "--error")):
        name = paths[option].replace("%A", array or "").replace("%a", element or "")
        name = name.replace("%j", job).replace("%t", "0")
        os.dup2(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644), number)
    os.execvp(arguments[0], arguments)


def state(jobs: Path, id: str) -> tuple[str, str]:
    """State and exit status of a job."""
    word, _, code = (jobs / f"{id}.state").read_text().strip().partition(" ")
    return word, code or "0"


def ids(jobs: Path, job: str) -> list[str]:
    """The elements of a job, or the one that is named."""
    found = [path.stem for path in jobs.glob("*.state")]
    return sorted(id for id in found if job in (id, id.partition("_")[0]))


def squeue(jobs: Path, arguments: list[str]) -> None:
    """One line a job."""
    wanted = next(a for a in arguments if a.startswith("--jobs=")).partition("=")[2]
    found = [id for job in wanted.split(",") for id in ids(jobs, job)]
    if not found:
        sys.exit("slurm_load_jobs error: Invalid job id specified")
    for id in found:
        print(f"{id}|{state(jobs, id)[0]}|None|here")


def scontrol(jobs: Path, arguments: list[str]) -> None:
    """``scontrol show job``."""
    (id,) = ids(jobs, arguments[-1]) or sys.exit("Invalid job id specified")
    word, code = state(jobs, id)
    print(f"JobId={id} JobState={word} Reason=None NodeList=here ExitCode={code}:0")


def scancel(jobs: Path, arguments: list[str]) -> None:
    """SIGTERM for what runs, or the signal that is named; the state says CANCELLED."""
    number = signal.SIGTERM
    for argument in arguments:
        if argument.startswith("--signal="):
            number = signal.Signals["SIG" + argument.partition("=")[2]]
    for job in (argument for argument in arguments if not argument.startswith("--")):
        for id in ids(jobs, job):
            if state(jobs, id)[0] != "RUNNING":
                continue
            (jobs / f"{id}.state").write_text("CANCELLED")
            for _ in range(50):
                if (jobs / f"{id}.pid").exists():
                    break
                time.sleep(0.02)
            with contextlib.suppress(ProcessLookupError, ValueError):
                os.killpg(int((jobs / f"{id}.pid").read_text()), number)
