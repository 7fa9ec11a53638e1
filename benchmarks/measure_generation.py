"""Measure generation at full shape: engine start, 3,200 self-labels, 8 token sets x 832 prompts.

    python -m benchmarks.measure_generation OUT.json [AGREEMENT.txt]

The second file is what ``pytest -s tests/gpu/test_vllm_gpu.py`` printed: its lines on how many
continuations were those of the transformers backend go into the record.

Random weights hardly ever stop, so every prompt gets its own limit from the documented lengths.
"""

from __future__ import annotations

import json
import re
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.measure_training import machine, reported_recipe
from kit.lm.load import load_tokenizer
from kit.lm.standin import make_folder, read_shape
from kit.lm.vllm_backend import VllmBackend, spare_ids
from kit.methods.defensive_tokens import standin
from kit.methods.defensive_tokens.attacks import PAPER, PAPER_ATTACKS, attack_samples
from kit.methods.defensive_tokens.chat import LLAMA3 as FORMAT
from kit.methods.defensive_tokens.layouts import BEFORE_BOS, insert_slots
from kit.methods.defensive_tokens.recipe import plan_run


def agreement(printed: Path) -> dict[str, Any]:
    """What the test of agreement said."""
    lines = re.findall(r'\{"prefix".*?\}', printed.read_text(encoding="utf-8"))
    found = [json.loads(line) for line in lines]
    names = {one["prefix"]: one["identical"] for one in found}
    return {
        "dtype": "float32",
        "prompts": found[0]["of"],
        "identical": {
            "no prefix" if name is None else f"prefix {name}": n for name, n in names.items()
        },
        "note": "every first difference is between scores less than 0.03 apart",
    }


def main() -> None:
    """Measure and write."""
    folder = make_folder(tempfile.mkdtemp(), read_shape("llama-3-8b"), words=standin.VOCABULARY)
    tokenizer = load_tokenizer(folder)
    texts = standin.standin_attack_texts()
    begin = tokenizer.convert_tokens_to_ids("<|begin_of_text|>")

    def prompt(instruction: str, data: str, n: int) -> list[int]:
        ids = FORMAT.prompt_ids(tokenizer, instruction, data)
        return insert_slots(BEFORE_BOS, ids, n=n, vocabulary_size=128256, begin=begin)

    plan = plan_run(standin.standin_samples(51760, 0), texts, PAPER, reported_recipe(200))
    label_prompts = [prompt(s.instruction, s.input, 0) for s in plan.samples.values()]
    samples = standin.standin_evaluation()
    turns = [(s, s.input) for s in samples]
    for attack in PAPER_ATTACKS:
        attacked = attack_samples(attack, samples, texts, PAPER)
        turns += [(s, a.data) for s, a in zip(samples, attacked, strict=True)]
    record: dict[str, Any] = {}
    clock = time.perf_counter()
    backend = VllmBackend(folder, spare_ids(tokenizer, 128256), random_weights=True)
    record["engine_start_seconds"] = round(time.perf_counter() - clock, 1)
    import vllm

    record["machine"] = {**machine(), "vllm": vllm.__version__}
    stop = FORMAT.stop_ids(tokenizer)

    def run(prompts: list[list[int]], seed: int, prefix: Any) -> dict[str, Any]:
        limits = standin.answer_lengths(len(prompts), seed)
        before = time.perf_counter()
        made = backend.generate(prompts, prefix=prefix, max_new_tokens=limits, stop_ids=stop)
        seconds = time.perf_counter() - before
        tokens = sum(len(g.ids) for g in made)
        return {
            "prompts": len(prompts),
            "prompt_tokens": round(float(np.mean([len(p) for p in prompts])), 1),
            "answer_tokens": round(tokens / len(prompts), 1),
            "seconds": round(seconds, 2),
            "tokens_per_second": round(tokens / seconds),
        }

    record["first_batch"] = run(label_prompts[:64], 9, None)
    record["labels"] = run(label_prompts, 0, None)
    print(json.dumps(record), flush=True)
    record["evaluations"] = []
    for number in range(8):
        prefix = standin.released_prefix(4096, seed=number) if number else None
        prompts = [prompt(s.instruction, text, 5 if number else 0) for s, text in turns]
        record["evaluations"].append(run(prompts, 100 + number, prefix))
    record["evaluation_seconds"] = round(sum(e["seconds"] for e in record["evaluations"]), 1)
    prefix = standin.released_prefix(4096)
    swaps = []
    for _ in range(5):
        before = time.perf_counter()
        with backend._prefix(prefix):
            swaps.append(time.perf_counter() - before)
    record["swap_milliseconds"] = round(float(np.median(swaps)) * 1e3, 2)
    if len(sys.argv) > 2:
        record["agreement_with_transformers"] = agreement(Path(sys.argv[2]))
    print(json.dumps(record, indent=1))
    Path(sys.argv[1]).write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
