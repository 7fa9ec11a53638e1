"""docs/methods/tar.md says what the code says: differences and presets are written from it."""

from __future__ import annotations

from pathlib import Path

from kit.methods.tar.baselines import (
    llmu,
    max_entropy,
    min_posterior,
    r2d2,
    random_mapping,
    recipe,
    repnoise,
    rmu,
    rr,
)
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


POWERS = str.maketrans(
    "-0123456789", "\u207b\u2070\u00b9\u00b2\u00b3\u2074\u2075\u2076\u2077\u2078\u2079"
)


def baseline(name: str) -> str:
    """Its row of the page."""
    (row,) = (line for line in PAGE.splitlines() if line.startswith(f"| {name} | "))
    return row


def rate(value: float) -> str:
    return f"{value:.0e}".replace("e-0", "e-")


def test_the_page_has_the_recipes_of_the_baselines():
    tuned = recipe.TUNED
    for name, made in (("Max Entropy", tuned), ("Random mapping", random_mapping.RECIPE)):
        assert (
            f"{made.steps} steps, schedule-free AdamW {rate(made.learning_rate)}, "
            f"warm-up {made.warmup}, batch {made.batch} ("
        ) in baseline(name)
        assert made.optimizer == "schedule-free-adamw"
    assert max_entropy.RECIPE is min_posterior.RECIPE is llmu.RECIPE is tuned
    power = f"{min_posterior.THRESHOLD:g}".translate(POWERS)
    assert f"labels below e{power} add 0" in baseline("Min Posterior")
    steering = " / ".join(f"{rmu.STEERING[domain]:g}" for domain in ("bio", "cyber", "chem"))
    row = baseline("RMU")
    made = rmu.RECIPE
    assert f"{made.steps} steps at {rate(made.learning_rate)}, c {steering} for bio / cyber" in row
    assert f"+ {rmu.RETAIN_SCALE:g} " in row
    row = baseline("RR")
    first, second = rr.BLOCKS
    assert f"{rr.ALPHA:g}, behind blocks {first} and {second}, {rr.STEPS} steps of AdamW" in row
    beta, alpha = f"{repnoise.BETA:g}", f"{repnoise.ALPHA:g}"
    assert f"\u03b2 {beta}, \u03b1 {alpha};" in baseline("RepNoise")
    assert beta in repnoise.RELEASED
    power = f"{r2d2.LOWEST_LOG_PROB:g}".translate(POWERS)
    row = baseline("R2D2")
    assert f"labels below e{power} add 0" in row
    assert r2d2.AWAY_SCALE == r2d2.TOWARD_SCALE == 1 / 2
    assert row.count("\u00bd") == 2
