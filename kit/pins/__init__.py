"""Fetching pinned inputs: the hub, plain addresses, mirrors, and completing ``pins.yaml``."""

from __future__ import annotations

from kit.pins.fetcher import Event, Fetched, Fetcher
from kit.pins.retry import Retry

__all__ = ["Event", "Fetched", "Fetcher", "Retry"]
