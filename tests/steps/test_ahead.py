"""What the DefensiveTokens steps make ahead: outputs are those of a step that makes it itself."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kit.engine.registry import PinInput
from kit.steps.defensive_tokens import evaluation, inputs, labels, training
from kit.steps.defensive_tokens.params import Evaluate, SelfLabel, TrainingData
from tests.steps.contexts import FakeContext, Steps, mini_pins
from tests.steps.test_label_scope import TRAIN

LABEL = SelfLabel(max_new_tokens=2, empty_data="no-turn")
SCORE = Evaluate(
    layout="before-bos",
    attacks=["ignore"],
    max_new_tokens=2,
    seed=1,
    accuracy=True,
    refusal_rule="as-reported",
)


@pytest.fixture
def few(tmp_path: Path) -> Steps:
    """The miniature world with forty samples and ten prompts."""
    pins = mini_pins()
    for name, count in (("pool", 40), ("evaluation", 10)):
        rows = json.loads(pins[name].path.read_text(encoding="utf-8"))[:count]
        (tmp_path / f"{name}.json").write_text(json.dumps(rows), encoding="utf-8")
        pins[name] = PinInput(name, tmp_path / f"{name}.json", pins[name].attributes)
    made = Steps(tmp_path, pins)
    data = TrainingData(builder="as-reported", steps=3, batch=4, seed=1)
    made.run("data", labels.run_training_data, data)
    made.run("labels", labels.run_self_label, LABEL, data="data")
    return made


def files(context: FakeContext) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in context.out.iterdir()}


@pytest.mark.parametrize(
    ("ahead", "run", "params", "given"),
    [
        (inputs.engine_ahead, labels.run_self_label, LABEL, {"data": "data"}),
        (
            training.model_ahead,
            training.run_train_prefix,
            TRAIN,
            {"data": "data", "labels": "labels"},
        ),
        (inputs.engine_ahead, evaluation.run_evaluate, SCORE, {}),
    ],
)
def test_outputs_are_the_same_and_nothing_is_made_twice(
    few: Steps,
    monkeypatch: pytest.MonkeyPatch,
    ahead: Callable[[Any, Any], dict[str, Any]],
    run: Callable[[Any, Any], None],
    params: Any,
    given: dict[str, str],
) -> None:
    usual = few.run("usual", run, params, **given)
    before, context = few.context("before"), few.context("later", **given)
    context.ahead = ahead(before, params)  # pins alone are there

    def never(*given: Any, **how: Any) -> Any:
        raise AssertionError("made once more")

    for name in ("load_model", "tokenizer_of"):
        monkeypatch.setattr(inputs.common, name, never)
    run(context, params)
    assert context.ahead == {}
    assert files(context) == files(usual)
    assert context.canaries == usual.canaries
