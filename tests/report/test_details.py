"""Deviations, checks, what was not run, inputs and steps: what stands there, and in which order."""

from __future__ import annotations

from pathlib import Path

import pytest

from kit.plural import plural
from kit.report.details import (
    MOST_CHECKS,
    MOST_DEVIATIONS,
    MOST_STEPS,
    checks,
    deviations,
    environment,
    flat,
    inputs,
    log_links,
    not_run,
    run_commands,
    steps,
)
from kit.report.files import read_run
from kit.verify.verdict import CanaryReport
from tests.report.builders import cell, claim, verdict
from tests.report.runs import plan, record, results, write_run


def test_inputs_with_a_mark_come_first_each_in_the_order_of_the_plan(tmp_path: Path) -> None:
    shown = inputs(read_run(write_run(tmp_path)))
    assert [each.id for each in shown] == ["llama-3.1-8b-instruct", "wmdp-corpus", "mini-a"]
    gated, gone, mini = shown
    assert [mark for mark, _ in gated.marks] == ["unconfirmed", "gated"]
    assert gated.origin.endswith(" @ " + "0e" * 20)
    assert gated.files == "1 file, 1 without sha256"
    assert gone.marks == [("unavailable", "handed out on request only")]
    assert (mini.files, mini.marks) == ("1 file, 1.8 MB", [])
    assert mini.origin == "ships with the kit: mini/weights/a"


def test_a_size_is_said_only_where_all_files_have_one(tmp_path: Path) -> None:
    made = plan()
    made["pins"][0]["files"] += [{"path": "b", "sha256": "2c" * 32, "size": 200_000}]
    assert inputs(read_run(write_run(tmp_path / "a", plan=made)))[2].files == "2 files, 2.0 MB"
    del made["pins"][0]["files"][1]["size"]
    assert inputs(read_run(write_run(tmp_path / "b", plan=made)))[2].files == "2 files"


def test_deviations_are_the_grave_cells_after_the_claims_that_fail() -> None:
    words = ["match", "deviates", "inconclusive", "missing", "not-run", "invalid", "deviates"]
    cells = [cell(f"t/{i}", verdict=word) for i, word in enumerate(words)]
    lost = claim("lost", outcome="fails", tested="d", method="m", p_holm=0.5, reason="r")
    claims = [claim("held"), lost, claim("open", outcome="undetermined")]
    shown, more = deviations(verdict(cells=cells, claims=claims))
    assert [each.name for each in shown] == ["lost", "t/5", "t/3", "t/1", "t/6"]
    assert (shown[0].detail, shown[0].evidence) == ("d", "m, p = 0.500 (Holm)")
    assert shown[0].why == "r"
    assert [each.css for each in shown] == ["bad", "void", "bad", "bad", "bad"]
    assert (shown[3].detail, shown[3].evidence) == (cells[1].detail, "")  # says difference, margin
    assert shown[3].why.startswith("Margin chosen by convention: five points")
    assert more == 0


@pytest.mark.parametrize("beyond", [0, 1, 7])
def test_what_is_cut_is_counted(beyond: int, tmp_path: Path) -> None:
    cells = [cell(f"t/{i}", verdict="deviates") for i in range(MOST_DEVIATIONS + beyond)]
    shown, more = deviations(verdict(cells=cells, claims=[]))
    assert (len(shown), more) == (MOST_DEVIATIONS, beyond)
    passed = [CanaryReport(id=f"p{i}", passed=True, source="step", detail="")
              for i in range(MOST_CHECKS - 1 + beyond)]  # fmt: skip
    failed = CanaryReport(id="failed", passed=False, source="step", detail="")
    listed, left = checks(verdict(canaries=[*passed, failed]))
    assert [check.id for check in listed[:2]] == ["failed", "p0"]
    assert (len(listed), left) == (MOST_CHECKS, beyond)
    made = plan()
    made["instances"] = [{**made["instances"][0], "id": f"align[pair={i}]"}
                         for i in range(MOST_STEPS + beyond)]  # fmt: skip
    few, rest = steps(read_run(write_run(tmp_path, plan=made)))
    assert (len(few), rest) == (MOST_STEPS, beyond)


def test_the_same_reasons_stand_together_and_nothing_twice() -> None:
    cells = [
        cell("a/1", verdict="not-run", detail="no GPU"),
        cell("a/2", verdict="not-run", detail="no GPU"),
        cell("a/3", verdict="not-compared", detail="no GPU"),
        cell("a/4", verdict="not-run", detail="said above"),
        cell("a/5", verdict="deviates"),
    ]
    claims = [claim("c1", outcome="not-evaluated", detail="no cell"), claim("c2"),
              claim("c3", outcome="not-evaluated", detail="said as well")]  # fmt: skip
    made = verdict(cells=cells, claims=claims, not_covered=["a/4 and c3 were left out."])
    assert not_run(made) == [
        ("", "a/4 and c3 were left out."),
        ("2 cells, such as a/1 (not run)", "no GPU"),
        ("a/3 (not compared)", "no GPU"),
        ("claim c1 (not evaluated)", "no cell"),
    ]


def test_what_was_published_and_not_run_is_said_first() -> None:
    made = verdict(cells=[], claims=[], not_covered=["a."], published="the 8B models, not run")
    assert not_run(made) == [
        ("", "The 8b models, not run here; what is said is about this run."), ("", "a."),
    ]  # fmt: skip
    assert not_run(verdict(cells=[], claims=[], not_covered=[], published="")) == []


@pytest.mark.parametrize(("count", "more"), [(3, 0), (4, 1), (9, 6)])
def test_long_lists_of_what_was_not_run_say_how_much_is_left(count: int, more: int) -> None:
    sentences = [f"s{i}." for i in range(count)]
    rows = not_run(verdict(cells=[], claims=[], not_covered=sentences), most=3)
    assert rows[:3] == [("", sentence) for sentence in sentences[:3]]
    assert rows[3:] == ([("", f"and {more} more, in verdict.json")] if more else [])
    cells = [cell(f"a/{i}", verdict="not-run", detail=f"because {i}") for i in range(count)]
    rows = not_run(verdict(cells=cells, claims=[], not_covered=[]), most=3)
    assert [name for name, _ in rows[:3]] == [f"a/{i} (not run)" for i in range(3)]
    left = f"and {plural(more, 'more reason')}, in verdict.json"
    assert rows[3:] == ([("", left)] if more else [])


def test_steps_say_what_they_cost_and_measured(tmp_path: Path) -> None:
    made = record()
    align, table = made["steps"]["align[pair=newer-0]"], made["steps"]["table"]
    align |= {"peak_gpu_memory_gb": 20.04, "seconds": 150.0, "job": "17", "state": "cached"}
    table |= {"seconds": 0.0, "peak_memory_gb": 0.0}
    shown, _ = steps(read_run(write_run(tmp_path / "run", record=made)))
    by_id = {step.id: step for step in shown}
    first = by_id["align[pair=newer-0]"]
    assert (first.cost, first.job, first.cached) == ("2.5 min, 0.6 GB, 20.0 GB GPU", "17", True)
    assert (by_id["table"].cost, by_id["table"].cached) == ("", False)
    assert first.command == "kit step runs/run/plan.json 'align[pair=newer-0]'"
    assert first.kind == "defensive-tokens/align v1"
    measured = [each.step for each in results().cells]
    assert {step.id: step.cells for step in shown if step.cells} == {
        id: f"{measured.count(id)} cell{'s' if measured.count(id) > 1 else ''}"
        for id in {*measured} - {""}
    }
    assert any(step.cells for step in shown)


def test_commands_of_the_run_and_links_to_its_logs(tmp_path: Path) -> None:
    run = read_run(write_run(tmp_path / "run"))
    assert [command for _, command in run_commands(run)] == [
        "kit run tiny-adapt --profile mini",
        "kit reproduce tiny-adapt --profile mini",
        "kit verify runs/run",
        "kit report runs/run",
    ]
    paths = ["logs/a b.log", "logs/../../secret", "etc/passwd", "slurm/1.out", "xlogs/a"]
    assert log_links(paths) == [("logs/a%20b.log", "logs/a b.log"), ("slurm/1.out", "slurm/1.out")]


def test_where_the_numbers_come_from(tmp_path: Path) -> None:
    made = record() | {"dirty": True, "seconds": 0.0}
    groups = dict(environment(read_run(write_run(tmp_path / "a", record=made))))
    assert list(groups) == ["Source", "Hardware", "Environment class", "Versions",
                            "sha256 of what was compared"]  # fmt: skip
    source = dict(groups["Source"])
    assert source["uncommitted changes"] == "yes"
    assert "took" not in source
    assert dict(groups["Environment class"])["dtype"] == "float32"
    assert list(dict(groups["Versions"]))[:2] == ["python", "platform"]
    clean = dict(environment(read_run(write_run(tmp_path / "b"))))
    assert dict(clean["Source"])["uncommitted changes"] == "no"
    assert dict(clean["Source"])["took"] == "91 s"
    assert dict(clean["Source"])["commit"] == record()["commit"]
    assert dict(clean["Source"])["kit"] == record()["kit_version"]
    bare = record() | {"commit": None, "kit_version": "", "environment": {}}
    unknown = dict(environment(read_run(write_run(tmp_path / "d", record=bare))))
    assert dict(unknown["Source"])["commit"] == "not recorded"
    assert dict(unknown["Source"])["kit"] == verdict().kit_version
    assert dict(unknown["Environment class"])["torch"] == plan()["environment"]["torch"]
    without = dict(environment(read_run(write_run(tmp_path / "c", record=None))))
    assert dict(without["Environment class"])["torch"] == "2.13.0"
    assert "Source" not in without


def test_a_nested_object_becomes_two_columns() -> None:
    tree = {
        "a_b": {"c": 1, "d": None, "e": ""}, "f": [], "g": [1, "x"], "h": True, "i": False,
        "j": [{"k": 0}, 5],
    }  # fmt: skip
    assert flat(tree) == [
        ("a b: c", "1"), ("f", "none"), ("g", "1, x"), ("h", "yes"), ("i", "no"),
        ("j 1: k", "0"), ("j 2: ", "5"),
    ]  # fmt: skip
