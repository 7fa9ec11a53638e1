"""The adaptive attacks through their steps: on a shipped miniature model, and rehearsed."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from msgspec import convert

from kit.cli.main import run as kit_command
from kit.lm.backend import Generation
from kit.lm.load import load_tokenizer
from kit.manifest.load import load_expectation
from kit.methods.defensive_tokens.adaptive.attack_table import attack_table
from kit.methods.defensive_tokens.gather import StageFolder
from kit.methods.defensive_tokens.prefix_sets import save_sets
from kit.mini.injection.paths import mini_model_dir
from kit.steps.defensive_tokens import adaptive
from kit.steps.defensive_tokens.params import AttackTable, Gcg, PublishedTexts
from tests.steps.contexts import SMALL, FakeContext, Steps, mini_pins, rehearsal_pins
from tests.steps.test_kinds import CATALOG, PROFILES, ROOT, plan

EXPERIMENT = "adaptive-attack"
torch.set_num_threads(1)
SEARCH: dict[str, Any] = {
    "layout": "before-bos",
    "attack": "naive",
    "filler": ".",
    "length": 6,
    "steps": 4,
    "candidates": 8,
    "top_k": 8,
    "measure_at": [0, 1, 4],
    "stop": False,
    "seed": 3,
    "max_new_tokens": 2,
    "items": 4,
    "together": 3,
    "trained": ["adapt-200"],
}
TEXTS: dict[str, Any] = {
    "layout": "before-bos",
    "attacks": ["naive", "ignore"],
    "max_new_tokens": 1,
    "seed": 42,
    "trained": ["adapt-200"],
}


def with_tokens(root: Path, pins: dict[str, Any], width: int, *, rehearsal: bool = False) -> Steps:
    """Steps behind a training whose tokens are drawn at random."""
    steps = Steps(root, pins, rehearsal=rehearsal)

    def trained(ctx: FakeContext, _: None) -> None:
        drawn = torch.randn(5, width, generator=torch.Generator().manual_seed(0))
        save_sets(ctx.out / adaptive.SETS, {"adapt-100": drawn, "adapt-200": 2 * drawn})

    steps.run("adapt", trained, None)
    return steps


def gcg(**changes: Any) -> Gcg:
    return convert({**SEARCH, **changes}, Gcg)


def attack(before: Steps, name: str, **changes: Any) -> FakeContext:
    before.axes = {"pair": {"id": "p", "seed": 1}, "attacker": changes["attacker"]}
    return before.run(name, adaptive.run_gcg, gcg(**changes), trained="adapt")


def scores(context: FakeContext) -> dict[str, Any]:
    read: dict[str, Any] = json.loads((context.out / "scores.json").read_text(encoding="utf-8"))
    return read


@pytest.fixture(scope="module")
def mini(tmp_path_factory: pytest.TempPathFactory) -> Steps:
    steps = with_tokens(tmp_path_factory.mktemp("mini"), mini_pins(target="newer-0"), 64)
    for name in ("blind", "aware"):
        made = attack(steps, name, attacker=name)
        assert len(made.canaries) == 5
        assert all(passed for passed, _ in made.canaries.values()), made.canaries
    steps.axes = {"pair": {"id": "p", "seed": 1}}
    texts = convert(TEXTS, PublishedTexts)
    steps.run("texts", adaptive.run_published_texts, texts, trained="adapt")
    return steps


def test_the_blind_attacker_searches_once_and_the_aware_one_on_each_prefix(mini: Steps) -> None:
    blind, aware = scores(mini.context("blind")), scores(mini.context("aware"))
    assert list(blind["victims"]) == ["undefended", "native", "adapt-200"]
    assert list(blind["losses"]) == ["undefended"]
    assert list(aware["victims"]) == list(aware["losses"]) == ["native", "adapt-200"]
    assert blind["queries"] == [0, 9, 36]
    for losses in (*blind["losses"].values(), *aware["losses"].values()):
        assert losses == sorted(losses, reverse=True)


def test_items_keep_the_order_of_the_data(mini: Steps) -> None:
    rows = (mini.context("blind").out / "texts.jsonl").read_text(encoding="utf-8").splitlines()
    ids = list(dict.fromkeys(json.loads(row)["sample_id"] for row in rows))
    assert ids == scores(mini.context("blind"))["items"]
    assert ids == sorted(ids, key=lambda id: int(id.split("-")[1]))


def test_published_texts_reach_every_victim(mini: Steps) -> None:
    read = json.loads((mini.context("texts").out / "labels.json").read_text(encoding="utf-8"))
    assert list(read["victims"]) == ["undefended", "native", "adapt-200"]
    for labels in read["victims"].values():
        assert list(labels) == ["naive", *(f"ignore-{i}" for i in range(5))]
        assert {len(of) for of in labels.values()} == {len(read["items"])} == {208}
    assert sum(read["victims"]["undefended"]["ignore-0"]) > 100
    assert sum(read["victims"]["native"]["ignore-0"]) < 20


@pytest.mark.parametrize("due", [True, False])
def test_a_search_is_saved_where_that_is_due(
    mini: Steps, monkeypatch: pytest.MonkeyPatch, due: bool
) -> None:
    """Behind each group of items; without, its state would be said to be kept and is."""
    saved: list[int] = []
    monkeypatch.setattr(FakeContext, "due", lambda context: due)
    monkeypatch.setattr(
        FakeContext, "saved", lambda context: saved.append(len(context.progressed)), raising=False
    )
    made = attack(mini, f"due-{due}", attacker="blind", steps=1, measure_at=[1])
    assert made.progressed == [(3, 4), (4, 4)]
    assert saved == ([1, 2] if due else [])


def test_items_of_every_prefix_count_in_what_is_done(mini: Steps) -> None:
    made = attack(mini, "counted", attacker="aware", steps=1, measure_at=[0, 1])
    assert made.progressed == [(3, 8), (4, 8), (7, 8), (8, 8)]


@pytest.mark.parametrize("lost", [0, 1])
def test_a_text_without_the_injected_instruction_is_noticed(
    mini: Steps, monkeypatch: pytest.MonkeyPatch, lost: int
) -> None:
    from kit.methods.defensive_tokens.adaptive import published

    turns = published.published_turns

    def without(*given: Any, **named: Any) -> Any:
        made = turns(*given, **named)
        made["naive"][:lost] = ["nothing of the kind"] * lost
        return made

    class Silent:
        """A model that says nothing."""

        vocabulary_size = 302

        def generate(self, prompts: Any, **how: Any) -> Any:
            return [Generation((), "stop") for _ in prompts]

    monkeypatch.setattr(published, "published_turns", without)
    monkeypatch.setattr(adaptive, "generation_backend", lambda *_: Silent())
    asked = convert({**TEXTS, "attacks": ["naive"], "trained": []}, PublishedTexts)
    made = mini.run(f"texts-{lost}", adaptive.run_published_texts, asked, trained="adapt")
    passed, detail = made.canaries["attack-present"]
    assert passed is (lost == 0)
    assert f"{208 - lost} of 208 data turns of 1 texts" in detail
    assert made.progressed == [(1, 2), (2, 2)]


def test_a_killed_search_is_not_begun_anew(mini: Steps, monkeypatch: pytest.MonkeyPatch) -> None:
    from kit.methods.defensive_tokens.adaptive import attack as method

    searched: list[int] = []
    original = method.search

    def once(objective: Any, starts: Any, names: Any, *rest: Any, **more: Any) -> Any:
        searched.append(len(names))
        if len(searched) == 2:
            raise KeyboardInterrupt
        return original(objective, starts, names, *rest, **more)

    monkeypatch.setattr(method, "search", once)
    with pytest.raises(KeyboardInterrupt):
        attack(mini, "killed", attacker="blind")
    attack(mini, "killed", attacker="blind")
    assert searched == [3, 1, 1]
    assert scores(mini.context("killed")) == scores(mini.context("blind"))


def test_both_attacks_come_together_in_a_table(mini: Steps) -> None:
    context = mini.context("table", searches=["blind", "aware"], texts=["texts"])
    context.roles = {"pair": "replicate", "attacker": "setting"}
    for name, attacker in (("blind", "blind"), ("aware", "aware")):
        made = context.before["searches"][["blind", "aware"].index(name)]
        assert made.axes["attacker"] == attacker
    adaptive.run_attack_table(context, AttackTable())
    cells = json.loads((context.out / "results.json").read_text(encoding="utf-8"))["cells"]
    ids = {cell["id"] for cell in cells}
    assert {"all/asr-gcg/adapt-200@aware", "all/asr-best-of-n/native@blind"} <= ids


def test_an_unknown_token_set_is_refused(mini: Steps) -> None:
    with pytest.raises(ValueError, match="no trained token set adapt-7"):
        attack(mini, "unknown", attacker="blind", trained=["adapt-7"])


def test_the_published_setting_is_rehearsed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from kit.lm import standin

    whole = standin.read_shape("llama-3-8b")
    shape = replace(whole, config={**whole.config, **SMALL})
    monkeypatch.setattr(standin, "read_shape", lambda _: shape)
    steps = with_tokens(tmp_path, rehearsal_pins(), SMALL["hidden_size"], rehearsal=True)
    settings = CATALOG.manifest(EXPERIMENT).profiles["paper"].set["search"]
    published = {name: setting.value for name, setting in settings.items()}
    few = {"steps": 2, "measure_at": [0, 1, 2], "candidates": 16, "items": 2, "dtype": "float32"}
    made = attack(steps, "aware", **{**published, **few, "seed": 1, "attacker": "aware"})
    assert all(passed for passed, _ in made.canaries.values()), made.canaries


@pytest.mark.parametrize("profile", PROFILES)
def test_every_expected_cell_can_be_measured(profile: str, tmp_path: Path) -> None:
    path = CATALOG.expectation_path(EXPERIMENT, profile)
    assert path is not None
    manifest, made = plan(EXPERIMENT, profile, tmp_path)
    searches, texts = [], []
    for number, instance in enumerate(made.instances):
        folder, kind = tmp_path / f"s{number}", instance.kind.split("/")[1]
        if kind not in ("gcg", "published-texts"):
            continue
        folder.mkdir()
        sets = ["undefended", "native", *instance.params["trained"]]
        stage = StageFolder(instance.id, folder, instance.axes)
        if kind == "gcg":
            searches.append(stage)
            n = instance.params["items"] or 208
            blind = instance.params["attacker"] == "blind"
            points = len(instance.params["measure_at"])
            labels = [[int(i % 3 < point) for i in range(n)] for point in range(points)]
            found = {"labels": labels, "empty": 0}
            content: dict[str, Any] = {
                "queries": list(range(points)),
                "victims": dict.fromkeys(sets if blind else sets[1:], found),
                "losses": {},
            }
        else:
            texts.append(stage)
            n = 208
            flags = {name: [int(i % 4 == k) for i in range(n)] for k, name in enumerate("abc")}
            content = {"victims": dict.fromkeys(sets, flags)}
        name = "scores.json" if kind == "gcg" else "labels.json"
        content["items"] = [f"i{i}" for i in range(n)]
        (folder / name).write_text(json.dumps(content), encoding="utf-8")
    table = attack_table(searches, texts, dict(manifest.axes), level=0.95, seed=0)
    there, whole = {cell.id: cell for cell in table.cells}, load_expectation(path)
    assert not sorted({c.id.partition(":")[0] for c in whole.cells} - there.keys())
    assert not sorted(set(whole.present) - there.keys())
    for cell in whole.cells:
        if ":" not in cell.id:
            found = there[cell.id]
            assert found.unit == cell.unit
            assert cell.n in (None, *(part.n for part in found.seeds or [found]))
            assert not cell.labelled or all(part.labels for part in found.seeds or [found])


def test_the_filler_is_a_word_of_the_miniature_vocabulary() -> None:
    settings = CATALOG.manifest(EXPERIMENT).profiles["mini"].set["search"]
    tokenizer = load_tokenizer(mini_model_dir("newer-0"))
    ids = tokenizer.encode(str(settings["filler"]), add_special_tokens=False)
    assert len(ids) == 1
    assert ids[0] != tokenizer.unk_token_id


def test_it_is_valid_and_planned_at_paper_size(capsys: pytest.CaptureFixture[str]) -> None:
    files = [
        f"manifests/defensive_tokens/{EXPERIMENT}.yaml",
        *(f"expected_results/defensive_tokens/{EXPERIMENT}.{profile}.yaml" for profile in PROFILES),
    ]
    assert kit_command(["validate", *(str(ROOT / file) for file in files)]) == 0
    assert "0 errors" in capsys.readouterr().out
    assert kit_command(["plan", EXPERIMENT, "--profile", "paper"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "search defensive-tokens/gcg 4 0 1" in out  # two models, two attackers, a GPU each
