"""Out of memory, told from what libraries say about it.

torch has a class for it, numpy another, vLLM a ``ValueError`` or ``RuntimeError`` whose cause is
torch's, the system an ``OSError``. Their texts hold what a reader needs: how much was asked for,
how much was free, and who else was on the GPU. Sources of the texts: torch's
``CUDACachingAllocator.cpp`` and ``alloc_cpu.cpp``, vLLM's ``v1/worker/utils.py``, numpy's
``_core/_exceptions.py``.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator

from msgspec import Struct

_GPU = re.compile(
    r"(CUDA|HIP) (error: )?out of memory|CUDA_ERROR_OUT_OF_MEMORY|CUBLAS_STATUS_ALLOC_FAILED"
    r"|Free memory on device .* less than desired GPU memory utilization",
    re.DOTALL,
)
_HOST = re.compile(
    r"DefaultCPUAllocator: (can't allocate|not enough) memory|Cannot allocate memory"
    r"|Unable to allocate [\d.]+ \w+ for an array|std::bad_alloc"
)
_SIZE = r"([\d.]+ ?(?:bytes|[KMGTPE]iB))"
_ASKED = (
    re.compile(rf"[Tt]ried to allocate {_SIZE}"),
    re.compile(rf"Unable to allocate {_SIZE}"),
    re.compile(rf"desired GPU memory utilization \([\d.]+, {_SIZE}\)"),
)
_FREE = re.compile(rf"of which {_SIZE} is free|Free memory on device [^(]*\(([\d.]+)/[\d.]+ GiB\)")
_TOTAL = re.compile(rf"total capac(?:i)?ty of {_SIZE}|Free memory on device [^(]*\([\d.]+/([\d.]+)")
_OTHER = re.compile(rf"Process (\d+) has {_SIZE} memory in use")


class Shortage(Struct, frozen=True, kw_only=True):
    """Memory that was asked for and not there; sizes as the library printed them."""

    gpu: bool
    """Of a GPU; otherwise of the machine."""
    asked: str = ""
    free: str = ""
    total: str = ""
    others: list[str] = []
    """``process 4242 holds 40.00 GiB``, one for each other process that torch saw on the GPU."""

    def facts(self) -> str:
        """What was free, of how much, and who has the rest; empty when nothing was said."""
        said = []
        if self.free:
            of = f" of {self.total}" if self.total else ""
            said.append(f"{self.free}{of} {'of the GPU ' * self.gpu}was free")
        return "; ".join([*said, *self.others])


def find(error: BaseException) -> Shortage | None:
    """The shortage that an exception, or what it was raised from, tells of."""
    found: Shortage | None = None
    for one in _chain(error):
        names = {kind.__name__ for kind in type(one).__mro__}
        told = parse(names, str(one), getattr(one, "errno", None))
        # The innermost has the figures; what was raised from it only says that it happened.
        if told is not None and (found is None or told.asked):
            found = told
    return found


def parse(names: set[str], message: str, number: int | None = None) -> Shortage | None:
    """The shortage in an exception's class names, text and errno, or ``None``."""
    gpu = "OutOfMemoryError" in names or bool(_GPU.search(message))
    host = "MemoryError" in names or number == errno.ENOMEM or bool(_HOST.search(message))
    if not gpu and not host:
        return None
    asked = next((match for match in (one.search(message) for one in _ASKED) if match), None)
    return Shortage(
        gpu=gpu,
        asked=_readable(asked.group(1)) if asked else "",
        free=_group(_FREE.search(message)),
        total=_group(_TOTAL.search(message)),
        others=[f"process {pid} holds {size}" for pid, size in _OTHER.findall(message)],
    )


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The exception and what it came from, as a traceback shows them."""
    seen: set[int] = set()
    one: BaseException | None = error
    while one is not None and id(one) not in seen:
        seen.add(id(one))
        yield one
        one = one.__cause__ or (None if one.__suppress_context__ else one.__context__)


def _group(match: re.Match[str] | None) -> str:
    """The group that took part; vLLM prints free and total memory without a unit each."""
    if match is None:
        return ""
    return match.group(1) or f"{match.group(2)} GiB"


def _readable(size: str) -> str:
    if not size.endswith("bytes"):
        return size
    number = float(size.removesuffix("bytes"))
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if number < 1024:
            return f"{number:.4g} {unit}"
        number /= 1024
    return f"{number:.4g} TiB"
