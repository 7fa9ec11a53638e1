"""Pretraining and measuring of the miniature Llama, step by step and at the borders."""

from __future__ import annotations

import json
import math
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from kit.mini import trials
from kit.mini.facts.model import build_tokenizer as facts_tokenizer
from kit.mini.injection import build, entry, model, page, record
from kit.mini.injection.attacks import load_attacks
from kit.mini.injection.batches import GROUP, batches
from kit.mini.injection.entry import Entry
from kit.mini.injection.paths import mini_model_dir, mini_model_names
from kit.mini.injection.phrases import REAL_DELIMITERS_SHARE, draw_delimiters
from kit.mini.injection.pretrain import SOURCE, answer_loss, lr_factor, split_parameters, train
from kit.mini.injection.pretrain_data import Mix, draw_example
from kit.mini.injection.tasks import INSTRUCTIONS, answer, draw_item
from kit.mini.injection.tokenizer import build_tokenizer, quick_tokenizer
from kit.mini.injection.vocabulary import words
from kit.mini.injection.world import NO_INPUT_SHARE, dev_set
from kit.mini.record import judge, read_record, software


def test_training_equals_a_plain_loop() -> None:
    """Muon on matrices, AdamW on the rest, one clip over all, the rate of each step by hand."""
    recipe = replace(SOURCE, steps=4, warmup=2, batch_size=4, clip=0.3)
    trained, plain = model.new_model(2), model.new_model(2)
    trained.eval()
    seen: list[tuple[int, float]] = []
    modes: list[bool] = []

    def report(step: int, loss: float) -> None:
        seen.append((step, loss))
        modes.append(trained.training)

    train(trained, recipe, "s", report)
    assert modes == [True] * 4
    assert not trained.training
    matrices, others = split_parameters(plain)
    makers = [
        torch.optim.Muon(matrices, lr=1.0, weight_decay=0.1),
        torch.optim.AdamW(others, lr=1.0, betas=(0.9, 0.98), weight_decay=0.01),
    ]
    losses = []
    factors = (0.5, 1.0, 1.0, 0.05 + 0.95 * (1 + math.cos(math.pi / 2)) / 2)
    stream = list(batches("s", recipe.mix, size=4, steps=4))
    for factor, batch in zip(factors, stream, strict=True):
        loss = answer_loss(plain, batch)
        losses.append(loss.item())
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(plain.parameters(), 0.3)
        for optimizer, peak in zip(makers, (0.015, 0.02), strict=True):
            optimizer.param_groups[0]["lr"] = peak * factor
            optimizer.step()
            optimizer.zero_grad()
    assert [step for step, _ in seen] == [0, 1, 2, 3]
    assert [loss for _, loss in seen] == pytest.approx(losses, rel=1e-5)
    for (name, mine), other in zip(trained.named_parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-5, atol=1e-6, msg=name)


@pytest.mark.parametrize(
    ("steps", "warmup", "step", "factor"),
    [(3, 2, 0, 0.5), (3, 2, 1, 1.0), (3, 2, 2, 1.0), (3, 2, 3, 0.05), (2, 2, 2, 1.0),
     (6, 2, 4, 0.525), (6, 2, 60, 0.05), (6, 2, 8, 0.05), (6, 0, 0, 1.0)],
)  # fmt: skip
def test_rates_of_short_runs(steps: int, warmup: int, step: int, factor: float) -> None:
    assert lr_factor(replace(SOURCE, steps=steps, warmup=warmup), step) == pytest.approx(factor)


@pytest.mark.parametrize(("count", "mean"), [(150, 99.5), (100, 49.5), (3, 1.0)])
def test_the_last_hundred_losses_are_averaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int, mean: float
) -> None:
    def train(model: Any, recipe: Any, seed: str, report: Any) -> None:
        assert (model, seed) == ("new 3", "source-3")
        for step in range(count):
            report(step, float(step))

    monkeypatch.setattr(build, "train", train)
    monkeypatch.setattr(build, "new_model", lambda seed: f"new {seed}")
    monkeypatch.setattr(build, "save_model", lambda model, folder: None)
    assert build.train_model(tmp_path, "source", 3, SOURCE) == (tmp_path / "source-3", mean)


def test_a_seed_is_built_quietly_on_one_thread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers.utils import logging

    monkeypatch.setattr(build, "_build_model", lambda *_: {"admitted": False})
    torch.set_num_threads(2)
    shown = logging.is_progress_bar_enabled()
    try:
        logging.enable_progress_bar()  # type: ignore[no-untyped-call]
        assert build.build_seed(tmp_path, 1)["newer"] is None
        assert not logging.is_progress_bar_enabled()
        assert torch.get_num_threads() == 1
    finally:
        if shown:
            logging.enable_progress_bar()  # type: ignore[no-untyped-call]


def test_a_build_begins_in_a_folder_that_is_not_there_yet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And removes what does not ship whenever a seed is done."""
    monkeypatch.setattr(trials, "ProcessPoolExecutor", _Inline)
    monkeypatch.setattr(build, "release", lambda root: {"source-0": [[0.5, 1e-9]]})

    def build_seed(root: Path, seed: int) -> Any:
        (root / f"source-{seed}").mkdir()
        (root / f"source-{seed}" / "model.safetensors").write_bytes(b"w")
        admitted = {"admitted": seed != 0}
        return {"seed": seed, "source": admitted, "newer": admitted}

    monkeypatch.setattr(build, "build_seed", build_seed)
    root, said = tmp_path / "deep" / "weights", list[str]()
    for _ in range(2):
        build.build(root, 1, 1, said.append)
    assert said == ["tried seed 0", "tried seed 1"]
    assert mini_model_names(root=root) == ["source-1"]
    assert list(json.loads((root / "sha256.json").read_text())) == ["source-1/model.safetensors"]
    assert json.loads((root / "defensivetokens.json").read_text()) == {"source-0": [[0.5, 1e-9]]}
    rows = json.loads((root / "build_record.json").read_text())["seeds"]
    assert [row["status"] for row in rows] == ["rejected", "admitted"]


def test_models_that_do_not_ship_are_removed(tmp_path: Path) -> None:
    statuses = ("admitted", "rejected", "surplus")
    for seed in range(3):
        for kind in ("source", "newer")[: 2 - seed // 2]:
            (tmp_path / f"{kind}-{seed}").mkdir()
    rows = [{"seed": seed, "status": status} for seed, status in enumerate(statuses)]
    build._remove_unshipped(tmp_path, {"seeds": rows})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["newer-0", "source-0"]


def test_weights_are_rounded_when_they_are_written(tmp_path: Path) -> None:
    made = model.new_model(1)
    before = {name: p.detach().clone() for name, p in made.named_parameters()}
    model.save_model(made, tmp_path)
    stored = load_file(tmp_path / "model.safetensors")
    assert {"tokenizer.json", "tokenizer_config.json"} <= {p.name for p in tmp_path.iterdir()}
    back = model.load_model(tmp_path)
    assert {values.dtype for values in stored.values()} == {torch.bfloat16}
    assert not back.training
    for name, weight in back.named_parameters():
        assert weight.dtype == torch.float32
        assert torch.equal(weight, before[name].bfloat16().float())
    modes = {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()}
    assert modes == {0o644}


class _At:
    """A generator whose random numbers between 0 and 1 are all one value."""

    def __init__(self, value: float) -> None:
        self.value, self._inner = value, Random(3)

    def random(self) -> float:
        return self.value

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


@pytest.mark.parametrize(
    ("kind", "border", "empty_below"), [("refuse", 0.5, False), ("clean", NO_INPUT_SHARE, True)]
)
def test_a_share_begins_below_its_border(kind: str, border: float, empty_below: bool) -> None:
    shares = dict.fromkeys(("clean", "follow", "guard", "refuse"), 0.0)
    mix = Mix(**{**shares, kind: 1.0})
    for value, below in ((border, False), (border - 1e-9, True)):
        rng: Any = _At(value)
        example = draw_example(rng, mix)
        assert example.kind == kind
        assert (example.data is None) == (below == empty_below)


@pytest.mark.parametrize("task", sorted(INSTRUCTIONS))
def test_the_first_wording_where_no_other_is_wanted(task: str) -> None:
    first = INSTRUCTIONS[task][0].partition("{")[0]
    data = task not in ("print", "capital")
    for seed in range(8):
        item = draw_item(Random(seed), {task: 1.0}, data=data, hacked=True, paraphrase=False)
        assert item.instruction.startswith(first)


@pytest.mark.parametrize("real", [True, False])
def test_real_delimiters_are_drawn_below_their_share(real: bool) -> None:
    rng: Any = _At(REAL_DELIMITERS_SHARE - 1e-9 * real)
    assert (draw_delimiters(rng) == load_attacks().completion_real) is real


@pytest.mark.parametrize("world", ["facts", "injection"])
def test_decoded_words_stay_apart(world: str) -> None:
    """A mark is a word like any other, on the way back too."""
    build_one = facts_tokenizer if world == "facts" else build_tokenizer
    text = "the colour ? of ." if world == "facts" else "the sun is very high ."
    made = build_one()
    known = [word for word in text.split() if word in made.get_vocab()]
    assert {*known} & {".", "?"}
    ids = [made.get_vocab()[word] for word in known]
    assert made.decode(ids) == " ".join(known)
    assert made.padding_side == "left"
    assert made.encode(known[-1]) == ids[-1:]


def test_an_unknown_task_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown task 'sing'"):
        answer("sing", ["red"])


def test_shares_of_right_answers_and_beginnings() -> None:
    assert entry._equal(["a", "b", "c", "d"], ["a", "x", "c", "y"]) == 0.5
    assert entry._begin(["sorry i", "", "i sorry", "sorry"], "sorry") == 0.5


def test_questions_of_a_measurement(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is asked and in what turns; every share by its own answers."""
    samples = dev_set(4)
    asked: list[list[list[int]]] = []
    right = [sample.output for sample in samples]

    def greedy(_: Any, prompts: list[list[int]]) -> list[str]:
        asked.append(prompts)
        turn = len(asked)
        if turn == 1:
            return [right[0], right[1], "sorry", right[3]]
        # Behind source guards, behind newer guards, then five attacks.
        injected = max(0, turn - 3)
        return ["hacked now"] * min(injected, 4) + right[min(injected, 4) :]

    monkeypatch.setattr(entry, "greedy", greedy)
    nothing: Any = None
    found = entry.measure(nothing, samples)
    assert (found.questions, found.accuracy, found.refusal) == (4, 0.75, 0.25)
    assert found.attack_success == {
        "ignore": 0.25, "completion": 0.5, "ignore-completion": 0.75, "naive": 1.0,
        "paraphrase": 1.0,
    }  # fmt: skip
    assert found.guarded_success == {"source": 0.0, "newer": 0.0}
    assert found.guarded_accuracy == {"source": 1.0, "newer": 1.0}
    names = words()
    guards = [entry.SOURCE_GUARDS, entry.NEWER_GUARDS]
    for prompts, phrases in zip(asked[1:3], guards, strict=True):
        for at, prompt in enumerate(prompts):
            text = " ".join(names[i] if i < len(names) else "|" for i in prompt)
            assert text.startswith(f"| {phrases[at % len(phrases)]} |")
    assert asked[0][0] == entry.prompt_ids(samples[0].instruction, samples[0].input)


@pytest.mark.parametrize(
    ("accuracy", "success", "enters"),
    [(0.95, 0.7, True), (0.9499, 0.7, False), (0.95, 0.6999, False)],
)
def test_the_strongest_attack_of_the_rule_decides(
    accuracy: float, success: float, enters: bool
) -> None:
    for strongest in entry.RULE_ATTACKS:
        rates = {**dict.fromkeys(entry.RULE_ATTACKS, 0.1), "naive": 1.0, strongest: success}
        made = Entry(400, accuracy, rates, {}, {}, 0.0)
        assert (made.strongest, made.admitted) == (success, enters)


def test_hashes_are_of_the_files_of_model_folders_in_order(tmp_path: Path) -> None:
    import hashlib

    names = [f"{kind}-{seed}/{file}" for seed in (3, 10, 1, 7) for kind in ("source", "newer")
             for file in ("b.json", "a.bin")]  # fmt: skip
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(name.encode())
    (tmp_path / "source-1" / "deep").mkdir()
    (tmp_path / "beside.json").write_text("{}")
    found = record.file_hashes(tmp_path)
    assert list(found) == sorted(names)
    assert found[names[0]] == {
        "sha256": hashlib.sha256(names[0].encode()).hexdigest(), "bytes": len(names[0])
    }  # fmt: skip
    record.write_record(tmp_path, {"seeds": []})
    assert json.loads((tmp_path / "sha256.json").read_text()) == found
    assert (tmp_path / "sha256.json").read_text().endswith("}\n")


@pytest.mark.parametrize(
    ("source", "newer", "enters"),
    [(True, {"admitted": True}, True), (False, {"admitted": True}, False), (True, None, False),
     (True, {"admitted": False}, False)],
)  # fmt: skip
def test_both_versions_of_a_seed_have_to_enter(source: bool, newer: Any, enters: bool) -> None:
    assert record.passed({"source": {"admitted": source}, "newer": newer}) is enters


def test_seeds_are_judged_in_the_order_of_their_numbers() -> None:
    rows = [{"seed": seed, "good": seed != 9} for seed in (10, 9, 2, 100)]
    for wanted, admitted in ((0, 0), (1, 1), (2, 2), (5, 3)):
        found = judge(rows, wanted, lambda row: bool(row["good"]))
        assert [row["seed"] for row in found] == [2, 9, 10, 100]
        good = [row["status"] for row in found if row["good"]]
        assert good == ["admitted"] * admitted + ["surplus"] * (3 - admitted)
        assert found[1]["status"] == "rejected"


def test_a_new_record_states_its_software_and_one_thread(tmp_path: Path) -> None:
    made = read_record(tmp_path / "none.json", {"a": 1}, 7)
    assert made == {"wanted": 7, "recipe": {"a": 1}, "software": software(), "seeds": []}
    assert made["software"]["threads"] == 1
    assert made["software"]["torch"] == torch.__version__


def test_shipped_models_by_kind_and_number(tmp_path: Path) -> None:
    for name in ("newer-2", "source-10", "source-9", "other-1", "source-x", "newer-1"):
        (tmp_path / name).mkdir()
        if name != "newer-1":
            (tmp_path / name / "model.safetensors").write_bytes(b"")
    assert mini_model_names(root=tmp_path) == ["source-9", "source-10", "newer-2"]
    assert mini_model_names("newer", tmp_path) == ["newer-2"]
    assert mini_model_names("source", tmp_path) == ["source-9", "source-10"]
    assert mini_model_names(root=tmp_path / "none") == []
    assert mini_model_dir("newer-2", tmp_path) == tmp_path / "newer-2"
    with pytest.raises(ValueError, match="unknown miniature model 'newer-1'; shipped: source-9"):
        mini_model_dir("newer-1", tmp_path)
    with pytest.raises(ValueError, match="shipped: none"):
        mini_model_dir("newer-1", tmp_path / "none")


def test_the_page_shows_the_record_in_percent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    attacks = dict(zip((*entry.RULE_ATTACKS, *entry.OTHER_ATTACKS), range(5), strict=True))
    numbers = {
        "accuracy": 0.975, "train_seconds": 61.4,
        "attack_success": {name: at / 10 for name, at in attacks.items()},
        "guarded_success": {"source": 0.05, "newer": 0.625},
    }  # fmt: skip
    shares = ("clean", "follow", "guard", "refuse", "followed", "idle", "unattacked")
    mix = dict.fromkeys((*shares, "embedded_alone"), 0.055)
    rule = {"questions": 40, "least_accuracy": 0.95, "least_attack_success": 0.7,
            "attacks": ["a", "b"]}  # fmt: skip
    rows = [
        {"seed": 2, "status": "admitted", "source": numbers, "newer": numbers},
        {"seed": 4, "status": "admitted", "source": numbers, "newer": None},
    ]
    recipe = {"entry_rule": rule, "source": {"mix": mix, "final_lr": 0.5},
              "newer": {"mix": mix, "final_lr": 0.25}}  # fmt: skip
    monkeypatch.setattr(
        page, "_record", lambda root: {"recipe": recipe, "seeds": rows, "software": {"torch": "1"}}
    )
    cells = "97.5 | 0.0 | 10.0 | 20.0 | 30.0 | 40.0 | 5.0 | 62.5 | 61 | admitted |"
    assert page.seed_table(tmp_path).splitlines()[2:] == [
        f"| 2 | source | {cells}", f"| 2 | newer | {cells}", f"| 4 | source | {cells}"
    ]  # fmt: skip
    assert page.training_table(tmp_path).splitlines()[2:] == [
        "| final lr | 0.5 | 0.25 |", "", "Built with torch 1."
    ]  # fmt: skip
    assert page.mix_table(tmp_path).count("| 5.5 % | 5.5 % |") == 8
    assert page.summary_sentence(tmp_path) == (
        "Seeds tried: 2. admitted: 2 (2, 4); rejected: 0 (none); surplus: 0 (none)."
    )
    shown = page.rule_sentence(tmp_path)
    assert all(part in shown for part in ("On 40 ", "least 95 %", "least 70 %", "a, b succeeds"))


def test_batches_end_where_they_are_asked_to() -> None:
    for steps in (0, 1, GROUP, GROUP + 1):
        made = list(batches("a", SOURCE.mix, size=3, steps=steps))
        assert [len(batch.ids) for batch in made] == [3] * steps


def test_shipped_models_have_the_shape_that_is_built_today() -> None:
    """Every field of the shipped description but the versions and types that saving adds."""
    added = {"transformers_version", "dtype", "architectures"}
    for name in ("source-0", "newer-0"):
        shipped = json.loads((mini_model_dir(name) / "config.json").read_text())
        built = model.mini_config().to_dict()
        assert {key: built[key] for key in shipped if key not in added} == {
            key: value for key, value in shipped.items() if key not in added
        }


def test_a_tokenizer_adds_nothing_unless_it_is_told_to() -> None:
    tokenizer = quick_tokenizer()
    assert tokenizer.encode("red dog") == [words().index("red"), words().index("dog")]
    with pytest.raises(ValueError, match="'zeppelin' is not in the miniature vocabulary"):
        tokenizer.encode("red zeppelin")


class _Inline:
    """Does work at once, in this process."""

    def __init__(self, workers: int, context: Any) -> None:
        self.workers = workers

    def __enter__(self) -> _Inline:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def submit(self, work: Any, seed: int) -> Future[Any]:
        made: Future[Any] = Future()
        made.set_result(work(seed))
        return made


@pytest.mark.parametrize(
    ("jobs", "known", "wanted", "tried", "statuses"),
    [
        (None, [], 2, [0, 1, 2], ["admitted", "rejected", "admitted"]),
        (1, [0], 2, [1, 2], ["admitted", "rejected", "admitted"]),
        (2, [], 2, [0, 1, 2, 3], ["admitted", "rejected", "admitted", "surplus"]),
        (1, [0, 2], 2, [], ["admitted", "admitted"]),
        (1, [], 0, [], []),
    ],
)
def test_seeds_are_tried_until_enough_pass(
    monkeypatch: pytest.MonkeyPatch, jobs: int | None, known: list[int], wanted: int,
    tried: list[int], statuses: list[str],
) -> None:  # fmt: skip
    monkeypatch.setattr(trials, "ProcessPoolExecutor", _Inline)
    attempts: list[int] = []
    saved: list[Any] = []
    said: list[str] = []

    def attempt(seed: int) -> Any:
        attempts.append(seed)
        return {"seed": seed}

    def passed(row: Any) -> bool:
        return bool(row["seed"] != 1)

    start = {"seeds": judge([{"seed": seed} for seed in known], wanted, passed), "recipe": 1}
    how: dict[str, Any] = {} if jobs is None else {"jobs": jobs}
    done = trials.try_seeds(
        start, wanted, attempt=attempt, passed=passed,
        save=lambda record: saved.append(dict(record)), say=said.append, **how,
    )  # fmt: skip
    assert attempts == tried
    assert [row["status"] for row in done["seeds"]] == statuses
    assert (done["wanted"], done["recipe"]) == (wanted, 1)
    assert sorted(said) == sorted(f"tried seed {seed}" for seed in tried)
    assert (saved[-1:] == [done]) == bool(tried)
    assert len(saved) == len(tried) // (jobs or 1)
