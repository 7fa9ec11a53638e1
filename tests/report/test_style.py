"""The style sheet: contrast in light and dark, and no class without a rule."""

from __future__ import annotations

import re
from importlib import resources

import pytest

from kit.report.claims import CLASS

CSS = (resources.files("kit.report") / "templates" / "report.css").read_text()
ACCENTS = ("good", "open", "bad", "void", "note", "none", "ink", "muted")


def colours(scheme: str) -> dict[str, str]:
    light, dark = re.findall(r":root \{(.*?)\}", CSS, flags=re.DOTALL)[:2]
    found = dict(re.findall(r"--([a-z0-9]+): (#[0-9a-f]{6})", light))
    if scheme == "dark":
        found |= dict(re.findall(r"--([a-z0-9]+): (#[0-9a-f]{6})", dark))
    return found


def luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("ground", ["paper", "wash"])
@pytest.mark.parametrize("accent", ACCENTS)
def test_text_contrast(scheme: str, ground: str, accent: str) -> None:
    found = colours(scheme)
    assert contrast(found[accent], found[ground]) >= 4.5


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("line", range(6))
def test_lines_of_figures_stand_out(scheme: str, line: int) -> None:
    found = colours(scheme)
    assert contrast(found[f"s{line}"], found["paper"]) >= 3


def test_every_accent_class_has_its_rule() -> None:
    for css in set(CLASS.values()):
        assert f".{css} {{ --accent: var(--{css}); }}" in CSS
