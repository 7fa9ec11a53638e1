"""The way from a command to the science stays short, measured on real commands."""

from __future__ import annotations

import pytest

from tests.route import events, plan_route, run_route


def test_from_the_command_line_to_a_method_are_eight_files_at_most() -> None:
    files = run_route("tiny-adapt")
    assert files[0] == "kit/cli/main.py"
    assert files[-1].startswith("kit/methods/")
    assert len(files) <= 8, files


def test_planning_visits_ten_files_at_most_beside_what_the_family_declares() -> None:
    files, _ = plan_route("tiny-adapt")
    machinery = [file for file in files if not file.startswith("kit/steps/")]
    assert "kit/engine/planner.py" in machinery
    assert len(machinery) <= 10, machinery


def test_a_command_that_fails_says_so_instead_of_a_route() -> None:
    with pytest.raises(SystemExit, match="unknown experiment 'nothing'"):
        events(["plan", "nothing"], '"functions"')
