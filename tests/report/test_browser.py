"""The page in a real browser: nothing leaves the file, nothing hostile runs, the tables work."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kit.report.files import read_run
from kit.report.html import render
from tests.report.extremes import large_verdict, write_hostile
from tests.report.runs import write_run

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
DRIVER = shutil.which("chromedriver")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="chromium not installed"),
    pytest.mark.skipif(DRIVER is None, reason="chromedriver not installed"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]

FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--window-size=1280,1000",
)  # fmt: skip


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium not installed")
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    service = webdriver.chrome.service.Service(DRIVER)
    driver = webdriver.Chrome(options=options, service=service)
    yield driver
    driver.quit()


def resize(browser: Any, width: int) -> None:
    sizes = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", sizes)


def open_page(browser: Any, folder: Path, width: int = 1280, **how: Any) -> list[str]:
    """Open the report of a run; return the addresses that were asked for."""
    page = folder / "report.html"
    page.write_text(render(read_run(folder), **how), encoding="utf-8")
    resize(browser, width)
    browser.get_log("performance")
    browser.get_log("browser")
    browser.get(page.as_uri())
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    sent = [m["params"] for m in messages if m["method"] == "Network.requestWillBeSent"]
    return [params["request"]["url"] for params in sent]


@pytest.fixture(params=["tiny", "hostile"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    if request.param == "tiny":
        return write_run(tmp_path / "run")
    made = write_hostile(tmp_path / "run")
    bad = json.dumps({"response": "<script>window.pwned=1</script><img src=x onerror=pwned=1>"})
    (made / "responses.jsonl").write_text(bad + "\n")
    return made


@pytest.mark.parametrize("width", [1280, 390, 320])
def test_nothing_leaves_the_file_and_nothing_hostile_runs(
    browser: Any, folder: Path, width: int
) -> None:
    asked = open_page(browser, folder, width, show_generations=True)
    own = (folder / "report.html").as_uri()
    assert set(asked) <= {own, "data:,"}
    assert own in asked
    assert browser.get_log("browser") == []
    assert browser.execute_script("return window.pwned") is None
    for event in ("mouseover", "click", "focus"):
        browser.execute_script(
            "for (const e of document.body.querySelectorAll('*:not(button, a)'))"
            "e.dispatchEvent(new Event(arguments[0], {bubbles: true}))",
            event,
        )
    assert browser.execute_script("return window.pwned") is None


@pytest.mark.parametrize("width", [1280, 768, 390, 320])
def test_body_does_not_overflow(browser: Any, folder: Path, width: int) -> None:
    open_page(browser, folder, width)
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width


def test_print_does_not_overflow(browser: Any, folder: Path) -> None:
    open_page(browser, folder, 760)
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    try:
        assert browser.execute_script("return document.documentElement.scrollWidth") <= 760
        strip = "return getComputedStyle(document.querySelector('.strip')).display"
        assert browser.execute_script(strip) == "none"
    finally:
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})


SHOWN = (
    "return Array.from(document.querySelectorAll('table.cells tbody'))"
    ".filter(b => !b.hidden).map(b => b.rows[0].cells[0].textContent.trim())"
)


def test_filter_by_text_and_verdict(browser: Any, tmp_path: Path) -> None:
    open_page(browser, write_run(tmp_path / "run"))
    everything = browser.execute_script(SHOWN)
    assert len(everything) == 12
    field = browser.find_element("id", "find")
    field.send_keys("STEP 25")
    assert browser.execute_script(SHOWN) == ["adapted, step 25", "adapted, step 25"]
    assert browser.find_element("id", "shown").text == "2 of 12 lines"
    browser.execute_script("arguments[0].value = 'deviates'", browser.find_element("id", "only"))
    browser.execute_script(
        "arguments[0].dispatchEvent(new Event('change'))", browser.find_element("id", "only")
    )
    assert browser.execute_script(SHOWN) == ["adapted, step 25"]
    browser.execute_script(
        "arguments[0].value = ''; arguments[0].dispatchEvent(new Event('input'))", field
    )
    assert len(browser.execute_script(SHOWN)) == 2


def test_sort_up_and_down_keeps_details_with_their_line(browser: Any, tmp_path: Path) -> None:
    open_page(browser, write_run(tmp_path / "run"))
    head = browser.find_elements("css selector", "table.cells thead")[0]
    button = head.find_elements("css selector", "button")[2]
    values = (
        "return Array.from(document.querySelector('table.cells').tBodies)"
        ".map(b => [b.rows[0].cells[2].textContent, b.rows.length])"
    )
    button.click()
    up = browser.execute_script(values)
    button.click()
    down = browser.execute_script(values)
    assert [v for v, _ in up] == ["2.0", "2.2", "2.4", "2.6", "4.1", "34.1"]
    assert down == up[::-1]
    assert {rows for _, rows in up} == {2}
    assert head.find_elements("css selector", "th")[2].get_attribute("aria-sort") == "descending"


def test_readable_without_script(browser: Any, tmp_path: Path) -> None:
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        open_page(browser, write_run(tmp_path / "run"))
        text = browser.find_element("tag name", "body").text
    finally:
        browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})
    assert "PARTIALLY" in text
    assert "transferred, before adapting" in text
    assert "part of a cell" not in text
    assert "Find" not in text


def test_page_follows_dark_mode(browser: Any, tmp_path: Path) -> None:
    open_page(browser, write_run(tmp_path / "run"))
    ask = "return getComputedStyle(arguments[0]).fill"
    label = browser.find_element("css selector", ".canvas text")
    found = {}
    for scheme in ("light", "dark"):
        feature = {"name": "prefers-color-scheme", "value": scheme}
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
        found[scheme] = browser.execute_script(ask, label)
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
    assert found == {"light": "rgb(29, 27, 24)", "dark": "rgb(232, 228, 220)"}


def test_ten_thousand_lines_open_and_filter(browser: Any, tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", verdict=large_verdict(10_000))
    open_page(browser, folder)
    browser.execute_script(
        "const f = document.getElementById('find'); f.value = 'layer-399';"
        "f.dispatchEvent(new Event('input'))"
    )
    assert len(browser.execute_script(SHOWN)) == 25
