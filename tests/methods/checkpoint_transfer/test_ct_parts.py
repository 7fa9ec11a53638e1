"""The parts of a step, what is kept of it, and what an attack on it shows."""

from __future__ import annotations

import copy
import dataclasses
import json
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from kit.evals.multiple_choice import Question
from kit.methods.checkpoint_transfer import answers, targets, unlearn
from kit.methods.checkpoint_transfer.affine import AffineMap
from kit.methods.checkpoint_transfer.attacked import add_attack
from kit.methods.checkpoint_transfer.beside import ReadAhead
from kit.methods.checkpoint_transfer.pairs import MicroBatch, Pairs, batches
from kit.methods.checkpoint_transfer.states import (
    FileStates,
    MemoryStates,
    StateWriter,
    _save,
    write_states,
)
from kit.methods.checkpoint_transfer.student import make_student
from kit.methods.checkpoint_transfer.targets import (
    CachePlan,
    ForgetTargets,
    RetainReference,
    keep,
    plan_cache,
)
from kit.methods.checkpoint_transfer.unlearn import UnlearnRun, _parts
from kit.results.axes import Origin
from tests.methods.checkpoint_transfer.small_run import pairs, recipe
from tests.methods.checkpoint_transfer.tiny import batch, model
from tests.refused import refused

TEXTS = Pairs([[3] * n for n in (4, 1, 2)], [[4] * n for n in (1, 3, 1)], pad_id=0)
MICRO = MicroBatch(4, (0, 1, 2))


def _made(wanted: Any, micro: MicroBatch = MICRO, rows: int | None = None) -> list[Any]:
    """Kind, examples, weight and share of every part of a micro-batch, of two in a step."""
    parts = _parts([micro], wanted, 2, TEXTS, rows)
    return [(p.kind, p.examples, p.weight, p.share) for p in parts]


def test_terms_in_parts_have_their_share_of_the_tokens() -> None:
    """At half of the ramp: remove 5 (1 - 1/8), retain 2/2; each halved by the two in a step."""
    wanted = recipe()
    whole = [("forget", (0, 1, 2), 35 / 16, 1.0), ("retain", (0, 1, 2), 0.5, 1.0)]
    assert _made(wanted) == whole
    assert _made(wanted, rows=3) == whole
    assert _made(wanted, rows=2) == [
        ("forget", (0, 1), 35 / 16, 5 / 7),
        ("forget", (2,), 35 / 16, 2 / 7),
        ("retain", (0, 1), 0.5, 4 / 5),
        ("retain", (2,), 0.5, 1 / 5),
    ]


def test_a_part_in_which_nothing_is_predicted_is_left_out() -> None:
    """The first token of a text is not predicted, so texts of a single token have none."""
    wanted = recipe(retain_loss="cross-entropy")
    retained = [part for part in _made(wanted, rows=1) if part[0] == "retain"]
    assert retained == [("retain", (1,), 0.5, 1.0)]
    nothing = [part for part in _made(wanted, MicroBatch(4, (0, 2))) if part[0] == "retain"]
    assert nothing == [("retain", (0, 2), 0.5, 1.0)], "the loss itself says that there is none"


@pytest.mark.parametrize(
    ("number", "schedule", "kinds"),
    [
        (0, "ramp", ["forget"]),
        (1, "ramp", ["forget", "retain"]),
        (99, "ramp", ["forget", "retain"]),
        (0, "constant", ["forget", "retain"]),
        (7, "circuit-breakers", ["forget", "retain"]),
        (8, "circuit-breakers", ["retain"]),
    ],
)
def test_a_term_without_weight_is_not_computed(
    number: int, schedule: str, kinds: list[str]
) -> None:
    wanted = recipe(coefficient_schedule=schedule)
    assert [part[0] for part in _made(wanted, MicroBatch(number, (0, 1)))] == kinds


def test_the_last_step_is_the_mean_of_its_micro_batches() -> None:
    """Eight micro-batches, four a step; a process of two has every second of them."""
    run = UnlearnRun([9.0, 1.0, 2.0], [7.0, 3.0, 8.0], [3, 4, 6])
    assert run.last_step(recipe()) == (1.5, 5.5)
    assert UnlearnRun([1.0, 2.0], [3.0, 4.0], [0, 7]).logged(recipe()) == (1.0, 3.0)


def test_a_divergence_is_dated_by_its_step(monkeypatch: pytest.MonkeyPatch) -> None:
    def trained(*_: Any, **__: Any) -> Any:
        return SimpleNamespace(norms=[1.0], diverged_at=(3, "loss"))

    monkeypatch.setattr(unlearn, "finetune", trained)
    monkeypatch.setattr(unlearn, "_check", lambda *_: None)
    engine: Any = SimpleNamespace(rank=0, world_size=1, model=torch.nn.Linear(2, 2))
    nothing: Any = None
    done = unlearn.unlearn(engine, recipe(), pairs(), nothing, nothing, seed=0)
    assert (done.diverged_at, done.gradient_norms, done.finite) == (3, [1.0], True)
    engine.model.bias.data[1] = float("nan")
    assert not unlearn.unlearn(engine, recipe(), pairs(), nothing, nothing, seed=0).finite
    engine.model.bias.requires_grad_(False)
    assert unlearn.unlearn(engine, recipe(), pairs(), nothing, nothing, seed=0).finite


@pytest.mark.parametrize("full_rank", [True, False])
@pytest.mark.parametrize("loaded", [True, False])
def test_what_is_trained_does_not_depend_on_how_it_was_loaded(
    full_rank: bool, loaded: bool
) -> None:
    given = model(1).requires_grad_(loaded)
    student: Any = make_student(given, recipe(full_rank=full_rank), seed=0)
    trained = {name for name, p in student.named_parameters() if p.requires_grad}
    names = {name for name, _ in student.named_parameters()}
    assert trained == (names if full_rank else {name for name in names if "lora_" in name})


def test_the_first_block_without_a_map_is_named() -> None:
    wanted = recipe(layers=(0, 1))
    with pytest.raises(ValueError, match="no affine map for block -1"):
        ForgetTargets(model(0), {3: AffineMap(torch.eye(16), torch.zeros(16))}, wanted)


def test_a_kept_example_alone_and_in_any_company() -> None:
    """One, two and three examples, of which none, some and all are kept."""
    data, reference = pairs(), RetainReference(model(1))
    states = dict(keep(reference.compute, data, "retain", [[0, 1, 2]]))
    for examples in ([1], [2, 0], [0, 1, 2]):
        wanted = RetainReference(model(1)).logits(data, examples)
        for kept in ((), (1,), (0, 1), (0, 1, 2)):
            reference.kept = MemoryStates({example: states[example] for example in kept})
            found = reference.logits(data, examples)
            torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)


def test_states_of_another_recipe_are_not_taken() -> None:
    reference = RetainReference(model(1))
    reference.kept = MemoryStates({0: {1: torch.zeros(3, 16)}})
    with pytest.raises(ValueError, match="another recipe"):
        reference.logits(pairs(), [0, 1])


def test_the_reference_does_not_drop_out() -> None:
    """With the adapter off, the model is in evaluation mode; afterwards it is as it was."""
    given: Any = model(1)
    given.config.attention_dropout = 0.5
    for module in given.modules():
        if hasattr(module, "attention_dropout"):
            module.attention_dropout = 0.5
    calm = RetainReference(copy.deepcopy(given))
    student: Any = make_student(given, recipe(), seed=0)
    reference = RetainReference(student, adapter_off=True)
    ids, mask = batch(0)
    for training in (True, False):
        student.train(training)
        found = reference.states(ids, mask, [2])[2]
        torch.testing.assert_close(found[mask], calm.states(ids, mask, [2])[2][mask])
        assert student.training is training


SIZE: dict[str, Any] = {"examples": 10, "tokens": 8, "width": 4, "depth": 4, "value_bytes": 2,
                        "uses": 2}  # fmt: skip


@pytest.mark.parametrize(
    ("blocks", "budget", "plan"),
    [
        # 64 bytes an example of the reference, as many for each block of targets.
        ((0,), 64, CachePlan(1, 0, 64)),
        ((0,), 63, CachePlan(0, 0, 0)),
        ((0,), 11 * 64, CachePlan(10, 1, 704)),
        ((3,), 3 * 64, CachePlan(3, 0, 192)),
        ((2,), 3 * 64, CachePlan(3, 0, 192)),
        ((1, 2), 12 * 64, CachePlan(10, 1, 768)),
        ((1, 2), 12 * 64 - 1, CachePlan(10, 0, 640)),
        ((1, 2), 99 * 64, CachePlan(10, 10, 1920)),
    ],
)
def test_what_is_kept_at_the_borders_of_a_budget(
    blocks: tuple[int, ...], budget: int, plan: CachePlan
) -> None:
    assert plan_cache(**SIZE, blocks=blocks, budget=budget) == plan
    once = {**SIZE, "uses": 1}
    assert plan_cache(**once, blocks=blocks, budget=budget) == CachePlan(0, 0, 0)


@pytest.mark.parametrize("length", range(1, 10))
def test_tensors_of_a_file_begin_at_a_multiple_of_eight(tmp_path: Any, length: int) -> None:
    """As the safetensors format has it: the header is filled with spaces."""
    size = _save(tmp_path / "a", {"n" * length: torch.ones(3)})
    data = (tmp_path / "a").read_bytes()
    header = int.from_bytes(data[:8], "little")
    assert header % 8 == 0
    text = data[8 : 8 + header].decode()
    assert text.rstrip(" ") == json.dumps(json.loads(text), separators=(",", ":"))
    assert len(text) - len(text.rstrip(" ")) < 8
    assert size == len(data) == 8 + header + 12


def test_a_file_holds_sixteen_examples(tmp_path: Any) -> None:
    states = {example: {0: torch.full((1, 2), float(example))} for example in range(33)}
    written = write_states(tmp_path, states.items())
    index = json.loads((tmp_path / "states.json").read_text())
    files = list(dict.fromkeys(index.values()))
    assert [list(index.values()).count(name) for name in files] == [16, 16, 1]
    assert written == sum((tmp_path / name).stat().st_size for name in files)
    assert FileStates(tmp_path).rows(32)[0].tolist() == [[32.0, 32.0]]


@pytest.mark.parametrize(
    ("number", "share", "kept"), [(10, 0.3, 3), (10, 0.01, 1), (3, 1.0, 3), (8, 0.5, 4)]
)
def test_the_first_questions_of_a_set(number: int, share: float, kept: int) -> None:
    questions: list[Question] = list(range(number))  # type: ignore[arg-type]
    assert answers.share_of(questions, share) == questions[:kept]
    assert answers.share({"right": [1, 0, 0, 1, 1]}) == 0.6


def test_only_what_a_block_returns_is_patched(monkeypatch: pytest.MonkeyPatch) -> None:
    affine = AffineMap(torch.eye(16), torch.zeros(16))
    monkeypatch.setattr(answers, "answer", lambda *_: {"right": [1]})
    given: Any = (model(0), model(1))
    nothing: Any = None
    for blocks, patched in (((-1, 2, 0), [0, 2]), ((0,), [0])):
        maps = dict.fromkeys(blocks, affine)
        assert list(answers.patched_answers(*given, maps, nothing, (), nothing)) == patched
    for maps in ({-1: affine}, {}):
        with pytest.raises(ValueError, match="no affine map of a block"):
            answers.patched_answers(*given, maps, nothing, (), nothing)


class _Table:
    """Keeps what is added, by the settings that it stands under."""

    def __init__(self) -> None:
        self.added: dict[str, list[Any]] = {}
        self.curves: dict[str, Any] = {}
        self.origin = Origin("all", "0", ("adamw",))

    def at(self, origin: Any) -> Any:
        name = origin.settings[-1]

        def proportion(metric: str, row: str, right: Any, items: Any, **letters: Any) -> None:
            self.added[f"{metric}@{name}"] = [row, right, items, letters]

        def number(metric: str, row: str, value: float, unit: str) -> None:
            self.added[f"{metric}@{name}"] = [row, value, unit]

        return SimpleNamespace(proportion=proportion, number=number)

    def trajectory(self, line: Any, curve: Any) -> None:
        self.curves[line.figure] = (line.name, line.unit, curve)


def _attack(*steps: int) -> dict[str, Any]:
    def values(step: int) -> dict[str, Any]:
        picks = ["A" if step >= at else "B" for at in (0, 10, 20)]
        return {"robust": 0.5, "picks": {"robust": picks}, "probability": {"robust": step / 100}}

    points = [(step, values(step)) for step in steps]
    points.insert(1, (5, {"picks": {}, "probability": {}}))
    questions = {"robust": {"answers": ["A"] * 3, "items": ["x", "y", "z"]}}
    return {"points": points, "questions": questions}


def test_an_attack_is_cells_of_some_steps_and_a_curve_of_all() -> None:
    table: Any = _Table()
    add_attack(table, table, "model", _attack(0, 10, 20), [10, 99])
    names = {"step-0": 1, "step-10": 2, "end": 3}
    assert set(table.added) == {
        f"robust{kind}@{name}" for kind in ("", "-probability") for name in names
    }
    for name, right in names.items():
        row, marks, items, letters = table.added[f"robust@{name}"]
        assert (row, sum(marks), items) == ("model", right, ["x", "y", "z"])
        assert letters == {
            "choices": ["A"] * right + ["B"] * (3 - right), "answers": ["A"] * 3
        }  # fmt: skip
    assert table.added["robust-probability@end"] == ["model", 0.2, "fraction"]
    name, unit, curve = table.curves["robust-under-attack"]
    assert (name, unit) == ("model", "percent")
    assert curve == [(0, 100 / 3, 1, 3), (10, 200 / 3, 2, 3), (20, 100.0, 3, 3)]


def test_a_last_step_is_also_the_end_and_a_first_alone_is_none() -> None:
    table: Any = _Table()
    add_attack(table, table, "model", _attack(0, 10), [10])
    assert {name for name in table.added if "probability" not in name} == {
        "robust@step-0", "robust@step-10", "robust@end"
    }  # fmt: skip
    with pytest.raises(ValueError, match="attack step 7 was not measured"):
        add_attack(table, table, "model", _attack(0, 10), [7, 8])


class _Pool:
    """Takes work and does it when its outcome is asked for."""

    def __init__(self) -> None:
        self.submitted = 0
        self.waited: list[int] = []

    def submit(self, work: Any, *given: Any) -> Any:
        number, self.submitted = self.submitted, self.submitted + 1

        def result() -> Any:
            self.waited.append(number)
            return work(*given)

        return SimpleNamespace(result=result)


def test_four_files_may_wait_to_be_written(tmp_path: Any) -> None:
    """The fifth waits for the first, so that no more states than those stay in memory."""
    pool: Any = _Pool()
    writer = StateWriter(tmp_path / "a" / "b", pool)
    for example in range(5 * 16):
        writer.add(example, {0: torch.zeros(1, 2)})
        assert pool.submitted == (example + 1) // 16
        assert pool.waited == ([0] if example >= 79 else [])
    writer.add(99, {0: torch.zeros(1, 2)})
    writer.finish()
    assert pool.waited == [0, 1, 0, 1, 2, 3, 4, 5]
    with pytest.raises(ValueError, match="example 99 has states already"):
        writer.add(99, {0: torch.zeros(1, 2)})


def test_both_kinds_of_states_are_made_side_by_side(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ten targets and sixteen references in groups of four: each as far along as the other."""
    made: list[tuple[str, list[int]]] = []

    def noted(compute: Any, data: Any, kind: str, groups: Any) -> Any:
        for group in groups:
            made.append((kind, list(group)))
            yield from ((example, {0: torch.zeros(1, 16)}) for example in group)

    monkeypatch.setattr(targets, "keep", noted)
    data = pairs()
    most = max(map(len, (*data.forget, *data.retain)))
    plan, _ = targets.keep_pairs(
        tmp_path, model(0), model(1), None, recipe(affine=False), data,
        width=16, uses=2, budget=2 * 16 * most * (16 + 2 * 10), batch=4, dtype="bfloat16",
    )  # fmt: skip
    assert (plan.retain, plan.forget) == (16, 10)
    done = {"forget": [0, 4, 8], "retain": [0, 4, 8, 12]}
    shares = [(made[at][1][0] + 2) / {"forget": 10, "retain": 16}[made[at][0]] for at in range(7)]
    assert shares == sorted(shares)
    for kind, starts in done.items():
        groups = [group for name, group in made if name == kind]
        end = {"forget": 10, "retain": 16}[kind]
        assert groups == [list(range(at, min(at + 4, end))) for at in starts]
    (kept,) = {rows.dtype for rows in FileStates(tmp_path / "forget").rows(9).values()}
    assert kept == torch.bfloat16


def test_states_read_ahead_of_what_is_asked_for() -> None:
    """Of a long order the next eight are on their way, and examples may come again."""
    read: list[int] = []

    class Noted(MemoryStates):
        def rows(self, example: int) -> dict[int, torch.Tensor]:
            read.append(example)
            return super().rows(example)

    noted = Noted({example: {0: torch.tensor([[float(example)]])} for example in range(20)})
    ahead = ReadAhead(noted, [*range(20), 30], "cpu")
    assert ahead.rows(0)[0].item() == 0.0
    ahead._thread.submit(lambda: None).result()
    assert read == list(range(9))
    for example in (1, 2):
        assert ahead.rows(example)[0].item() == float(example)
    ahead._thread.submit(lambda: None).result()
    assert read == list(range(11))
    assert (19 in ahead, 30 in ahead) == (True, False)


def test_a_step_is_told_of_its_own_losses_alone() -> None:
    """Whatever was noted for one step is no part of the next one's numbers."""
    nothing: Any = None
    losses = unlearn._Losses(recipe(), TEXTS, nothing, nothing)
    notes = unlearn._Notes()
    for number, value in enumerate((2.0, 5.0)):
        micro = MicroBatch(number, (0, 1))
        for share in (0.25, 0.75):
            part = unlearn._Part("forget", micro, 1.0, (0,), share)
            losses._noted.append((part, torch.tensor(value * share)))
        losses.move_to(notes, [micro])
    assert (notes.numbers, notes.remove, notes.retain) == ([0, 1], [2.0, 5.0], [0.0, 0.0])
    assert not losses._noted, "only what is not yet counted is held"
    kept = notes.positions()
    notes.remove.append(9.0)
    assert kept["remove"] == [2.0, 5.0]
    notes.restore(kept)
    assert notes.remove == [2.0, 5.0]


def test_of_several_files_that_are_gone_the_first_is_named(tmp_path: Any) -> None:
    names = [f"states-{at:05d}.safetensors" for at in range(12)]
    index = {str(at): name for at, name in enumerate(reversed(names))}
    (tmp_path / "states.json").write_text(json.dumps(index))
    (tmp_path / names[0]).touch()
    with pytest.raises(ValueError, match=names[1]):
        FileStates(tmp_path)


def test_weights_of_the_terms_are_shared_by_a_steps_micro_batches() -> None:
    """Half of the constant coefficients 1 and 5, whatever of the two this process computes."""
    wanted = recipe(retain_coef=1.0, coefficient_schedule="constant")
    for own in (1, 2):
        parts = _parts([MICRO] * own, wanted, 2, TEXTS, None)
        assert [(part.kind, part.weight) for part in parts] == [
            ("forget", 2.5), ("retain", 0.5)
        ] * own  # fmt: skip
        assert parts[0].item_ids == ("0", "1", "2")


@pytest.mark.parametrize("world", [1, 2, 4])
@pytest.mark.parametrize("epochs", [1, 3])
def test_processes_are_dealt_all_pairs_of_an_epoch(world: int, epochs: int) -> None:
    """With gradients averaged each pair comes once an epoch; else a process has its share."""
    wanted = recipe(world=world, epochs=epochs)
    steps = batches(wanted, 3)
    assert len(steps) == 2 * epochs
    seen = [example for step in steps for micro in step for example in micro.examples]
    for at in range(0, len(seen), 16):
        assert sorted(seen[at : at + 16]) == list(range(16))
    assert all(sum(len(micro.examples) for micro in step) == 8 for step in steps)
    numbers = [micro.number for step in steps for micro in step]
    assert numbers == [at // world for at in range(8 * epochs)]
    alone = batches(dataclasses.replace(wanted, all_reduce=False), 3)
    first = [micro for step in steps for micro in step][::world]
    assert [micro for step in alone for micro in step] == first


def test_a_part_counts_by_its_share_and_is_weighed_behind_that() -> None:
    """What is noted is the loss itself; what is trained on has the coefficient too."""
    nothing: Any = None
    losses = unlearn._Losses(recipe(), TEXTS, nothing, nothing)
    losses._remove = lambda model, part: torch.tensor(8.0)  # type: ignore[method-assign]
    losses._retain = lambda model, part: torch.tensor(2.0)  # type: ignore[method-assign]
    for kind, noted, trained in (("forget", 2.0, 6.0), ("retain", 0.5, 1.5)):
        part = unlearn._Part(kind, MICRO, 3.0, (0,), 0.25)
        assert float(losses(nothing, part)) == trained
        assert losses._noted[-1][1].item() == noted


@pytest.mark.parametrize(
    ("settings", "needed"),
    [({"retain_coef": 0.5}, True), ({"retain_coef": 0.0}, False),
     ({"retain_coef": 0.5, "retain_loss": "hidden-states"}, True),
     ({"retain_coef": 5.0, "retain_loss": "cross-entropy"}, False)],
)  # fmt: skip
def test_any_comparison_needs_the_model_from_before(settings: dict[str, Any], needed: bool) -> None:
    wanted = recipe(**settings)
    spec = SimpleNamespace(spec=SimpleNamespace(learning_rate=1e-2))
    engine: Any = SimpleNamespace(optimizer=spec, world_size=1)
    blocks: Any = SimpleNamespace(blocks=wanted.blocks)
    refused(
        lambda: unlearn._check(engine, wanted, pairs(), blocks, None), needed, "needs the model"
    )
