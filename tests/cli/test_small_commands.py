"""What single commands refuse, and the lines that they print."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from kit.cli import list as listing
from kit.cli import rehearse, store
from kit.engine.registry import Registry
from kit.engine.rehearse import PlanError, StepFinding
from kit.errors import UsageError
from tests.cli.conftest import Kit
from tests.report.runs import results, write_run


@pytest.fixture(autouse=True)
def _kinds(monkeypatch: pytest.MonkeyPatch, registry: Registry) -> None:
    monkeypatch.setattr("kit.engine.registry.load_registry", lambda: registry)


def run_of(folder: Path, profile: str) -> str:
    table = results(experiment="demo", profile=profile)
    return str(write_run(folder, results=table, verdict=None, plan=None, record=None))


def test_reference_values_are_of_one_profile_that_has_an_expectation(
    kit: Kit, repo: Path, tmp_path: Path
) -> None:
    mini, paper = (run_of(tmp_path / name, name) for name in ("mini", "paper"))
    done = kit("reference", "demo", paper, mini)
    assert (done.code, done.out) == (2, "")
    assert "the runs have profiles mini, paper" in done.err
    done = kit("reference", "demo", mini)
    assert done.code == 2
    assert "demo has no expectation at this profile" in done.err
    assert kit("reference", "demo").code == 2


def test_the_full_size_is_what_needs_a_gpu(kit: Kit, repo: Path) -> None:
    assert rehearse._full_size("demo") == ("demo", "paper")
    path = repo / "manifests" / "defensive_tokens" / "demo.yaml"
    text = path.read_text()
    assert "gpu: true" in text
    small = path.with_stem("small")
    small.write_text(text.replace("gpu: true", "gpu: false").replace("id: demo", "id: small"))
    with pytest.raises(UsageError, match="no profile of small needs a GPU") as caught:
        rehearse._full_size("small")
    assert "--profile mini" in caught.value.next_step
    full = "id: small\nfull_size: demo\n"
    small.write_text(small.read_text().replace("id: small\n", full))
    assert rehearse._full_size("small") == ("demo", "paper")


@pytest.mark.parametrize(
    ("error", "said"),
    [
        ((None, None, None), "not measured; no step used a GPU"),
        ((0.5, None, None), "50% of the time; no step used a GPU"),
        ((-0.1, 0.25, "s"), "-10% of the time; GPU memory at most 25% (s)"),
    ],
)  # fmt: skip
def test_the_error_of_a_plan_in_a_line(error: tuple[Any, ...], said: str) -> None:
    minutes, memory, step = error
    made = PlanError(minutes=minutes, gpu_memory=memory, gpu_memory_step=step)
    assert rehearse.describe(made) == f"plan error: {said}"


def test_what_is_not_given_is_asked_for(kit: Kit, repo: Path) -> None:
    done = kit("store", "remove")
    assert done.code == 2
    assert "say which: --run, --experiment or --older-than" in done.err
    done = kit("sweep", "demo", "--profile", "mini")
    assert done.code == 2
    assert "nothing is searched: the profile has no axis 'trial'" in done.err
    assert "0.0 MB in 0 finished steps" in kit("store").out


@pytest.mark.parametrize(
    ("gb", "said"), [(1.0, "1.00 GB"), (0.9994, "999.4 MB"), (0.0, "0.0 MB"), (12.345, "12.35 GB")]
)
def test_sizes_stand_below_each_other(gb: float, said: str) -> None:
    assert store._size(gb).strip() == said
    assert len(store._size(gb)) == len(store._size(1.0))


@pytest.mark.parametrize(("width", "shown"), [(listing.WIDE, True), (listing.WIDE - 1, False)])
def test_a_narrow_terminal_does_without_a_column(
    monkeypatch: pytest.MonkeyPatch, width: int, shown: bool
) -> None:
    out = io.StringIO()
    monkeypatch.setattr(
        listing, "console", lambda: Console(file=out, width=width, color_system=None)
    )
    monkeypatch.setattr("kit.cli.list.state", lambda: type("S", (), {"mode": lambda _: "rich"})())
    listing._table(("name", "family", "title"), [("x" * 30, "f", "[red] t")], spare=1)
    head, row = out.getvalue().splitlines()
    assert head.split() == ["name", "family", "title"] if shown else ["name", "title"]
    assert row.split() == ["x" * 30, *(["f"] if shown else []), "[red]", "t"]


def test_lines_of_a_table_off_a_terminal_are_aligned(capsys: pytest.CaptureFixture[str]) -> None:
    import click

    with click.Context(click.Command("x")):
        listing._table(("a", "bb", "c"), [("long", "1", "x"), ("s", "22", "y z")], spare=1)
    assert capsys.readouterr().out.splitlines() == ["a     bb  c", "long  1   x", "s     22  y z"]


def test_exports_print_where_they_went(
    kit: Kit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kit.report.files.check_follows", lambda folder, verdict: None)
    folder = write_run(tmp_path / "run")
    out = kit("export", "eee", str(folder), "-o", str(tmp_path / "eee")).out.split()
    assert out == [str(path) for path in out if Path(path).is_file()]
    assert out
    monkeypatch.setattr("kit.report.exchange.export_hub", lambda run, output, url: 1)
    done = kit("export", "hub", str(folder), "-o", str(tmp_path / "h.yaml"), "--url", "https://x")
    assert (done.code, done.out.strip()) == (0, str(tmp_path / "h.yaml"))


def test_a_table_of_a_rehearsal_has_a_line_a_step(
    kit: Kit, capsys: pytest.CaptureFixture[str]
) -> None:
    import click

    step = StepFinding(
        step="train", instances=2, measured_minutes=None, planned_minutes=1.5, peak_memory_gb=2,
        planned_memory_gb=1, peak_gpu_memory_gb=4, planned_gpu_memory_gb=3,
    )  # fmt: skip
    with click.Context(click.Command("x")):
        rehearse.show([step])
    head, row = (" ".join(line.split()) for line in capsys.readouterr().out.splitlines())
    assert head == "step instances minutes planned memory GB planned GPU GB planned over plan"
    assert row == "train 2 - 1.50 2.00 1.00 4.00 3.00 memory, GPU memory"


def test_the_first_record_of_reference_runs_needs_none_before_it(
    kit: Kit, repo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = repo / "expected_results" / "defensive_tokens" / "demo.paper.yaml"
    file.write_text(file.read_text().replace("cells:\n", "record: none.jsonl\ncells:\n", 1))
    given: list[Any] = []

    def update(*arguments: Any) -> tuple[Path, int]:
        given.extend(arguments)
        return repo / "x.jsonl", 3

    monkeypatch.setattr("kit.verify.reference.update", update)
    done = kit("reference", "demo", run_of(tmp_path / "run", "paper"))
    assert (done.code, done.err) == (0, "")
    assert done.out.splitlines() == [
        "expected_results/defensive_tokens/demo.paper.yaml: 3 cells with values of 1 run",
        "x.jsonl",
    ]
    assert (given[0], given[1].record, given[3]) == (file, "none.jsonl", repo)


def test_an_installed_package_is_not_written_into(
    kit: Kit, repo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kit.manifest.home.shipped_root", lambda: repo)
    monkeypatch.setattr("kit.verify.reference.update", lambda *_: (repo / "x", 1))
    done = kit("reference", "demo", run_of(tmp_path / "run", "paper"))
    assert done.code == 2
    assert "writes into the kit's repository" in done.err
