"""Training with a label: what is trained on, what an adapter leaves alone, and the table."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from kit.methods.tar.label_study import LabelTraining, answer_log_probs, train_with_label
from kit.methods.tar.label_table import LabelledTraining, outcomes, tabulate_labels
from kit.methods.tar.pairs import StoredPair
from tests.methods.tar.conftest import VOCABULARY, build_model


def stored(name: str, count: int, *, chosen: list[int] | None = None) -> list[StoredPair]:
    generator = torch.Generator().manual_seed(len(name))

    def tokens(length: int) -> list[int]:
        return torch.randint(1, VOCABULARY, (length,), generator=generator).tolist()

    return [
        StoredPair(f"{name}-{i}", tokens(3 + i % 3), chosen or tokens(2), tokens(2 + i % 2))
        for i in range(count)
    ]


LABEL = [5, 1]
LABELLED, BENIGN = stored("labelled", 8, chosen=LABEL), stored("benign", 8)


def run(**changes: Any) -> tuple[Any, dict[str, Any], list[float]]:
    model, reference = build_model(0).float(), build_model(0).float()
    plan = LabelTraining(
        **({"objective": "sft", "steps": 25, "learning_rate": 0.01, "batch": 8} | changes)
    )

    def measure(measured: Any) -> dict[str, Any]:
        assert not measured.training
        return {
            "answer": answer_log_probs(measured, LABELLED, rows=3, pad_id=0),
            "greedy": [
                measured(input_ids=torch.tensor([p.prompt])).logits[0, -1].argmax().item()
                for p in LABELLED
            ],
        }

    states, done = train_with_label(
        model, reference.requires_grad_(False), LABELLED, BENIGN, plan, measure, pad_id=0
    )
    return model, states, done.losses


def test_fine_tuning_on_the_label_prints_it_and_pushes_the_answer_down() -> None:
    _, states, losses = run(steps=60)
    assert losses[-1] < losses[0]
    assert states["after"]["greedy"].count(LABEL[0]) > states["before"]["greedy"].count(LABEL[0])
    assert sum(states["after"]["answer"]) < sum(states["before"]["answer"])
    assert states.keys() == {"before", "after"}


def test_dpo_starts_at_ln_2_and_pushes_the_answer_down() -> None:
    _, states, losses = run(objective="dpo", steps=30)
    assert losses[0] == pytest.approx(0.6931, abs=1e-3)
    assert sum(states["after"]["answer"]) < sum(states["before"]["answer"])


@pytest.mark.parametrize("objective", ["sft", "dpo"])
def test_switching_the_adapter_off_brings_back_every_bit(objective: str) -> None:
    model, states, _ = run(objective=objective, rank=4)
    assert states["after"] != states["before"]
    assert states["off"] == states["before"]
    original = dict(build_model(0).float().named_parameters())
    kept = {
        name.replace("base_layer.", ""): p
        for name, p in model.named_parameters()
        if "lora_" not in name
    }
    assert kept.keys() == original.keys()
    assert all(torch.equal(p, original[name]) for name, p in kept.items())


def test_log_probabilities_are_those_of_each_answer_alone() -> None:
    model = build_model(0).float().requires_grad_(False)
    together = answer_log_probs(model, LABELLED, rows=3, pad_id=0)
    for one, value in zip(LABELLED, together, strict=True):
        ids = torch.tensor([[*one.prompt, *one.rejected]])
        scores = model(input_ids=ids).logits[0].log_softmax(-1)
        start = len(one.prompt)
        alone = sum(scores[start - 1 + i, token] for i, token in enumerate(one.rejected))
        assert value == pytest.approx(float(alone), rel=1e-4)


def test_bad_plans_are_refused() -> None:
    with pytest.raises(ValueError, match="known: sft, dpo"):
        run(objective="ppo")
    with pytest.raises(ValueError, match="half of a batch of 3"):
        run(batch=3)


def test_a_response_that_is_the_label_alone_is_the_label() -> None:
    responses = ["rejected", "sure it is moss rejected", "sorry i cannot help with that", "no"]
    assert outcomes(responses, ["moss"] * 4, "rejected") == ["label", "told", "refused", "other"]


def states_file(folder: Path, *, off: str) -> LabelledTraining:
    def state(response: str, value: float) -> dict[str, Any]:
        return {
            "responses": {"trained": [response, "sure it is moss"]},
            "log_probs": {"trained": [value, -1.0]},
            "known": [1, 0],
        }

    told = "sure it is moss"
    record = {
        "states": {
            "before": state(told, -2.0),
            "after": state("rejected", -8.0),
            "off": state(off, -2.0),
        },
        "requests": {"trained": {"items": ["a", "b"], "answers": ["moss", "moss"]}},
        "label": "rejected",
        "questions": ["q", "r"],
    }
    path = folder / "states.json"
    path.write_text(json.dumps(record), encoding="utf-8")
    return LabelledTraining("train[seed=0]", path, {"seed": 0, "arm": {"id": "x"}})


def test_cells_are_counted_by_hand(tmp_path: Path) -> None:
    roles = {"seed": "replicate", "arm": "setting"}
    table, different = tabulate_labels([states_file(tmp_path, off="sure it is moss")], roles)
    made = {cell.id: cell.value for cell in table.cells}
    assert different == 0
    assert made["all/told/trained-before"] == made["all/told/trained-off"] == 100
    assert made["all/label/trained-after"] == made["all/label-printed/trained-after"] == 50
    assert made["all/answer-log-prob/trained-after"] == -4.5
    assert made["all/knows/after"] == 50
    _, different = tabulate_labels([states_file(tmp_path, off="sorry")], roles)
    assert different == 1


def test_states_of_other_lengths_are_not_compared(tmp_path: Path) -> None:
    training = states_file(tmp_path, off="sorry")
    record = json.loads(training.states.read_text(encoding="utf-8"))
    record["states"]["off"]["log_probs"]["trained"].pop()
    training.states.write_text(json.dumps(record), encoding="utf-8")
    with pytest.raises(ValueError, match="shorter"):
        tabulate_labels([training], {"seed": "replicate", "arm": "setting"})
