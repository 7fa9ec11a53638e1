"""Generated blocks of ``docs/mini-world.md`` on this world, from the build record."""

from __future__ import annotations

from pathlib import Path

from kit.mini.facts import build
from kit.mini.record import Json, read_record

SETS = ("forget_judge", "forget_attacker", "retain")


def rule_sentence(root: Path) -> str:
    """The entry rule with its numbers."""
    rule = _record(root)["recipe"]["entry_rule"]
    return (
        f"> The final model answers at least {_percent(rule['least_known'])} % of each set of "
        "questions right; the source checkpoint and the control stay at or below "
        f"{_percent(rule['most_guessed'])} % of the judge's questions (chance is 25 %, three "
        "standard errors of 240 questions are 8.4 points); the source checkpoint answers at "
        f"least {_percent(rule['least_retained'])} % of the retain questions."
    )


def training_table(root: Path) -> str:
    """Shape and hyperparameters, and the software that the record was made with."""
    record = _record(root)
    recipe = record["recipe"]
    lines = ["| setting | value |", "|---|---|"]
    for name, value in (recipe["shape"] | recipe["pretraining"]).items():
        shown = value
        if isinstance(value, dict):
            shown = ", ".join(f"{group} {share:g}" for group, share in value.items())
        lines.append(f"| {name.replace('_', ' ')} | {shown} |")
    used = ", ".join(f"{name} {value}" for name, value in record["software"].items())
    return "\n".join([*lines, "", f"Measured with {used}."])


def seed_table(root: Path) -> str:
    """All tried seeds: final model, source checkpoint, control, in percent."""
    lines = [
        "| seed | final: judge | attacker | retain | source: judge | retain "
        "| control: judge | retain | status | CPU s |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in _record(root)["seeds"]:
        final, source, control = build.final(row), build.source(row), row["control"]
        shares = [
            *(final[name] for name in SETS),
            *(known[name] for known in (source, control) for name in ("forget_judge", "retain")),
        ]
        cells = " | ".join(f"{100 * share:.1f}" for share in shares)
        seconds = row["pretraining_cpu_seconds"]
        lines.append(f"| {row['seed']} | {cells} | {row['status']} | {seconds:.0f} |")
    return "\n".join(lines)


def curve_table(root: Path) -> str:
    """Judge's and retain questions by step, and what the oracle patch leaves, in percent."""
    rows = _record(root)["seeds"]
    steps = list(rows[0]["curve"])
    blocks = range(len(rows[0]["oracle"]))
    headings = [f"step {step}" for step in steps] + [f"patched at {block}" for block in blocks]
    lines = [f"| seed | {' | '.join(headings)} |", "|---" * (len(headings) + 1) + "|"]
    for row in rows:
        curve = [
            f"{100 * row['curve'][step]['forget_judge']:.0f} / "
            f"{100 * row['curve'][step]['retain']:.0f}"
            for step in steps
        ]
        patched = [f"{100 * share:.0f}" for share in row["oracle"]]
        lines.append(f"| {row['seed']} | {' | '.join([*curve, *patched])} |")
    return "\n".join(lines)


def _percent(share: float) -> str:
    return f"{100 * share:g}"


def _record(root: Path) -> Json:
    path = root / "kit" / "mini" / "facts" / build.RECORD_FILE.name
    return read_record(path, build.recipe(), build.WANTED)
