"""Reproductions of one experiment, put together."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from statsmodels.stats.meta_analysis import combine_effects

from kit.report.files import read_run
from kit.report.log import CellEntry, ClaimEntry, Entry, entry
from kit.report.pooled import combine, independent, pool, pooled_markdown
from tests.report.builders import verdict
from tests.report.runs import write_run


def run(seed: int | None, outcome: str = "holds", value: float = 8.9, **changes: Any) -> Entry:
    cell = {"id": "t1/asr/adapt", "unit": "percent", "value": value}
    cell |= {"low": value - 2, "high": value + 2}
    cell |= changes.pop("cell", {})
    claim = ClaimEntry(id="adapt-reduces-asr", outcome=outcome, p=0.01, cells=[CellEntry(**cell)])
    fields: dict[str, Any] = {
        "experiment": "tiny-adapt",
        "version": "1-A",
        "profile": "mini",
        "variant": "as-reported",
        "verdict": "REPRODUCED",
        "modified": seed is not None,
        "brought": False,
        "claims": {outcome: 1},
        "cells": {},
        "verdict_sha256": "0a" * 32,
        "date": "2026-11-28",
        "hardware": "a laptop",
        "kit_version": "0.1.0",
        "seed": seed,
        "environment": "cpu",
        "by_claim": [claim],
    }
    return Entry(**{**fields, **changes})


def test_random_effects_are_those_of_statsmodels() -> None:
    draw = random.Random(3)
    for size in (2, 3, 7, 20):
        values = [draw.gauss(10, 3) for _ in range(size)]
        errors = [draw.uniform(0.3, 3) for _ in range(size)]
        found = combine(values, errors)
        theirs = combine_effects(np.array(values), np.array(errors) ** 2, method_re="dl")
        assert found.value == pytest.approx(theirs.mean_effect_re, rel=1e-9)
        assert found.error == pytest.approx(theirs.sd_eff_w_re, rel=1e-9)
        assert found.q == pytest.approx(theirs.q, rel=1e-9)
        assert found.p == pytest.approx(theirs.test_homogeneity().pvalue, rel=1e-9)
        assert found.i_squared == pytest.approx(max(0.0, theirs.i2), rel=1e-9)


def test_a_single_run_stays_what_it_is() -> None:
    found = combine([4.0], [0.5])
    assert (found.value, found.error, found.p) == (4.0, 0.5, 1.0)
    with pytest.raises(ValueError, match="above 0"):
        combine([4.0], [0.0])


def test_only_independent_runs_of_the_experiment_itself_count() -> None:
    log = [
        run(None),
        run(None, value=20.0, date="2026-11-29"),
        run(1000),
        run(2000, modified_beyond_seed=True),
        run(3000, brought=True),
    ]
    assert [item.seed for item in independent(log)] == [None, 1000]
    (claim,) = pool(independent(log))
    assert claim.runs == 2
    ((_, _, found),) = claim.estimates
    assert found.value == pytest.approx(8.9)


def test_profiles_and_versions_are_never_mixed() -> None:
    text = pooled_markdown([run(None), run(1), run(None, profile="paper"), run(1, version="2-A")])
    lines = [line.split(" | ") for line in text.splitlines()[2:]]
    assert [line[2] for line in lines] == ["2", "1", "1"]


def test_one_that_holds_and_one_that_fails_are_contested() -> None:
    (claim,) = pool([run(None), run(1, "fails")])
    assert claim.contested
    (claim,) = pool([run(None), run(1, "undetermined")])
    assert not claim.contested
    (claim,) = pool([run(None), run(1, "undetermined", value=60.0)])
    assert claim.contested, "the numbers differ beyond chance, and so do the outcomes"
    assert "**contested**" in pooled_markdown([run(None), run(1, "fails")])


def test_units_are_compared_before_anything_is_pooled() -> None:
    slip = {"unit": "fraction", "value": 0.089, "low": 0.069, "high": 0.109}
    (claim,) = pool([run(None), run(1, cell=slip)])
    ((_, unit, found),) = claim.estimates
    assert unit == "percent"
    assert found.value == pytest.approx(8.9)
    (claim,) = pool([run(None), run(1, cell={"unit": "nats"})])
    assert claim.estimates == []
    assert claim.units == ["t1/asr/adapt"]


def test_an_entry_of_a_real_run_carries_what_pooling_needs(tmp_path: Path) -> None:
    made = entry(read_run(write_run(tmp_path / "run")))
    primary = [claim for claim in verdict().claims if claim.primary]
    assert [claim.id for claim in made.by_claim] == [claim.id for claim in primary]
    assert any(claim.cells for claim in made.by_claim)
    assert made.environment == "cpu"
    again = msgspec.json.decode(msgspec.json.encode(made), type=Entry)
    assert again == made
    assert "No two runs" not in pooled_markdown([made])
