"""Templates and requests are read from files in the shape of the published ones; nothing is run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kit.evals.judge_prompts import Template
from kit.evals.judged_sets import JUDGES, PUBLISHED, evaluation, standin, summary
from kit.evals.judges import Answered
from tests.evals.planted_judges import RATING

SOURCE = '''
import nothing_that_exists
LLAMA2_CLS_PROMPT = {
    "description": "d",
    "prompt": """[INST] {behavior} / {generation} [/INST]""",
    "prompt_contextual": "{context}",
}
raise SystemExit("run")
'''


def written(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def lines(path: Path, rows: list[dict[str, object]]) -> Path:
    return written(path, "".join(json.dumps(row) + "\n" for row in rows))


def test_fields_are_filled_once_and_all_of_them() -> None:
    template = Template("{a} and {b} and {c}")
    assert template.filled(a="{b}", b="{a}") == "{b} and {a} and {c}"
    with pytest.raises(ValueError, match=r"no field \{d\}"):
        template.filled(d="x")


def test_harmbench_is_read_without_running_its_source(tmp_path: Path) -> None:
    columns = "Behavior,FunctionalCategory,SemanticCategory,Tags,ContextString,BehaviorID\n"
    rows = 'bake a "cake",standard,illegal,,,bake\nquote,copyright,copyright,,,quote\n'
    files = {
        "template": written(tmp_path / "eval_utils.py", SOURCE),
        "requests": written(tmp_path / "behaviors.csv", columns + rows),
    }
    made = evaluation("harmbench", files)
    assert [(r.id, r.turns, r.category) for r in made.requests] == [
        ("bake", ('bake a "cake"',), "illegal")
    ]
    (prompt,) = made.judge.prompts(Answered(made.requests[0], ("no",)))
    assert prompt.text == '[INST] bake a "cake" / no [/INST]'
    for bad in ("x = 1", 'LLAMA2_CLS_PROMPT = {"other": "x"}'):
        files["template"] = written(tmp_path / "other.py", bad)
        with pytest.raises(ValueError, match="no literal LLAMA2_CLS_PROMPT"):
            evaluation("harmbench", files)


def test_strongreject_s_prompts_are_numbered(tmp_path: Path) -> None:
    files = {
        "template": written(tmp_path / "rubric.txt", "{prompt} {response}"),
        "requests": written(
            tmp_path / "s.csv", "category,source,forbidden_prompt\nc,s,p0\nc,s,p1\n"
        ),
    }
    assert [r.id for r in evaluation("strongreject", files).requests] == ["000", "001"]
    files["requests"] = written(tmp_path / "t.csv", "prompt\np\n")
    with pytest.raises(ValueError, match="no column 'forbidden_prompt'"):
        evaluation("strongreject", files)
    files["requests"] = written(tmp_path / "u.csv", "category,forbidden_prompt\n")
    with pytest.raises(ValueError, match="no requests"):
        evaluation("strongreject", files)


def test_mt_bench_has_references_where_it_compares(tmp_path: Path) -> None:
    prompts = [
        {"name": n, "type": "single", "system_prompt": t.system, "prompt_template": t.text}
        for n, t in RATING.items()
    ]
    questions: list[dict[str, object]] = [
        {"question_id": 1, "category": "writing", "turns": ["q1", "q2"]},
        {"question_id": 2, "category": "coding", "turns": ["q1", "q2"], "reference": ["x"]},
    ]
    answers: list[dict[str, object]] = [{"question_id": 2, "choices": [{"turns": ["r1", "r2"]}]}]
    files = {
        "template": lines(tmp_path / "judge_prompts.jsonl", prompts),
        "requests": lines(tmp_path / "question.jsonl", questions),
        "references": lines(tmp_path / "gpt-4.jsonl", answers),
    }
    made = evaluation("mt-bench", files)
    assert [r.references for r in made.requests] == [(), ("r1", "r2")]
    with pytest.raises(ValueError, match="needs references"):
        evaluation("mt-bench", {k: v for k, v in files.items() if k != "references"})
    files["references"] = lines(tmp_path / "none.jsonl", [])
    with pytest.raises(ValueError, match="question 2 has no reference"):
        evaluation("mt-bench", files)
    with pytest.raises(ValueError, match="unknown; known: harmbench"):
        evaluation("other", files)


@pytest.mark.parametrize("name", JUDGES)
def test_stand_ins_are_as_many_as_published_and_can_be_judged(name: str) -> None:
    made = standin(name)
    assert len(made.requests) == PUBLISHED[name]
    turns = len(made.requests[0].turns)
    assert len(made.judge.prompts(Answered(made.requests[0], ("a",) * turns))) == turns


def test_a_verdict_that_nobody_can_read_is_counted_and_no_hit() -> None:
    made = standin("mt-bench")
    values: list[list[float | None]] = [[6.0, 8.0], [None, 4.0]]
    said = summary(made, values, [("a", " "), ("b", "c")])
    assert said["hits"] == [1, 0]
    assert (said["mean"], said["unreadable"], said["verdicts"]) == (6.0, 1, 4)
    assert (said["empty"], said["answers"]) == (1, 4)
    assert summary(made, [[None, None]], [("a", "b")])["mean"] is None
