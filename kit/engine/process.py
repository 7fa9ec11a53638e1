"""The parent's side of one worker process."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import msgspec

import kit
from kit.engine import oom_kills
from kit.engine.events import Event
from kit.engine.job import Job
from kit.engine.secrets import child_environment

OFFLINE = {
    "HF_HUB_OFFLINE": "1",
    "HF_DATASETS_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "DO_NOT_TRACK": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "WANDB_MODE": "disabled",
    "TOKENIZERS_PARALLELISM": "false",
    "PYTHONHASHSEED": "0",
    "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
}
"""Inputs were fetched before; a step that reaches for the network is wrong. The last two fix the
order of sets and the workspace of cuBLAS, both of which could change a number."""

THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


def worker_environment(
    environ: Mapping[str, str], *, threads: int | None, gpus: list[str]
) -> dict[str, str]:
    """The environment of a worker.

    Args:
        environ: The run's own.
        threads: Threads a CPU step may use; ``None`` leaves it to the libraries (GPU steps).
        gpus: Devices it may see; none hides them all, so that a CPU step cannot use one by chance.
    """
    made = {**child_environment(environ), **OFFLINE, "CUDA_VISIBLE_DEVICES": ",".join(gpus)}
    made["PYTHONSAFEPATH"] = "1"  # a random.py in the working directory is nobody's library
    root = Path(kit.__file__).resolve().parents[1]
    if not {"site-packages", "dist-packages"} & set(root.parts):
        # From a checkout: the worker must run the same kit, wherever it is started.
        made["PYTHONPATH"] = os.pathsep.join(filter(None, [str(root), environ.get("PYTHONPATH")]))
    if threads is not None:
        made.update(dict.fromkeys(THREAD_VARIABLES, str(threads)))
    return made


class WorkerProcess:
    """A running ``kit.engine.worker`` and the job it is at."""

    def __init__(self, environ: Mapping[str, str], *, gpus: list[str], errors: Path) -> None:
        errors.parent.mkdir(parents=True, exist_ok=True)
        self.gpus = gpus
        self.job: Job | None = None
        self.oom_kills: int | None = None
        self.errors = errors
        self._buffer = b""
        with errors.open("ab") as log:
            self.child = subprocess.Popen(
                [sys.executable, "-m", "kit.engine.worker"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env=dict(environ),
                process_group=0,  # out of reach of the terminal's Ctrl-C; see orphans.py
            )
        assert self.child.stdout is not None
        self.out = self.child.stdout.fileno()
        os.set_blocking(self.out, False)

    def send(self, job: Job) -> None:
        """Give it a job."""
        assert self.child.stdin is not None
        self.job, self.oom_kills = job, oom_kills.count()
        with contextlib.suppress(BrokenPipeError):  # it died; reading will tell
            self.child.stdin.write(msgspec.json.encode(job) + b"\n")
            self.child.stdin.flush()

    def receive(self) -> tuple[list[Event], bool]:
        """Events that have arrived, and whether the process has ended."""
        ended = False
        while True:
            try:
                chunk = os.read(self.out, 1 << 16)
            except BlockingIOError:
                break
            if not chunk:
                ended = True
                break
            self._buffer += chunk
        *lines, self._buffer = self._buffer.split(b"\n")
        return [msgspec.json.decode(line) for line in lines], ended

    def last_lines(self, count: int = 5) -> str:
        """The end of what the job printed, else of what the process printed."""
        for path in ([Path(self.job.log)] if self.job is not None else []) + [self.errors]:
            with contextlib.suppress(OSError):
                lines = path.read_text(encoding="utf-8", errors="replace").strip().splitlines()
                if lines:
                    return " | ".join(lines[-count:])[-1000:]
        return ""

    def signal(self, number: int) -> None:
        """Signal the process alone (SIGTERM) or its whole group (SIGKILL)."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if number == signal.SIGKILL:
                os.killpg(self.child.pid, number)
            else:
                self.child.send_signal(number)

    def close(self) -> int:
        """End it and everything it started; returns its status."""
        for pipe in (self.child.stdin, self.child.stdout):
            assert pipe is not None
            with contextlib.suppress(BrokenPipeError):
                pipe.close()
        self.signal(signal.SIGKILL)
        status = self.child.wait()
        with contextlib.suppress(OSError):
            if self.errors.stat().st_size == 0:
                self.errors.unlink()
        return status
