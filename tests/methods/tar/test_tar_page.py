"""docs/methods/tar.md says what the code says: differences and presets are written from it."""

from __future__ import annotations

from pathlib import Path

from kit.methods.tar.differences import DIFFERENCES
from kit.methods.tar.presets import DOMAINS, PAPER, RELEASED_CODE, sourced

PAGE = (Path(__file__).parents[3] / "docs/methods/tar.md").read_text(encoding="utf-8")


def differences_table() -> str:
    """The section on differences."""
    lines = ["| | about | paper | released code | setting |", "| --- | --- | --- | --- | --- |"]
    for number, d in enumerate(DIFFERENCES, start=1):
        choice = ", ".join(f"`{name}`" for name in d.settings) or f"none: {d.why_none}"
        lines.append(f"| {number} | {d.item} | {d.paper} | {d.code} | {choice} |")
    return "\n".join(lines)


def shown(value) -> str:
    if isinstance(value, tuple) and value and hasattr(value[0], "name"):
        return ", ".join(kind.name for kind in value)
    if isinstance(value, tuple):
        return ", ".join(f"{v:g}" for v in value)
    return f"{value:g}" if isinstance(value, float) else str(value)


def settings_table() -> str:
    """Every setting that a preset gives, by domain where domains differ."""
    lines = ["| setting | preset | value | source |", "| --- | --- | --- | --- |"]
    for name in (PAPER, RELEASED_CODE):
        by_domain = {domain: sourced(name, domain) for domain in DOMAINS}
        for key in sorted({k for values in by_domain.values() for k in values}):
            variants: dict[tuple[str, str], list[str]] = {}
            for domain in DOMAINS:
                if key in by_domain[domain]:
                    entry = by_domain[domain][key]
                    variants.setdefault((shown(entry.value), entry.source), []).append(domain)
            for (value, source), domains in variants.items():
                where = "" if len(domains) == len(DOMAINS) else f" ({', '.join(domains)})"
                lines.append(f"| `{key}` | {name}{where} | {value} | {source} |")
    return "\n".join(lines)


def test_the_page_has_every_difference():
    assert differences_table() in PAGE


def test_the_page_has_every_sourced_setting():
    assert settings_table() in PAGE
