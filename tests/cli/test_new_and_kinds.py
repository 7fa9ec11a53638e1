"""``kit new``, ``kit kinds`` and ``kit list --register``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kit.engine.registry import NoParams, StepKind
from tests.cli.conftest import Kit

ROOT = Path(__file__).parents[2]
REGISTER = """
schema_version: 1
kits:
  - id: their-paper
    title: "What they found"
    repository: https://example.org/them/their-paper
    commit: "0123456789abcdef0123456789abcdef01234567"
    experiments: [./their-paper.yaml]
"""


@pytest.mark.parametrize("name", ["9lives", "with space", "ümlaut"])
def test_a_folder_that_cannot_name_an_experiment(kit: Kit, tmp_path: Path, name: str) -> None:
    found = kit("new", str(tmp_path / name))
    assert found.code == 2
    assert "cannot name an experiment" in found.err
    assert not (tmp_path / name).exists()


def test_what_is_there_is_not_written_over(kit: Kit, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("x")
    assert "is there already" in kit("new", str(tmp_path / "mine")).err
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["notes.txt"]


def test_kinds_of_the_kit(kit: Kit) -> None:
    listed = kit("kinds").out.splitlines()
    assert any(line.startswith("tar/train ") for line in listed)
    shown = kit("kinds", "defensive-tokens/evaluate").out
    assert "  attacks: pin; needs of a pin: style" in shown
    assert "  gpu_share: float > 0, <= 1 = 0.9" in shown
    assert "  trained: step, optional" in shown
    assert "outputs: responses.jsonl, scores.json" in shown
    (made,) = json.loads(kit("kinds", "tar/train", "--json").out)
    assert made["parameters"]["every"]["type"] == "int >= 1 | nothing"
    assert made["parameters"]["preset"]["required"]
    assert made["model"] == "model"


def test_an_unknown_kind(kit: Kit) -> None:
    found = kit("kinds", "tar/trian")
    assert found.code == 4
    assert "unknown step kind 'tar/trian'" in found.err


def test_what_a_kind_needs_is_of_a_pin() -> None:
    with pytest.raises(ValueError, match="'data' of 'needs' is no pin"):
        StepKind(
            "a/b", 1, NoParams, print, {"data": "step"}, ("x",), needs={"data": ("chat_format",)}
        )


def test_the_shipped_register_is_empty_and_its_example_is_an_entry(
    kit: Kit, tmp_path: Path
) -> None:
    shipped = ROOT / "docs" / "register.yaml"
    assert kit("validate", str(shipped)).code == 0
    assert kit("list", "--register", str(shipped)).out.startswith("no kits are listed in ")
    example = [line[1:] for line in shipped.read_text().splitlines() if line.startswith("#  ")]
    filled = tmp_path / "register.yaml"
    filled.write_text("\n".join(["schema_version: 1", "kits:", *example]) + "\n")
    assert "  ./their-paper.yaml  " in kit("list", "--register", str(filled)).out


def test_a_register_of_external_kits(kit: Kit, tmp_path: Path) -> None:
    file = tmp_path / "register.yaml"
    file.write_text(REGISTER)
    listed = kit("list", "--register", str(file)).out
    assert "their-paper  https://example.org/them/their-paper  0123456789abcdef0123456789" in listed
    assert "./their-paper.yaml  What they found" in listed
    assert json.loads(kit("list", "--register", str(file), "--json").out)[0]["id"] == "their-paper"
    assert kit("validate", str(file)).code == 0
    file.write_text(REGISTER.replace("0123456789abcdef0123456789", "main"))
    found = kit("list", "--register", str(file))
    assert found.code == 4
    assert "register.yaml:7:13" in found.err
    assert "40 lower-case hexadecimal digits" in found.err


def test_a_template_has_the_name_of_its_folder_everywhere(
    kit: Kit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "Our_Work").mkdir()
    lines = kit("new", "Our_Work").out.splitlines()
    assert lines[-1] == "next: cd Our_Work && kit reproduce ./our-work.yaml"
    made = sorted(path for path in (tmp_path / "Our_Work").rglob("*") if path.is_file())
    assert [Path(line) for line in lines[:-1]] == [path.relative_to(tmp_path) for path in made]
    assert {"our-work.yaml", "pins.yaml", "pyproject.toml"} <= {path.name for path in made}
    assert not any("__pycache__" in path.parts for path in made)
    for path in made:
        assert "my-paper" not in str(path) + path.read_text()
        assert "my_paper" not in str(path) + path.read_text()
    (tmp_path / "file").touch()
    assert kit("new", "file").code == 2
