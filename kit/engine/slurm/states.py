"""What SLURM says of jobs, and what that means for a step.

submitit asks ``sacct`` alone, which small clusters do not have; ``squeue`` and ``scontrol`` know
jobs that ended a few minutes ago as well, and are asked first.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Collection, Iterable
from dataclasses import dataclass

LIVE = {
    "CONFIGURING", "COMPLETING", "PENDING", "REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD", "RESIZING",
    "RUNNING", "SIGNALING", "SPECIAL_EXIT", "STAGE_OUT", "STOPPED", "SUSPENDED",
}  # fmt: skip
_SECONDS = 60


@dataclass(frozen=True)
class Seen:
    """A job as SLURM reports it.

    Attributes:
        state: SLURM's word, in capitals; empty when SLURM does not know the job.
        reason: Why it waits or ended, where SLURM says so.
        node: Where it is or was.
        exit_code: ``status:signal``.
    """

    state: str = ""
    reason: str = ""
    node: str = ""
    exit_code: str = ""

    @property
    def live(self) -> bool:
        """Whether it may still do something."""
        return self.state in LIVE

    def words(self) -> str:
        """One phrase for messages."""
        parts = [self.state or "unknown to SLURM"]
        if self.exit_code and self.exit_code != "0:0":
            parts.append(f"exit code {self.exit_code}")
        if self.reason and self.reason != "None":
            parts.append(f"reason {self.reason}")
        if self.node and self.node != "(null)":
            parts.append(f"on {self.node}")
        return ", ".join(parts)


def run(line: list[str]) -> subprocess.CompletedProcess[str] | None:
    """Run one of SLURM's commands; ``None`` when it is absent or does not answer."""
    try:
        return subprocess.run(line, capture_output=True, text=True, timeout=_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None


def parents(ids: Iterable[str]) -> list[str]:
    """Job ids without array indices, each once."""
    return sorted({id.partition("_")[0] for id in ids})


def ask(ids: Collection[str]) -> dict[str, Seen] | None:
    """State of each job that SLURM still knows; ``None`` when it does not answer."""
    jobs = ",".join(parents(ids))
    done = run(
        [
            "squeue",
            "--noheader",
            "--array",
            "--states=all",
            f"--jobs={jobs}",
            "--format=%i|%T|%r|%N",
        ]
    )
    if done is None:
        return None
    if done.returncode:
        return {} if "Invalid job id" in done.stderr else None
    return parse_squeue(done.stdout)


def parse_squeue(text: str) -> dict[str, Seen]:
    """Lines of ``id|state|reason|node``."""
    found = {}
    for line in text.splitlines():
        parts = line.strip().split("|")
        if len(parts) == 4:
            for id in each_id(parts[0]):
                found[id] = Seen(state=parts[1], reason=parts[2], node=parts[3])
    return found


def each_id(text: str) -> list[str]:
    """Job ids of ``12``, ``12_3`` or, as squeue shows what never started, ``12_[4-6,9%2]``."""
    job, bracket, rest = text.partition("_[")
    if not bracket:
        return [text]
    found = []
    for part in rest.rstrip("]").partition("%")[0].split(","):
        first, _, last = part.partition("-")
        if first.isdigit() and (not last or last.isdigit()):
            found += [f"{job}_{index}" for index in range(int(first), int(last or first) + 1)]
    return found


def explain(id: str) -> Seen:
    """All that SLURM says of one job that has ended: ``scontrol``, else ``sacct``."""
    done = run(["scontrol", "show", "job", "--oneliner", id])
    if done is not None and done.returncode == 0:
        fields = dict(re.findall(r"(\w+)=(\S+)", done.stdout.splitlines()[0]))
        return Seen(
            state=fields.get("JobState", ""),
            reason=fields.get("Reason", ""),
            node=fields.get("NodeList", ""),
            exit_code=fields.get("ExitCode", ""),
        )
    wanted = "--format=State,ExitCode,NodeList"
    done = run(["sacct", "--noheader", "--parsable2", "--allocations", f"--jobs={id}", wanted])
    if done is not None and done.returncode == 0 and done.stdout.count("|") >= 2:
        state, code, node = done.stdout.splitlines()[0].split("|")[:3]
        return Seen(state=state.split()[0] if state else "", exit_code=code, node=node)
    return Seen()


def advice(seen: Seen) -> tuple[str, str]:
    """(why, what to type) for a job that ended without the step's end being told."""
    again = "run the same command again: finished steps are kept, long ones go on from checkpoints"
    if seen.state == "TIMEOUT":
        return "it reached its time limit", f"give it more: --slurm time=D-HH:MM:SS; {again}"
    if seen.state == "OUT_OF_MEMORY":
        return "it used more memory than it had asked for", f"--slurm mem=SIZE; {again}"
    if seen.state in ("NODE_FAIL", "BOOT_FAIL"):
        node = seen.node or "NODE"
        return "its node failed", f"{again}; to avoid the node: --slurm exclude={node}"
    if seen.state == "CANCELLED":
        return "somebody, or the cluster, cancelled it", again
    if seen.state == "DEADLINE":
        return "its deadline passed", f"leave --slurm deadline out; {again}"
    if seen.exit_code.endswith(":9") or seen.exit_code.startswith("137:"):
        return (
            "its process was killed from outside; the kernel does this when memory runs out",
            f"if it happens again: --slurm mem=SIZE; {again}",
        )
    if not seen.state:
        return "SLURM forgets jobs after some minutes, or its controller was restarted", again
    return "the process that watches over the step ended without telling why", again
