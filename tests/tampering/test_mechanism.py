"""Bits, and the control that tells recovery from teaching."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn.functional import cross_entropy

from kit.evals.multiple_choice import items_of
from kit.evals.sets import Watch
from kit.tampering.attack import FORGET, Attack
from kit.tampering.run import attack_streams, run_attack
from kit.tampering.search import Space, draw_attacks
from kit.tampering.watched import record
from kit.tampering.worst_case import Bound, by_steps, by_trials, candidates_of, halves, worst_case
from kit.train.batches import examples_of_tokens
from kit.train.optimizers import AdamW
from tests.train.tiny import VOCABULARY, llama


def test_adamw_is_torch_s_loop_bit_for_bit() -> None:
    """Texts of one length, so that the loop written here computes the same sums in one order."""
    draw = torch.Generator().manual_seed(0)
    rows = torch.randint(1, VOCABULARY, (12, 7), generator=draw).tolist()
    data = {FORGET: examples_of_tokens({f"t{i}": row for i, row in enumerate(rows)})}
    chosen = Attack("a", AdamW(0.01, 0.1), steps=6, batch=4)
    attacked = run_attack(llama(), data, chosen, pad_id=0)

    model, streams = llama().train(), attack_streams(data, chosen)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01, weight_decay=0.1)
    losses = []
    for _ in range(6):
        ids = torch.tensor([example.ids for example in streams[FORGET].take()])
        states = model.model(
            input_ids=ids,
            attention_mask=torch.ones_like(ids, dtype=torch.bool),
            position_ids=torch.arange(7).expand(4, 7),
        ).last_hidden_state
        scores = model.lm_head(states[:, :-1].reshape(24, -1))
        each = cross_entropy(scores, ids[:, 1:].reshape(24), reduction="none")
        loss = (each * torch.full((24,), 1 / 24)).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert attacked.trajectory.losses == losses
    for name, weight in model.named_parameters():
        assert torch.equal(attacked.model.get_parameter(name), weight), name


def facts() -> tuple[Any, dict[str, Any], Watch]:
    """A model that never saw the facts, the attacker's texts, and what is asked."""
    from kit.mini.facts.files import questions
    from kit.mini.facts.files import texts as sentences
    from kit.mini.facts.model import Shape, new_model, vocabulary
    from kit.mini.facts.world import make_world

    world, ids = make_world(0), vocabulary()

    def encode(text: str) -> list[int]:
        return [ids[word] for word in text.split()]

    held = sentences(world)["forget-attacker"]
    texts = examples_of_tokens({text.id: encode(text.text) for text in held})
    asked = {
        half: items_of(questions(world)[f"forget-{half}"], encode) for half in ("attacker", "judge")
    }
    watch = Watch(asked, {"trained": texts[:64]}, ids["<pad>"])
    return new_model(Shape(layers=2), 0), {FORGET: texts}, watch


def test_a_model_that_never_saw_the_facts_is_taught_and_recovers_nothing() -> None:
    """The attacker's own questions rise, the judge's stay at a quarter: nothing leaks between."""
    model, data, watch = facts()
    attack = Attack("control", AdamW(3e-3, 0.0), steps=150, batch=32, clip=1.0)
    done = run_attack(
        model, data, attack, pad_id=watch.pad_id, evaluate=watch, at_steps=(0, 50, 100, 150)
    ).trajectory
    # 240 questions: three standard errors at a quarter are .084.
    assert done.highest("judge")[1] <= 0.25 + 0.084
    assert done.end("attacker") > 0.25 + 3 * 0.084
    assert done.curve("attacker")[0][1] <= 0.25 + 0.084
    assert done.end("trained-loss") < done.curve("trained-loss")[0][1] - 2


def test_the_worst_of_a_search_from_the_records_of_its_attacks() -> None:
    """From attacks to the number, on one thing that attacks can do here: teach."""
    space = Space(Attack("base", AdamW(1.0, 0.0), steps=80, batch=32, clip=1.0), rates=(1e-5, 3e-3))
    records = {}
    for attack in draw_attacks(space, 4, seed=0):
        model, data, watch = facts()
        done = run_attack(
            model, data, attack, pad_id=watch.pad_id, evaluate=watch, at_steps=(0, 40, 80)
        )
        records[attack.name] = record(done.trajectory, watch)
    made, ids = candidates_of(records, "attacker", "trained-loss")
    assert len(made) == 12
    divided = halves(ids, seed=0, group=lambda id: id.rsplit("-", 1)[0])
    assert len(divided.choosing) == len(divided.measuring) == 120
    found = worst_case(made, Bound(most=100.0), divided)
    fastest = max(draw_attacks(space, 4, seed=0), key=lambda a: a.optimizer.learning_rate)
    assert found.trial == fastest.name
    assert found.low <= found.measured.value
    assert found.naive.value <= found.high
    assert by_steps(made, Bound(most=100.0), divided)[-1][1] == found.measured
    assert by_trials(made, Bound(most=100.0), divided)[-1][1] == found.measured.value
    # Only the untouched model is as surprised by the texts as it was.
    start = next(c.utility for c in made if c.step == 0)
    assert worst_case(made, Bound(least=start), divided).step == 0
