"""The documents' own tables, verified against their own claims."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kit.cli.main import run as kit
from kit.manifest.load import load_expectation
from kit.verify.published import not_carried, printed_table, verdict_on_itself, verdict_on_reference
from tests.verify.builders import expectation, expected_cell

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "expected_results" / "defensive_tokens"

CARRIED = {
    "adaptive-attack": "search-breaks-the-undefended-models tokens-halve-the-searched-rate",
    "dt-baselines": (
        "llama3-undefended-is-vulnerable llama3-tokens-defend llama3-tokens-beat-prompting "
        "llama3-tokens-do-not-refuse llama31-undefended-is-vulnerable llama31-tokens-defend "
        "llama31-tokens-beat-prompting llama31-tokens-do-not-refuse "
        "llama3-tokens-keep-utility llama31-tokens-keep-utility "
        "qwen25-undefended-is-vulnerable qwen25-tokens-defend qwen25-tokens-beat-prompting "
        "qwen25-tokens-keep-utility falcon3-undefended-is-vulnerable falcon3-tokens-defend "
        "falcon3-tokens-beat-prompting falcon3-tokens-keep-utility"
    ),
    "bos-layout": (
        "llama3-tokens-defend-in-front llama3-tokens-defend-doubled llama3-full-defends-in-front "
        "llama3-tokens-do-not-refuse llama3-layout-explains-the-difference "
        "llama31-tokens-defend-in-front llama31-tokens-defend-doubled "
        "llama31-full-defends-in-front llama31-tokens-do-not-refuse "
        "llama31-layout-costs-at-most-five-points"
    ),
    "refusal-rule": "tokens-do-not-refuse no-utility-cost no-utility-cost-by-the-second-rule",
    "procrustes-ablation": "reverse-still-helps forward-transfer-succeeds",
    "full-dt": (
        "llama3-full-defends llama31-full-defends llama3-full-beats-none llama31-full-beats-none"
    ),
    "procrustes-transfer": (
        "forward-transfer-succeeds reverse-transfer-falls-short asymmetry reverse-still-helps "
        "no-refusals"
    ),
    "tiny-adapt-random-init": "head-start-25 head-start-50",
    "tiny-adapt": (
        "undefended-is-vulnerable procrustes-alone-falls-short adapt-passes-threshold "
        "adapt-reduces-asr matches-full-dt fast robust-to-step-count no-utility-cost norms-grow "
        "loss-falls pipeline-17x"
    ),
}
OPEN = {
    # 33.7 against 34.6 % and against 34.1 %: two sets of 208 prompts cannot show that the rates lie
    # within 5 points; the 90 % interval alone is more than 7 points wide each way.
    "procrustes-transfer": "copy-is-as-good norms-do-not-matter",
    # 5 and 6 of 208 are 2.4 and 2.9 %, below 5 % only at p = 0.049 and 0.10, and 17 are 8.2 %,
    # above 5 % at p = 0.033; Holm leaves none. "Never" covers step 100, whose 6 may be 2 %.
    "tiny-adapt-random-init": (
        "below-five-by-25 scratch-below-five-by-100 scratch-needs-100 never-below-two"
    ),
    # 1 and 4 of 208 are not told apart; 1 and 8 are, but not within 5 points either.
    "bos-layout": "llama3-layout-costs-at-most-five-points llama31-layout-explains-the-difference",
    # Two refusal rates of one checkpoint differ by one or two of 208 responses.
    "refusal-rule": "second-rule-explains-second-table",
}
NOT_ASKED = {
    "adaptive-attack": (
        "tokens-halve-the-searched-rate-llama31 search-beats-published-texts "
        "knowing-the-prefix-helps adapted-tokens-no-weaker-than-full"
    ),
    "dt-baselines": (
        "llama3-tokens-defend-beyond-the-documents llama31-tokens-defend-beyond-the-documents"
    ),
    "bos-layout": (
        "llama3-undefended-is-vulnerable llama3-mismatch-costs-trained-in-front "
        "llama3-mismatch-costs-trained-doubled llama31-undefended-is-vulnerable "
        "llama31-mismatch-costs-trained-in-front llama31-mismatch-costs-trained-doubled"
    ),
    "refusal-rule": (
        "no-utility-cost-by-the-strict-rule tokens-do-not-refuse-by-the-strict-rule "
        "rules-seldom-differ"
    ),
    "procrustes-transfer": "the-map-is-more-than-a-copy",
    "procrustes-ablation": (
        "scale-leaves-the-map centered-changes-little scaled-changes-little "
        "unit-length-changes-little"
    ),
}
"""Claims over numbers that no document prints."""
NO_COUNT = ("llama31/asr-gcg/native@aware",)
"""24.6 % is no count of 208."""
QUOTED = {
    "dt-baselines": (
        "llama3-undefended-is-vulnerable llama3-tokens-beat-prompting "
        "llama31-undefended-is-vulnerable llama31-tokens-beat-prompting"
    ),
    "procrustes-transfer": "reverse-still-helps",
    "procrustes-ablation": "reverse-still-helps",
    "tiny-adapt": "undefended-is-vulnerable pipeline-17x",
}
"""Sentences that rest on a number the document copied and never measured."""


@pytest.mark.parametrize("experiment", sorted(CARRIED))
def test_which_sentences_the_printed_numbers_carry(
    experiment: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("KIT_ROOT", str(ROOT))
    path = tmp_path / "printed.csv"
    path.write_text(printed_table(load_expectation(FOLDER / f"{experiment}.paper.yaml")))
    kit(["verify", experiment, "--results", str(path), "--profile", "paper", "--json"])
    verdict = json.loads(capsys.readouterr().out)
    assert verdict["not_run_here"]
    outcomes: dict[str, set[str]] = {}
    for claim in verdict["claims"]:
        outcomes.setdefault(claim["outcome"], set()).add(claim["id"])
    expected = {"holds": set(CARRIED[experiment].split())}
    if experiment in OPEN:
        expected["undetermined"] = set(OPEN[experiment].split())
    if experiment in NOT_ASKED:
        expected["not-evaluated"] = set(NOT_ASKED[experiment].split())
    assert outcomes == expected
    rests = {claim["id"] for claim in verdict["claims"] if claim["rests_on_unmeasured"]}
    assert rests == set(QUOTED.get(experiment, "").split())
    # A table always agrees with itself: nothing may deviate, break or go missing.
    # A share that no count of the items prints (lint rule grim) has no count to compare.
    words = {c["verdict"]: c["id"] for c in verdict["cells"] if c["id"] not in NO_COUNT}
    assert set(words) <= {"match", "reproduced", "not-compared"}


@pytest.mark.parametrize("experiment", sorted(CARRIED))
def test_what_a_faithful_repeat_cannot_show_is_said_beforehand(
    experiment: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("KIT_ROOT", str(ROOT))
    path = FOLDER / f"{experiment}.paper.yaml"
    primary = {claim.id for claim in load_expectation(path).claims if claim.primary}
    open_ = primary & set(OPEN.get(experiment, "").split())
    asked = len(primary - set(NOT_ASKED.get(experiment, "").split()))
    kit(["show", experiment, "--profile", "paper", "--json"])
    said = json.loads(capsys.readouterr().out)["profiles"]["paper"]["not_carried"]
    assert said == not_carried(path)
    assert bool(said) == bool(open_)
    if open_:
        carried = f"of {asked} primary claims the printed numbers themselves carry"
        assert said.startswith(f"{carried} {asked - len(open_)} (")
        assert all(f"{id} is open" in said for id in open_)
        kit(["show", experiment, "--profile", "paper"])
        assert "beforehand: of " in " ".join(capsys.readouterr().out.split())


def test_random_start_at_paper_size() -> None:
    said = not_carried(FOLDER / "tiny-adapt-random-init.paper.yaml")
    assert said.startswith("of 5 primary claims the printed numbers themselves carry 2 (")
    assert said.endswith("a run that repeats them exactly is not REPRODUCED")


def test_without_printed_numbers_nothing_is_said() -> None:
    assert not_carried(FOLDER / "tiny-adapt.mini.yaml") == ""


def test_what_the_reference_runs_do_not_carry_is_said_too() -> None:
    path = FOLDER.parent / "tar" / "tar-targeted-patching.mini.yaml"
    reference = verdict_on_reference(path)
    assert reference is not None
    primary = [claim for claim in reference.claims if claim.primary]
    assert {claim.outcome for claim in primary} == {"undetermined", "fails"}
    said = not_carried(path)
    assert said.startswith("of 3 primary claims the kit's own reference runs carry 0 (")
    assert all(claim.id in said for claim in primary)


def test_every_printed_table_is_among_them() -> None:
    printed = set()
    for path in FOLDER.glob("*.paper.yaml"):
        expected = load_expectation(path)
        if any(cell.status == "reported" for cell in expected.cells):
            printed.add(expected.experiment)
    assert printed == set(CARRIED)


def test_the_page_takes_the_same_way(tmp_path: Path) -> None:
    verdict = verdict_on_itself(FOLDER / "procrustes-transfer.paper.yaml")
    holds = {claim.id for claim in verdict.claims if claim.outcome == "holds"}
    assert holds == set(CARRIED["procrustes-transfer"].split())


def test_what_is_not_printed_stays_out() -> None:
    cells = [
        expected_cell("t/count", "4.8", n=208, k=10),
        expected_cell("t/impossible", "4.7", n=208),
        expected_cell("t/ours", None, status="unreported", tolerance=None),
    ]
    rows = printed_table(expectation(cells)).splitlines()[1:]
    assert rows == ["t/count,,percent,10,208,,,", "t/impossible,4.7,percent,,,,,"]
