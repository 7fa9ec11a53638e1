"""Write the tables of ``docs/performance.md`` from the records in this folder.

python -m benchmarks.write_page
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from benchmarks import sharded_page, starts_page

HERE = Path(__file__).parent
PAGE = HERE.parent / "docs" / "performance.md"
START, END = "<!-- tables -->\n", "<!-- end of tables -->\n"
PEAK_TFLOPS = 790
FLOP_PER_TOKEN = 4 * 7.5e9


def record(experiment: str) -> dict[str, Any]:
    """The newest record of an experiment; the date ends the file's name."""
    files = sorted(HERE.glob(f"{experiment}-h200-*.json"), key=lambda f: f.stem[-10:])
    values: dict[str, Any] = json.loads(files[-1].read_text(encoding="utf-8"))
    return values


def where(values: dict[str, Any]) -> str:
    """Machine and versions in one line."""
    machine = values["machine"]
    versions = [
        f"{name} {machine[name].split('+')[0]}"
        for name in ("torch", "transformers", "vllm")
        if name in machine
    ]
    return f"1x {machine['gpu']}, {', '.join(versions)}, {machine['date']}"


def training() -> list[str]:
    """Ways of computing one step."""
    first, own = record("prefix-training"), record("prefix-training-own-layers")
    joined = record("prefix-training-joined")
    later = {
        "own layers": record("prefix-training-200-own-layers"),
        "own layers, one rotation kernel": record("prefix-training-200-rotation"),
    }
    whole_runs = [
        f"{name} {row['seconds']:.1f} s (that GPU: {values['matmul_tflops']:.0f} TFLOP/s; padded, "
        f"4 x 4, takes {values['naive_over_packed']} times as long a step)"
        for name, values in later.items()
        for row in values["rows"]
        if row["steps"] == 200
    ]
    lines = [
        f"{where(first)}. A bf16 product of 8192^3 ran at {first['matmul_tflops']:.0f} TFLOP/s.",
        "",
        "| way | steps timed | tokens a step | s a step | floor s | over the floor | peak GB |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in [*first["rows"], *joined["rows"], *own["rows"]]:
        floor = FLOP_PER_TOKEN * row["tokens_per_step"] / PEAK_TFLOPS / 1e12
        peak = f"{row['peak_gb']:.1f}" if "peak_gb" in row else "not measured"
        lines.append(
            f"| {row['name']} | {row['steps']} | {row['tokens_per_step']:.0f} | "
            f"{row['seconds_per_step']:.3f} | {floor:.3f} | "
            f"{row['seconds_per_step'] / floor:.2f} | {peak} |"
        )
    whole = next(row for row in first["rows"] if row["steps"] == 200)
    errors = first["gradients"]
    return [
        *lines,
        "",
        f"The whole run of 200 steps ({whole['name']}): {whole['seconds']:.1f} s, and "
        f"{whole['warm_up_seconds']:.1f} s before it for compilation and three warm-up steps; "
        f"floor {whole['floor_seconds']:.1f} s. Again on two other loans of such a GPU: "
        f"{'; '.join(whole_runs)}.",
        "",
        f"Distance of the bf16 gradient from the fp32 one: padded {errors['error_padded_16']:.3f}, "
        f"packed {errors['error_packed']:.3f}, compiled {errors['error_packed_compiled']:.3f}. "
        f"Weights unchanged: {'yes' if first['weights_unchanged'] else 'no'}.",
    ]


def alignment() -> list[str]:
    """Reading and aligning two embedding matrices."""
    values = record("alignment")
    rows = [
        ("reading both matrices, cold cache, onto the GPU", values["read_cold_cuda_seconds"]),
        ("reading both matrices, warm cache, onto the GPU", values["read_warm_cuda_seconds"]),
        ("gram product and SVD, fp64", values["svd_second_seconds"]),
    ]
    worst = max(v for name, v in values["scipy"].items() if name.endswith("svd"))
    return [
        f"{where(values)}, 128,256 x 4,096, bf16.",
        "",
        "| part | s |",
        "|---|---|",
        *(f"| {name} | {seconds:.2f} |" for name, seconds in rows),
        "",
        f"Orthogonality error {values['svd_orthogonality_error']:.1e}. Largest difference from "
        "scipy at 20,000 x 512, "
        f"random and with condition number 1e6: {worst:.1e}.",
    ]


def generation() -> list[str]:
    """Engine start, labels and evaluations."""
    values = record("generation")
    labels, sets = values["labels"], values["evaluations"]
    tokens = sum(one["prompts"] * one["answer_tokens"] for one in sets)
    speed = tokens / values["evaluation_seconds"]
    agreement = values["agreement_with_transformers"]
    identical = ", ".join(f"{name} {count}" for name, count in agreement["identical"].items())
    return [
        f"{where(values)}, random weights, CUDA graphs without compilation, no prefix caching.",
        "",
        "| part | s | output tokens a second |",
        "|---|---|---|",
        f"| engine start | {values['engine_start_seconds']:.1f} | |",
        f"| {labels['prompts']} self-labels ({labels['prompt_tokens']:.0f} in, "
        f"{labels['answer_tokens']:.0f} out) | {labels['seconds']:.1f} | "
        f"{labels['tokens_per_second']} |",
        f"| {len(sets)} token sets x {sets[0]['prompts']} prompts | "
        f"{values['evaluation_seconds']:.1f} | {speed:.0f} |",
        f"| putting one prefix into the engine | {values['swap_milliseconds'] / 1e3:.5f} | |",
        "",
        f"Continuations identical with the transformers backend, of {agreement['prompts']}, "
        f"{agreement['dtype']}: {identical}; {agreement['note']}.",
    ]


def _against(measured: float, asked: float, side: str) -> str:
    missing = measured - asked if side == "at most" else asked - measured
    return f"missed by {missing:.2g}" if missing > 0 else "met"


TRANSFER_ROWS = {
    "cold: targets made, kept and used; compiled here": ("cold", "a: a row cold"),
    "warm: a further row": ("warm", "b: a further row, caches warm"),
    "one text at a time, not compiled": ("small", "one text at a time, not compiled"),
    "published recipe, nothing kept": ("reference", "c: the published recipe, nothing cached"),
}


def _transfer_row(title: str, values: dict[str, Any]) -> str:
    key, phase = TRANSFER_ROWS[title]
    found = values["summary"]
    pairs = values[phase].get("training", values[phase])["pairs"]
    return (
        f"| {title} | {pairs} | {found[f'{key}, 1024 pairs, minutes']:.2f} | "
        f"{found[f'{key}, peak GB']:.1f} |"
    )


def _transfer_bars(values: dict[str, Any]) -> list[str]:
    bars = [
        ("a cold row, minutes, at most", "cold, 1024 pairs, minutes", 6.5, "at most"),
        ("a further row, minutes, at most", "warm, 1024 pairs, minutes", 5.0, "at most"),
        ("published recipe over a further row, at least", "reference over warm", 2.0, "at least"),
        ("peak of a row, GB, at most", "cold, peak GB", 76, "at most"),
        ("peak of a small setting, GB, at most", "small, peak GB", 48, "at most"),
    ]
    found = values["summary"]
    return [
        "| bar | asked | measured | |",
        "|---|---|---|---|",
        *(
            f"| {title} | {asked} | {found[key]:g} | {_against(found[key], asked, side)} |"
            for title, key, asked, side in bars
            if key in found
        ),
    ]


def _transfer_machine(values: dict[str, Any]) -> str:
    return (
        f"1x {values['gpu']}, torch {values['torch'].split('+')[0]}, transformers "
        f"{values['transformers']}, {values['date']}"
    )


def _transfer_again() -> list[str]:
    """The newest record of the bars alone: compiled ahead, every phase a process of its own."""
    values = json.loads(max(HERE.glob("transfer-bars-*.json")).read_text(encoding="utf-8"))
    cold, warm = values["a: a row cold"], values["b: a further row, caches warm"]
    ahead, training = cold["compiled ahead"], cold["training"]
    waiting = cold["1024 pairs, waiting for what is compiled ahead, seconds"]
    share = 1 - warm["targets computed here, share"]
    return [
        f"Now ({_transfer_machine(values)}; layers compiled in a process beside the making of "
        f"targets, states written and read ahead, {share:.0%} of the forget targets kept; every "
        "line a process of its own):",
        "",
        "| row of 1,024 pairs | measured on pairs | minutes | peak GB |",
        "|---|---|---|---|",
        *(
            _transfer_row(title, values)
            for title, (key, _) in TRANSFER_ROWS.items()
            if f"{key}, 1024 pairs, minutes" in values["summary"]
        ),
        "",
        *_transfer_bars({"summary": values["summary"] | _cold_again()["summary"]}),
        "",
        f"The cold row of that machine: {cold['1024 pairs, targets, seconds']:.0f} s for targets, "
        f"{waiting:.0f} s of waiting for the compiler beside them, which took "
        f"{ahead['seconds']:.0f} s, and "
        f"{training['1024 pairs, seconds']:.0f} s of training, whose first step took "
        f"{training['first step over the mean']:.1f} s more than the mean of "
        f"{training['mean step']:.2f} s ({training['TFLOP/s of the mean step']:.0f} TFLOP/s). The "
        f"further row's first step took {warm['first step over the mean']:.1f} s more than its "
        f"mean of {warm['mean step']:.2f} s. The published recipe takes "
        f"{values['summary']['reference over warm']:.2f} times as long as a further row and "
        f"{values['summary']['reference over cold']:.2f} times as long as the cold one.",
        "",
        _cold_in_words(_cold_again()),
    ]


def _cold_again() -> dict[str, Any]:
    """The newest record of a cold row alone."""
    values: dict[str, Any] = json.loads(
        max(HERE.glob("transfer-cold-*.json")).read_text(encoding="utf-8")
    )
    return values


def _cold_in_words(values: dict[str, Any]) -> str:
    """What the cold row took since states leave the GPU after each pass, and how it was counted."""
    cold = values["a: a row cold"]
    made, training = cold["targets"], cold["training"]
    before = made["1024 pairs, start and end extrapolated too as in earlier records, seconds"]
    later = (before - made["1024 pairs, seconds"]) / 60
    minutes = values["summary"]["cold, 1024 pairs, minutes"]
    return (
        f"The bar's cold row is that of a later machine ({_transfer_machine(values)}, states kept "
        f"in memory, {values['states kept on']}): {minutes:.2f} minutes, "
        f"{cold['1024 pairs, targets, seconds']:.0f} s for targets and "
        f"{training['1024 pairs, seconds']:.0f} s of training ({training['mean step']:.2f} s a "
        f"step); {minutes + later:.2f} as earlier records count."
        + _targets_once(made, values["states kept on"])
    )


def _targets_once(made: dict[str, Any], kept_on: str) -> str:
    """How the targets' seconds come from fewer pairs; earlier records extrapolate all of them."""
    quarters, alone = made["quarters, seconds"], made["passes alone, behind that"]
    before = made["1024 pairs, start and end extrapolated too as in earlier records, seconds"]
    rates = [alone[name] for name in alone if name.endswith(", TFLOP/s") and "product" not in name]
    return (
        f" Targets were made of {made['pairs']} pairs, {made['GiB written']:.0f} GiB on {kept_on}, "
        f"in {made['making and writing']:.1f} s, in quarters of "
        f"{', '.join(f'{part:.1f}' for part in quarters)} s; further pairs are counted at the "
        f"rate behind the first quarter, start and end once ({before:.0f} s as earlier records "
        f"counted). The same passes alone, right behind that, ran at {min(rates):.0f} to "
        f"{max(rates):.0f} TFLOP/s."
    )


def transfer() -> list[str]:
    """Checkpoint transfer: a row of the sweep, and where its time goes."""
    values = json.loads(max(HERE.glob("transfer-h200-*.json")).read_text(encoding="utf-8"))
    found, warm = values["summary"], values["b: a further row, caches warm"]
    parts, alone = warm["kernels of a step, seconds"], values["passes alone"]
    targets = values["a: a row cold"]
    first = targets["training"]["first step over the mean"]
    return [
        f"{_transfer_machine(values)}; shape of GPT-NeoX 6.9B, "
        f"{values['shape']['tokens of a text']} tokens a text.",
        "",
        "| row of 1,024 pairs | measured on pairs | minutes | peak GB |",
        "|---|---|---|---|",
        *(_transfer_row(title, values) for title in TRANSFER_ROWS),
        "",
        *_transfer_bars(values),
        "",
        f"The published recipe takes {found['reference over warm']:.2f} times as long as a warm "
        "row, "
        f"{found['reference over cold']:.2f} times as long as the cold one. The cold row: "
        f"{targets['1024 pairs, targets, seconds']:.0f} s for targets, "
        f"{first:.0f} s for compilation, "
        f"{targets['1024 pairs, seconds'] - targets['1024 pairs, targets, seconds'] - first:.0f} s "
        f"for 32 steps. A step of the warm row: {warm['mean step']:.2f} s, of which "
        + ", ".join(f"{name} {seconds:.2f}" for name, seconds in parts.items())
        + f"; {warm['TFLOP/s of the mean step']:.0f} TFLOP/s, where a product of 8192^3 alone runs "
        f"at {alone['matrix product, TFLOP/s']:.0f} for a moment and a forward pass alone at "
        f"{alone['retain reference, TFLOP/s']:.0f}.",
        "",
        *_transfer_again(),
    ]


def decoding() -> list[str]:
    """A step of greedy decoding: plain, in fixed shapes run by the host, recorded and replayed."""
    values = json.loads(max(HERE.glob("decoding-*.json")).read_text(encoding="utf-8"))
    machine = values["machine"]
    lines = [
        f"1x {machine['gpu']}, torch {machine['torch'].split('+')[0]}, transformers "
        f"{machine['transformers']}, {machine['date']}; shape {values['shape']}, random weights.",
        "",
        "| rows | way | ms a step | of these on the GPU | first tokens, s | peak GB |",
        "|---|---|---|---|---|---|",
    ]
    for row in values["rows"]:
        busy = f"{row['gpu_ms_per_step']:.1f}" if "gpu_ms_per_step" in row else "not profiled"
        lines.append(
            f"| {row['rows']} | {row['way']} | {row['ms_per_step']:.1f} | {busy} | "
            f"{row['seconds_of_first_tokens']:.2f} for {row['first_tokens']} | "
            f"{row['peak_reserved_gb']:.1f} |"
        )
    return lines


def tables() -> str:
    """All tables."""
    parts = [
        ("Prefix training, 8B, 16 examples a step", training()),
        ("Alignment", alignment()),
        ("Generation, 8B", generation()),
        ("A step of decoding, 0.5B", decoding()),
        ("Checkpoint transfer, 6.9B, 32 pairs a step", transfer()),
        ("TAR, 8B, sharded over two GPUs", sharded_page.lines()),
        ("Starts of `tiny-adapt`, 8B with vLLM", starts_page.lines()),
    ]
    return "\n".join("\n".join([f"## {title}", "", *lines, ""]) for title, lines in parts)


def main() -> None:
    """Replace what stands between the two marks."""
    text = PAGE.read_text(encoding="utf-8")
    before, rest = text.split(START)
    _, after = rest.split(END)
    PAGE.write_text(f"{before}{START}\n{tables()}\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
