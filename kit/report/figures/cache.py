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

VERSION = 7
"""Bumped by hand when the drawing code changes."""


def drawn(draw: Callable[..., str], *data: Any) -> str:
    """``draw(*data)``: from ``$KIT_HOME/figures``, else made now and kept there.

    A cache that cannot be read or written is passed over: the figure is then drawn.

    Args:
        draw: Makes an SVG.
        data: Everything the drawing depends on, plain or msgspec.
    """
    content = msgspec.json.encode([draw.__name__, VERSION, _matplotlib(), data])
    path = kit_home() / "figures" / f"{hashlib.sha256(content).hexdigest()}.svg"
    try:
        return path.read_text(encoding="utf-8")
    except OSError:
        pass
    svg = draw(*data)
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
