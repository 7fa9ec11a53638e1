"""What commands about runs hand on and print, with the run itself replaced."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import click
import pytest

from kit.cli import store, validate
from kit.cli.main import COMMANDS, LazyGroup
from kit.cli.state import State
from kit.doctor import Check
from kit.errors import InvalidInput
from kit.manifest.catalog import Catalog
from tests.cli.conftest import Kit
from tests.report.runs import write_run


class Session:
    """A run that leaves a folder."""

    def __init__(self, folder: Path, fails: bool = False) -> None:
        self.folder = folder
        self.fails = fails

    def run(self) -> Path:
        if self.fails:
            raise InvalidInput("it failed")
        return self.folder


@pytest.mark.parametrize("axes", [[{"trial": 1}], [{}, {"trial": 1}], [{}], []])
def test_a_sweep_needs_a_trial_on_any_step_and_prints_its_folder(
    kit: Kit, monkeypatch: pytest.MonkeyPatch, axes: list[dict[str, int]]
) -> None:
    plan = SimpleNamespace(instances=[SimpleNamespace(axes=of) for of in axes])
    made = SimpleNamespace(plan=plan, session=lambda options: Session(Path("runs/x")))
    monkeypatch.setattr("kit.cli.sweep.prepare", lambda **given: made)
    done = kit("sweep", "demo", "--profile", "mini")
    if any(axes):
        assert (done.code, done.out) == (0, "runs/x\n")
    else:
        assert (done.code, done.out) == (2, "")


@pytest.mark.parametrize(("closed", "fails"), [(True, False), (True, True), (False, True)])
def test_a_rehearsal_says_its_notes_first_and_what_was_measured_last(
    kit: Kit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, closed: bool, fails: bool
) -> None:
    if closed:
        (tmp_path / "sums.sha256").touch()
    error = SimpleNamespace(minutes=0.5, gpu_memory=None, gpu_memory_step=None)
    record = SimpleNamespace(steps=[], plan_error=error)
    given: dict[str, Any] = {}

    def prepare(*named: str, **how: Any) -> Any:
        given.update(how, named=named)
        plan = SimpleNamespace(notes=["a note"])
        return SimpleNamespace(plan=plan, session=lambda options: Session(tmp_path, fails))

    monkeypatch.setattr("kit.results.files.SUMS", "sums.sha256")
    monkeypatch.setattr("kit.cli.rehearse.prepare", prepare)
    monkeypatch.setattr("kit.cli.rehearse.show", lambda steps: click.echo("table"))
    monkeypatch.setattr("kit.engine.rehearse.write_rehearsal", lambda *_: record)
    done = kit("rehearse", "demo", "--profile", "paper")
    lines = done.out.splitlines()
    assert lines[0] == "note: a note"
    assert given["rehearsal"] is True
    assert given["named"] == ("demo", "paper")
    assert (done.code == 0) == (not fails)
    if closed:
        assert lines[1:3] == ["table", "plan error: 50% of the time; no step used a GPU"]
        assert lines[3].startswith(f"written to {tmp_path}")
        assert lines[4:] == [str(tmp_path)]
    else:
        assert lines[1:] == []


@pytest.mark.parametrize(
    ("codes", "slurm", "called", "code"),
    [
        ({}, False, ["doctor", "fetch"], 3),
        ({"doctor": 4}, False, ["doctor"], 4),
        ({"fetch": 5}, False, ["doctor", "fetch"], 5),
        ({"doctor": 4}, True, ["fetch"], 3),
    ],
)
def test_reproducing_stops_at_the_first_part_that_cannot_be_done(
    kit: Kit,
    monkeypatch: pytest.MonkeyPatch,
    codes: dict[str, int],
    slurm: bool,
    called: list[str],
    code: int,
) -> None:
    parts: list[str] = []

    def call(name: str, *arguments: str) -> int:
        assert arguments == ("demo", "--profile", "mini")
        parts.append(name)
        return codes.get(name, 0)

    made = SimpleNamespace(session=lambda options: Session(Path("runs/x")))
    monkeypatch.setattr("kit.cli.reproduce.call", call)
    monkeypatch.setattr("kit.cli.reproduce.prepare", lambda **given: made)
    monkeypatch.setattr("kit.cli.reproduce.finish", lambda folder: 3)
    typed = ["--executor", "slurm"] if slurm else []
    assert kit("reproduce", "demo", "--profile", "mini", *typed).code == code
    assert parts == called


def test_a_blind_reproduction_closes_the_expectation_before_anything_is_read(
    kit: Kit, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Any] = []
    monkeypatch.setattr("kit.engine.blind.closed_paths", lambda *named: [named])
    monkeypatch.setattr("kit.engine.blind.close", seen.append)
    monkeypatch.setattr("kit.cli.reproduce.call", lambda *_: seen.append("call") or 4)
    assert kit("reproduce", "demo", "--profile", "mini", "--blind").code == 4
    assert seen == [[("demo", "mini")], "call"]
    seen.clear()
    assert kit("reproduce", "demo", "--profile", "mini").code == 4
    assert seen == ["call"]


@pytest.mark.parametrize(("mode", "last"), [("plain", "rendered"), ("json", "report.html")])
def test_a_reproduction_ends_with_the_verdict_and_the_report(
    kit: Kit, monkeypatch: pytest.MonkeyPatch, mode: str, last: str
) -> None:
    from kit.cli.reproduce import finish

    delivered: list[Any] = []
    verdict = SimpleNamespace(exit_code=3)
    monkeypatch.setattr("kit.verify.basis.read_basis", lambda folder: f"basis of {folder}")
    monkeypatch.setattr("kit.verify.basis.verdict_of", lambda basis: verdict)
    monkeypatch.setattr("kit.verify.basis.deliver", lambda *given: delivered.append(given))
    monkeypatch.setattr("kit.report.session.write_report", lambda folder: Path("report.html"))
    monkeypatch.setattr("kit.verify.render.render", lambda *_, **how: click.echo("rendered"))
    monkeypatch.setattr("kit.cli.state.print_json", lambda value: click.echo("verdict"))
    printed: list[str] = []
    monkeypatch.setattr(click, "echo", printed.append)
    with click.Context(click.Command("x"), obj=State(progress=mode)):  # type: ignore[arg-type]
        assert finish(Path("runs/x")) == 3
    assert delivered == [("basis of runs/x", verdict)]
    assert printed[-1] == last
    assert len(printed) == (2 if mode == "json" else 1)


def test_an_appendix_of_an_experiment_has_the_inputs_of_its_profile(kit: Kit, repo: Path) -> None:
    text = kit("export", "appendix", "demo", "--profile", "paper").out
    needed = set(Catalog(repo).needed_pins("demo", "paper"))
    assert needed
    for pin in Catalog(repo).pins().pins:
        assert (f"- {pin.title}: " in text) == (pin.id in needed)


@pytest.mark.parametrize(
    ("form", "labels", "code"), [("csv", True, 0), ("csv", False, 0), ("latex", False, 0),
                                 ("latex", True, 2)]
)  # fmt: skip
def test_labels_go_with_lines_of_numbers_only(
    kit: Kit, tmp_path: Path, form: str, labels: bool, code: int
) -> None:
    folder = write_run(tmp_path / "run")
    typed = ["--labels"] if labels else []
    done = kit("export", "table", str(folder), "--format", form, *typed)
    assert done.code == code
    assert done.out.startswith({"csv": "cell,", "latex": "\\"}[form]) == (code == 0)


@pytest.mark.parametrize(("nodes", "link"), [(1, False), (2, False), (1, True)])
def test_a_step_is_called_with_its_nodes_and_linked_to(
    kit: Kit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nodes: int, link: bool
) -> None:
    plan = SimpleNamespace(instance=lambda id: SimpleNamespace(key=f"key of {id}"))
    made = SimpleNamespace(plan=plan, home=tmp_path, pins=None)
    given: dict[str, Any] = {}
    linked: list[Any] = []
    monkeypatch.setattr("kit.cli.step.read_planned", lambda file: made)
    monkeypatch.setattr(
        "kit.engine.one_step.run_instance", lambda plan, step, **how: given.update(how, step=step)
    )
    monkeypatch.setattr("kit.engine.one_step.link_record", lambda *of: linked.append(of[1:]))
    monkeypatch.setattr("kit.engine.launch.parse_nodes", lambda *of: of)
    typed = ["--nodes", str(nodes), "--node-rank", "1", "--rendezvous", "h:1"] if nodes > 1 else []
    typed += ["--link", str(tmp_path / "l")] if link else []
    assert kit("step", "plan.json", "s[a=1]", *typed).code == 0
    assert (given["step"], given["nodes"]) == ("s[a=1]", (2, 1, "h:1") if nodes > 1 else None)
    assert given["options"].jobs == 1
    assert linked == ([("key of s[a=1]", tmp_path / "l")] if link else [])


@pytest.mark.parametrize(("check", "how"), [(True, "all"), (False, "small")])
def test_a_run_is_collected_where_it_is_wanted(
    kit: Kit, monkeypatch: pytest.MonkeyPatch, check: bool, how: str
) -> None:
    given: dict[str, Any] = {}

    def collect(plan: object, **options: Any) -> Path:
        given.update(options)
        return Path("runs/x")

    made = SimpleNamespace(plan=None, home=Path("h"), pins=None)
    monkeypatch.setattr("kit.cli.collect.read_planned", lambda file: made)
    monkeypatch.setattr("kit.engine.session.collect", collect)
    done = kit("collect", "plan.json", *(["--check"] if check else []), "--runs-dir", "other")
    assert done.out == "runs/x\n"
    assert (given["options"].check, given["options"].runs_dir) == (how, Path("other"))


def held(kind: str, gb: float, dropped: bool = False) -> Any:
    return SimpleNamespace(kind=kind, gb=gb, dropped=dropped, key=f"{kind}{gb}")


@pytest.mark.parametrize("dropped", [False, True])
def test_the_store_is_listed_by_size(
    kit: Kit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dropped: bool
) -> None:
    outputs = [held("a/x", 0.25), held("b/y", 2.0, dropped), held("a/x", 0.5)]
    monkeypatch.setattr(store, "_held", lambda runs: (SimpleNamespace(home=tmp_path), outputs))
    lines = [line.strip() for line in kit("store").out.splitlines()]
    more = ", 1 of them dropped after use" if dropped else ""
    assert lines == [
        "2.00 GB  1 x b/y", "750.0 MB  2 x a/x",
        f"2.75 GB in 3 finished steps{more}; {tmp_path}",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("typed", "busy", "said"),
    [
        (["--older-than", "0"], 0, "removed 2 of 2 steps, 750.0 MB"),
        (["--run", "runs/x"], 1, "removed 1 of 2 steps, 750.0 MB; 1 are in use"),
        (["--experiment", "e", "--dry-run"], 0, "would remove 2 steps, 750.0 MB"),
    ],
)
def test_what_is_removed_is_counted(
    kit: Kit, monkeypatch: pytest.MonkeyPatch, typed: list[str], busy: int, said: str
) -> None:
    outputs = [held("a/x", 0.25), held("b/y", 0.5)]
    asked: dict[str, Any] = {}

    def chosen(of: list[Any], **how: Any) -> list[Any]:
        asked.update(how)
        return of

    monkeypatch.setattr(store, "_held", lambda runs: (None, outputs))
    monkeypatch.setattr("kit.engine.inventory.chosen", chosen)
    monkeypatch.setattr("kit.engine.inventory.remove", lambda of, keys: (len(keys) - busy, busy))
    assert kit("store", "remove", *typed).out == f"{said}\n"
    assert asked["run"] == ("x" if "--run" in typed else None)


@pytest.mark.parametrize(
    ("check", "changed", "code", "words"),
    [(True, True, 4, "stale: a.md (b, c)"), (True, False, 0, "everything generated is up to date"),
     (False, True, 0, "written: a.md (b, c)"),
     (False, False, 0, "everything generated is up to date")],
)  # fmt: skip
def test_generated_parts_are_written_or_said_to_be_stale(
    kit: Kit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, check: bool, changed: bool,
    code: int, words: str,
) -> None:  # fmt: skip
    change = SimpleNamespace(path=tmp_path / "a.md", parts=["b", "c"])
    monkeypatch.setattr("kit.manifest.home.writable_root", lambda: tmp_path)
    for name in ("drift", "write"):
        made = [change] if changed and (name == "drift") == check else []
        monkeypatch.setattr(f"kit.manifest.docs.{name}", lambda root, made=made: made)
    done = kit("docs", *(["--check"] if check else []))
    assert (done.code, done.out) == (code, f"{words}\n")
    assert ("run: kit docs" in done.err) == (check and changed)


@pytest.mark.parametrize(
    ("levels", "quiet", "shown", "code"),
    [
        (["info", "warning"], False, 2, 0),
        (["info", "warning"], True, 1, 0),
        (["error", "info"], True, 1, 4),
        ([], False, 0, 0),
    ],
)
def test_findings_are_shown_and_counted(
    kit: Kit, monkeypatch: pytest.MonkeyPatch, levels: list[str], quiet: bool, shown: int, code: int
) -> None:
    findings = [SimpleNamespace(level=level, render=lambda: "[x] finding") for level in levels]
    monkeypatch.setattr("kit.lint.validate.named_files", lambda paths: ["a", "b"])
    monkeypatch.setattr("kit.lint.validate.validate", lambda catalog, files: findings)
    done = kit("validate", "x", *(["-q"] if quiet else []))
    lines = done.out.splitlines()
    assert (done.code, lines[:-1]) == (code, ["[x] finding"] * shown)
    counted = {level: levels.count(level) for level in ("error", "warning", "info")}
    assert lines[-1].startswith(f"2 files: {counted['error']} error")
    assert f", {counted['warning']} warning" in lines[-1]
    assert f", {counted['info']} note" in lines[-1]
    assert validate._STYLE.keys() == counted.keys()


@pytest.mark.parametrize(
    ("form", "generations", "refused"),
    [("html", False, False), ("html", True, False), ("markdown", False, False),
     ("markdown", True, True)],
)  # fmt: skip
def test_a_report_in_short_has_no_generations(
    kit: Kit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str, generations: bool,
    refused: bool,
) -> None:  # fmt: skip
    given: dict[str, Any] = {}

    def write(run: Path, output: Path | None, **how: Any) -> Path:
        given.update(how)
        return run / "report.html"

    monkeypatch.setattr("kit.report.session.write_report", write)
    monkeypatch.setattr("kit.report.files.check_follows", lambda folder, verdict: None)
    folder = write_run(tmp_path / "run")
    typed = ["--show-generations"] if generations else []
    done = kit("report", str(folder), "--format", form, *typed)
    assert done.code == (2 if refused else 0)
    if form == "html":
        assert given == {"show_generations": generations}
        assert done.out == f"{folder / 'report.html'}\n"
    elif not refused:
        assert done.out.startswith("# Tiny-adapt: ")


@pytest.mark.parametrize("own", [False, True])
def test_an_entry_goes_beside_a_manifest_of_ones_own(
    kit: Kit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own: bool
) -> None:
    made = SimpleNamespace(manifest=str(tmp_path / "paper.yaml") if own else "")
    monkeypatch.setattr("kit.report.files.read_run", lambda run: made)
    monkeypatch.setattr("kit.report.log.add", lambda run, folder, **how: folder / str(how))
    monkeypatch.setattr("kit.cli.log._here", lambda: Path("here"))
    folder = tmp_path / "reproductions" if own else Path("here")
    typed = {"name": "N", "hardware": "H"}
    out = kit("log", "add", "x", "--name", "N", "--hardware", "H").out
    assert out == f"{folder / str(typed)}\n"
    out = kit("log", "add", "x", "--folder", "f").out
    assert out.startswith("f/")


def test_commands_are_found_by_name_and_help_needs_none_of_them(kit: Kit) -> None:
    group = LazyGroup("kit")
    context = click.Context(group)
    assert group.list_commands(context) == list(COMMANDS)
    assert group.get_command(context, "none") is None
    done = kit("lsit")
    assert (done.code, "Did you mean 'list'?" in done.err) == (2, True)
    done = kit("qqqqqq")
    assert (done.code, "Did you mean" in done.err) == (2, False)
    assert kit("--help").out.count("\n  list ") == 1


@pytest.mark.parametrize(
    ("experiment", "levels", "code", "looked"),
    [
        ("demo", ["OK", "WARN"], 0, False),
        ("demo", ["OK", "FAIL"], 4, True),
        (None, ["OK"], 0, True),
        (None, ["FAIL"], 4, True),
    ],
)
def test_what_fits_is_looked_for_where_something_fails_or_nothing_is_named(
    kit: Kit,
    repo: Path,
    monkeypatch: pytest.MonkeyPatch,
    experiment: str | None,
    levels: list[Any],
    code: int,
    looked: bool,
) -> None:
    checks = [Check(level=level, what=f"w{i}", detail="d") for i, level in enumerate(levels)]
    asked: list[Any] = []
    given: dict[str, Any] = {}

    def examine(**how: Any) -> list[Check]:
        given.update(how)
        return checks

    monkeypatch.setattr("kit.doctor.examine", examine)
    monkeypatch.setattr("kit.doctor.sharing.needs_of", lambda *_, **how: how)
    monkeypatch.setattr("kit.doctor.overview.overview", lambda *_, only: asked.append(only) or [])
    named = [experiment, "--profile", "paper", "--gpus", "2"] if experiment else []
    done = kit("doctor", *named)
    assert (done.code, asked) == (code, [experiment] if looked else [])
    assert given["experiment"] == experiment
    if experiment is None:
        assert given["ids"] is None
    else:
        assert (given["needs"]["gpus"], given["profile"]) == (2, "paper")
        assert given["ids"] == Catalog(repo).needed_pins("demo", "paper")
    asked.clear()
    document = json.loads(kit("doctor", *named, "--json").out)
    assert (document["experiment"], document["can_run"]) == (experiment, code == 0)
    assert document["profile"] == ("paper" if experiment else None)
    assert len(document["checks"]) == len(levels)


def test_kinds_of_the_folder_one_is_in_are_known(
    kit: Kit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[Path] = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("kit.manifest.home.open_folder", opened.append)
    assert kit("kinds").code == 0
    assert opened == [tmp_path]


def test_the_log_is_shown_from_the_folder_that_is_named(
    kit: Kit, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kit.report.pooled.page", lambda folder: f"log of {folder}\n")
    monkeypatch.setattr("kit.cli.log._here", lambda: Path("here"))
    assert kit("log", "show").out == "log of here\n"
    assert kit("log", "show", "--folder", "f").out == "log of f\n"


def test_what_is_asked_for_as_json_is_one_document(
    kit: Kit, repo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "_held", lambda runs: (SimpleNamespace(home=tmp_path), []))
    assert json.loads(kit("store", "--json").out) == []
    shown = json.loads(kit("show", "demo", "--json").out)
    assert shown["id"] == "demo"
    listed = json.loads(kit("list", "--json").out)
    assert [item["id"] for item in listed] == ["demo-corrected", "demo"]
    assert kit("show", "demo").out.startswith("demo: ")
    assert kit("show", "demo", "--template", "--profile", "mini").code == 2
