"""A kind whose process can be started early; loaded beside :mod:`tests.engine.toy`."""

from __future__ import annotations

import json
import os
import sys
import time

from msgspec import Struct

from kit.engine.context import StepContext
from kit.engine.registry import REGISTRY, StepKind


class Params(Struct, frozen=True, forbid_unknown_fields=True):
    """Parameters of ``toy/early``."""

    modules: list[str] = []
    seconds: float = 0.0
    fails: bool = False


def run(context: StepContext, params: Params) -> None:
    """Wait, say where this ran, and write a number that does not depend on it."""
    there = [name in sys.modules for name in params.modules]
    seen = {"pid": os.getpid(), "there": there, "gpus": os.environ["CUDA_VISIBLE_DEVICES"]}
    context.note(json.dumps(seen))
    time.sleep(params.seconds)
    if params.fails:
        raise ValueError("as asked")
    (context.out / "number.json").write_text(json.dumps({"number": 7}))


REGISTRY.add(
    StepKind(
        "toy/early",
        1,
        Params,
        run,
        {"after": "step", "model": "model"},
        ("number.json",),
        environment=(),
        optional=frozenset({"after", "model"}),
        imports=lambda params: tuple(params.modules),
    )
)
