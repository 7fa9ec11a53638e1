"""`kit compare` on real runs that differ in one parameter of the evaluation."""

from __future__ import annotations

from pathlib import Path

import pytest

from kit.cli.main import run as kit
from tests.steps import small
from tests.steps.test_defensive_tokens_run import _run

CHANGES = {"as-is": {}, "seed": {"evaluate.seed": 7}, "length": {"evaluate.max_new_tokens": 1}}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One store, three runs; all but the evaluation is shared."""
    folder = tmp_path_factory.mktemp("compare")
    found = {"home": folder / "home"}
    for name, changes in CHANGES.items():
        (folder / name).mkdir()
        done = _run(small.write(folder / name, **changes), folder)
        assert done.returncode == 0, done.stderr
        found[name] = Path(done.stdout.splitlines()[-1])
    return found


def compare(
    runs: dict[str, Path],
    one: str,
    two: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> tuple[int, list[str]]:
    monkeypatch.setenv("KIT_HOME", str(runs["home"]))
    code = kit(["compare", str(runs[one]), str(runs[two])])
    said = capsys.readouterr().out.splitlines()
    # Work in progress is named first, in a checkout that has some.
    return code, [line for line in said if not line.startswith(("cell", "code of the "))]


def test_other_attack_sentences_are_named_before_what_came_of_them(
    runs: dict[str, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, said = compare(runs, "as-is", "seed", monkeypatch, capsys)
    assert code == 1
    assert said[0] == "first difference: step evaluate[pair=other-5], outputs"
    assert said[1] == "  because params.seed: 42 against 7"
    assert said[2].startswith("  responses.jsonl: record 1 (undefended, ignore, alpacafarm-")
    assert said[2].endswith(" of 5824, prompt, data")
    assert said[3].startswith("  from character ")
    assert said[4].startswith('  first:  "')
    assert said[5].startswith('  second: "')
    assert said[4][10:] != said[5][10:]


def test_equal_prompts_with_other_answers(
    runs: dict[str, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, said = compare(runs, "as-is", "length", monkeypatch, capsys)
    assert code == 1
    assert said[:2] == [
        "first difference: step evaluate[pair=other-5], outputs",
        "  because params.max_new_tokens: 6 against 1",
    ]
    assert ", generation, " in said[2]


def test_a_run_equals_itself(
    runs: dict[str, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert compare(runs, "as-is", "as-is", monkeypatch, capsys) == (0, ["identical"])
