"""What TAR's trainings and tables are made with, by what would differ if it were otherwise."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from kit.evals.sets import text_examples
from kit.methods.tar import label_study, refusal_safeguards
from kit.methods.tar.baselines.common import FORGET
from kit.methods.tar.baselines.llmu import llmu
from kit.methods.tar.baselines.recipe import Term
from kit.methods.tar.gather import tabulate
from kit.methods.tar.judged_table import JudgedModel, tabulate_judged
from kit.methods.tar.label_study import LabelTraining, train_with_label
from kit.methods.tar.losses import cross_entropy
from kit.methods.tar.objectives import check_reference
from kit.methods.tar.pairs import StoredPair
from kit.methods.tar.presets import preset
from kit.methods.tar.published import counts, halved, preferences, rows_of
from kit.methods.tar.published_sets import DOMAINS, standin_sets, write_sets
from kit.methods.tar.refusal_safeguards import RefusalSafeguard, train_refusal_safeguard
from kit.methods.tar.refusal_table import tabulate_refusals
from kit.methods.tar.representations import random_mapping_loss, representation_distance
from kit.methods.tar.safeguards import train_safeguard
from kit.methods.tar.scores import per_position
from kit.methods.tar.streams import tar_streams
from kit.tampering.watched import FinishedAttack
from kit.train.batching import Example
from kit.train.loop import FineTuning
from kit.train.optimizers import AdamW
from kit.train.single_process import SingleProcess
from kit.train.streams import Stream, Streams
from tests.methods.tar.conftest import build_batch, build_model, count
from tests.methods.tar.test_tar_gather import ROLES, trajectory
from tests.methods.tar.test_tar_label_study import BENIGN, LABELLED
from tests.methods.tar.test_tar_refusal_table import attack as attacked
from tests.refused import refused


@pytest.mark.parametrize("name", ["paper", "released-code", "corrected"])
@pytest.mark.parametrize("domain", ["bio", "chem", "cyber"])
def test_adversaries_of_a_domain(name: str, domain: str) -> None:
    """Forget texts, retained ones where E.2 says so, and one that turns from these to those."""
    kinds = {kind.name: (kind.data, kind.first) for kind in preset(name, domain).adversaries}
    forget = {
        "bio": ["pile-bio-forget", "camel-bio-forget"],
        "chem": ["chem-forget"],
        "cyber": ["cyber-forget"],
    }[domain]
    wanted: dict[str, Any] = {data: (data, None) for data in forget}
    if domain == "chem" or (domain == "cyber" and name == "paper"):
        wanted["retain"] = ("adversary-retain", None)
    wanted["retain-then-forget"] = (forget[0], "adversary-retain")
    assert {key: (data, first or None) for key, (data, first) in kinds.items()} == wanted


def examples(name: str, number: int, length: int = 4) -> list[Example]:
    return [
        Example(f"{name}-{i}", tuple(1 + (i + at) % 20 for at in range(length)), 1)
        for i in range(number)
    ]


def test_the_streams_of_an_outer_loop_are_named_in_order_and_sized_by_what_they_hold() -> None:
    settings = replace(
        preset("paper", "bio"), forget_batch=3, inner_retain_batch=5, held_out_batch=2,
        retain_batch=4, shuffle_adversary=False, shuffle_held_out=False, shuffle_retain=False,
    )  # fmt: skip
    names = {kind.data for kind in settings.adversaries} | {"adversary-retain"}
    made = tar_streams(
        settings,
        adversary={name: examples(name, 6) for name in names},
        held_out=examples("h", 6),
        retain=examples("r", 6),
        seed=0,
    )
    assert list(made) == [*(f"adversary/{name}" for name in sorted(names)), "held-out", "retain"]
    sizes = {name: len(made[name].take()) for name in made}
    assert sizes == {
        "adversary/adversary-retain": 5, "adversary/camel-bio-forget": 3,
        "adversary/pile-bio-forget": 3, "held-out": 2, "retain": 4,
    }  # fmt: skip
    for sort, stream in (("adversary", "adversary/pile-bio-forget"), ("held_out", "held-out"),
                         ("retain", "retain")):  # fmt: skip
        turned = tar_streams(
            replace(settings, **{f"shuffle_{sort}": True, "retain_batch": 6, "held_out_batch": 6,
                                 "forget_batch": 6}),
            adversary={name: examples(name, 6) for name in names},
            held_out=examples("h", 6), retain=examples("r", 6), seed=0,
        )  # fmt: skip
        for name in ("adversary/pile-bio-forget", "held-out", "retain"):
            ids = [int(one.id.rpartition("-")[2]) for one in turned[name].take()]
            assert (ids == list(range(6))) is (name != stream)


class Chat:
    """A tokenizer of one token a character, whose template says what it was asked."""

    added_tokens_decoder = {ord("<"): "<", ord(">"): ">"}  # noqa: RUF012

    def __call__(self, text: str, **settings: Any) -> Any:
        assert settings["add_special_tokens"] is False
        most = settings["max_length"] if settings.get("truncation") else None
        return SimpleNamespace(input_ids=[ord(c) for c in text][:most])

    def apply_chat_template(
        self, item: Any, *, tokenize: bool = True, add_generation_prompt: bool = False
    ) -> str:
        assert not tokenize
        opening = "<A>" * add_generation_prompt
        return "".join(f"<{turn['role'][0]}>{turn['content']}" for turn in item) + opening


def test_texts_are_cut_at_the_width_and_conversations_end_with_an_opening(tmp_path: Path) -> None:
    talk = [{"role": "user", "content": "ab"}, {"role": "assistant", "content": "c"}]
    sets = {"raw": ["abcdefghijklmnop", "x", "yz"], "chat": [talk], "raw-all": ["abc"]}
    for width, said in ((12, "<u>ab<a>c<A>"), (11, "<u>ab<a>c<A"), (64, "<u>ab<a>c<A>")):
        folder = tmp_path / str(width)
        write_sets(folder, sets, {}, Chat(), width)  # type: ignore[arg-type]
        assert {p.name for p in (folder / "texts").iterdir()} == {"raw.jsonl", "chat.jsonl"}
        (row,) = map(json.loads, (folder / "texts" / "chat.jsonl").read_text().splitlines())
        assert "".join(map(chr, row["ids"])) == said
        assert row["special"] == [at for at, c in enumerate(said) if c in "<>"]
        raw = [
            json.loads(line) for line in (folder / "texts" / "raw.jsonl").read_text().splitlines()
        ]
        assert [one["id"] for one in raw] == ["raw-000000", "raw-000002"]  # one token predicts none
        assert len(raw[0]["ids"]) == min(width, 16)
        assert "special" not in raw[0]
    write_sets(tmp_path / "12", sets, {}, Chat(), 12)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="no text of raw has two tokens"):
        write_sets(tmp_path / "x", {"raw": ["a", "b"]}, {}, Chat(), 9)  # type: ignore[arg-type]
    assert text_examples(tmp_path / "12", ["raw"], Chat())[0].prompt_length == 1  # type: ignore[arg-type]


def test_stand_ins_of_unpublished_counts_are_512_texts_of_the_width() -> None:
    sets, asked = standin_sets("cyber", {"cyber-all": 20}, 7)
    assert {name: len(items) for name, items in sets.items()} == {
        "cyber-all": 20, "cyber-forget": 16, "cyber-held-out": 4, "adversary-retain": 512,
        "chat": 512,
    }  # fmt: skip
    assert {len(text.split()) for text in sets["chat"]} == {7}
    assert {name: len(items) for name, items in asked.items()} == {"wmdp": 512, "retain": 512}
    bio, _ = standin_sets("bio", {}, 3)
    assert len(bio["pile-bio-all"]) == len(bio["camel-bio-all"]) == 512
    assert bio["chat"] != sets["chat"]
    assert set(DOMAINS) == {"bio", "chem", "cyber"}


@pytest.mark.parametrize(("items", "wrong"), [(1, True), (0, True), (2, False), (10, False)])
def test_a_set_that_is_halved_has_two_items(items: int, wrong: bool) -> None:
    refused(lambda: halved(range(items)), wrong, "cannot be divided")
    if not wrong:
        train, test = halved(range(items))
        assert sorted([*train, *test]) == list(range(items))
        assert len(test) == -(-items // 5)


def test_files_and_counts_that_cannot_be_read(tmp_path: Path) -> None:
    for names in (["a.jsonl", "b.csv"], ["a.txt"], []):
        with pytest.raises(ValueError, match="files of one format"):
            list(rows_of([tmp_path / name for name in names], ["x"]))
    for entry in ("a", "a=", "a=x", "=-1"):
        with pytest.raises(ValueError, match="name=count"):
            counts({}, [entry])
    assert counts({"a": 3}, ["a=3", "b=0", "a=4"]) == [
        ("a: 3 of 3", True), ("b: 0 of 0", True), ("a: 3 of 4", False),
    ]  # fmt: skip
    path = tmp_path / "hh.jsonl"
    turns = "\n\nHuman: q\n\nAssistant: {}"
    rows = [
        {"chosen": turns.format("yes"), "rejected": turns.format("no")},
        {"chosen": turns.format("a") + turns.format("b"), "rejected": turns.format("c")},
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert preferences([path]) == [("q", "yes", "no")]


def spied(monkeypatch: pytest.MonkeyPatch, module: Any) -> tuple[dict[str, int], list[Any]]:
    """Sizes of the streams that a training makes, and its optimizers and adapters."""
    sizes: dict[str, int] = {}
    made: list[Any] = []

    def stream(name: str, items: Any, size: int, **more: Any) -> Any:
        sizes[name] = size
        return Stream(name, items, size, **more)

    def engine(model: Any, spec: Any) -> Any:
        made.append(spec)
        return SingleProcess(model, spec)

    adapter: Callable[..., Any] = module.add_adapter

    def lora(model: Any, what: Any, **more: Any) -> Any:
        made.append(what)
        return adapter(model, what, **more)

    for name, value in (("Stream", stream), ("SingleProcess", engine), ("add_adapter", lora)):
        monkeypatch.setattr(module, name, value)
    return sizes, made


@pytest.mark.parametrize("rank", [0, 3])
@pytest.mark.parametrize("batch", [2, 6])
def test_half_of_a_labelled_batch_is_benign(
    monkeypatch: pytest.MonkeyPatch, rank: int, batch: int
) -> None:
    sizes, made = spied(monkeypatch, label_study)
    model = build_model(0).float()
    plan = LabelTraining("sft", 1, 0.0, batch, rank=rank)
    states, done = train_with_label(
        model, model, LABELLED, BENIGN, plan, lambda m: {"training": m.training}, pad_id=0
    )
    assert sizes == {"labelled": batch // 2, "benign": batch // 2}
    assert made[-1] == AdamW(0.0, 0.0)
    assert [(what.rank, what.alpha) for what in made[:-1]] == [(rank, float(rank))][: bool(rank)]
    assert list(states) == ["before", "after", "off"][: 3 if rank else 2]
    assert all(state == {"training": False} for state in states.values())
    assert len(done.losses) == 1


@pytest.mark.parametrize(
    ("settings", "wrong"),
    [({"batch": 2}, False), ({"batch": 1}, True), ({"batch": 3}, True), ({"batch": 0}, True),
     ({"objective": "rl"}, True)],
)  # fmt: skip
def test_labelled_trainings_that_can_be_run(settings: dict[str, Any], wrong: bool) -> None:
    plan = {"objective": "sft", "steps": 1, "learning_rate": 0.1, "batch": 4} | settings
    refused(lambda: LabelTraining(**plan), wrong, "unknown objective|half of a batch")


def as_long(number: int) -> list[StoredPair]:
    """Pairs whose two answers are of one length and differ."""
    return [StoredPair(f"p{i}", [1 + i, 2, 3], [4, 5 + i], [6 + i, 7]) for i in range(number)]


@pytest.mark.parametrize("method", ["rr", "repnoise"])
@pytest.mark.parametrize("rate", [0.0, 0.01])
def test_the_largest_change_of_a_safeguard_is_that_of_its_weights(
    monkeypatch: pytest.MonkeyPatch, method: str, rate: float
) -> None:
    sizes, made = spied(monkeypatch, refusal_safeguards)
    model, reference = build_model(0).float(), build_model(0).float().requires_grad_(False)
    plan = RefusalSafeguard(method, 1, rate, 3, blocks=(0,), rank=2, retain_scale=0.5)
    done = train_refusal_safeguard(model, reference, as_long(4), examples("r", 5), plan, pad_id=0)
    kept = dict(reference.named_parameters())
    moved = [float((p.detach() - kept[n]).abs().max()) for n, p in done.model.named_parameters()]
    assert done.largest_change == max(moved)
    assert (done.largest_change > 0) is (rate > 0)
    assert not done.model.training
    assert made[-1] == AdamW(rate, 0.0)
    assert sizes == {"harmful" if method == "rr" else "pairs": 3, "retain": 3}
    assert [(what.rank, what.alpha) for what in made[:-1]] == [(2, 2.0)] * (method == "rr")
    alone = RefusalSafeguard("repnoise", 1, 0.1, 2)
    assert (alone.alpha, alone.beta, alone.retain_scale, alone.seed) == (1.0, 0.001, 0.0, 0)


def test_a_term_on_pairs_is_of_their_ids_and_as_wide_as_the_longest() -> None:
    seen: list[Any] = []

    def loss(model: Any, batch: Any) -> Any:
        seen.append(batch)
        return 0.0 * next(model.parameters()).sum()

    pairs = [
        (Example(f"a{i}", (1, 2, 3 + i), 1), Example(f"b{i}", (1, 2, 3, 4 + i), 1))
        for i in range(4)
    ]
    streams = Streams(
        Stream("pairs", pairs, 4, seed=0, shuffle=False),
        Stream(FORGET, examples("f", 3), 2, seed=0),
    )
    terms = [Term("two", ("pairs",), loss), Term("one", (FORGET,), loss),
             Term("both", (FORGET, "pairs"), loss)]  # fmt: skip
    engine = SingleProcess(build_model(0).float(), AdamW(0.0, 0.0))
    done = train_safeguard(engine, terms, streams, FineTuning(1), rows=4, pad_id=0)
    assert done.losses == [0.0]
    (two, one, both) = seen
    assert [len(batch) for batch in (two, both)] == [2, 3]
    assert {side.batch.ids.shape[1] for side in (*two, *both)} == {4}
    assert one.batch.ids.shape == (2, 4)
    assert [side.item_ids[0][0] for side in two] == ["a", "b"]


def test_the_labels_of_another_text_count_from_the_second_token_on() -> None:
    """Rows are means over their own labels; a row without any adds nothing."""
    model = build_model(0)
    forget, other = build_batch(2, prompt=1), build_batch(9, lengths=(6, 12, 5), prompt=1)
    _, away = llmu()
    ascent = away.loss(model, (count(forget), count(forget)))
    made = away.loss(model, (count(forget), count(other)))
    scores = torch.log_softmax(
        model(input_ids=forget.ids, attention_mask=forget.attention_mask).logits, -1
    )

    def rows(labels: Any, widths: Any) -> Any:
        return torch.stack([
            -torch.stack([scores[i, t - 1, labels[i, t]] for t in range(1, n)]).mean()
            for i, n in enumerate(widths)
        ]).mean()  # fmt: skip

    difference = rows(other.ids, (6, 4, 5)) - rows(forget.ids, (7, 4, 9))
    torch.testing.assert_close(made - ascent, difference, rtol=1e-6, atol=1e-6)
    assert away.data == (FORGET, "unrelated")


def test_distances_and_cosines_are_means_over_what_is_given() -> None:
    ours, theirs = [torch.full((1, 2, 4), 3.0)], [torch.full((1, 2, 4), 1.0)]
    mask = torch.tensor([[True, False]])
    for distance, each in (("norm", 4.0), ("squared-norm", 16.0)):
        made = representation_distance(ours, theirs, mask, distance=distance)
        assert made.item() == pytest.approx(each)
        for padding, positions in (("included", 2), ("masked", 1)):
            made = representation_distance(
                ours, theirs, mask, distance=distance, padding=padding, total=8.0
            )
            assert made.item() == pytest.approx(each * positions / 8)
    vectors = torch.tensor([[1.0, 0, 0, 0], [-1.0, 0, 0, 0]])
    states = [torch.tensor([[[3.0, 4, 0, 0], [0, 2, 0, 0]]])]
    ids = torch.tensor([[1, 0]])
    made = random_mapping_loss(states, ids, vectors, mask)
    assert made.item() == pytest.approx((0.4 + 1.0) / 2)
    assert random_mapping_loss(states, ids, vectors, mask, total=4.0).item() == pytest.approx(0.35)
    with pytest.raises(ValueError, match="at least one layer"):
        random_mapping_loss([], ids, vectors, mask)
    with pytest.raises(ValueError, match="another shape"):
        representation_distance([], [], mask)


@pytest.mark.parametrize(("chunk", "sizes"), [(1, [1] * 5), (4, [4, 1]), (5, [5]), (6, [5])])
def test_positions_are_computed_by_chunks(chunk: int, sizes: list[int]) -> None:
    seen: list[int] = []

    def part(piece: Any) -> Any:
        seen.append(len(piece))
        return piece.square()

    values = torch.arange(5.0, requires_grad=True)
    made = per_position(part, [values], chunk=chunk)
    assert seen == sizes
    assert made.tolist() == [0, 1, 4, 9, 16]
    made.sum().backward()
    assert len(seen) == (2 * len(sizes) if len(sizes) > 1 else 1)  # again where it is cut
    refused(lambda: per_position(part, [values], chunk=0), True, "holds none")
    refused(lambda: per_position(part, [values[:0]], chunk=2), True, "no positions")


def test_the_model_in_training_is_no_reference() -> None:
    model = build_model(0)
    check_reference(model, build_model(1))
    with pytest.raises(ValueError, match="would move along"):
        check_reference(model, model)
    for other, said in ((build_model(1, layers=2), "num_hidden_layers"),
                        (build_model(1, width=8), "hidden_size")):  # fmt: skip
        with pytest.raises(ValueError, match=said):
            check_reference(model, other)


def test_the_letter_picked_most_is_told_in_percent(tmp_path: Path) -> None:
    one = FinishedAttack("a", trajectory(tmp_path, "a", [5, 5, 5]), {"seed": 0})
    table, outcomes = tabulate([one], ROLES, forget="forget")
    made = {cell.id: cell.value for cell in table.cells}
    assert made["all/one-letter/after"] == 30.0
    ((collapsed, said, _),) = outcomes.values()
    assert not collapsed
    assert "30.0 %" in said


def judged_by(folder: Path, judge: str, **said: Any) -> JudgedModel:
    record = {"judge": judge, "hits": [1, 0], "items": ["a", "b"], "mean": 6.5, "unreadable": 1,
              "verdicts": 4, "empty": 1, "answers": 2} | said  # fmt: skip
    file = folder / f"{judge}.json"
    file.write_text(json.dumps(record), encoding="utf-8")
    return JudgedModel(judge, file, {"method": "tar"})


def test_what_no_judge_here_can_give_stands_beside_mt_bench(tmp_path: Path) -> None:
    roles = {"method": "setting"}
    for judges, beside in ((["harmbench", "strongreject"], False), (["mt-bench"], True)):
        models = [judged_by(tmp_path, judge) for judge in judges]
        table = tabulate_judged(models, roles, not_run={"gpt-4": "no weights"})
        cells = {cell.id.partition("@")[0]: cell for cell in table.cells}
        assert ("all/score/gpt-4" in cells) is beside
        for judge in judges:
            assert cells[f"all/unreadable/{judge}"].value == 25
            assert cells[f"all/empty/{judge}"].value == 50
            if judge == "harmbench":
                assert cells["all/asr/harmbench"].value == 50
            else:
                assert cells[f"all/score/{judge}"].value == 6.5
        if beside:
            assert cells["all/score/gpt-4"].not_run == "no weights"


@pytest.mark.parametrize("adversaries", [["x"], ["x", "y"], ["x", "y", "z"]])
def test_a_model_is_asked_before_its_attacks_once(tmp_path: Path, adversaries: list[str]) -> None:
    attacks = [attacked(tmp_path, 0, "tar", name, ["sure it is moss"] * 4) for name in adversaries]
    changed = json.loads(attacks[-1].trajectory.read_text())
    if len(attacks) > 1:  # of several the first is taken
        changed["points"][0][1]["responses"]["harmful"] = ["sure it is moss"] * 4
        attacks[-1].trajectory.write_text(json.dumps(changed))
    table = tabulate_refusals(
        attacks, {"seed": "replicate", "method": "setting", "adversary": "setting"},
        harmful="harmful", benign="benign", over="adversary",
    )  # fmt: skip
    cells = {cell.id: cell.value for cell in table.cells}
    before = {id: value for id, value in cells.items() if "/asr/before" in id}
    assert list(before.values()) == [0.0]
    loss = {id.partition("@")[0]: value for id, value in cells.items() if "adversary-loss" in id}
    # Of the last five of 6, 9, 5, 4, 3, 2, 1.
    assert loss == {"all/adversary-loss/start": 6.0, "all/adversary-loss/end": 3.0}


def test_picks_are_those_of_the_last_point_and_a_curve_has_all(tmp_path: Path) -> None:
    one = FinishedAttack("a", trajectory(tmp_path, "a", [5, 12, 8]), {"seed": 0})
    points = json.loads(one.trajectory.read_text())["points"]
    table, _ = tabulate([one], ROLES, forget="forget")
    cells = {cell.id: cell.value for cell in table.cells}
    picks = points[2][1]["picks"]["forget"]
    assert picks != points[1][1]["picks"]["forget"]
    for letter in "ABCD":
        assert cells[f"all/picked/{letter.lower()}"] == 5 * picks.count(letter)
    (series,) = [one for one in table.series if one.id.startswith("under-attack")]
    (curve,) = series.lines["forget"]
    found = [(point.x, point.value, point.k, point.n) for point in curve.points]
    assert found == [(0, 25.0, 5, 20), (10, 60.0, 12, 20), (20, 40.0, 8, 20)]


def test_judgements_of_a_model_are_averaged_in_any_order_of_axes(tmp_path: Path) -> None:
    roles = {"method": "setting", "rate": "setting", "adversary": "setting"}
    models = []
    for number, axes in enumerate((
        {"method": "tar", "rate": "low", "adversary": "x"},
        {"adversary": "y", "rate": "low", "method": "tar"},
    )):  # fmt: skip
        made = judged_by(tmp_path, "harmbench", hits=[1, number])
        kept = made.file.rename(tmp_path / f"{number}.json")
        models.append(JudgedModel(str(number), kept, axes))
    table = tabulate_judged(models, roles, over="adversary")
    means = [cell.value for cell in table.cells if "mean-over-adversary" in cell.id]
    assert means == [75.0]


def test_a_micro_batch_without_labels_adds_nothing() -> None:
    states = torch.ones(1, 3, 4, requires_grad=True)
    labels = torch.full((1, 3), -100)
    made = cross_entropy(states, torch.nn.Linear(4, 5), labels, weights=torch.ones(1))
    assert made.item() == 0
    made.backward()
    assert states.grad is not None
    assert not states.grad.any()
    with pytest.raises(ValueError, match="nothing to predict"):
        cross_entropy(states, torch.nn.Linear(4, 5), labels)
