"""The pages that are made of the log and of the documents' own numbers, sentence by sentence."""

from __future__ import annotations

import json
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from msgspec.structs import replace

from kit.manifest.catalog import Catalog
from kit.manifest.types import Profile
from kit.report import log, main_claims, pooled, published
from kit.report.log import CellEntry, ClaimEntry, Entry, entries, entry
from kit.report.pooled import Combined, _number, combine, pool, standing
from kit.verify.outcome import NOT_WHOLE
from tests.report.builders import claim, verdict
from tests.report.runs import write_run
from tests.report.test_pooled import CPU, GPU, run
from tests.report.test_pooled import written as run_folder
from tests.verify.builders import claim as asked_of
from tests.verify.builders import expectation, expected_cell


def test_sentences_are_counted_by_what_their_numbers_carry() -> None:
    claims = [
        claim("a"),
        claim("b", p=None),
        claim("c", outcome="fails", p=None),
        claim("d", outcome="undetermined", rests_on_unmeasured=True),
        claim("e", outcome="not-evaluated", p=None),
        claim("f", outcome="not-evaluated"),
    ]
    said = published._summary(claims)
    assert said.startswith(
        "Of 6 sentences: 2 carried, 1 open, 1 contradicted, 2 without numbers. 1 rest on"
    )
    assert ". 1 of those carried compare" in said
    assert published._summary(claims[:4]).startswith(
        "Of 4 sentences: 2 carried, 1 open, 1 contradicted. 1 rest on"
    )


PAIR = [["t/a", "t/b"]]


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (asked_of("threshold", cells=["t/a"], value="5", side="at_most"), "at most 5 % asked"),
        (asked_of("direction", pairs=PAIR, side="at_most"), "each goes down"),
        (asked_of("direction", pairs=PAIR, side="at_least"), "each goes up"),
        (asked_of("order", cells=["t/a", "t/b"]), "first is lower"),
        (asked_of("order", cells=["t/a", "t/b", "t/c"]), "rising"),
        (asked_of("order", cells=["t/a", "t/b"], margin="2"),
         "first is lower, at least 2 points apart"),
    ],
)  # fmt: skip
def test_a_question_is_put_in_words(made: Any, said: str) -> None:
    assert published._asked(made, {"t/a": "percent"}) == said.removesuffix(" asked")


@pytest.mark.parametrize(
    ("value", "status", "claims", "compares", "page"),
    [
        ("4.8", "reported", True, "published", "compared"),
        ("4.8", "quoted", True, "published", "silent"),
        (None, "reported", True, "published", "silent"),
        ("4.8", "reported", False, "published", ""),
        ("4.8", "reported", True, "reference", ""),
        ("4.8", "reported", True, None, ""),
    ],
)
def test_an_experiment_is_on_the_page_where_documents_print_its_numbers(
    repo: Path,
    monkeypatch: pytest.MonkeyPatch,
    value: str | None,
    status: str,
    claims: bool,
    compares: Any,
    page: str,
) -> None:
    made = expectation(
        [expected_cell("t/a", value, status=status), expected_cell("t/b", None, status="quoted")],
        [asked_of("threshold", cells=["t/a"], value="5", side="at_most")] if claims else [],
        experiment="demo",
        profile="paper",
    )
    profiles = {"paper": Profile(summary="", compares=compares)} if compares else {}
    monkeypatch.setattr(published, "load_expectation", lambda path: made)
    monkeypatch.setattr(
        published.Catalog, "manifest", lambda self, id: SimpleNamespace(profiles=profiles)
    )
    outcome = verdict(claims=[claim("c1", outcome="fails", primary=False, p=0.5, p_holm=None)])
    monkeypatch.setattr(published, "verdict_on_itself", lambda path: outcome)
    text = published.page(repo)
    assert ("## demo\n" in text) == (page == "compared")
    assert ("prints numbers for it: `demo`" in text) == (page == "silent")
    if page == "compared":
        assert "1 printed numbers." in text
        assert "(secondary)" in text
        assert "**contradicted** |" in text
        assert "Of 1 sentences: 0 carried, 0 open, 1 contradicted." in text


def test_runs_of_full_size_and_of_small_models_are_apart() -> None:
    manifest: Any = SimpleNamespace(
        id="tiny-adapt",
        profiles={
            "paper": Profile(summary="", compares="published"),
            "small": Profile(summary="", compares="published"),
            "mini": Profile(summary="", compares="reference"),
        },
    )
    listed = [
        run(1, profile="paper", date="2026-01-01"),
        run(1, profile="paper", date="2026-01-02", changes=["x"]),
        run(1, profile="paper", date="2026-01-03", brought=True),
        run(1, profile="small", date="2026-01-04"),
        run(1, profile="mini", date="2026-01-05"),
        run(1, profile="paper", date="2026-01-06", experiment="other"),
    ]
    assert main_claims._runs(manifest, listed, small=False) == (
        "REPRODUCED (2026-01-01), REPRODUCED (2026-01-02, changed), "
        "REPRODUCED (2026-01-03, changed)"
    )
    assert main_claims._runs(manifest, listed, small=True) == "REPRODUCED (2026-01-04)"
    assert main_claims._runs(manifest, listed[4:], small=True) == "not run"


def test_a_rehearsal_names_its_cards_and_whether_it_was_a_part(tmp_path: Path) -> None:
    manifest: Any = SimpleNamespace(id="e", profiles={})
    assert main_claims._small(tmp_path, manifest, []) == "not rehearsed; not run"
    (tmp_path / "benchmarks").mkdir()
    for name, profile, gpus, more in (
        ("b", "paper", 2, {}),
        ("a", "paper", 1, {"fraction": 0.5}),
        ("steps-3", "paper", 4, {}),
        ("none", "paper", 0, {}),
        ("small", "small", 1, {}),
    ):
        cards = [{"name": "NVIDIA H200 141GB"}] * gpus
        record = {"experiment": "e", "profile": profile, "hardware": {"gpus": cards}, **more}
        (tmp_path / "benchmarks" / f"rehearsal-{name}.json").write_text(json.dumps(record))
    assert main_claims._rehearsed(tmp_path, "e", small=False) == (
        "1 x H200, a part, 2 x H200, 4 x H200, a part"
    )
    assert main_claims._small(tmp_path, manifest, []) == "rehearsed, 1 x H200; not run"


def test_numbers_of_the_documents_are_asked_only_where_there_are_some(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(
        main_claims, "verdict_on_itself", lambda path: verdict(claims=[claim("a"), claim("c1")])
    )
    for cells, said in (
        ([expected_cell("t/a", "1", status="reported"), expected_cell("t/b", None)], "carried"),
        ([expected_cell("t/a", None, status="reported")], "prints none"),
        ([expected_cell("t/a", "1", status="reference")], "prints none"),
    ):
        made = expectation(cells, [], main="c1")
        assert main_claims._own_numbers(Path("x"), made) == said


def step(kind: str, **axes: Any) -> Any:
    return SimpleNamespace(kind=kind, axes=axes, environment={})


def test_seeds_are_those_of_axes_that_have_some() -> None:
    plan: Any = SimpleNamespace(
        instances=[
            step("a", seed=7, layer=3),
            step("b", pair={"id": "x", "seed": 2, "layer": 9}),
            step("c", pair={"id": "y"}, seed="${x}"),
            step("d", seed=2),
            step("e", seed=33),
        ]
    )
    assert log._seeds(plan) == [2, 7, 33]
    assert log._seeds(None) == []


def test_an_environment_is_what_all_steps_had() -> None:
    steps = [step("a"), step("b"), step("c")]
    steps[0].environment = {"gpu": "H200", "dtype": "bf16", "tf32": False, "arch": None}
    steps[1].environment = {"gpu": "H100", "dtype": "bf16", "many": 0}
    made = log._environment(SimpleNamespace(instances=steps))  # type: ignore[arg-type]
    assert made == {"dtype": "bf16", "gpu": "H100+H200"}
    assert list(made) == sorted(made)


def test_code_is_hashed_in_order_and_unknown_where_a_step_does_not_say() -> None:
    known = {"b/x": {"22", "11", "33"}, "a/y": {"44"}}
    made = log._code(SimpleNamespace(code=known))  # type: ignore[arg-type]
    assert list(made.items()) == [
        ("a/y", sha256(b"44").hexdigest()[:16]),
        ("b/x", sha256(b"11,22,33").hexdigest()[:16]),
    ]
    assert log._code(SimpleNamespace(code={**known, "c/z": {""}})) == {}  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("fields", "changes"),
    [
        ({}, []),
        ({"overrides": ["seed=3"]}, []),
        ({"overrides": ["seed=3", "a.b=1"]}, ["a.b=1"]),
        ({"overrides": ["compared with x.yaml"]}, ["compared with x.yaml"]),
        ({"overrides": ["compared with x.yaml"], "own_expectation": True},
         ["compared with an expectation of its own"]),
        ({"reasons": [f"{NOT_WHOLE} a step", "another"]}, [f"{NOT_WHOLE} a step"]),
    ],
)  # fmt: skip
def test_what_was_changed_is_kept_and_seeds_are_no_change(
    fields: dict[str, Any], changes: list[str]
) -> None:
    made = {"reasons": []} | fields
    assert log._changes(verdict(**made)) == changes


def test_entries_are_by_day_whatever_the_disk_lists(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import msgspec

    for name, date, seed in (
        ("b", "2026-01-01", 1),
        ("a", "2026-01-02", 2),
        ("c", "2026-01-01", 3),
    ):
        (tmp_path / f"{name}.json").write_bytes(msgspec.json.encode(run(seed, date=date)))
    whole = Path.glob

    def backwards(self: Path, pattern: str) -> Iterator[Path]:
        return iter(sorted(whole(self, pattern), reverse=True))

    monkeypatch.setattr(Path, "glob", backwards)
    assert [made.seeds[0] for made in entries(tmp_path)] == [1, 3, 2]
    assert entries(tmp_path / "none") == []


def test_an_entry_needs_hardware_from_the_record_or_from_whoever_adds_it(tmp_path: Path) -> None:
    from kit.report.files import read_run

    made = entry(read_run(run_folder(tmp_path / "run", 7)), hardware="  a   laptop ", name=" ")
    assert (made.hardware, made.name) == ("a laptop", None)
    for version, recorded, said in (("2.0", True, "2.0"), ("", True, "0.1.0"), ("", False, "")):
        folder = tmp_path / f"{version}-{recorded}"
        parts: dict[str, Any] = {} if recorded else {"record": None}
        written = write_run(folder, verdict=verdict(kit_version=version), **parts)
        assert entry(read_run(written), hardware="x").kit_version == said


def test_a_run_of_small_models_is_no_run_at_full_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(main_claims, "_own_numbers", lambda *_: "own")
    monkeypatch.setattr(main_claims, "_miniature", lambda *_: "mini")
    catalog = Catalog()
    manifest = catalog.manifest("tiny-adapt")
    small, paper = run(1, profile="small"), run(1, profile="paper", date="2026-01-01")
    row = main_claims._row(catalog, manifest, [small, paper])
    assert row[2:4] == ["own", "mini"]
    assert row[4].endswith("; REPRODUCED (2026-11-28)")
    assert row[6] == "REPRODUCED (2026-01-01)"


def test_equal_numbers_have_no_spread_beyond_chance() -> None:
    together = combine([4.0, 4.0], [0.5, 0.5], ["cpu", "cpu"], [(1,), (2,)])
    assert (together.i_squared, together.p) == (0.0, 1.0)
    assert combine([4.0, 4.1], [0.5, 0.5], ["cpu", "cpu"], [(1,), (2,)]).i_squared == 0.0
    text = pooled.pooled_markdown(standing([run(1, "undetermined", p=None), run(5, p=None)]))
    assert "| 1 holds, 1 undetermined |" in text


def several(*log: Entry) -> Any:
    (made,) = pool(standing(log))
    return made


def test_numbers_are_apart_below_the_limit_shared_by_all_of_a_claim(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    two = (run(1), run(5, "undetermined", value=13.0))
    ((_, _, together),) = several(*two).estimates
    for limit, contested in ((together.p, False), (together.p * 1.001, True)):
        monkeypatch.setattr(pooled, "DISAGREE", limit)
        assert several(*two).contested == contested
        assert not several(run(1), run(5, value=13.0)).contested, "one outcome"

    def with_another(made: Entry) -> Entry:
        (only,) = made.claims
        more = [*only.cells, CellEntry(id="t/b", unit="percent", value=1.0, low=0.0, high=2.0)]
        return replace(made, claims=[replace(only, cells=more)])

    both = [with_another(made) for made in two]
    for limit, contested in ((together.p * 2, False), (together.p * 2.001, True)):
        monkeypatch.setattr(pooled, "DISAGREE", limit)
        assert several(*both).contested == contested


@pytest.mark.parametrize(
    ("low", "high", "counts"),
    [(6.0, 10.0, True), (8.0, 8.0, False), (None, 10.0, False), (6.0, None, False)],
)
def test_a_number_without_a_width_is_not_pooled(
    low: float | None, high: float | None, counts: bool
) -> None:
    made = several(run(1), run(5, cell={"low": low, "high": high}))
    ((_, _, together),) = made.estimates
    ((_, _, single),) = several(run(1)).estimates
    assert (together.error < single.error) == counts
    alone = several(run(5, cell={"low": low, "high": high}))
    assert len(alone.estimates) == counts


def test_other_outcomes_of_repeats_are_named_in_order() -> None:
    made = several(run(1), run(1, "undetermined"), run(1, "fails"), run(1, "a-third"))
    assert made.otherwise == ["a-third", "fails", "undetermined"]
    assert made.contested


@pytest.mark.parametrize(
    ("p", "weights", "said"),
    [
        (1.0, {"cpu": 1.0}, "t/a 8.9 \u00b1 2.0 percent"),
        (0.5, {"cpu": 1.0}, "t/a 8.9 \u00b1 2.0 percent (I\u00b2 25%)"),
        (1.0, {"cpu": 0.75, "gpu": 0.25},
         "t/a 8.9 \u00b1 2.0 percent (cpu weighs 75%; gpu weighs 25%)"),
        (0.5, {"cpu": 0.75, "gpu": 0.25},
         "t/a 8.9 \u00b1 2.0 percent (I\u00b2 25%; cpu weighs 75%; gpu weighs 25%)"),
    ],
)  # fmt: skip
def test_a_pooled_number_says_its_spread_and_who_weighs(
    p: float, weights: dict[str, float], said: str
) -> None:
    together = Combined(value=8.9, error=2 / 1.959964, p=p, i_squared=0.25, weights=weights)
    assert _number(("t/a", "percent", together)) == said


def test_who_shares_seeds_is_no_new_entry_and_still_has_a_say() -> None:
    listed = standing([run(1), run(2, "fails"), run(1, environment=GPU), run(1, "fails")])
    assert [(item.apart != "", item.repeats) for item in listed] == [
        (False, False), (True, True), (False, False), (True, True),
    ]  # fmt: skip
    (made,) = pool(listed)
    assert (made.contested, made.otherwise) == (True, ["fails"])
    brought = standing([run(1), run(9, "fails", brought=True)])
    assert [item.repeats for item in brought] == [False, False]
    assert not pool(brought)[0].contested


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({}, "any"),
        (CPU, "cpu"),
        (GPU | {"dtype": "bf16", "torch": "2.13"}, "cuda, sm_90, bf16, torch 2.13"),
    ],
)
def test_an_environment_in_words(environment: dict[str, str], said: str) -> None:
    (item,) = standing([run(1, environment=environment)])
    assert item.setting == said


def test_a_line_of_the_log_says_what_held() -> None:
    held = ClaimEntry(id="a", outcome="holds")
    failed = ClaimEntry(id="b", outcome="fails")
    text = pooled.log_markdown(
        standing(
            [
                run(1, claims=[held, failed, held], name="A. R.", commit="0123456789abcdef"),
                run(5, claims=[], brought=True, variant=""),
            ]
        )
    )
    first, second = text.splitlines()[2:]
    assert "| mini, as-reported | **REPRODUCED** | 2 of 3 hold | yes |" in first
    assert first.endswith("| 0.1.0 (01234567) | A. R. |")
    assert "| mini | **REPRODUCED** | none | no: a table measured elsewhere |" in second
    assert second.endswith("| 0.1.0 | \u2014 |")
    assert pooled.log_markdown([]).startswith("Nobody has added")
    assert "No entry can be pooled yet." in pooled.pooled_markdown([])


def test_the_rule_that_is_printed_is_the_rule() -> None:
    assert f"p below {pooled.DISAGREE:g}," in " ".join(pooled.RULE.split())
