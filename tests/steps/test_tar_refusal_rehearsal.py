"""TAR on refusals at the published setting through its steps, at a small shape, on stand-ins."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from kit.engine.registry import StepInput
from kit.manifest.load import read_expectation
from kit.steps.tar import judging, refusal
from kit.steps.tar.judging import JudgeModel, TabulateJudged
from kit.steps.tar.refusal_params import AnswerTuning, Refuse, Requests
from kit.tampering.settings import attack_of
from kit.tampering.suites import tar_refusal
from tests.steps.contexts import Steps, rehearsed_steps
from tests.steps.test_kinds import CATALOG, plan

METHODS = ("refusal-trained", "rr", "tar", "tar-released")


@pytest.fixture
def rehearsed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Steps:
    return rehearsed_steps(tmp_path, monkeypatch, "reference", "judge")


def test_refusals_are_rehearsed_from_pairs_to_an_attacked_model(rehearsed: Steps) -> None:
    wanted = Requests(
        published=["attack=5", "rejected=9", "held-out=6", "benign=7"], prompt_width=6, width=12
    )
    data = rehearsed.run("requests", refusal.run_requests, wanted)
    assert data.canaries["counts-as-published"][0]
    small = Refuse(
        seed=0,
        preset="paper",
        pairs="rejected",
        held_out="held-out",
        retain=["benign:chosen"],
        outer_steps=1,
        outer_warmup=1,
        inner_steps=2,
        every=2,
        forget_batch=2,
        held_out_batch=2,
        retain_batch=2,
        reference="offloaded",
    )
    loop = rehearsed.run("loop", refusal.run_refuse, small, data="requests")
    assert loop.canaries["weights-moved"][0]
    record = json.loads((loop.out / refusal.TRAINING).read_text(encoding="utf-8"))
    assert record["steps"][0]["attacks"][0]["won"] is not None
    tune = AnswerTuning(seed=0, optimizer="adamw", learning_rate=1e-3, steps=2, batch=2, asked=[])
    done = rehearsed.run("attack", refusal.run_answer_tune, tune, data="requests")
    assert done.canaries["attack-ran"][0]
    assert (done.out / "model" / "config.json").is_file()


def test_the_table_has_the_published_numbers_or_says_why_not(rehearsed: Steps) -> None:
    params = JudgeModel(judge="harmbench", max_new_tokens=2, judge_tokens=1, most=2)
    done = rehearsed.run("harmbench", judging.run_judge, params)
    names = []
    for method in METHODS:
        for number in range(1, 6):
            names.append(f"{method}-{number}")
            axes = {"method": {"id": method}, "adversary": {"id": f"adversary-{number}"}}
            rehearsed.done[names[-1]] = StepInput(names[-1], done.out, axes, {})
    table = rehearsed.context("table", harmbench=names)
    table.roles = {"method": "setting", "adversary": "setting"}
    judging.run_tabulate_judged(
        table, TabulateJudged(over="adversary", absent=["repnoise", "r2d2"], reason="another model")
    )
    made = json.loads((table.out / "results.json").read_text(encoding="utf-8"))["cells"]
    path = CATALOG.expectation_path("tar-refusal-full-size", "paper")
    assert path is not None
    expected = read_expectation(path, references=False).value
    assert {c["id"] for c in made} == {c.id for c in expected.cells} | set(expected.present)
    assert {c["id"] for c in made if c.get("not_run")} == {
        f"all/mean-over-adversary/asr@{method}" for method in ("repnoise", "r2d2")
    }


@pytest.mark.parametrize(
    ("experiment", "profile"), [("tar-refusal-full-size", "paper"), ("tar-refusal", "mini")]
)
def test_the_adversaries_are_those_of_the_suite(
    experiment: str, profile: str, tmp_path: Path
) -> None:
    """Exact at the published size; at miniature scale all rates times ten, and fewer texts."""
    _, made = plan(experiment, profile, tmp_path)
    factor, rows = (1, 541) if profile == "paper" else (10, 96)
    attacks = [one for one in made.instances if one.step == "attack"]
    for number, wanted in enumerate(tar_refusal(rows), start=1):
        same = [a for a in attacks if a.axes["adversary"]["id"] == f"adversary-{number}"]
        assert len(same) == len(attacks) / 5
        for one in same:
            ours = attack_of(AnswerTuning(**one.params))
            assert ours.steps == wanted.steps
            assert ours.batch == wanted.batch
            assert ours.schedule == wanted.schedule
            rate = ours.optimizer.learning_rate
            assert rate == pytest.approx(factor * wanted.optimizer.learning_rate)
            assert ours.optimizer == replace(wanted.optimizer, learning_rate=rate)
