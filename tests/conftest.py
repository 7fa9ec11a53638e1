"""What all rooms' tests share: fixtures, and no time limit on one example of a property."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("kit", deadline=None)  # a loaded machine is no fault of the kit's
settings.load_profile("kit")

pytest_plugins = ["tests.demo.fixtures"]
