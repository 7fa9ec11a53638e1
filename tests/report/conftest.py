"""Verdicts of these tests are made up: they need not follow from the files beside them.

That a report refuses such a verdict is held by ``tests/adversarial/test_follows.py``.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True, scope="module")
def any_verdict() -> Iterator[None]:
    """Reports take the verdict as it is."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("kit.report.files.check_follows", lambda folder, verdict: None)
        yield
