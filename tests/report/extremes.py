"""A very large verdict, and runs whose every free text is hostile."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

from kit.results.types import Cell, Point, Results, Series
from kit.verify.verdict import CanaryReport, Omnibus, Verdict
from tests.report.builders import cell, claim, tiny_claims, verdict
from tests.report.runs import curve, plan, record, results, write_run

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
                published=f"{20 + z:.1f}",
                value=21 + z,
                z=z,
                verdict=noise.choice(words),
            )
        )
    return verdict(cells=made, claims=tiny_claims()[:1], omnibus=[])


def hostile_verdict() -> Verdict:
    """A verdict whose every free text is hostile."""
    bad = " ".join(HOSTILE)
    made = [
        cell(
            f"evil-{i}/{text}",
            table=f"evil-{i} {text}",
            title=text,
            place=text,
            detail=text,
            margin_reason=text,
            needed=text,
            published=text,
            unit=text,
            kind=text,
            margin_source=text,
            verdict="deviates" if i % 2 else "inconclusive",
        )
        for i, text in enumerate(HOSTILE)
    ]
    made += [cell(f"plain/{text}", title=text, z=i / 5) for i, text in enumerate(HOSTILE)]
    claims = [
        claim(
            text,
            sentence=text,
            place=text,
            detail=text,
            method=text,
            estimate=bad,
            reason=text,
            cells=[f"evil-0/{HOSTILE[0]}", text],
            outcome="fails" if i % 2 else "holds",
        )
        for i, text in enumerate(HOSTILE)
    ]
    return verdict(
        experiment=bad,
        version=bad,
        kit_version=bad,
        cells=made,
        claims=claims,
        reasons=[bad],
        overrides=[bad],
        modified=True,
        notes=[bad],
        not_covered=[bad],
        expectation_sha256=bad,
        canaries=[CanaryReport(id=bad, passed=False, detail=bad, source="step", step=bad)],
        omnibus=[
            Omnibus(table="plain", tested=1, differing=0, chance=1, exceeds=False, sentence=bad)
        ],
    )


def hostile_results() -> Results:
    """Results with hostile cell ids, steps, series titles and line names."""
    series = [
        Series(
            id=text,
            title=text,
            x_label=text,
            y_label=text,
            unit="loss",
            lines={
                text: curve([Point(0, 1), Point(1, 2)], text),
                f"{text} b": curve([Point(0, 2), Point(1, 1)], text),
            },
        )
        for text in HOSTILE
    ]
    cells = [Cell(id=f"plain/{text}", unit="percent", step=text, value=1.0) for text in HOSTILE]
    return results(series=series, cells=cells)


def hostile_plan() -> dict[str, Any]:
    """A plan with hostile notes, pins and step ids."""
    made = plan()
    made["notes"] = list(HOSTILE)
    made["variant"] = HOSTILE[0]
    made["pins"] = [
        {
            "id": "evil",
            "kind": "file",
            "title": text,
            "licence": text,
            "url": text,
            "files": [],
            "unconfirmed": text,
            "source": text,
        }
        for text in HOSTILE
    ]
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


def write_hostile(folder: Path) -> Path:
    """A run directory made of nothing but hostile text."""
    return write_run(
        folder,
        verdict=hostile_verdict(),
        results=hostile_results(),
        plan=hostile_plan(),
        record=hostile_record(),
    )
