"""Fixtures that several rooms use: a demonstration repository and a hub that plays its part."""

from __future__ import annotations

pytest_plugins = ["tests.demo.fixtures"]
