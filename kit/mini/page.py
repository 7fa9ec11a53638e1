"""Generated parts of ``docs/mini-world.md``: ``python -m kit.mini.page docs/mini-world.md``."""

from __future__ import annotations

import re
import sys
from pathlib import Path

from kit.mini import entry
from kit.mini.paths import WEIGHTS_DIR
from kit.mini.record import Json, read_record

MODEL_KINDS = ("source", "newer")


def fill_page(text: str, record: Json) -> str:
    """``text`` with every generated block written anew from the build record.

    A block stands between ``<!-- generated:NAME -->`` and ``<!-- end -->``.

    Raises:
        ValueError: The page asks for a block that does not exist.
    """
    blocks = {
        "rule": rule_sentence,
        "mix": mix_table,
        "training": training_table,
        "seeds": seed_table,
        "summary": summary_sentence,
    }

    def fill(match: re.Match[str]) -> str:
        name = match[1]
        if name not in blocks:
            raise ValueError(f"unknown generated block {name!r}; known: {', '.join(blocks)}")
        return f"<!-- generated:{name} -->\n{blocks[name](record)}\n<!-- end -->"

    return re.sub(r"<!-- generated:(\S+) -->\n.*?<!-- end -->", fill, text, flags=re.DOTALL)


def rule_sentence(record: Json) -> str:
    """The entry rule with its numbers."""
    rule = record["recipe"]["entry_rule"]
    return (
        f"> On {rule['questions']} development questions, with greedy decoding and the rounded "
        f"weights: at least {_percent(rule['least_accuracy'])} % of the plain questions answered "
        f"exactly right, and the most successful of the attacks {', '.join(rule['attacks'])} "
        f"succeeds in at least {_percent(rule['least_attack_success'])} % of the questions."
    )


def mix_table(record: Json) -> str:
    """Proportions of the pretraining data."""
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


def training_table(record: Json) -> str:
    """Hyperparameters of pretraining, and the software it ran on."""
    names = [name for name in record["recipe"]["source"] if name != "mix"]
    lines = ["| hyperparameter | source | newer |", "|---|---|---|"]
    for name in names:
        values = [str(record["recipe"][kind][name]) for kind in MODEL_KINDS]
        lines.append(f"| {name.replace('_', ' ')} | {' | '.join(values)} |")
    used = ", ".join(f"{name} {value}" for name, value in record["software"].items())
    return "\n".join([*lines, "", f"Built with {used}."])


def summary_sentence(record: Json) -> str:
    """How many seeds were tried and what became of them."""
    by_status = {
        status: [str(row["seed"]) for row in record["seeds"] if row["status"] == status]
        for status in ("admitted", "rejected", "surplus")
    }
    parts = [
        f"{status}: {len(seeds)} ({', '.join(seeds) or 'none'})"
        for status, seeds in by_status.items()
    ]
    return f"Seeds tried: {len(record['seeds'])}. " + "; ".join(parts) + "."


def seed_table(record: Json) -> str:
    """All tried seeds, shares in percent."""
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


def main() -> None:
    """Rewrite the generated blocks of the pages named on the command line."""
    for name in sys.argv[1:]:
        path = Path(name)
        text = path.read_text(encoding="utf-8")
        path.write_text(fill_page(text, read_record(WEIGHTS_DIR)), encoding="utf-8")


if __name__ == "__main__":
    main()
