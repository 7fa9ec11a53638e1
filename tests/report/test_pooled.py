"""Reproductions of one experiment, put together."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from statistics import NormalDist
from typing import Any

import msgspec
import numpy as np
import pytest
from scipy.optimize import brentq
from scipy.stats import chi2

from kit.cli.main import run as kit
from kit.errors import Preflight
from kit.report.files import read_run
from kit.report.log import CellEntry, ClaimEntry, Entry, add, entry
from kit.report.pooled import RULE, combine, page, pool, pooled_markdown, standing
from tests.report.builders import verdict
from tests.report.runs import plan, record, write_run

CPU, GPU = {"device": "cpu"}, {"device": "cuda", "gpu_arch": "sm_90"}
CODE = {"defensive-tokens/adapt": "0a" * 8, "defensive-tokens/tabulate": "0b" * 8}


def run(seed: int, outcome: str = "holds", value: float = 8.9, **changes: Any) -> Entry:
    cell = {"id": "t1/asr/adapt", "unit": "percent", "value": value}
    cell |= {"low": value - 2, "high": value + 2}
    cell |= changes.pop("cell", {})
    p = changes.pop("p", 0.01)
    claim = ClaimEntry(id="adapt-reduces-asr", outcome=outcome, p=p, cells=[CellEntry(**cell)])
    fields: dict[str, Any] = {
        "experiment": "tiny-adapt",
        "version": "1-A",
        "profile": "mini",
        "variant": "as-reported",
        "verdict": "REPRODUCED",
        "brought": False,
        "verdict_sha256": "0a" * 32,
        "date": "2026-11-28",
        "hardware": "a laptop",
        "kit_version": "0.1.0",
        "seeds": [seed, seed + 1],
        "environment": CPU,
        "code": CODE,
        "claims": [claim],
    }
    return Entry(**{**fields, **changes})


def apart(log: list[Entry]) -> list[str]:
    return [item.apart for item in standing(log)]


def paule_mandel(y: np.ndarray, variance: np.ndarray) -> tuple[float, float]:
    """Mean and standard error, from the estimating equation itself."""

    def mean(tau: float) -> float:
        return float((y / (variance + tau)).sum() / (1 / (variance + tau)).sum())

    def excess(tau: float) -> float:
        return float(((y - mean(tau)) ** 2 / (variance + tau)).sum()) - (len(y) - 1)

    tau = brentq(excess, 0, 1e6, xtol=1e-13) if excess(0) > 0 else 0.0
    return mean(tau), float(1 / (1 / (variance + tau)).sum()) ** 0.5


@pytest.mark.parametrize("grouped", [False, True])
def test_entries_of_other_seeds_are_random_effects(grouped: bool) -> None:
    """Whether they are of one class or each of its own: the same model, an independent solver."""
    draw = np.random.default_rng(3)
    for size in (2, 3, 7, 20):
        values, errors = draw.normal(10, 3, size), draw.uniform(0.3, 3, size)
        classes = ["cpu"] * size if grouped else [f"class {i}" for i in range(size)]
        found = combine(values.tolist(), errors.tolist(), classes, [(i,) for i in range(size)])
        mean, error = paule_mandel(values, errors**2)
        assert found.value == pytest.approx(mean, rel=1e-5)
        assert found.error == pytest.approx(error, rel=1e-5)
        fixed = np.average(values, weights=errors**-2)
        q = (((values - fixed) / errors) ** 2).sum()
        assert found.p == pytest.approx(chi2.sf(q, size - 1))
        assert found.i_squared == pytest.approx(max(0, 1 - (size - 1) / q))


def test_a_single_entry_stays_what_it_is() -> None:
    found = combine([4.0], [0.5], ["cpu"], [(1,)])
    assert (found.value, found.error, found.p) == (4.0, 0.5, 1.0)
    with pytest.raises(ValueError, match="above 0"):
        combine([4.0], [0.0], ["cpu"], [(1,)])


def test_an_interval_is_of_95_percent() -> None:
    """Of the errors behind two intervals follow weights, spread and p."""
    log = [run(0, value=10.0), run(10, value=12.0, cell={"low": 9.0, "high": 15.0})]
    (claim,) = pool(standing(log))
    ((_, unit, together),) = claim.estimates
    z = NormalDist().inv_cdf(0.975)
    direct = combine([10.0, 12.0], [2 / z, 3 / z], ["cpu", "cpu"], [(0, 1), (10, 11)])
    assert unit == "percent"
    assert together.p == pytest.approx(direct.p, rel=1e-4)
    assert (together.value, together.error) == pytest.approx((direct.value, direct.error))


def test_without_the_library_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "statsmodels.stats.meta_analysis", None)
    with pytest.raises(Preflight, match="pooling needs a library that is not installed"):
        combine([1.0, 2.0], [0.5, 0.5], ["cpu", "cpu"], [(1,), (2,)])


def test_the_same_seeds_in_ten_classes_are_no_more_certain_than_in_one() -> None:
    classes = [f"class {i}" for i in range(10)]
    same = combine([4.0] * 10, [0.5] * 10, classes, [(1,)] * 10)
    assert same.error == pytest.approx(0.5)
    other = combine([4.0] * 10, [0.5] * 10, classes, [(i,) for i in range(10)])
    assert other.error == pytest.approx(0.5 / 10**0.5)


def test_ten_entries_of_a_class_do_not_outvote_another_class() -> None:
    seeds = [(i,) for i in range(11)]
    found = combine([10.0] * 10 + [20.0], [0.5] * 11, ["cpu"] * 10 + ["gpu"], seeds)
    assert found.weights["gpu"] == pytest.approx(0.5, abs=0.01)
    assert found.value == pytest.approx(15, abs=0.1)
    assert found.error > 4, "two classes that differ by 10 leave the mean unknown by about 5"
    alike = combine([10.0] * 11, [0.5] * 11, ["cpu"] * 10 + ["gpu"], seeds)
    assert alike.weights["gpu"] == pytest.approx(1 / 11)


def test_intervals_cover_the_truth_where_all_ran_the_same_seeds() -> None:
    """A sampling error shared by six classes; taken as independent, intervals miss too often."""
    draw = np.random.default_rng(11)
    classes = [f"class {i}" for i in range(6)]
    hits = {True: 0, False: 0}
    for _ in range(300):
        values = (draw.normal(0, 1) + draw.normal(0, 0.1, 6)).tolist()
        for shared in hits:
            seeds = [(0,) if shared else (i,) for i in range(6)]
            found = combine(values, [1.0] * 6, classes, seeds)
            hits[shared] += abs(found.value) < 1.96 * found.error
    assert hits[True] >= 0.92 * 300
    assert hits[False] <= 0.75 * 300


def test_what_is_not_pooled_is_shown_with_the_sentence_why() -> None:
    log = [
        run(1),
        run(1, value=20.0, date="2026-11-29"),
        run(1, environment=GPU),
        run(2),
        run(1000),
        run(2000, changes=["1 finished step of earlier code (adapt, ...)"]),
        run(3000, brought=True),
        run(4000, code={**CODE, "defensive-tokens/adapt": "0c" * 8}),
        run(5000, code={}),
    ]
    assert apart(log) == [
        "",
        "repeats entry 1",
        "",
        "shares some seeds with entry 1",
        "",
        "changed: 1 finished step of earlier code (adapt, ...)",
        "a table measured elsewhere",
        "other code than most entries: defensive-tokens/adapt",
        "does not say which code made it",
    ]
    (claim,) = pool(standing(log))
    assert claim.outcomes == {"holds": 3}


def test_of_two_codes_with_equally_many_entries_the_newer_is_pooled() -> None:
    log = [run(1), run(2000, code={"defensive-tokens/adapt": "0c" * 8}, date="2026-11-29")]
    assert apart(log) == [f"other code than most entries: {', '.join(CODE)}", ""]


def test_profiles_and_versions_are_never_mixed() -> None:
    log = [run(1), run(5), run(1, profile="paper"), run(1, version="2-A")]
    lines = pooled_markdown(standing(log)).splitlines()
    assert [line.split(" | ")[2] for line in lines if line.startswith("| tiny")] == [
        "1, 2",
        "3",
        "4",
    ]


def test_one_that_holds_and_one_that_fails_are_contested() -> None:
    def contested(*log: Entry) -> bool:
        (claim,) = pool(standing(log))
        return claim.contested

    assert contested(run(1), run(5, "fails"))
    assert not contested(run(1), run(5, "undetermined"))
    assert contested(run(1), run(5, "undetermined", value=60.0)), "numbers and outcomes differ"
    assert contested(run(1), run(1, "fails")), "the same seeds, and another outcome"
    assert not contested(run(1), run(5, "fails", changes=["a.b=1"])), "it ran something else"
    text = pooled_markdown(standing([run(1), run(1, "fails")]))
    assert "**contested**: 1 holds; a repeat: fails" in text


def test_p_values_add_over_seeds_and_not_over_classes() -> None:
    def p(*log: Entry) -> float | None:
        (claim,) = pool(standing(log))
        return claim.p

    assert p(run(1, p=0.04), run(1, p=0.03, environment=GPU)) == pytest.approx(0.04)
    both = p(run(1, p=0.04), run(5, p=0.03))
    assert both is not None
    assert both < 0.01
    assert p(run(1, p=None)) is None
    extremes = p(run(1, p=0.0), run(5, p=1.0))
    assert extremes == pytest.approx(0.5, abs=0.001), "neither silences the other"


def test_units_are_compared_before_anything_is_pooled() -> None:
    slip = {"unit": "fraction", "value": 0.089, "low": 0.069, "high": 0.109}
    (claim,) = pool(standing([run(1), run(5, cell=slip)]))
    ((_, unit, found),) = claim.estimates
    assert unit == "percent"
    assert found.value == pytest.approx(8.9)
    (claim,) = pool(standing([run(1), run(5, cell={"unit": "nats"})]))
    assert claim.estimates == []
    assert claim.units == ["t1/asr/adapt: units do not compare"]
    assert "units do not compare" in pooled_markdown(
        standing([run(1), run(5, cell={"unit": "nats"})])
    )


def written(folder: Path, seed: int, *, code: str = "0d" * 32, **parts: Any) -> Path:
    """A verified run directory of a certain seed and code."""
    planned, happened = plan(), record() | {"seed": seed}
    for step in planned["instances"]:
        step["axes"] = {"pair": {"id": "newer-0", "seed": seed}}
        step["environment"] = {"device": "cpu", "gpu_arch": None}
        happened["steps"][step["id"]]["code"] = code
    return write_run(folder, plan=planned, record=happened, **parts)


def test_an_entry_of_a_real_run_carries_what_pooling_needs(tmp_path: Path) -> None:
    made = entry(read_run(written(tmp_path / "run", 7)))
    primary = [claim for claim in verdict().claims if claim.primary]
    assert [claim.id for claim in made.claims] == [claim.id for claim in primary]
    assert any(claim.cells for claim in made.claims)
    assert (made.seeds, made.environment) == ([7], {"device": "cpu"})
    assert sorted(made.code)[:2] == ["defensive-tokens/adapt", "defensive-tokens/align"]
    assert msgspec.json.decode(msgspec.json.encode(made), type=Entry) == made
    assert apart([made]) == [""]
    other = entry(read_run(written(tmp_path / "other", 7, code="0e" * 32)))
    assert other.code.keys() == made.code.keys()
    assert other.code != made.code
    bare = entry(read_run(write_run(tmp_path / "bare")))
    assert apart([bare]) == ["does not say which code made it"]


def test_numbers_that_a_failed_canary_spoiled_are_not_pooled(tmp_path: Path) -> None:
    whole = verdict()
    made = entry(read_run(write_run(tmp_path / "run")))
    cell = made.claims[0].cells[0].id
    broken = [
        msgspec.structs.replace(c, verdict="invalid") if c.id == cell else c for c in whole.cells
    ]
    spoiled = msgspec.structs.replace(whole, cells=broken)
    folder = write_run(tmp_path / "spoiled", verdict=spoiled)
    known = [c.id for claim in entry(read_run(folder)).claims for c in claim.cells]
    assert cell not in known


def test_weights_are_said_where_there_is_more_than_one_class() -> None:
    alone = pooled_markdown(standing([run(0), run(10)]))
    both = pooled_markdown(standing([run(0), run(10, environment=GPU)]))
    shares = re.compile(r" weighs \d+%")
    assert not shares.search(alone)
    assert len(shares.findall(both)) == 2


def test_kit_log_show_says_what_is_pooled_and_what_it_gives(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = tmp_path / "log"
    changed = verdict(modified=True, overrides=["2 steps of other code"])
    for seed, made in ((7, verdict()), (8, verdict()), (9, changed)):
        add(read_run(written(tmp_path / str(seed), seed, verdict=made)), log)
    assert kit(["log", "show", "--folder", str(log)]) == 0
    shown = capsys.readouterr().out
    assert shown == page(log)
    assert "no: changed: 2 steps of other code" in shown
    assert RULE in shown
    assert "## Together" in shown
    assert "| 2 hold (" in shown


def test_the_log_of_a_paper_of_ones_own_is_beside_its_manifest(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    planned = plan() | {"manifest": str(tmp_path / "paper.yaml")}
    folder = write_run(tmp_path / "run", plan=planned)
    assert kit(["log", "add", str(folder)]) == 0
    written = Path(capsys.readouterr().out.strip())
    assert written.parent == tmp_path / "reproductions"
    assert kit(["log", "show"]) == 0
    assert "| 1 | tiny-adapt 1-A |" in capsys.readouterr().out
