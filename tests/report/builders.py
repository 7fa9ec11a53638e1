"""Runs made up for the tests: one like the tiny-adapt experiment, one large, one hostile."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import msgspec

from kit.engine.results import Cell, Results, SeedValue, Series
from kit.verify.verdict import (
    CanaryReport,
    CellReport,
    ClaimReport,
    Interval,
    Omnibus,
    Verdict,
    Waiver,
)

NOTE = "tiny-adapt-note, Key Results"

HOSTILE = (
    "<script>window.pwned=1</script>",
    '"><img src=x onerror="window.pwned=1">',
    "' onmouseover='window.pwned=1",
    "</style><script>window.pwned=1</script>",
    "]]><svg onload=window.pwned=1>",
    "</title></textarea><script>window.pwned=1</script>",
    "javascript:window.pwned=1",
    "{{ 7 * 7 }}{% raw %}{{ config }}",
    "\x1b[31mred\x1b]8;;http://evil.example\x07link\x1b]8;;\x07",
    "safe\u202egnp.exe\u2066\u200b\u200d",
    "nul\x00byte \x9b31m",
    "tag\U000e0061\U000e0062",
    "&lt;b&gt; &amp;#x3c;script&#62;",
    "$\\frac{1}{0$ _hidden \\input{/etc/passwd}",
    "| cell | pipe |\n\n# heading\n```\n[x](javascript:alert(1))",
    "\ufeff\ufffe\u2028\u2029",
)


def cell(id: str, **changes: Any) -> CellReport:
    """A cell that reproduced, unless told otherwise."""
    fields: dict[str, Any] = {
        "id": id,
        "table": id.partition("/")[0],
        "status": "reported",
        "place": NOTE,
        "published": "1.9",
        "value": 2.4,
        "unit": "percent",
        "direction": "lower_is_better",
        "k": 5,
        "n": 208,
        "seeds": 10,
        "kind": "binomial",
        "difference": 0.5,
        "interval": Interval(low=-2.6, high=3.7, level=0.95),
        "interval_equivalence": Interval(low=-2.1, high=3.1, level=0.90),
        "value_interval": Interval(low=1.0, high=5.5, level=0.95),
        "margin": 5.0,
        "margin_source": "convention",
        "margin_reason": "five points separate a working defence from a weak one",
        "verdict": "reproduced",
        "detail": "2.4 % against 1.9 %: the same within 5 points.",
        "p": 0.74,
        "q": 0.93,
        "z": 0.33,
    }
    return CellReport(**{**fields, **changes})


def claim(id: str, **changes: Any) -> ClaimReport:
    """A primary claim that holds, unless told otherwise."""
    fields: dict[str, Any] = {
        "id": id,
        "kind": "order",
        "sentence": "Even 25 gradient steps reduce ASR from 33.7% to 2.4%.",
        "place": "tiny-adapt-note, Key Observations 1",
        "primary": True,
        "cells": ["asr/step-25", "asr/baseline"],
        "outcome": "holds",
        "detail": "Adapted tokens stay below transferred ones in 10 of 10 pairs.",
        "method": "paired seeds",
        "p": 0.0004,
        "p_holm": 0.0012,
        "estimate": "The mean falls from 34.1 % to 2.6 %.",
    }
    return ClaimReport(**{**fields, **changes})


def _cells() -> list[CellReport]:
    made = [
        cell(
            "asr/baseline", title="transferred, before adapting", published="33.7", value=34.1,
            k=71, difference=0.4, value_interval=Interval(low=28.0, high=40.8, level=0.95),
            interval=Interval(low=-8.5, high=9.3, level=0.95), verdict="inconclusive",
            detail="34.1 % against 33.7 %: neither equal within 5 points nor different.",
            needed="about 700 items, or labels of the document", p=0.93, q=0.97, z=0.09,
        )
    ]  # fmt: skip
    for step, published, value, z in (
        (25, "2.4", 2.6, 0.12), (50, "4.8", 4.1, -0.35), (100, "2.4", 2.4, 0.0),
        (150, "1.9", 2.2, 0.22), (200, "1.9", 2.0, 0.07),
    ):  # fmt: skip
        made.append(
            cell(
                f"asr/step-{step}",
                title=f"adapted, step {step}",
                published=published,
                value=value,
                difference=value - float(published),
                value_interval=Interval(low=value - 1.3, high=value + 2.6, level=0.95),
                verdict="match" if z == 0.0 else "reproduced",
                z=z,
            )
        )
    made += [
        cell("refusal/step-25", title="adapted, step 25", published="1.0", value=6.7, k=14,
             difference=5.7, interval=Interval(low=2.1, high=9.9, level=0.95), verdict="deviates",
             value_interval=Interval(low=4.0, high=11.0, level=0.95), p=0.0021, q=0.03, z=3.08,
             margin=2.0, margin_source="author", detail="6.7 % against 1.0 %: higher by 5.7 points."),
        cell("refusal/step-200", title="adapted, step 200", published="0.0", value=0.5, k=1,
             difference=0.5, margin=2.0, margin_source="author",
             value_interval=Interval(low=0.1, high=2.7, level=0.95), z=0.5),
        cell("refusal/baseline", title="transferred", published="1.0", value=9.1, verdict="deviates",
             difference=8.1, z=2.4, p=0.016, q=0.09, margin=2.0, margin_source="author",
             value_interval=Interval(low=5.9, high=13.8, level=0.95),
             detail="9.1 % against 1.0 %: higher by 8.1 points.",
             waiver=Waiver(cell="refusal/baseline", owner="A. Reader", date="2026-11-20",
                           reason="miniature models refuse more; the claim is on the difference")),
        cell("loss/final", title="training loss, last step", published="0.05", unit="loss", kind="absolute",
             value=0.0583, k=None, n=None, margin=0.02, difference=0.0083, interval=None, p=None, q=None,
             z=None, interval_equivalence=None, value_interval=Interval(low=0.049, high=0.067, level=0.95)),
        cell("loss/tar", title="quoted from the paper", published=None, unit="loss", status="running",
             value=0.31, verdict="not-compared", detail="The document left this run unfinished.",
             margin=None, kind=None, difference=None, interval=None, z=None, p=None, q=None,
             interval_equivalence=None, value_interval=None),
        cell("loss/zero3", title="eight GPUs", published="0.051", unit="loss", value=None,
             verdict="not-run", detail="no-gpu: needs eight GPUs.", difference=None, interval=None,
             interval_equivalence=None, value_interval=None, z=None, p=None, q=None),
    ]  # fmt: skip
    return made


def _claims() -> list[ClaimReport]:
    return [
        claim("adapting-helps"),
        claim("matches-full", kind="within", cells=["asr/step-200"],
              sentence="The best result exactly matches the measured full DT performance.",
              place="tiny-adapt-note, Key Observations 2", p=0.0031, p_holm=0.0062,
              detail="2.0 % and 1.9 % lie no more than 2 points apart.", estimate=""),
        claim("utility-kept", kind="threshold", cells=["refusal/step-200"], outcome="undetermined",
              sentence="The defence does not make the model refuse.", p=0.21, p_holm=0.21,
              detail="0.5 % refusals; the upper limit 2.7 % lies above the bound of 2 %.",
              reason="The document gives no bound; 2 points are the kit's choice.", estimate=""),
        claim("fast", kind="ratio", primary=False, outcome="not-evaluated", p=None, p_holm=None,
              sentence="Training is very fast (~7 minutes on 1 GPU).", cells=["loss/zero3"], method="",
              detail="Wall time is not compared across machines.", estimate=""),
    ]  # fmt: skip


def verdict(**changes: Any) -> Verdict:
    """A verdict like that of tiny-adapt at the mini profile."""
    fields: dict[str, Any] = {
        "experiment": "tiny-adapt",
        "profile": "mini",
        "version": "1-A",
        "expectation": "expected_results/defensive_tokens/tiny-adapt.mini.yaml",
        "expectation_sha256": "3f" * 32,
        "results_sha256": "a7" * 32,
        "kit_version": "0.1.0",
        "verdict": "PARTIALLY",
        "exit_code": 3,
        "reasons": ["2 of 3 primary claims hold.", "utility-kept stays undetermined at n = 208."],
        "cells": _cells(),
        "claims": _claims(),
        "canaries": [
            CanaryReport(id="attack-present", passed=True, source="step", step="evaluate[pair=newer-0]",
                         detail="the attack sentence stands in 208 of 208 prompts"),
            CanaryReport(id="only-prefix-moved", passed=True, source="step", step="adapt[pair=newer-0]",
                         detail="5 rows changed, no other parameter did"),
        ],
        "omnibus": [
            Omnibus(table="refusal", tested=3, differing=2, chance=1, exceeds=True, mean_z=1.99,
                    sentence="2 of 3 cells differ; chance alone explains up to 1."),
        ],
        "notes": ["Published numbers are of 8B models; the mini profile checks the claims, not the values."],
        "not_covered": ["loss/zero3: no-gpu: needs eight GPUs."],
    }  # fmt: skip
    return Verdict(**{**fields, **changes})


def results(**changes: Any) -> Results:
    """Results that go with :func:`verdict`: ten seeds, two arms."""
    noise = random.Random(7)
    cells = [
        Cell(id=one.id, unit=one.unit, value=one.value, k=one.k, n=one.n,
             step="table" if one.id.startswith("loss") else "evaluate[pair=newer-0]",
             seeds=[SeedValue(seed=str(s), value=round(one.value + noise.gauss(0, 0.6), 2))
                    for s in range(10)] if one.value is not None else [])
        for one in _cells()
    ]  # fmt: skip
    steps = (0, 25, 50, 100, 150, 200)
    asr = {
        f"{arm}, seed {s}": [
            [t, max(0.0, top * 2 ** (-t / half) + noise.gauss(0, 1))] for t in steps
        ]
        for arm, top, half in (("transferred start", 34, 9), ("random start", 41, 60))
        for s in range(10)
    }
    loss = {
        "adapted": [[t, 0.05 + 0.024 * 2 ** (-t / 40) + noise.gauss(0, 0.001)] for t in range(200)]
    }
    frontier = {"tampered": [[x, 60 - 0.4 * x, 52 - 0.4 * x, 66 - 0.4 * x] for x in range(0, 101, 10)],
                "safe": [[x, 25 + 0.02 * x * x / 2] for x in range(0, 101, 10)]}  # fmt: skip
    fields: dict[str, Any] = {
        "schema_version": 1,
        "experiment": "tiny-adapt",
        "version": "1-A",
        "profile": "mini",
        "cells": cells,
        "series": [
            Series(id="asr", title="Attack success by checkpoint", x_label="gradient steps",
                   y_label="attack success (percent)", lines=asr),
            Series(id="loss", title="Training loss", x_label="gradient steps", y_label="loss", lines=loss),
            Series(id="tamper", title="Tamper curve", x_label="attack steps",
                   y_label="forget accuracy (percent)", lines=frontier),
        ],
    }  # fmt: skip
    return Results(**{**fields, **changes})


def plan() -> dict[str, Any]:
    """``plan.json`` as a plain object."""
    pin = {
        "licence": "Apache-2.0",
        "files": [{"path": "model.safetensors", "sha256": "1c" * 32, "size": 1_800_000}],
    }
    steps = ["align", "transfer", "data", "labels", "adapt", "scratch", "evaluate"]
    instances = [
        {"id": f"{step}[pair={pair}]", "step": step, "kind": f"defensive-tokens/{step}", "version": 1,
         "params": {"steps": 200, "lr": 0.1} if step == "adapt" else {}, "key": f"{i:02x}" * 32,
         "pins": {"source": {"pin": "mini-a", "digest": "0d" * 32}} if step == "align" else {},
         "steps": {} if step == "align" else {"before": {"instances": [f"{steps[i - 1]}[pair={pair}]"], "many": False}},
         "outputs": [f"{step}.json"], "resources": {"minutes": 1.5, "memory_gb": 0.8}}
        for pair in ("newer-0", "newer-1")
        for i, step in enumerate(steps)
    ]  # fmt: skip
    instances.append({"id": "table", "step": "table", "kind": "defensive-tokens/tabulate", "version": 1, "params": {},
                      "steps": {"evaluations": {"instances": ["evaluate[pair=newer-0]"], "many": True}}, "key": "ee" * 32,
                      "outputs": ["results.json"], "resources": {"minutes": 0.1}})  # fmt: skip
    return {
        "schema_version": 1,
        "experiment": "tiny-adapt", "version": "1-A", "family": "defensive_tokens",
        "variant": "as-reported", "profile": "mini", "results": "table", "overrides": [],
        "notes": ["Evaluation and self-labels share prompts, as in the document; see tiny-adapt-heldout."],
        "pins": [
            {**pin, "id": "mini-a", "kind": "package", "title": "Miniature model, older", "path": "mini/weights/a"},
            {"id": "llama-3.1-8b-instruct", "kind": "hf-model", "title": "Llama 3.1 8B Instruct",
             "licence": "Llama 3.1 Community", "repo": "meta-llama/Llama-3.1-8B-Instruct",
             "revision": "0e" * 20, "gated": True, "unconfirmed": "file hashes: the repository is gated",
             "files": [{"path": "model-00001-of-00004.safetensors"}]},
            {"id": "wmdp-corpus", "kind": "unavailable", "title": "Private bio corpus", "licence": "none",
             "unavailable": "handed out on request only"},
        ],
        "environment": {"device": "cpu", "dtype": "float32", "torch": "2.13.0"},
        "instances": instances,
    }  # fmt: skip


def record() -> dict[str, Any]:
    """``record.json`` as a plain object."""
    planned = plan()
    return {
        "schema_version": 1, "kit_version": "0.1.0", "experiment": "tiny-adapt", "version": "1-A",
        "variant": "as-reported", "profile": "mini", "rehearsal": False, "modified": False,
        "seed": None, "overrides": [], "notes": planned["notes"], "status": "finished",
        "argv": ["/somewhere/bin/kit", "run", "tiny-adapt", "--profile", "mini"],
        "commit": "331a9a8c1d2e3f405162738495a6b7c8d9e0f112", "dirty": False,
        "started": "2026-11-21T09:00:00.000Z", "ended": "2026-11-21T09:01:31.000Z", "seconds": 91.0,
        "python": "3.11.7", "platform": "Linux-6.1-x86_64", "versions": {"numpy": "2.4.6", "torch": "2.13.0"},
        "hardware": {"cpu": "AMD EPYC 9554", "cores": 2, "memory_gb": 7.8, "gpus": []},
        "environment": planned["environment"], "variables": {}, "options": {"threads": 1},
        "steps": {
            step["id"]: {
                "key": step["key"], "state": "cached" if step["id"].startswith("align") else "run",
                "started": "2026-11-21T09:00:01.000Z", "seconds": 8.4, "peak_memory_gb": 0.61,
                "outputs": {name: {"sha256": "b4" * 32, "size": 4096} for name in step["outputs"]},
            }
            for step in planned["instances"]
        },
    }  # fmt: skip


def write_run(folder: Path, **parts: Any) -> Path:
    """A run directory; a part given as ``None`` is left out."""
    folder.mkdir(parents=True, exist_ok=True)
    contents = {
        "verdict": verdict(),
        "results": results(),
        "plan": plan(),
        "record": record(),
        **parts,
    }
    for name, content in contents.items():
        if content is not None:
            (folder / f"{name}.json").write_bytes(msgspec.json.encode(content))
    return folder


def large_verdict(cells: int) -> Verdict:
    """A grid of ``cells`` cells in 25 tables with a realistic mixture of verdicts."""
    noise = random.Random(11)
    words = ("reproduced",) * 12 + ("match",) * 3 + ("inconclusive",) * 3 + ("deviates", "not-run")
    made = []
    for i in range(cells):
        z = noise.gauss(0.1, 1.0)
        made.append(
            cell(
                f"pair-{i % 25}/group-{i // 250}/attack-{i // 25 % 10}/layer-{i // 25}",
                title=f"pair {i % 25}, attack {i // 25 % 10}, layer {i // 25}",
                published=f"{20 + z:.1f}", value=21 + z, z=z, verdict=noise.choice(words),
            )
        )  # fmt: skip
    return verdict(cells=made, claims=_claims()[:1], omnibus=[])


def hostile_verdict() -> Verdict:
    """A verdict whose every free text is hostile."""
    bad = " ".join(HOSTILE)
    made = [
        cell(f"evil-{i}/{text}", table=f"evil-{i} {text}", title=text, place=text, detail=text,
             margin_reason=text, needed=text, published=text, unit=text, kind=text,
             margin_source=text, verdict="deviates" if i % 2 else "inconclusive",
             waiver=Waiver(cell="x", reason=text, owner=text, date=text) if i % 4 == 1 else None)
        for i, text in enumerate(HOSTILE)
    ]  # fmt: skip
    made += [cell(f"plain/{text}", title=text, z=i / 5) for i, text in enumerate(HOSTILE)]
    claims = [
        claim(text, sentence=text, place=text, detail=text, method=text, estimate=bad, reason=text,
              cells=[f"evil-0/{HOSTILE[0]}", text], outcome="fails" if i % 2 else "holds")
        for i, text in enumerate(HOSTILE)
    ]  # fmt: skip
    return verdict(
        experiment=bad, version=bad, kit_version=bad, cells=made, claims=claims, reasons=[bad],
        overrides=[bad], modified=True, notes=[bad], not_covered=[bad], expectation_sha256=bad,
        canaries=[CanaryReport(id=bad, passed=False, detail=bad, source="step", step=bad)],
        omnibus=[Omnibus(table="plain", tested=1, differing=0, chance=1, exceeds=False, sentence=bad)],
    )  # fmt: skip


def hostile_results() -> Results:
    """Results with hostile cell ids, steps, series titles and line names."""
    series = [
        Series(id=text, title=text, x_label=text, y_label=text,
               lines={text: [[0, 1], [1, 2]], f"{text} b": [[0, 2], [1, 1]]})
        for text in HOSTILE
    ]  # fmt: skip
    cells = [Cell(id=f"plain/{text}", unit="percent", step=text, value=1.0) for text in HOSTILE]
    return results(series=series, cells=cells)


def hostile_plan() -> dict[str, Any]:
    """A plan with hostile notes, pins and step ids."""
    made = plan()
    made["notes"] = list(HOSTILE)
    made["variant"] = HOSTILE[0]
    made["pins"] = [
        {"id": "evil", "kind": "file", "title": text, "licence": text, "url": text, "files": [],
         "unconfirmed": text, "source": text}
        for text in HOSTILE
    ]  # fmt: skip
    made["instances"] = [
        {"id": text, "step": text, "kind": text, "version": 1, "params": {}, "key": text}
        for text in HOSTILE
    ]
    return made


def hostile_record() -> dict[str, Any]:
    """A record with hostile versions, hardware and command line."""
    made = record()
    made["argv"] = ["kit", *HOSTILE]
    made["hardware"] = {text: text for text in HOSTILE}
    made["versions"] = {text: text for text in HOSTILE}
    made["commit"] = HOSTILE[0]
    return made
