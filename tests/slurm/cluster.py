"""A real SLURM, started from the distribution's packages and ended with the test.

Everything (keys, sockets, state, logs) lives in one folder; nothing in ``/etc`` is touched and no
service is used. Debian: ``apt-get install slurmctld slurmd slurm-client munge``.
"""

from __future__ import annotations

import contextlib
import getpass
import os
import secrets
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scancel", "scontrol")
_ADMIN = "/usr/sbin"

CONF = """\
ClusterName=kit
SlurmctldHost={host}
SlurmctldPort={control_port}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
CryptoType=crypto/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
ProctrackType=proctrack/pgid
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
ReturnToService=2
JobRequeue=1
KillWait=5
MinJobAge=300
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=2,batch_sched_delay=0,bf_interval=2
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
GresTypes=gpu
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""
NODE = (
    "NodeName={name} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs={cpus} "
    "RealMemory={memory} Gres=gpu:{gpus} State=UNKNOWN\n"
)
GPU = "NodeName={name} Name=gpu File=/dev/null\n"
"""SLURM counts device files; jobs on them get CUDA_VISIBLE_DEVICES, and there is no device."""


def missing() -> str:
    """Which of the programs are not installed; empty when all are."""
    path = os.pathsep.join((os.environ.get("PATH", ""), _ADMIN))
    return ", ".join(name for name in PROGRAMS if shutil.which(name, path=path) is None)


def _free_ports(count: int) -> list[int]:
    probes = [socket.socket() for _ in range(count)]
    for probe in probes:
        probe.bind(("127.0.0.1", 0))
    ports = [int(probe.getsockname()[1]) for probe in probes]
    for probe in probes:
        probe.close()
    return ports


@dataclass
class Cluster:
    """The running daemons.

    Attributes:
        folder: Where their files are.
        cpus: CPUs that a node declares; more than there are is allowed.
        nodes: Nodes, all of them this machine.
    """

    folder: Path
    cpus: int = 4
    nodes: int = 1
    daemons: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def environment(self) -> dict[str, str]:
        """What SLURM's commands need to find this cluster."""
        return {"SLURM_CONF": str(self.folder / "slurm.conf")}

    def start(self) -> None:
        """Start the daemons and wait until the node takes jobs."""
        host = socket.gethostname().partition(".")[0]
        control_port, *ports = _free_ports(1 + self.nodes)
        names = [f"kit{number}" for number in range(self.nodes)]
        for name in ("state", *(f"spool-{name}" for name in names)):
            (self.folder / name).mkdir()
        self.folder.chmod(0o755)
        key = self.folder / "munge.key"
        key.write_bytes(secrets.token_bytes(128))
        key.chmod(0o400)
        (self.folder / "slurm.conf").write_text(
            CONF.format(
                host=host,
                control_port=control_port,
                user=getpass.getuser(),
                folder=self.folder,
            )
            + "".join(
                NODE.format(
                    name=name,
                    host=host,
                    port=port,
                    cpus=self.cpus,
                    gpus=1,
                    memory=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20 * 4,
                )
                for name, port in zip(names, ports, strict=True)
            )
        )
        (self.folder / "gres.conf").write_text("".join(GPU.format(name=name) for name in names))
        conf = str(self.folder / "slurm.conf")
        self._daemon(
            "munged", "--foreground", "--force", f"--socket={self.folder}/munge.socket",
            f"--key-file={key}", f"--pid-file={self.folder}/munged.pid",
            f"--seed-file={self.folder}/munged.seed", f"--log-file={self.folder}/munged.log",
        )  # fmt: skip
        self._wait_for((self.folder / "munge.socket").exists, "munged")
        self._daemon("slurmctld", "-D", "-f", conf)
        for name in names:
            self._daemon("slurmd", "-D", "-f", conf, "-N", name)
        self._wait_for(
            lambda: self.command("sinfo", "-h", "-N", "-o", "%t").split() == ["idle"] * self.nodes,
            "the nodes",
        )

    def _daemon(self, *line: str) -> None:
        path = os.pathsep.join((os.environ.get("PATH", ""), _ADMIN))
        program = shutil.which(line[0], path=path)
        assert program is not None
        with (self.folder / f"{line[0]}.out").open("ab") as log:
            self.daemons.append(
                subprocess.Popen(
                    [program, *line[1:]],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    env={**os.environ, **self.environment},
                )
            )

    def _wait_for(self, true: object, what: str, seconds: float = 30.0) -> None:
        assert callable(true)
        deadline = time.monotonic() + seconds
        while not true():
            if time.monotonic() > deadline:
                logs = "\n".join(
                    f"== {path.name}\n{path.read_text(errors='replace')[-1500:]}"
                    for path in sorted(self.folder.glob("*.log"))
                    + sorted(self.folder.glob("*.out"))
                )
                raise RuntimeError(f"{what} did not come up in {seconds:g} s\n{logs}")
            time.sleep(0.2)

    def command(self, *line: str) -> str:
        """Output of one of SLURM's commands; empty when it fails."""
        done = subprocess.run(
            line,
            capture_output=True,
            text=True,
            env={**os.environ, **self.environment},
            check=False,
            timeout=60,
        )
        return done.stdout if done.returncode == 0 else ""

    def stop(self) -> None:
        """End every job, then the daemons, in the order that loses nothing."""
        self.command("scancel", "--full", "--signal=KILL", f"--user={getpass.getuser()}")
        self.command("scancel", f"--user={getpass.getuser()}")
        for daemon in reversed(self.daemons):
            with contextlib.suppress(ProcessLookupError):
                daemon.terminate()
            try:
                daemon.wait(15)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()


@contextlib.contextmanager
def running(folder: Path, cpus: int = 4, nodes: int = 1) -> Iterator[Cluster]:
    """A cluster that lives as long as the block."""
    made = Cluster(folder, cpus, nodes)
    try:
        made.start()
        yield made
    finally:
        made.stop()
