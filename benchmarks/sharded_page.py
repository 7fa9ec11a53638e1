"""The sharded records in this folder as lines of ``docs/performance.md``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
SMALL, LARGE, TAMPER = "adversary 32 x 256", "adversary 64 x 256", "tamper resistance 64 x 256"
OUTER, OUTER_64 = (f"64 + 16 passes, inner batch {rows}, computed" for rows in (32, 64))
KERNELS = "kernels of an adversary step, 64 x 256"


def sharded_record(name: str) -> dict[str, Any]:
    """The newest record on two H200."""
    files = sorted(HERE.glob(f"sharded-{name}-2xh200-*.json"))
    values: dict[str, Any] = json.loads(files[-1].read_text(encoding="utf-8"))
    return values


def lines() -> list[str]:
    """TAR at the published size, sharded."""
    own = sharded_record("fsdp-weights-stay")
    return [
        f"{own['gpus']}x {own['gpu']}, torch {own['torch'].split('+')[0]}, {own['date']}; all 32 "
        "layers, random weights; plain ZeRO-3 and ours on the same machine in one go.",
        "",
        *_passes(own, sharded_record("zero-3-plain")),
        "",
        *_whole(own),
        "",
        *_kernels(),
        "",
        *_small(),
        "",
        *_attacks(),
        "",
        *_checks(),
    ]


def _passes(own: dict[str, Any], plain: dict[str, Any]) -> list[str]:
    made = [
        "| seconds | plain ZeRO-3 | ours | ours over plain | TFLOP/s a GPU, ours |",
        "|---|---|---|---|---|",
    ]
    for name in (SMALL, LARGE, TAMPER):
        slow, fast = plain[name], own[name]
        made.append(
            f"| {name}, median of {len(slow['seconds'])} and {len(fast['seconds'])} | "
            f"{slow['median']:.3f} | {fast['median']:.3f} | "
            f"{fast['median'] / slow['median']:.2f} | {fast['tflops_a_gpu']:.0f} |"
        )
    for name in (OUTER, OUTER_64):
        made.append(
            f"| {name} | {plain[name]:.1f} | {own[name]:.1f} | {own[name] / plain[name]:.2f} | |"
        )
    return [
        *made,
        f"| peak GiB a GPU | {_peak(plain):.1f} | {_peak(own):.1f} | | |",
        "",
        f"Plain: reference model {plain['reference']}; ours: {own['variant']}, reference model "
        f"{own['reference']}, which makes a retain pass {own['retain 64 x 256']['median']:.1f} s "
        f"long (plain {plain['retain 64 x 256']['median']:.1f} s).",
    ]


def _peak(record: dict[str, Any]) -> float:
    passes = [v for v in record.values() if isinstance(v, dict) and "peak_gib" in v]
    return max(float(timed["peak_gib"]) for timed in passes)


def _whole(own: dict[str, Any]) -> list[str]:
    first, later = own["outer steps"]
    hours = 750 * later["seconds"] * own["gpus"] / 3600
    return [
        "Whole outer steps of the outer loop itself (snapshot, 64 inner steps at 32 x 256, 16 "
        "tamper-resistance passes, restoring, retain pass, update): "
        f"{first['seconds']:.1f} s, with all that is made once, then {later['seconds']:.1f} s: "
        f"750 such steps are {hours:.1f} GPU-hours (computed from this step alone). An attack of "
        f"500 steps at 64 x 256 takes {500 * own[LARGE]['median']:.0f} s at the median of "
        f"{len(own[LARGE]['seconds'])} steps.",
    ]


def _kernels() -> list[str]:
    kinds = {"plain ZeRO-3": "zero-3-plain-kernels", "ours": "fsdp-weights-stay-kernels"}
    made = [
        "Where the time of a step at 64 x 256 goes (profiled on an earlier machine of two H200; "
        "kernels of different sorts overlap):",
        "",
        "| | matrix products and attention s | communication s | other kernels s | launches | "
        "step, not profiled, s |",
        "|---|---|---|---|---|---|",
    ]
    for title, name in kinds.items():
        record = sharded_record(name)
        spent = record[KERNELS]
        made.append(
            f"| {title} | {spent['matrix products and attention']:.3f} | "
            f"{spent['communication']:.3f} | {spent['other']:.3f} | {spent['launches']} | "
            f"{record[LARGE]['median']:.3f} |"
        )
    return made


def _small() -> list[str]:
    made = [
        "The small setting: layers computed again, the reference model and kept gradients in the "
        "machine's memory, nothing compiled. With 14 layers on two GPUs each GPU holds as much "
        "state as one of four does of the whole model.",
        "",
        "| rows a pass | peak GiB a GPU | outer update, peak GiB | tamper resistance, s |",
        "|---|---|---|---|",
    ]
    for rows in (8, 4, 2):
        record = sharded_record(f"14-layers-{rows}-rows")
        beside = " (beside other work)" if record["other work on the GPUs meanwhile"] else ""
        made.append(
            f"| {rows} | {_peak(record):.2f} | {record['outer update, peak GiB']:.2f} | "
            f"{record[TAMPER]['median']:.2f}{beside} |"
        )
    return made


def _attacks() -> list[str]:
    made = [
        "A step of an attack on all weights of GPT-NeoX 6.9B, 16 x 2,048 tokens, AdamW:",
        "",
        "| setting | rows a pass | s | TFLOP/s a GPU | peak GiB a GPU |",
        "|---|---|---|---|---|",
    ]
    for name in ("weights-stay", "checkpointing"):
        record = sharded_record(f"neox-attack-{name}")
        step = record["attack step 16 x 2048"]
        again = ", layers computed again" if record["checkpointing"] else ""
        made.append(
            f"| {record['variant']}{again} | {record['rows a forward pass']} | "
            f"{step['median']:.3f} | {step['tflops_a_gpu']:.0f} | {step['peak_gib']:.1f} |"
        )
    return made


def _checks() -> list[str]:
    record = sharded_record("checks")
    killed = record["killed rank"]
    exact = "; ".join(f"{name}: {run['output']}" for name, run in record["exactness"].items())
    return [
        f"Exactness of {record['gpus']} GPUs against one, and loading onto a process's own GPU "
        f"({exact}). A killed rank: after {killed['seconds from the kill to the message']} s "
        f'"{killed["message"]}"; it went on with outer step {killed["went on with outer step"]} '
        f"and ended with exit code {killed['exit code']}.",
    ]
