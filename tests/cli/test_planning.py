"""From the command line to a plan: what is typed arrives, all of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from kit.cli import planning
from kit.cli.export_plan import this_program
from kit.errors import InvalidInput


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KIT_HOME", str(tmp_path))


def test_overrides_and_a_fraction_both_arrive(monkeypatch: pytest.MonkeyPatch) -> None:
    share = "data.heldout=3"
    asked: list[float] = []

    def shorter(*arguments: object) -> list[str]:
        asked.append(arguments[-1])  # type: ignore[arg-type]
        return [share]

    monkeypatch.setattr("kit.engine.planner.fraction_overrides", shorter)
    typed = ("data.steps=7",)
    plan = planning.prepare("tiny-adapt", "mini", overrides=typed, fraction=0.5).plan
    assert plan.overrides == [*typed, share]
    assert asked == [0.5]
    data = next(one for one in plan.instances if one.step == "data")
    assert (data.params["steps"], data.params["heldout"]) == (7, 3)
    assert planning.prepare("tiny-adapt", "mini", overrides=typed).plan.overrides == list(typed)
    assert asked == [0.5], "without a fraction nobody is asked"


def test_what_is_wrong_with_the_typed_manifest_names_its_place(tmp_path: Path) -> None:
    from kit.manifest.catalog import Catalog

    text = Catalog().manifest_path("tiny-adapt").read_text(encoding="utf-8")
    own = tmp_path / "own.yaml"
    own.write_text(text.replace("kind: defensive-tokens/align\n", "kind: defensive-tokens/algin\n"))
    with pytest.raises(InvalidInput, match="unknown step kind") as caught:
        planning.prepare(str(own), "mini")
    line = int(caught.value.where.split("own.yaml:")[1].split(":")[0])
    assert "algin" in own.read_text().splitlines()[line - 1]
    assert "align" in caught.value.next_step


@pytest.mark.parametrize(
    ("called", "there", "expected"),
    [("bin/kit", True, "bin/kit"), ("bin/kit", False, "kit"), ("bin/pytest", True, "kit")],
)
def test_other_engines_call_the_program_that_was_called(
    called: str, there: bool, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By its whole path where it is a script of that name; else by name."""
    (tmp_path / "bin").mkdir()
    if there:
        (tmp_path / called).touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", [called])
    assert this_program() == (str(tmp_path / expected) if "/" in expected else expected)
