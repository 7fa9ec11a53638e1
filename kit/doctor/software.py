"""Python and package versions, against what the kit declares."""

from __future__ import annotations

import sys
import tomllib
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement

from kit.doctor.core import Check, Needs, fail, ok, warn
from kit.engine.environment import library_version

DISTRIBUTION = "safety-repro-kit"
OLDEST_PYTHON = (3, 11)

Version = Callable[[str], str | None]


def python_version(version: tuple[int, ...] = sys.version_info[:3]) -> Check:
    """The interpreter is recent enough."""
    shown = ".".join(map(str, version))
    if version[:2] < OLDEST_PYTHON:
        wanted = ".".join(map(str, OLDEST_PYTHON))
        return fail(
            "python",
            f"{shown}; {wanted} or newer is needed",
            f"install it (apt-get install python{wanted}-venv, uv python install {wanted}), then "
            f"make setup PYTHON=python{wanted} VENV=.venv-{wanted}",
        )
    return ok("python", shown)


def requirements(root: Path) -> dict[str, list[Requirement]]:
    """Set name (``""`` for the core) -> requirements, from the checkout or the installation."""
    file = root / "pyproject.toml"
    if file.is_file():
        project = tomllib.loads(file.read_text(encoding="utf-8")).get("project", {})
        listed = {"": project.get("dependencies", []), **project.get("optional-dependencies", {})}
        return {name: _parse(texts) for name, texts in listed.items()}
    by_extra: dict[str, list[Requirement]] = {"": [], "cpu": [], "gpu": [], "report": []}
    try:
        declared = metadata.requires(DISTRIBUTION) or []
    except metadata.PackageNotFoundError:
        declared = []
    for requirement in _parse(declared):
        for extra in by_extra:
            # Without ``break``: what two extras share is declared once for each of them.
            if (requirement.marker is None and not extra) or (
                requirement.marker is not None and requirement.marker.evaluate({"extra": extra})
            ):
                by_extra[extra].append(requirement)
    return by_extra


def packages(root: Path, needs: Needs, version: Version = library_version) -> Iterator[Check]:
    """Every declared package is present in a version that fits."""
    declared = requirements(root)
    for name, extra, level in (
        ("core packages", "", fail),
        (f"packages [{needs.extra}]", needs.extra, fail),
        # Last, and only a warning: without it a run is made and verified, but has no report.
        ("packages [report]", "report", warn),
    ):
        listed = declared.get(extra, [])
        wanted = [
            requirement
            for requirement in listed
            if requirement.name not in needs.without or version(requirement.name)
        ]
        problems = [text for text in (_problem(r, version) for r in wanted) if text]
        mend = _install(root, extra or needs.extra)
        if problems and extra == "cpu" and _complete(declared.get("gpu", []), version):
            yield ok(name, f"not needed: the gpu set is here, with torch {version('torch')}")
        elif problems:
            yield level(name, "; ".join(problems), mend)
        elif wanted:
            shown = ", ".join(f"{r.name} {version(r.name)}" for r in wanted)
            yield ok(name, shown)
        elif extra != "report":
            yield warn(name, "no list of requirements found; versions were not checked", mend)


def _install(root: Path, extra: str) -> str:
    """The hashed set-up where there is a clone, else the extra of the installed kit."""
    if (root / "requirements" / "cpu.txt").is_file():
        return "make setup-gpu" if extra == "gpu" else "make setup"
    return f'pip install "{DISTRIBUTION}[{extra}]"'


def _complete(wanted: list[Requirement], version: Version) -> bool:
    return bool(wanted) and not any(_problem(requirement, version) for requirement in wanted)


def _problem(requirement: Requirement, version: Version) -> str:
    if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
        return ""
    installed = version(requirement.name)
    if installed is None:
        return f"{requirement.name} is missing"
    # A local part names a build (2.13.0+cpu), not another version.
    if not requirement.specifier.contains(installed.split("+")[0], prereleases=True):
        return f"{requirement.name} is {installed}, wanted {requirement.specifier}"
    return ""


def _parse(texts: list[str]) -> list[Requirement]:
    requirements = []
    for text in texts:
        try:
            requirements.append(Requirement(text))
        except InvalidRequirement:
            continue
    return requirements
