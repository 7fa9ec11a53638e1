"""The locks are what pyproject.toml asks for, whole, and name no index."""

from __future__ import annotations

import json
import re
import tomllib
from functools import cache

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from tests.container.conftest import ROOT

EXTRAS = {
    "cpu": ("cpu", "report"),
    "dev": ("cpu", "report", "dev"),
    "gpu": ("gpu", "report"),
}
MACHINE = {
    "python_version": "3.11",
    "python_full_version": "3.11.7",
    "sys_platform": "linux",
    "platform_system": "Linux",
    "platform_machine": "x86_64",
}


def text(name: str) -> str:
    return (ROOT / "requirements" / f"{name}.txt").read_text()


@cache
def locked(name: str) -> dict[str, Version]:
    """Package -> version of a lock."""
    found = re.findall(r"^([A-Za-z0-9_.-]+)==([^\s\\]+)", text(name), re.MULTILINE)
    return {canonicalize_name(package): Version(version) for package, version in found}


def wanted(name: str) -> list[Requirement]:
    """What pyproject.toml asks of an environment."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = list(project["dependencies"])
    for extra in EXTRAS[name]:
        lines += project["optional-dependencies"][extra]
    return [Requirement(line) for line in lines]


@pytest.mark.parametrize("name", list(EXTRAS))
def test_a_lock_satisfies_the_project(name: str) -> None:
    asked = wanted(name)
    assert len(asked) > 15
    for requirement in asked:
        if requirement.marker is not None and not requirement.marker.evaluate(MACHINE):
            continue
        version = locked(name).get(canonicalize_name(requirement.name))
        assert version is not None, f"{requirement} is not in {name}.txt; make lock"
        assert requirement.specifier.contains(version, prereleases=True), (
            f"{name}.txt has {requirement.name} {version}, pyproject.toml asks {requirement}; "
            "make lock"
        )


@pytest.mark.parametrize("name", list(EXTRAS))
def test_every_entry_has_hashes_and_no_index_is_named(name: str) -> None:
    entries = re.split(r"^(?=[A-Za-z0-9_.-]+==)", text(name), flags=re.MULTILINE)[1:]
    assert len(entries) == len(locked(name))
    for entry in entries:
        assert re.search(r"--hash=sha256:[0-9a-f]{64}\b", entry), entry.splitlines()[0]
    assert not re.search(r"https?://|file:/|--(extra-)?index-url|--find-links| @ ", text(name))


def test_dev_is_cpu_and_more() -> None:
    differing = {
        package: (version, locked("dev").get(package))
        for package, version in locked("cpu").items()
        if locked("dev").get(package) != version
    }
    assert not differing


def test_the_gpu_set_is_one_that_ran() -> None:
    """vllm 0.26.0 pins torch 2.11.0 exactly; both and transformers are those of benchmarks/."""
    tried = sorted((ROOT / "benchmarks").glob("generation-*.json"))
    assert tried
    machine = json.loads(tried[-1].read_text())["machine"]
    for package in ("vllm", "torch", "transformers"):
        assert str(locked("gpu")[package]) == machine[package].split("+")[0], package
    assert locked("gpu")["accelerate"] >= Version("1.15")
    assert locked("gpu")["deepspeed"] >= Version("0.19.8")


def test_sizes_are_told_for_every_lock() -> None:
    sizes = json.loads((ROOT / "requirements" / "sizes.json").read_text())
    assert {name: size["files"] for name, size in sizes.items()} == {
        name: len(locked(name)) for name in EXTRAS
    }
    assert all(size["megabytes"] > 100 for size in sizes.values())
