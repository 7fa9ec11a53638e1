"""Figures that were drawn before, by what they show.

A figure's bytes depend on its data alone, so a second report of the same numbers need not load
matplotlib, which takes longer than everything else a cached run does.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from importlib import metadata
from typing import Any

import msgspec

from kit.durable import write_atomic
from kit.manifest.home import kit_home

VERSION = 4
"""Bumped by hand when the drawing code changes."""


def drawn(kind: str, data: Any, make: Callable[[], str]) -> str:
    """The SVG of ``data``: from ``$KIT_HOME/figures``, else made now and kept there.

    A cache that cannot be read or written is passed over: the figure is then drawn.

    Args:
        kind: Name of the drawing function.
        data: Everything the drawing depends on, plain or msgspec.
        make: Draws.
    """
    content = msgspec.json.encode([kind, VERSION, _matplotlib(), data])
    path = kit_home() / "figures" / f"{hashlib.sha256(content).hexdigest()}.svg"
    try:
        return path.read_text(encoding="utf-8")
    except OSError:
        pass
    svg = make()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, svg.encode())
    except OSError:
        pass
    return svg


def _matplotlib() -> str:
    try:
        return metadata.version("matplotlib")
    except metadata.PackageNotFoundError:
        return "absent"
