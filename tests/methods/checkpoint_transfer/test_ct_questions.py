"""The published question sets from files, stand-ins of them, and what an attack trains on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kit.methods.checkpoint_transfer.attack_data import cut
from kit.methods.checkpoint_transfer.counting import share_of_pairs
from kit.methods.checkpoint_transfer.questions import STEM, published_sets, read_with_shots
from kit.methods.checkpoint_transfer.standin import standin_documents, standin_sets


def _file(path: Path, rows: list[dict[str, object]]) -> list[Path]:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return [path]


def _row(at: int, subject: str | None = None) -> dict[str, object]:
    row: dict[str, object] = {
        "question": f"what is {at}",
        "choices": [f"{at} a", f"{at} b", f"{at} c", f"{at} d"],
        "answer": at % 4,
    }
    return row | ({"subject": subject} if subject else {})


@pytest.fixture
def files(tmp_path: Path) -> dict[str, list[Path]]:
    subjects = ["anatomy", "philosophy"]
    asked = [_row(at, subjects[at % 2]) for at in range(6)]
    examples = [_row(100 + at, subjects[at // 3]) for at in range(6)]
    return {
        "robust": _file(tmp_path / "robust.jsonl", [_row(at) for at in range(3)]),
        "mmlu": _file(tmp_path / "mmlu.jsonl", asked),
        "dev": _file(tmp_path / "dev.jsonl", examples),
    }


def test_every_published_set(files: dict[str, list[Path]]) -> None:
    sets = published_sets(
        files["robust"],
        files["mmlu"],
        cloze_files=files["robust"],
        shot_files=files["dev"],
        shots=2,
    )
    assert {name: len(found) for name, found in sets.items()} == {
        "wmdp-bio": 3,
        "wmdp-robust": 3,
        "mmlu": 6,
        "mmlu-stem": 3,
        "wmdp-cloze": 3,
        "mmlu-2-shot": 6,
    }
    assert all("-anatomy-" in one.id for one in sets["mmlu-stem"])
    first = sets["wmdp-cloze"][1]
    assert first.prompt == "Question: what is 1\nAnswer:"
    assert first.options == ("1 a", "1 b", "1 c", "1 d")


def test_examples_are_of_the_questions_own_subject(files: dict[str, list[Path]]) -> None:
    found = read_with_shots(files["mmlu"], files["dev"], 2)
    anatomy, philosophy = found[0].prompt, found[1].prompt
    opening = "The following are multiple choice questions (with answers) about {}.\n\n"
    assert anatomy.startswith(opening.format("anatomy") + "what is 100\nA. 100 a")
    assert philosophy.startswith(opening.format("philosophy") + "what is 103\nA. 103 a")
    # Two answered examples before the question, which is not answered.
    assert anatomy.count("Answer:") == 3
    assert "Answer: A\n\nwhat is 101" in anatomy
    assert anatomy.endswith("D. 0 d\nAnswer:")


def test_a_subject_with_too_few_examples_is_refused(files: dict[str, list[Path]]) -> None:
    with pytest.raises(ValueError, match="3 examples of anatomy; 5 are wanted"):
        read_with_shots(files["mmlu"], files["dev"], 5)


def test_stand_ins_have_the_counts_and_names_of_the_sets() -> None:
    counts = {"wmdp-robust": 5, "mmlu": 9, "mmlu-stem": 4, "wmdp-cloze": 3, "mmlu-5-shot": 9}
    sets = standin_sets(counts)
    assert {name: len(found) for name, found in sets.items()} == counts | {"wmdp-bio": 5}
    assert {one.id.split("-")[1] for one in sets["mmlu-stem"]} <= STEM
    assert sets["mmlu-5-shot"][0].prompt.count("Answer:") == 6
    with pytest.raises(ValueError, match="9 questions of STEM among 4"):
        standin_sets({"wmdp-robust": 1, "mmlu": 4, "mmlu-stem": 9})
    forget, retain = (standin_documents(3, 7, name) for name in ("forget", "retain"))
    assert [len(text.split()) for text in forget] == [7, 7, 7]
    assert not {*forget} & {*retain}


def test_documents_are_cut_into_pieces() -> None:
    documents = ["a" * 11, "b" * 4, "c" * 30]
    pieces = cut(
        documents,
        lambda text: [ord(letter) for letter in text],
        number=3,
        seed=1,
        most_tokens=5,
        most_pieces=3,
    )
    lengths = {id: len(ids) for id, ids in sorted(pieces.items())}
    # The first's last letter alone predicts nothing; what is left of the third is dropped.
    assert lengths == {
        "document-000000-0": 5,
        "document-000000-1": 5,
        "document-000001-0": 4,
        "document-000002-0": 5,
        "document-000002-1": 5,
        "document-000002-2": 5,
    }
    assert pieces["document-000001-0"] == [ord("b")] * 4


def test_pieces_come_in_an_order_of_the_seed_and_documents_may_not_run_out() -> None:
    documents = [chr(97 + at) * 3 for at in range(20)]

    def order(seed: int) -> list[str]:
        found = cut(
            documents, lambda t: [1] * len(t), number=20, seed=seed, most_tokens=8, most_pieces=1
        )
        return list(found)

    assert sorted(order(1)) == sorted(order(2))
    assert order(1) == order(1) != order(2)
    with pytest.raises(ValueError, match="21 documents asked of 20"):
        cut(documents, lambda t: [1], number=21, seed=1, most_tokens=8, most_pieces=1)
    with pytest.raises(ValueError, match="no document has two tokens"):
        cut(documents, lambda t: [1], number=2, seed=1, most_tokens=8, most_pieces=1)


@pytest.mark.parametrize(
    ("examples", "share", "expected"),
    [(1024, 1.0, 1024), (1024, 0.125, 128), (1024, 0.001, 32), (2048, 0.5, 1024), (40, 0.9, 32)],
)
def test_a_share_of_the_pairs_is_whole_steps(examples: int, share: float, expected: int) -> None:
    assert share_of_pairs(examples, share) == expected
