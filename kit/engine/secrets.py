"""Keeping secrets out of records, logs and child processes.

Two nets: an environment variable is recorded only if its name is on a list of harmless ones, and
every recorded text is searched for things that look like credentials and for the values of the
variables that are named like credentials.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence

HIDDEN = "[redacted]"

_SECRET_NAME = re.compile(
    r"(^|_)(TOKEN|TOKENS|SECRET|SECRETS|PASSWORD|PASSWD|PASS|PWD|CREDENTIALS?|COOKIE|AUTH"
    r"|API_?KEY|ACCESS_?KEY|PRIVATE_?KEY|KEY)($|_)",
    re.IGNORECASE,
)
_NOT_SECRET = {"PWD", "OLDPWD", "SSH_AUTH_SOCK"}
_LOOKS_SECRET = re.compile(
    r"hf_[A-Za-z0-9]{16,}"
    r"|gh[pousr]_[A-Za-z0-9]{16,}|github_pat_[A-Za-z0-9_]{20,}|glpat-[A-Za-z0-9_-]{16,}"
    r"|(?<![A-Za-z0-9])sk-[A-Za-z0-9_-]{16,}|xox[abprs]-[A-Za-z0-9-]{10,}|AKIA[0-9A-Z]{16}"
    r"|eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]+"
    r"|(?<=[Bb]earer )[A-Za-z0-9._~+/=-]{8,}"
    r"|(?<=://)[^/\s:@]+:[^/\s@]+(?=@)"
)
_IN_ADDRESS = re.compile(r"://[^/\s:@]+:[^/\s@]+@")
_OPTION = re.compile(
    r"^--?[\w-]*(token|secret|password|passwd|credential|api[-_]?key)[\w-]*$", re.I
)
_ASSIGNED = re.compile(
    r"(?P<name>[\w.-]*(?:token|secret|password|passwd|credential|api[-_]?key))=(?P<value>\S+)", re.I
)
_SHORTEST = 6
"""Values shorter than this are not searched for: they would hide ordinary words."""

RECORDED = (
    "CUBLAS_WORKSPACE_CONFIG",
    "CUDA_VISIBLE_DEVICES",
    "HF_HUB_OFFLINE",
    "KIT_GPU_ARCH",
    "KIT_HOME",
    "KIT_STEPS_MODULES",
    "LANG",
    "LC_ALL",
    "MKL_NUM_THREADS",
    "NCCL_DEBUG",
    "NCCL_P2P_DISABLE",
    "NO_COLOR",
    "OMP_NUM_THREADS",
    "PYTHONHASHSEED",
    "PYTORCH_ALLOC_CONF",
    "PYTORCH_CUDA_ALLOC_CONF",
    "SLURM_ARRAY_JOB_ID",
    "SLURM_ARRAY_TASK_ID",
    "SLURM_JOB_ID",
    "SLURM_JOB_NUM_NODES",
    "TOKENIZERS_PARALLELISM",
    "TRANSFORMERS_OFFLINE",
    "TZ",
    "VLLM_ATTENTION_BACKEND",
    "VLLM_BATCH_INVARIANT",
    "VLLM_ENABLE_V1_MULTIPROCESSING",
    "VLLM_USE_FLASHINFER_SAMPLER",
)
"""The only environment variables a record may contain."""


def is_secret_name(name: str) -> bool:
    """Whether a variable of this name may hold a credential."""
    return name not in _NOT_SECRET and _SECRET_NAME.search(name) is not None


def is_secret(name: str, value: str) -> bool:
    """Whether a variable may hold a credential: by its name, or a password in an address.

    A proxy's or an index's address is the usual one; a step is offline and needs neither.
    """
    return is_secret_name(name) or _IN_ADDRESS.search(value) is not None


def _known_values(environ: Mapping[str, str]) -> list[str]:
    values = {v for k, v in environ.items() if is_secret_name(k) and len(v) >= _SHORTEST}
    return sorted(values, key=len, reverse=True)


def redact(text: str, environ: Mapping[str, str] | None = None) -> str:
    """The text without anything that is or looks like a credential."""
    for value in _known_values(os.environ if environ is None else environ):
        text = text.replace(value, HIDDEN)
    return _LOOKS_SECRET.sub(HIDDEN, text)


def redact_argv(argv: Sequence[str], environ: Mapping[str, str] | None = None) -> list[str]:
    """Command line arguments without credentials, also those given by option name."""
    clean: list[str] = []
    hide_next = False
    for argument in argv:
        if hide_next and not argument.startswith("-"):
            clean.append(HIDDEN)
            hide_next = False
            continue
        hide_next = _OPTION.match(argument) is not None
        argument = _ASSIGNED.sub(lambda match: f"{match['name']}={HIDDEN}", argument)
        clean.append(redact(argument, environ))
    return clean


def recorded_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """The variables a record shows."""
    return {name: redact(environ[name], environ) for name in RECORDED if name in environ}


def child_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """The environment of a step's process: no credentials, which no offline step needs."""
    return {name: value for name, value in environ.items() if not is_secret(name, value)}
