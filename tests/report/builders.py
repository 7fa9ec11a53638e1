"""A verdict made up for the tests, like that of the tiny-adapt experiment."""

from __future__ import annotations

from typing import Any

from kit.verify.verdict import (
    CanaryReport,
    CellReport,
    ClaimReport,
    Interval,
    Omnibus,
    Verdict,
)

NOTE = "tiny-adapt-note, Key Results"


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


def tiny_cells() -> list[CellReport]:
    """The cells of the run."""
    made = [
        cell(
            "asr/baseline",
            title="transferred, before adapting",
            published="33.7",
            value=34.1,
            k=71,
            difference=0.4,
            value_interval=Interval(low=28.0, high=40.8, level=0.95),
            interval=Interval(low=-8.5, high=9.3, level=0.95),
            verdict="inconclusive",
            detail="34.1 % against 33.7 %: neither equal within 5 points nor different.",
            needed="about 700 items, or labels of the document",
            p=0.93,
            q=0.97,
            z=0.09,
        )
    ]
    for step, published, value, z in (
        (25, "2.4", 2.6, 0.12),
        (50, "4.8", 4.1, -0.35),
        (100, "2.4", 2.4, 0.0),
        (150, "1.9", 2.2, 0.22),
        (200, "1.9", 2.0, 0.07),
    ):
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
        cell(
            "refusal/step-25",
            title="adapted, step 25",
            published="1.0",
            value=6.7,
            k=14,
            difference=5.7,
            interval=Interval(low=2.1, high=9.9, level=0.95),
            verdict="deviates",
            value_interval=Interval(low=4.0, high=11.0, level=0.95),
            p=0.0021,
            q=0.03,
            z=3.08,
            margin=2.0,
            margin_source="author",
            detail="6.7 % against 1.0 %: higher by 5.7 points.",
        ),
        cell(
            "refusal/step-200",
            title="adapted, step 200",
            published="0.0",
            value=0.5,
            k=1,
            difference=0.5,
            margin=2.0,
            margin_source="author",
            value_interval=Interval(low=0.1, high=2.7, level=0.95),
            z=0.5,
        ),
        cell(
            "refusal/baseline",
            title="transferred",
            published="1.0",
            value=9.1,
            verdict="deviates",
            difference=8.1,
            z=2.4,
            p=0.016,
            q=0.09,
            margin=2.0,
            margin_source="author",
            value_interval=Interval(low=5.9, high=13.8, level=0.95),
            detail="9.1 % against 1.0 %: higher by 8.1 points.",
        ),
        cell(
            "loss/final",
            title="training loss, last step",
            published="0.05",
            unit="loss",
            kind="absolute",
            value=0.0583,
            k=None,
            n=None,
            margin=0.02,
            difference=0.0083,
            interval=None,
            p=None,
            q=None,
            z=None,
            interval_equivalence=None,
            value_interval=Interval(low=0.049, high=0.067, level=0.95),
        ),
        cell(
            "loss/tar",
            title="quoted from the paper",
            published=None,
            unit="loss",
            status="running",
            value=0.31,
            verdict="not-compared",
            detail="The document left this run unfinished.",
            margin=None,
            kind=None,
            difference=None,
            interval=None,
            z=None,
            p=None,
            q=None,
            interval_equivalence=None,
            value_interval=None,
        ),
        cell(
            "loss/zero3",
            title="eight GPUs",
            published="0.051",
            unit="loss",
            value=None,
            verdict="not-run",
            detail="no-gpu: needs eight GPUs.",
            difference=None,
            interval=None,
            interval_equivalence=None,
            value_interval=None,
            z=None,
            p=None,
            q=None,
        ),
    ]
    return made


def tiny_claims() -> list[ClaimReport]:
    """Three primary claims and a further one."""
    return [
        claim("adapting-helps"),
        claim(
            "matches-full",
            kind="within",
            cells=["asr/step-200"],
            sentence="The best result exactly matches the measured full DT performance.",
            place="tiny-adapt-note, Key Observations 2",
            p=0.0031,
            p_holm=0.0062,
            detail="2.0 % and 1.9 % lie no more than 2 points apart.",
            estimate="",
        ),
        claim(
            "utility-kept",
            kind="threshold",
            cells=["refusal/step-200"],
            outcome="undetermined",
            sentence="The defence does not make the model refuse.",
            p=0.21,
            p_holm=0.21,
            detail="0.5 % refusals; the upper limit 2.7 % lies above the bound of 2 %.",
            reason="The document gives no bound; 2 points are the kit's choice.",
            estimate="",
        ),
        claim(
            "fast",
            kind="ratio",
            primary=False,
            outcome="not-evaluated",
            p=None,
            p_holm=None,
            sentence="Training is very fast (~7 minutes on 1 GPU).",
            cells=["loss/zero3"],
            method="",
            detail="Wall time is not compared across machines.",
            estimate="",
        ),
    ]


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
        "cells": tiny_cells(),
        "claims": tiny_claims(),
        "canaries": [
            CanaryReport(
                id="attack-present",
                passed=True,
                source="step",
                step="evaluate[pair=newer-0]",
                detail="the attack sentence stands in 208 of 208 prompts",
            ),
            CanaryReport(
                id="only-prefix-moved",
                passed=True,
                source="step",
                step="adapt[pair=newer-0]",
                detail="5 rows changed, no other parameter did",
            ),
        ],
        "omnibus": [
            Omnibus(
                table="refusal",
                tested=3,
                differing=2,
                chance=1,
                exceeds=True,
                mean_z=1.99,
                sentence="2 of 3 cells differ; chance alone explains up to 1.",
            ),
        ],
        "notes": [
            "Published numbers are of 8B models; the mini profile checks claims, not values."
        ],
        "not_covered": ["loss/zero3: no-gpu: needs eight GPUs."],
    }
    return Verdict(**{**fields, **changes})
