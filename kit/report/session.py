"""What the report commands share: a run with the manifest and expectation that belong to it."""

from __future__ import annotations

from pathlib import Path

from kit.durable import sha256_file
from kit.errors import KitError
from kit.manifest.expectation_types import Expectation
from kit.manifest.types import Manifest
from kit.report.files import Run


def manifest_of(run: Run) -> Manifest | None:
    """The manifest of a run, where the repository has it in the version that was run.

    A report must open anywhere, also without the repository, so nothing here is an error.
    """
    from kit.manifest.catalog import Catalog

    try:
        manifest = Catalog().manifest(_experiment(run))
    except KitError:
        return None
    # Numbers compare within one N of a version N-X.
    same = manifest.version.partition("-")[0] == run.verdict.version.partition("-")[0]
    return manifest if same else None


def expectation_of(run: Run) -> Expectation | None:
    """The expectation the verdict was made with, recognised by its hash."""
    from kit.manifest.catalog import Catalog
    from kit.manifest.load import load_expectation

    try:
        catalog = Catalog()
        candidates = [catalog.expectation_path(_experiment(run), run.verdict.profile)]
        candidates.append(catalog.root / run.verdict.expectation)
        said = run.verdict.expectation_sha256
        for path in candidates:
            if path is not None and path.is_file() and sha256_file(path) == said:
                return load_expectation(path)
    except (KitError, OSError):
        return None
    return None


def published_of(run: Run) -> Expectation | None:
    """The expectation of the documents' own numbers, where the run is of another profile."""
    from kit.manifest.catalog import Catalog

    try:
        catalog, experiment = Catalog(), _experiment(run)
        profiles = catalog.manifest(experiment).profiles
        names = [name for name, item in profiles.items() if item.compares == "published"]
        if not names or run.verdict.profile in names:
            return None
        return catalog.expectation(experiment, names[0])
    except KitError:
        return None


def _experiment(run: Run) -> str | Path:
    """What to ask the catalog for: the user's own manifest, or an id."""
    own = run.plan.manifest if run.plan is not None else ""
    return Path(own) if own else run.verdict.experiment


def write_report(
    folder: Path, output: Path | None = None, *, show_generations: bool = False
) -> Path:
    """Write the HTML report of a verified run; returns its path.

    Args:
        folder: Run directory.
        output: Elsewhere than ``report.html`` in it.
        show_generations: Include what the models answered.
    """
    from kit.manifest.home import kit_home
    from kit.report.files import read_run, write_file
    from kit.report.html import render

    run = read_run(folder)
    text = render(
        run,
        manifest=manifest_of(run),
        expectation=expectation_of(run),
        published=published_of(run),
        show_generations=show_generations,
        home=kit_home(),
    )
    path = output or folder / "report.html"
    write_file(path, text)
    return path
