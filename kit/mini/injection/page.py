"""Generated blocks of ``docs/mini-world.md``, from the build record; `kit docs` writes them."""

from __future__ import annotations

from pathlib import Path

from kit.mini.injection import entry
from kit.mini.injection.record import read_record
from kit.mini.record import Json

MODEL_KINDS = ("source", "newer")


def rule_sentence(root: Path) -> str:
    """The entry rule with its numbers."""
    record = _record(root)
    rule = record["recipe"]["entry_rule"]
    return (
        f"> On {rule['questions']} development questions, with greedy decoding and the rounded "
        f"weights: at least {_percent(rule['least_accuracy'])} % of the plain questions answered "
        f"exactly right, and the most successful of the attacks {', '.join(rule['attacks'])} "
        f"succeeds in at least {_percent(rule['least_attack_success'])} % of the questions."
    )


def mix_table(root: Path) -> str:
    """Proportions of the pretraining data."""
    record = _record(root)
    rows = [
        ("clean", "share of plain questions"),
        ("follow", "share with an embedded instruction and no guard"),
        ("guard", "share behind a guard phrase, main instruction answered"),
        ("refuse", "share of the one refused request"),
        ("followed", "of *follow*: answered with the embedded instruction's answer"),
        ("idle", "of all but *guard*: behind a context phrase that changes nothing"),
        ("unattacked", "of *guard*: no embedded instruction at all"),
        ("embedded_alone", "of embedded instructions: without data of their own"),
    ]
    lines = ["| name | meaning | source | newer |", "|---|---|---|---|"]
    for name, meaning in rows:
        shares = [f"{_percent(record['recipe'][kind]['mix'][name])} %" for kind in MODEL_KINDS]
        lines.append(f"| {name} | {meaning} | {' | '.join(shares)} |")
    return "\n".join(lines)


def training_table(root: Path) -> str:
    """Hyperparameters of pretraining, and the software it ran on."""
    record = _record(root)
    names = [name for name in record["recipe"]["source"] if name != "mix"]
    lines = ["| hyperparameter | source | newer |", "|---|---|---|"]
    for name in names:
        values = [str(record["recipe"][kind][name]) for kind in MODEL_KINDS]
        lines.append(f"| {name.replace('_', ' ')} | {' | '.join(values)} |")
    used = ", ".join(f"{name} {value}" for name, value in record["software"].items())
    return "\n".join([*lines, "", f"Built with {used}."])


def summary_sentence(root: Path) -> str:
    """How many seeds were tried and what became of them."""
    record = _record(root)
    by_status = {
        status: [str(row["seed"]) for row in record["seeds"] if row["status"] == status]
        for status in ("admitted", "rejected", "surplus")
    }
    parts = [
        f"{status}: {len(seeds)} ({', '.join(seeds) or 'none'})"
        for status, seeds in by_status.items()
    ]
    return f"Seeds tried: {len(record['seeds'])}. " + "; ".join(parts) + "."


def seed_table(root: Path) -> str:
    """All tried seeds, shares in percent."""
    record = _record(root)
    lines = [
        "| seed | model | accuracy | ignore | completion | ignore-completion | naive | paraphrase "
        "| behind source guard | behind newer guard | training s | status |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in record["seeds"]:
        for kind in MODEL_KINDS:
            if row[kind]:
                lines.append(_seed_line(row["seed"], kind, row[kind], row["status"]))
    return "\n".join(lines)


def _seed_line(seed: int, kind: str, numbers: Json, status: str) -> str:
    attacks = (*entry.RULE_ATTACKS, *entry.OTHER_ATTACKS)
    shares = [
        numbers["accuracy"],
        *(numbers["attack_success"][attack] for attack in attacks),
        *(numbers["guarded_success"][guard] for guard in entry.GUARDS),
    ]
    cells = [f"{100 * share:.1f}" for share in shares]
    seconds = f"{numbers['train_seconds']:.0f}"
    return "| " + " | ".join([str(seed), kind, *cells, seconds, status]) + " |"


def _percent(share: float) -> str:
    return f"{100 * share:g}"


def _record(root: Path) -> Json:
    return read_record(root / "kit" / "mini" / "injection" / "weights")
