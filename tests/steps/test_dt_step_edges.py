"""DefensiveTokens steps at their edges: cures, starts of a training, inputs, made answers."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from kit.engine.registry import PinInput, Remedy, StepInput
from kit.errors import InvalidInput
from kit.lm.generate import TransformersBackend
from kit.methods.defensive_tokens import standin
from kit.methods.defensive_tokens.alignment_files import save_alignment
from kit.methods.defensive_tokens.prefix_sets import load_sets, save_sets
from kit.methods.defensive_tokens.prefix_training import loss
from kit.methods.defensive_tokens.procrustes import orthogonal_map
from kit.methods.defensive_tokens.transfer import normal_init, vocabulary_init
from kit.steps.defensive_tokens import alignment, evaluation, inputs, params, remedies, training
from kit.steps.defensive_tokens.files import SETS
from tests.lm.tiny_world import mini_tokenizer, tiny_llama
from tests.steps.contexts import Loose, giving

VLLM, PLAIN = {"backend": "vllm"}, {"backend": "transformers"}


@pytest.mark.parametrize(
    ("cure", "given", "value"),
    [
        (remedies.TRAINING_MEMORY[0], {"forward": "packed", "low_memory": False}, True),
        (remedies.TRAINING_MEMORY[0], {"forward": "packed", "low_memory": True}, None),
        (remedies.TRAINING_MEMORY[0], {"forward": "padded", "low_memory": False}, None),
        (remedies.TRAINING_MEMORY[1], {"forward_rows": 16}, 8),
        (remedies.TRAINING_MEMORY[1], {"forward_rows": 3}, 1),
        (remedies.TRAINING_MEMORY[1], {"forward_rows": 2}, 1),
        (remedies.TRAINING_MEMORY[1], {"forward_rows": 1}, None),
        (remedies.SEARCH_MEMORY[0], {"rows": 64}, 32),
        (remedies.SEARCH_MEMORY[0], {"rows": 2}, 1),
        (remedies.SEARCH_MEMORY[0], {"rows": 1}, None),
        (remedies.TRAINING_STEADIER[0], {"lr": 0.1}, 0.03),
        (remedies.TRAINING_STEADIER[0], {"lr": 0.06}, 0.02),
        (remedies.GENERATION_MEMORY[0], VLLM | {"gpu_share": 0.9}, 0.8),
        (remedies.GENERATION_MEMORY[0], VLLM | {"gpu_share": 0.876}, 0.78),
        (remedies.GENERATION_MEMORY[0], VLLM | {"gpu_share": 0.55}, 0.5),
        (remedies.GENERATION_MEMORY[0], VLLM | {"gpu_share": 0.5}, None),
        (remedies.GENERATION_MEMORY[0], PLAIN | {"gpu_share": 0.9}, None),
        (remedies.GENERATION_MEMORY[1], PLAIN | {"batch_tokens": 16384}, 4096),
        (remedies.GENERATION_MEMORY[1], PLAIN | {"batch_tokens": 2048}, 1024),
        (remedies.GENERATION_MEMORY[1], PLAIN | {"batch_tokens": 1025}, 1024),
        (remedies.GENERATION_MEMORY[1], PLAIN | {"batch_tokens": 1024}, None),
        (remedies.GENERATION_MEMORY[1], VLLM | {"batch_tokens": 16384}, None),
    ],
)
def test_a_cure_is_offered_until_it_is_used_up(
    cure: Remedy, given: dict[str, Any], value: float | None
) -> None:
    assert cure.param in {*given, "low_memory"}
    assert cure.value(SimpleNamespace(**given)) == value


def starting(init: str) -> Any:
    return SimpleNamespace(init=init, tokens=3, seed=4)


def test_a_training_starts_where_it_is_told_to(tmp_path: Path) -> None:
    model = tiny_llama(50)
    rows = model.get_input_embeddings().weight
    table = vocabulary_init(rows, 3, 4)
    normal = normal_init(3, 32, 4)
    assert not torch.equal(table, normal)
    made: Any = Loose(tmp_path)
    assert torch.equal(training._initial(made, starting("vocabulary"), model), table)
    assert torch.equal(training._initial(made, starting("normal"), model), normal)
    with pytest.raises(ValueError, match="needs the input 'start'"):
        training._initial(made, starting("transferred"), model)
    made.before = {"start": [StepInput("start", tmp_path, {}, {})]}
    save_sets(tmp_path / SETS, {"copy": normal})
    with pytest.raises(ValueError, match="the transfer step made only: copy"):
        training._initial(made, starting("transferred"), model)
    save_sets(tmp_path / SETS, {"copy": normal, "procrustes": 2 * table})
    begun = training._initial(made, starting("transferred"), model)
    assert torch.equal(begun, 2 * table)


def test_a_model_is_compiled_before_it_trains(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(training, "frozen_model", lambda ctx, dtype: f"a {dtype} model")
    monkeypatch.setattr(
        loss, "compile_ahead", lambda model, config, *, n: asked.append((model, config, n))
    )
    given: Any = {
        "label": "adapt",
        "init": "normal",
        "lr": 0.2,
        "schedule": "constant",
        "steps": 3,
        "micro_batch": 2,
        "accumulation": 5,
        "checkpoints": [3],
        "layout": "before-bos",
        "seed": 1,
        "end_truncated": False,
        "label_tokens": "as-text",
        "forward": "packed",
        "compile": True,
    }
    made = training._compiled_model(Loose(tmp_path), params.TrainPrefix(**given))  # type: ignore[arg-type]
    ((model, config, n),) = asked
    assert made == model == "a float32 model"
    assert (config.learning_rate, config.checkpoint_steps, config.batch) == (0.2, (3,), 10)
    assert (config.compile, config.forward, n) == (True, "packed", 5)


def sets(folder: Path, name: str, *labels: str) -> StepInput:
    (folder / name).mkdir()
    save_sets(folder / name / SETS, {label: torch.ones(5, 8) for label in labels})
    return StepInput(name, folder / name, {}, {})


def asked(**fields: Any) -> Any:
    return SimpleNamespace(
        **{"defences": [], "reminder": "r", "sandwich": "s", "tokens": 5} | fields
    )


def test_rows_are_defences_then_token_sets_and_no_name_is_used_twice(tmp_path: Path) -> None:
    made: Any = Loose(tmp_path)
    made.before = {
        "trained": [sets(tmp_path, "trained", "adapt-1", "adapt-2")],
        "transferred": [sets(tmp_path, "transferred", "copy")],
    }
    rows = evaluation._conditions(made, asked(defences=["sandwich", "undefended", "reminder"]))
    assert list(rows) == ["sandwich", "undefended", "reminder", "copy", "adapt-1", "adapt-2"]
    assert [prefix is None for prefix, _ in rows.values()] == [True] * 3 + [False] * 3
    assert rows["sandwich"][1].after_data == "s"
    assert rows["reminder"][1].after_instruction == "r"
    made.before["control"] = [sets(tmp_path, "control", "copy")]
    with pytest.raises(ValueError, match="two token sets are called 'copy'"):
        evaluation._conditions(made, asked())


def test_output_rows_are_those_of_the_model_that_answers_or_of_one_beside_the_engine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny_llama(50)
    made: Any = Loose(tmp_path)
    plain = TransformersBackend(model, pad_id=0)
    assert evaluation._model_itself(made, asked(), plain) is model
    rehearsed = SimpleNamespace(backend=plain)
    assert evaluation._model_itself(made, asked(), rehearsed) is model
    made.model = lambda name: f"the {name}"
    monkeypatch.setattr("kit.steps.common.load_model", lambda *given: given)
    for engine in (object(), SimpleNamespace(backend=object())):
        loaded = evaluation._model_itself(made, asked(dtype="bfloat16"), engine)
        assert loaded == (made, "the model", "bfloat16")


def test_science_of_an_evaluation_is_what_its_defences_import() -> None:
    plain = params.Evaluate(
        layout="before-bos", attacks=[], max_new_tokens=1, seed=0, accuracy=False, refusal_rule="x"
    )
    assert evaluation.evaluate_science(plain) == evaluation.FORMATS


@pytest.mark.parametrize(
    ("said", "wrong"), [(None, False), (2, False), (1, True), (3, True), (0, True)]
)
def test_a_pool_has_as_many_records_as_its_pin_says(
    tmp_path: Path, said: int | None, wrong: bool
) -> None:
    rows = [{"instruction": f"i{n}", "input": "", "output": ""} for n in range(2)]
    (tmp_path / "pool.json").write_text(json.dumps(rows), encoding="utf-8")
    made: Any = Loose(tmp_path)
    attributes = {} if said is None else {"records": said}
    made.pin = giving(PinInput("pool", tmp_path / "pool.json", attributes))
    if wrong:
        with pytest.raises(ValueError, match=f"pool has 2 records; its pin says {said}"):
            inputs.training_pool(made)
    else:
        assert len(inputs.training_pool(made)) == 2


def test_the_last_answer_to_an_instruction_counts_and_none_without_the_input(
    tmp_path: Path,
) -> None:
    rows = [{"instruction": "i", "input": "", "output": text} for text in ("first", "last")]
    (tmp_path / "more.json").write_text(json.dumps(rows), encoding="utf-8")
    pin = PinInput("references", tmp_path / "more.json", {})
    made: Any = Loose(tmp_path)
    assert inputs.reference_answers(made) == {}
    made.pins, made.pin = {"references": pin}, giving(pin)
    assert inputs.reference_answers(made) == {"i": "last"}
    made.rehearsal = True
    assert inputs.reference_answers(made) == {}


@pytest.mark.parametrize(("scope", "needed"), [("all", "pool"), ("consumed", "data")])
def test_what_is_labelled_needs_its_input(tmp_path: Path, scope: str, needed: str) -> None:
    made: Any = Loose(tmp_path)
    with pytest.raises(ValueError, match=f"needs the input '{needed}'"):
        inputs.samples_to_label(made, scope)


def model_of(width: int, folder: Path) -> Path:
    (folder / "config.json").write_text(json.dumps({"hidden_size": width}), encoding="utf-8")
    return folder


@pytest.mark.parametrize(
    ("labels", "width", "said"),
    [
        (("a",), 8, None),
        (("a", "b"), 8, "has 2 token sets"),
        (("a",), 9, "native"),
    ],
)
def test_a_model_s_own_tokens_are_the_single_set_of_a_training(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    labels: tuple[str, ...],
    width: int,
    said: str | None,
) -> None:
    monkeypatch.setattr(inputs, "model_folder", giving(model_of(width, tmp_path)))
    made: Any = Loose(tmp_path)
    made.before = {"native": [sets(tmp_path, "trained", *labels)]}
    if said is None:
        assert inputs.full_prefix(made, "model", n=5, trained="native").shape == (5, 8)
        with pytest.raises(ValueError, match="native"):
            inputs.full_prefix(made, "model", n=4, trained="native")
    else:
        with pytest.raises((InvalidInput, ValueError), match=said):
            inputs.full_prefix(made, "model", n=5, trained="native")


@pytest.mark.parametrize(("key", "pin"), [(False, False), (True, False), (False, True)])
def test_released_tokens_need_the_pin_and_its_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: bool, pin: bool
) -> None:
    monkeypatch.setattr(inputs, "model_folder", giving(model_of(8, tmp_path)))
    made: Any = Loose(tmp_path)
    attributes = {"released_tokens_key": "k"} if key else {}
    made.model = giving(SimpleNamespace(id="m", attributes=attributes))
    if pin:
        made.pins = {"released": PinInput("released", tmp_path, {})}
    with pytest.raises(InvalidInput, match="no tokens were released for the model m"):
        inputs.full_prefix(made, "model", n=5, trained="native")
    made.rehearsal = True
    assert inputs.full_prefix(made, "model", n=4, trained="native").shape == (4, 8)


def test_attack_texts_need_a_style(tmp_path: Path) -> None:
    made: Any = Loose(tmp_path)
    with pytest.raises(InvalidInput, match="declares no style"):
        inputs.attack_texts(made)


@pytest.mark.parametrize("rehearsal", [False, True])
@pytest.mark.parametrize("vllm", [False, True])
@pytest.mark.parametrize("evaluates", [False, True])
def test_a_backend_is_set_up_for_what_it_generates(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    rehearsal: bool,
    vllm: bool,
    evaluates: bool,
) -> None:
    started: dict[str, Any] = {}

    def start(*given: Any, **named: Any) -> Any:
        started.update(named)
        return TransformersBackend(tiny_llama(), 0)

    monkeypatch.setattr(inputs.common, "vllm_backend", start)
    monkeypatch.setattr(inputs.common, "transformers_backend", start)
    words = mini_tokenizer(
        tuple(f"Ġ{word}" for word in inputs._words(Loose(tmp_path, rehearsal=True)))
    )
    how: dict[str, Any] = {"backend": "vllm" if vllm else "transformers", "max_new_tokens": 1}
    given: Any
    if evaluates:
        given = params.Evaluate(
            layout="x", attacks=[], seed=0, accuracy=False, refusal_rule="x", **how
        )
    else:
        given = params.SelfLabel(empty_data="no-turn", **how)
    made = inputs.generation_backend(Loose(tmp_path, rehearsal=rehearsal), given, words, 0)  # type: ignore[arg-type]
    assert (type(made).__name__ == "AnswerLengths") is rehearsal
    if rehearsal:
        assert made.cut is not vllm  # type: ignore[attr-defined]
        assert {words.decode([i])[0] for i in made.word_ids} == {"Ġ"}  # type: ignore[attr-defined]
    if vllm:
        assert (started["sets"], started["prefix_caching"]) == (
            (4, True) if evaluates else (1, False)
        )
        assert started["gpu_share"] == 0.9
        assert bool(started["words"]) is rehearsal
    else:
        assert started["batch_tokens"] == 16384


def test_a_transfer_leaves_its_sets_and_their_geometry(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, target = torch.ones(5, 8), 3 * torch.ones(5, 8)
    monkeypatch.setattr(
        alignment, "full_prefix", lambda ctx, name, **_: source if name == "source" else target
    )
    rows = torch.eye(8).repeat(2, 1)
    save_alignment(tmp_path / "alignment.safetensors", orthogonal_map(rows, rows))
    made: Any = Loose(tmp_path)
    made.before = {"align": [StepInput("align", tmp_path, {}, {})]}
    given = params.Transfer(tokens=5, seed=0, sets=["procrustes", "norm-rescaled"])
    alignment.run_transfer(made, given)
    sets = load_sets(made.out / SETS)
    torch.testing.assert_close(sets["procrustes"], source)
    torch.testing.assert_close(sets["norm-rescaled"], target)
    facts = json.loads((made.out / "geometry.json").read_text(encoding="utf-8"))
    assert facts["procrustes"]["norm_mean"] == pytest.approx(8**0.5)
    assert facts["norm-rescaled"]["norm_mean"] == pytest.approx(3 * 8**0.5)


def test_made_up_embeddings_of_source_and_target_are_different_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inputs.common, "input_embeddings", lambda ctx, model, *, seed: seed)
    made: Any = Loose(tmp_path)
    assert [inputs.embeddings(made, name) for name in ("source", "target")] == [0, 1]


@pytest.mark.parametrize("rehearsal", [False, True])
def test_only_a_rehearsal_has_made_up_words_and_samples(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rehearsal: bool
) -> None:
    made: Any = Loose(tmp_path, rehearsal=rehearsal)
    assert bool(inputs._words(made)) is rehearsal
    if rehearsal:
        monkeypatch.setattr(standin, "POOL_SIZE", 7)
        assert inputs.training_pool(made) == standin.standin_samples(7, 0)
        assert len(inputs.evaluation_samples(made)) == 208
