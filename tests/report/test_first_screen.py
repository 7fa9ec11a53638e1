"""What a browser shows of a report before anybody scrolls."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import msgspec
import pytest

from kit.manifest.catalog import Catalog
from kit.manifest.load import load_expectation
from kit.report.files import Run
from kit.report.html import render
from kit.results.files import RESULTS, VERDICT
from kit.results.types import Results
from kit.verify.core import Subject, verify
from kit.verify.published import recorded

ROOT = Path(__file__).parents[2]
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
MEASURE = """
document.documentElement.dataset.found = JSON.stringify({
  bottoms: [".banner", ".brief", ".first svg"].map(
    (name) => document.querySelector(name).getBoundingClientRect().bottom),
  smallest: Math.min(...Array.from(document.querySelectorAll(".brief, .first svg text"),
    (text) => text.getBoundingClientRect().height)),
  width: document.documentElement.scrollWidth,
});
"""

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="chromium not installed")


def page_of_references(experiment: str, folder: Path) -> Path:
    """The report of an experiment's committed reference runs."""
    path = next((ROOT / "expected_results").glob(f"*/{experiment}.mini.yaml"))
    expected = load_expectation(path)
    assert expected.record
    results = Results(
        schema_version=1, experiment=experiment, version=expected.version, profile="mini",
        cells=list(recorded(path.parent / expected.record)),
    )  # fmt: skip
    (folder / RESULTS).write_bytes(msgspec.json.encode(results))
    verdict = verify(Subject(expected=expected, results=results))
    (folder / VERDICT).write_bytes(msgspec.json.encode(verdict))
    page = folder / "report.html"
    manifest = Catalog(ROOT).manifest(experiment)
    page.write_text(render(Run(folder), manifest=manifest, expectation=expected), encoding="utf-8")
    return page


def measured(page: Path, width: int, height: int) -> dict[str, list[float] | float]:
    """Positions in a window of this size; the page's own policy would refuse the question."""
    text = re.sub(r"<meta http-equiv=[^>]*>", "", page.read_text(encoding="utf-8"))
    asking = page.with_name("asking.html")
    asking.write_text(text.replace("</body>", f"<script>{MEASURE}</script></body>"), "utf-8")
    command = [str(CHROMIUM), "--headless=new", "--no-sandbox", "--disable-gpu", "--dump-dom"]
    command += ["--hide-scrollbars", f"--user-data-dir={page.parent / 'profile'}"]
    command += [f"--window-size={width},{height}", asking.as_uri()]
    shown = subprocess.run(command, check=True, capture_output=True, text=True, timeout=120).stdout
    said = re.search(r'data-found="([^"]*)"', shown)
    assert said
    return dict(json.loads(said[1].replace("&quot;", '"')))


# Most claims and caveats; more claims than are listed; a tall grid; many names; a wide grid.
@pytest.mark.parametrize(
    "experiment",
    ["tiny-adapt", "ct-lora-versus-full", "ct-tamper-short", "procrustes-transfer", "tar-red-team"],
)
def test_the_first_screen_has_verdict_claims_and_the_whole_figure(
    tmp_path: Path, experiment: str
) -> None:
    page = page_of_references(experiment, tmp_path)
    found = measured(page, 1280, 900)
    bottoms, smallest = found["bottoms"], found["smallest"]
    assert isinstance(bottoms, list)
    assert all(100 < bottom <= 900 for bottom in bottoms), bottoms
    assert isinstance(smallest, float | int)
    assert smallest >= 8  # pixels of the smallest text in the figure


def test_nothing_of_it_is_wider_than_a_telephone(tmp_path: Path) -> None:
    page = page_of_references("tiny-adapt", tmp_path)
    # Chromium's own least width of a window is 500.
    assert measured(page, 500, 900)["width"] == 500
