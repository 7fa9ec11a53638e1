"""A kind whose process can be started early; loaded beside :mod:`tests.engine.toy`."""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Any

from msgspec import Struct

from kit.engine.context import StepContext
from kit.engine.registry import REGISTRY, StepKind


class Params(Struct, frozen=True, forbid_unknown_fields=True):
    """Parameters of ``toy/early``."""

    modules: list[str] = []
    seconds: float = 0.0
    fails: bool = False
    ahead: str = "makes"
    """What is made ahead: a process id, or nothing because it ``fails``."""


def ahead(context: StepContext, params: Params) -> dict[str, Any]:
    """Write into a folder that will be gone, say something, and give what can be told apart."""
    (context.scratch / "file").write_text("x")
    context.note(json.dumps({"ahead": os.getpid()}))
    if params.ahead == "fails":
        raise ValueError("as asked")
    return {"thing": ("ahead", os.getpid(), context.has("after"), str(context.scratch))}


def run(context: StepContext, params: Params) -> None:
    """Wait, say where this ran, and write a number that does not depend on it."""
    thing = context.made("thing", lambda: ("now", os.getpid()))
    there = [name in sys.modules for name in params.modules]
    seen = {"pid": os.getpid(), "there": there, "gpus": os.environ["CUDA_VISIBLE_DEVICES"]}
    context.note(json.dumps(seen | {"thing": thing}))
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
        ahead=ahead,
    )
)
