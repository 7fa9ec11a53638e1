"""A model and a judge through the step: rehearsed on stand-ins, refused where the judge is none."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kit.engine.registry import PinInput, StepInput
from kit.evals.judged_sets import JUDGES
from kit.manifest.load import read_expectation
from kit.steps.tar import judging
from kit.steps.tar.judging import JudgeModel, TabulateJudged
from tests.lm.tiny_world import mini_tokenizer, tiny_llama
from tests.steps.contexts import Steps, rehearsed_steps
from tests.steps.test_kinds import CATALOG, plan

METHODS = ("refusal-trained", "tar", "rr", "repnoise-released", "r2d2-released")


@pytest.fixture
def rehearsed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Steps:
    return rehearsed_steps(tmp_path, monkeypatch, "judge")


def test_all_judges_are_rehearsed_and_make_the_expected_table(rehearsed: Steps) -> None:
    for judge in JUDGES:
        params = JudgeModel(judge=judge, max_new_tokens=2, judge_tokens=1, most=1)
        done = rehearsed.run(judge, judging.run_judge, params)
        assert all(passed for passed, _ in done.canaries.values())
        for method in METHODS:  # all alike
            name = f"{judge}-{method}"
            rehearsed.done[name] = StepInput(name, done.out, {"method": {"id": method}}, {})
    table = rehearsed.context(
        "table", **{judge: [f"{judge}-{method}" for method in METHODS] for judge in JUDGES}
    )
    table.roles = {"method": "setting"}
    judging.run_tabulate_judged(
        table, TabulateJudged(not_run=["mt-bench-gpt-4"], reason="no GPT-4")
    )
    made = json.loads((table.out / "results.json").read_text(encoding="utf-8"))["cells"]
    path = CATALOG.expectation_path("tar-judged", "paper")
    assert path is not None
    expected = read_expectation(path, references=False).value
    wanted = {cell.id for cell in expected.cells} | set(expected.present)
    assert wanted == {cell["id"] for cell in made}
    assert {cell["id"] for cell in made if cell.get("not_run")} == {
        f"all/score/mt-bench-gpt-4@{method}" for method in METHODS
    }
    labelled = {cell.id for cell in expected.cells if cell.labelled}
    assert labelled == {cell["id"] for cell in made if cell.get("labels")}


def test_the_experiment_plans_a_step_for_each_judge_and_model(tmp_path: Path) -> None:
    _, made = plan("tar-judged", "paper", tmp_path)
    kinds = [one.kind for one in made.instances]
    assert kinds.count("tar/judge") == len(JUDGES) * len(METHODS)


def test_a_random_model_fails_as_judge_and_its_cells_would_not_count(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    tokenizer = mini_tokenizer()
    tokenizer.chat_template = "{% for m in messages %}{{ m.content }} {% endfor %}"
    tiny_llama(len(tokenizer)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    prompt, behaviors = tmp_path / "eval_utils.py", tmp_path / "behaviors.csv"
    prompt.write_text('LLAMA2_CLS_PROMPT = {"prompt": "say {behavior} {generation}"}')
    behaviors.write_text(
        "Behavior,FunctionalCategory,SemanticCategory,BehaviorID\ncat,standard,x,a\n"
    )
    pins = {name: PinInput(name, folder, {}) for name in ("model", "judge")}
    pins |= {"template": PinInput("t", prompt, {}), "requests": PinInput("r", behaviors, {})}
    done = Steps(tmp_path, pins).run(
        "judged", judging.run_judge, JudgeModel(judge="harmbench", max_new_tokens=3)
    )
    passed, detail = done.canaries["judge-audited"]
    assert not passed
    assert "0 of 4 planted hits" in detail
    assert done.canaries["judge-understood"] == (False, "1 of 1 verdicts cannot be read")
    said = json.loads((done.out / judging.JUDGED).read_text(encoding="utf-8"))
    assert (said["items"], said["hits"]) == (["a"], [0])
