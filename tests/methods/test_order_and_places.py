"""What is named first, in which order things are written, and where: the same on every machine."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from kit.evals.requests import read_asked
from kit.evals.sets import read_questions
from kit.methods.checkpoint_transfer import answers
from kit.methods.checkpoint_transfer.affine import AffineMap, maps_for
from kit.methods.checkpoint_transfer.affine_files import METADATA, load_maps, save_maps
from kit.methods.checkpoint_transfer.states import INDEX, FileStates, write_states
from kit.methods.checkpoint_transfer.student import adapter, make_student, optimizer_spec
from kit.methods.checkpoint_transfer.targets import ForgetTargets, RetainReference
from kit.methods.checkpoint_transfer.texts import choose_texts
from kit.methods.tar.pairs import read_pairs
from kit.methods.tar.stages import divided, simulated
from kit.steps.defensive_tokens.evaluation import evaluate_science
from kit.steps.defensive_tokens.params import Evaluate
from kit.train.batching import Example
from kit.train.single_process import SingleProcess
from tests.methods.checkpoint_transfer.small_run import pairs, recipe, run, setting
from tests.steps.contexts import giving

ONE = AffineMap(torch.eye(2), torch.zeros(2))


@pytest.fixture(scope="module")
def given() -> Any:
    torch.set_num_threads(1)
    return setting()


@pytest.mark.parametrize("read", [read_asked, read_questions, read_pairs])
def test_sets_that_there_are_are_named_in_order(
    tmp_path: Path, read: Callable[[Path, str], Any]
) -> None:
    for folder in ("requests", "questions", "pairs"):
        (tmp_path / folder).mkdir()
    for name in ("d", "b", "e", "a", "c"):
        for folder in ("requests", "questions", "pairs"):
            (tmp_path / folder / f"{name}.jsonl").write_text("", encoding="utf-8")
    with pytest.raises(ValueError, match=r"there: a, b, c, d, e$"):
        read(tmp_path, "x")


def test_maps_are_written_in_the_order_of_their_layers_wherever(tmp_path: Path) -> None:
    """Into a folder that is there or has to be made."""
    maps = {block: AffineMap(torch.eye(2), torch.zeros(2)) for block in (4, -1, 2)}
    for folder in (tmp_path, tmp_path / "a" / "b"):
        save_maps(folder, maps, alpha=0.0, provenance={}, fit={}, held_out={})
        read = json.loads((folder / METADATA).read_text(encoding="utf-8"))
        assert read["layer_indices"] == [0, 3, 5]
        assert list(load_maps(folder)) == [-1, 2, 4]
    with pytest.raises(ValueError, match=r"there are maps for: -1, 2, 4$"):
        maps_for(maps, [3], width=2, depth=8)


def test_blocks_are_patched_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    from contextlib import nullcontext

    patched: list[int] = []
    monkeypatch.setattr(
        answers,
        "oracle_patch",
        lambda student, teacher, affine, block: nullcontext(patched.append(block)),
    )
    monkeypatch.setattr(answers, "answer", giving({}))
    made = answers.patched_answers(
        None,
        None,
        dict.fromkeys((4, 0, -1, 2), ONE),
        None,
        [],
        lambda text: [],  # type: ignore[arg-type]
    )
    assert list(made) == patched == [0, 2, 4]


def test_states_are_written_wherever_and_the_first_file_that_is_missing_is_named(
    tmp_path: Path,
) -> None:
    rows = [(1, {0: torch.zeros(1, 2)})]
    for folder in (tmp_path, tmp_path / "a" / "b"):
        write_states(folder, rows)
        assert list(FileStates(folder)) == [1]
    names = {str(number): f"lost-{letter}" for number, letter in enumerate("hdgbface")}
    (tmp_path / INDEX).write_text(json.dumps(names), encoding="utf-8")
    with pytest.raises(ValueError, match="names lost-a,"):
        FileStates(tmp_path)


def test_adapters_are_on_the_same_modules_in_the_same_order(given: Any) -> None:
    targets = adapter(given.original, recipe()).targets
    assert list(targets) == sorted(targets)
    assert len(targets) == 7


def test_the_pairs_have_an_order_of_their_own() -> None:
    """Retain text is shuffled again behind the texts of the maps."""
    retain = [f"r{number}" for number in range(20)]
    texts = choose_texts(
        [f"f{number}" for number in range(12)], retain, lambda text: [int(text[1:])],
        pairs=12, fit=12, held_out=2, seed=0, most_tokens=4,
    )  # fmt: skip
    assert texts.retain != texts.fit
    assert texts.forget == [[number] for number in range(12)]


def test_what_is_compared_with_keeps_its_precision_inside_of_a_training_step(given: Any) -> None:
    targets = ForgetTargets(given.teacher, given.maps, recipe())
    reference = RetainReference(given.original)
    rows, scores = targets.rows(pairs(), [0, 1]), reference.logits(pairs(), [0, 1])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(reference.logits(pairs(), [0, 1]), scores)
        for block, values in targets.rows(pairs(), [0, 1]).items():
            assert torch.equal(values, rows[block])


def test_one_process_alone_is_trained_on_its_share(given: Any) -> None:
    """As the published epoch sweep was: a quarter of the pairs."""
    _, done, _ = run(given, recipe("epoch-sweep", micro_batch=2))
    assert len(done.remove) == 16 // 4 // 2
    assert done.numbers == [0, 1]


def test_a_term_that_compares_needs_its_reference_and_no_other(given: Any) -> None:
    from kit.methods.checkpoint_transfer.unlearn import unlearn

    for wanted, refused in ((recipe(), True), (recipe(retain_loss="cross-entropy"), False)):
        student = make_student(copy.deepcopy(given.original), wanted, seed=0)
        engine = SingleProcess(student, optimizer_spec(wanted))
        targets = ForgetTargets(given.teacher, given.maps, wanted)
        if refused:
            with pytest.raises(ValueError, match="needs the model from before"):
                unlearn(engine, wanted, pairs(), targets, None, seed=0)
        else:
            assert len(unlearn(engine, wanted, pairs(), targets, None, seed=0).retain) == 8


def test_the_division_of_a_seed_is_the_same_for_ever() -> None:
    """Recorded numbers rest on it."""
    texts = [Example(f"{letter}-0-0", (1, 2), 1) for letter in "hgfedcba"]
    made = divided(texts, 0.5, by="text", seed=0)
    again = divided(list(reversed(texts)), 0.5, by="text", seed=0)
    assert {e.id for e in made.adversary} == {e.id for e in again.adversary}
    assert "".join(e.id[0] for e in made.adversary) == "feca"


def test_the_first_unknown_adversary_is_named() -> None:
    with pytest.raises(ValueError, match="unknown adversary 'a'"):
        simulated({}, list("hgfedcbaijkl"), [])


def test_functions_of_ones_own_are_science_in_the_order_of_their_names() -> None:
    own = [f"{letter}=module.{letter}:function" for letter in "hgfedcba"]
    asked = Evaluate(
        layout="before-bos", attacks=[], max_new_tokens=1, seed=0, accuracy=False,
        refusal_rule="as-reported", defences=["undefended", *own, "text=so {data}"],
    )  # fmt: skip
    named = [name for name in evaluate_science(asked) if name.startswith("module.")]
    assert named == [f"module.{letter}:function" for letter in "abcdefgh"]
    plain = Evaluate(
        layout="before-bos", attacks=[], max_new_tokens=1, seed=0, accuracy=False,
        refusal_rule="as-reported",
    )  # fmt: skip
    assert set(evaluate_science(plain)) <= set(evaluate_science(asked))
