"""Edges of the small modules: order of files, characters, ties, zeros, and made-up data."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from kit.lm.backend import Generation
from kit.methods.defensive_tokens import standin
from kit.methods.defensive_tokens.alpaca import LONGEST, read_alpaca, to_sample
from kit.methods.defensive_tokens.geometry import cosines, geometry
from kit.methods.defensive_tokens.plan_files import load_plan, save_plan
from kit.methods.defensive_tokens.prefix_sets import load_sets, save_sets
from kit.methods.defensive_tokens.procrustes import orthogonal_map, unit_length_weights
from kit.methods.defensive_tokens.recipe import Plan
from kit.methods.defensive_tokens.result_cells import add_scores
from kit.methods.defensive_tokens.samples import Sample
from kit.methods.defensive_tokens.schedule import Schedule
from kit.methods.defensive_tokens.spectrum import points
from kit.methods.defensive_tokens.struq import TrainingItem
from kit.results.axes import Origin
from kit.results.builder import TableBuilder


@pytest.mark.parametrize("endings", [("json",), ("jsonl",), ("jsonl", "json")])
def test_files_of_a_folder_are_read_in_the_order_of_their_names(
    tmp_path: Path, endings: tuple[str, ...]
) -> None:
    """All .json files, then all .jsonl files."""
    for ending in endings:
        for number in (19, 11, 15, 27, 13, 10, 28, 21, 12, 29, 14, 18):
            row = {"instruction": f"{ending}-{number}", "input": "", "output": ""}
            text = json.dumps([row] if ending == "json" else row)
            (tmp_path / f"{number}.{ending}").write_text(text)
    read = [sample.instruction for sample in read_alpaca(tmp_path)]
    numbers = (10, 11, 12, 13, 14, 15, 18, 19, 21, 27, 28, 29)
    assert read == [f"{ending}-{number}" for ending in sorted(endings) for number in numbers]


@pytest.mark.parametrize("name", ["instruction", "input", "output"])
@pytest.mark.parametrize(("more", "wrong"), [(0, False), (1, True)])
def test_a_field_may_be_as_long_as_the_limit(name: str, more: int, wrong: bool) -> None:
    row = {"instruction": "", "input": "", "output": ""} | {name: "a" * (LONGEST + more)}
    if wrong:
        with pytest.raises(ValueError, match=f"{name}' has 200,001 characters"):
            to_sample(row, "a", "here")
    else:
        assert len(getattr(to_sample(row, "a", "here"), name)) == LONGEST


@pytest.mark.parametrize("n", [1, 2, 3, 4])
def test_the_mean_cosine_is_that_of_all_different_pairs(n: int) -> None:
    rows = torch.randn(n, 7, generator=torch.Generator().manual_seed(n), dtype=torch.float64)
    plain = rows.numpy() / np.linalg.norm(rows.numpy(), axis=1, keepdims=True)
    pairs = [plain[i] @ plain[j] for i in range(n) for j in range(n) if i != j]
    facts = geometry(rows, rows.flip(0))
    assert facts.mean_within == pytest.approx(np.mean(pairs) if pairs else 0.0)
    np.testing.assert_allclose(facts.cross_cosines, plain @ plain[::-1].T)
    np.testing.assert_allclose(cosines(rows, rows[:1]).numpy(), plain @ plain[:1].T)


@pytest.mark.parametrize(
    ("prefix", "reference"),
    [((2, 3), (3, 3)), ((2, 3), (2, 4)), ((3,), (3,)), ((1, 2, 3), (1, 2, 3))],
)
def test_what_is_compared_are_two_prefixes_of_one_shape(
    prefix: tuple[int, ...], reference: tuple[int, ...]
) -> None:
    with pytest.raises(ValueError, match=r"prefix .* reference"):
        geometry(torch.ones(prefix), torch.ones(reference))


def test_texts_of_a_plan_are_written_as_they_are(tmp_path: Path) -> None:
    """Somebody who looks into the file reads them, whatever the language."""
    sample = Sample("a", "naïve 雪", "", "ja")
    item = TrainingItem("a", "benign", "naïve 雪", None, "ja")
    save_plan(tmp_path, Plan((item,), Schedule((0,), 1, 1), {"a": sample}))
    assert "naïve 雪" in (tmp_path / "samples.jsonl").read_text(encoding="utf-8")
    assert "naïve 雪" in (tmp_path / "items.jsonl").read_text(encoding="utf-8")
    assert load_plan(tmp_path).samples == {"a": sample}


def test_a_name_without_a_number_comes_before_its_steps(tmp_path: Path) -> None:
    names = ["a-1", "a-0", "a", "a-x", "b-10", "b-9"]
    save_sets(tmp_path / "p", {name: torch.ones(2, 3) for name in names})
    assert list(load_sets(tmp_path / "p")) == ["a", "a-0", "a-1", "a-x", "b-9", "b-10"]


@pytest.mark.parametrize(
    ("values", "curve"),
    [
        ([4.0, 2.0, 1.0], [[1, 1.0], [2, 0.5], [3, 0.25]]),
        ([5.0], [[1, 1.0]]),
        ([0.0, 0.0], [[1, 0.0], [2, 0.0]]),
    ],
)
def test_a_spectrum_is_shares_of_its_largest_value(
    tmp_path: Path, values: list[float], curve: list[list[float]]
) -> None:
    save_file({"singular_values": np.array(values)}, tmp_path / "a.safetensors")
    assert points(tmp_path / "a.safetensors") == curve


@pytest.mark.parametrize("count", [63, 64, 65, 128, 4096])
def test_a_long_spectrum_is_thinned_evenly_and_keeps_both_ends(tmp_path: Path, count: int) -> None:
    save_file({"singular_values": np.arange(count, 0.0, -1)}, tmp_path / "a.safetensors")
    made = points(tmp_path / "a.safetensors")
    assert len(made) == min(count, 64)
    assert made[0] == [1, 1.0]
    assert made[-1] == [count, 1 / count]
    steps = np.diff([rank for rank, _ in made])
    assert steps.max() - steps.min() <= 1
    assert [value for _, value in made] == [(count + 1 - rank) / count for rank, _ in made]


def test_weights_need_matrices_of_one_vocabulary() -> None:
    with pytest.raises(ValueError, match="must be equal"):
        unit_length_weights(torch.ones(3, 2), torch.ones(4, 2))
    with pytest.raises(ValueError, match="must be equal"):
        unit_length_weights(torch.ones(3), torch.ones(3))


@pytest.mark.parametrize("chunk", [1, 2, 3, 100])
def test_weights_are_those_of_rows_of_length_one(chunk: int) -> None:
    source = torch.tensor([[3.0, 4.0], [0.0, 0.0], [1.0, 0.0], [0.0, 2.0]])
    target = torch.tensor([[0.0, 2.0], [1.0, 1.0], [0.0, 0.0], [5.0, 12.0]])
    weights = unit_length_weights(source, target, chunk_rows=chunk)
    assert weights.tolist() == pytest.approx([1 / 10, 0, 0, 1 / 26])
    assert weights.dtype is torch.float64


@pytest.mark.parametrize(("smallest", "unique"), [(1.0, True), (1e-12, True), (0.0, False)])
def test_a_map_is_unique_where_no_direction_is_without_weight(
    smallest: float, unique: bool
) -> None:
    source = torch.eye(3, dtype=torch.float64)
    target = torch.diag(torch.tensor([1.0, 1.0, smallest], dtype=torch.float64))
    assert orthogonal_map(source, target).unique is unique


def test_what_a_tied_table_would_emit_is_counted_and_averaged() -> None:
    scores: dict[str, Any] = {
        "items": ["a", "b", "c", "d"],
        "asr": {"ignore": [0, 0, 0, 1]},
        "refusal": {},
        "accuracy": {},
    }
    tied = {"wins": [1, 1, 1, 0], "probabilities": [0.5, 0.25, 0.25, 0.0]}
    table = TableBuilder()
    add_scores(
        table.at(Origin("near", "p1/7", (), "evaluate")),
        {"plain": scores, "native": scores | {"output_rows": tied}},
        native="native",
        published_full=None,
        refusal_rule="as-reported",
    )
    cells = {cell.id: cell for cell in table.build().cells}
    assert cells["near/emits-prefix/native"].value == 75
    assert cells["near/prefix-mass/native"].value == 25
    assert cells["near/prefix-mass/native"].unit == "percent"
    assert not {"near/emits-prefix/plain", "near/prefix-mass/plain"} & cells.keys()


def test_made_up_attack_sentences_are_as_long_as_the_real_ones_and_all_different() -> None:
    """StruQ tests with 11 sentences and trains with 10 others."""
    texts = standin.standin_attack_texts()
    assert (len(texts.ignore_test), len(texts.ignore_train)) == (11, 10)
    sentences = [text.removesuffix(" {injected_prompt}") for text in _all(texts)]
    assert len(set(sentences)) == 21
    for sentence in sentences:
        words = sentence.removesuffix(".").split()
        assert len(words) + 1 == 28, "with its full stop"
        assert sentence[0].isupper()
        assert len(set(words)) == 27
    assert (len(texts.fake_delimiters_train), len(texts.fake_delimiters_test)) == (60, 10)
    assert not set(texts.fake_delimiters_train) & set(texts.fake_delimiters_test)
    word = texts.injected_word
    assert word in texts.injected_prompt
    assert not [sentence for sentence in sentences if word.lower() in sentence.lower()]


def _all(texts: Any) -> tuple[str, ...]:
    return (*texts.ignore_test, *texts.ignore_train)


@pytest.mark.parametrize(
    ("made", "digest"),
    [
        (lambda: standin.standin_samples(30, 3), "train"),
        (lambda: standin.standin_evaluation(), "eval"),
        (lambda: standin.answer_lengths(30, 3), "answers"),
        (lambda: standin.standin_attack_texts(), "texts"),
    ],
)
def test_made_up_data_are_the_same_everywhere(made: Any, digest: str) -> None:
    """Times of two machines can be compared only when they were given the same texts."""
    known = {
        "train": "acc0b9b0d048ab52",
        "eval": "afc4ff7fcb3e8ddd",
        "answers": "eea72ae2d2c746b1",
        "texts": "f9893fca6e874d40",
    }
    assert hashlib.sha256(repr(made()).encode()).hexdigest()[:16] == known[digest]


class Backend:
    """Answers with so many tokens as it may."""

    vocabulary_size = 50

    def __init__(self) -> None:
        self.asked: list[Any] = []

    def generate(self, prompts: Any, *, max_new_tokens: int, **rest: Any) -> list[Generation]:
        self.asked.append((max_new_tokens, rest))
        return [Generation(tuple(range(max_new_tokens)), "length") for _ in prompts]

    def generate_sets(
        self, sets: Any, *, max_new_tokens: Any, **rest: Any
    ) -> list[list[Generation]]:
        self.asked.append((max_new_tokens, rest))
        return [
            [Generation(tuple(range(limit)), "length") for limit in limits]
            for limits in max_new_tokens
        ]

    def sets_at_once(self, vectors: int) -> int:
        return 100 // vectors


@pytest.mark.parametrize("cut", [False, True])
@pytest.mark.parametrize("most", [40, 512])
def test_made_up_answers_end_where_real_ones_would(cut: bool, most: int) -> None:
    inner = Backend()
    wrapped = standin.AnswerLengths(inner, (7, 8, 9), cut=cut)
    prompts = [[1]] * 20
    limits = [min(n, most) for n in standin.answer_lengths(20, 20)]
    for answers in (
        wrapped.generate(prompts, max_new_tokens=most, stop_ids=(), prefix=None),
        wrapped.generate_sets([(prompts, None)], max_new_tokens=most, stop_ids=())[0],
    ):
        assert [len(answer.ids) for answer in answers] == limits
        for answer in answers:
            assert answer.ids == tuple((7, 8, 9)[i % 3] for i in range(len(answer.ids)))
    assert [asked for asked, _ in inner.asked] == [most if cut else [limits]] * 2
    assert wrapped.sets_at_once(5) == (1 if cut else 20)
    assert wrapped.vocabulary_size == 50


@pytest.mark.parametrize(("n", "norm"), [(5, 83.0), (3, 2.0)])
def test_a_made_up_prefix_has_vectors_of_the_length_asked_for(n: int, norm: float) -> None:
    made = standin.released_prefix(16, n=n, norm=norm, seed=4)
    assert made.shape == (n, 16)
    assert made.norm(dim=1).tolist() == pytest.approx([norm] * n)
    assert torch.equal(made, standin.released_prefix(16, n=n, norm=norm, seed=4))
    assert not torch.equal(made, standin.released_prefix(16, n=n, norm=norm, seed=5))


@pytest.mark.parametrize("shape", [(1.0, 2.0, 3), (50.0, 0.1, 55), (3.0, 1.5, 400)])
def test_lengths_have_their_mean_and_their_bounds(shape: tuple[float, float, int]) -> None:
    mean, spread, most = shape
    drawn = np.array(standin.lengths(4000, shape, np.random.default_rng(1)))
    free = np.random.default_rng(2).lognormal(np.log(mean) - spread**2 / 2, spread, 200_000)
    expected = np.clip(np.round(free), 1, most)
    assert drawn.min() >= 1
    assert drawn.max() <= most
    assert drawn.mean() == pytest.approx(expected.mean(), abs=4 * expected.std() / 4000**0.5)


def test_only_so_many_made_up_samples_have_an_input() -> None:
    """37 % of Cleaned Alpaca has one (defensive_tokens.md, 1.2); the evaluation set always."""
    made = standin.standin_samples(4000, 0)
    assert sum(bool(sample.input) for sample in made) / 4000 == pytest.approx(0.37, abs=0.03)
    assert all(sample.instruction and sample.output for sample in made)
    assert len({sample.id for sample in made}) == 4000
