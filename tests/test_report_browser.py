"""The report page in a real browser, opened from disk."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from test_report import write_run

from unmirage.report import write_report

pytestmark = pytest.mark.browser

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
OPTIONS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
)  # fmt: skip
REQUESTED = "return performance.getEntriesByType('resource').map(e => e.name).filter(n => !n.startsWith('data:'))"


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    runs = [
        write_run(folder / name, model=name) for name in ("Mixed-SFT", "A model with quite a long name <b>here</b>")
    ]
    return write_report(runs, folder / "report.html", show_harmful=True)


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    webdriver = pytest.importorskip("selenium.webdriver", reason="the browser tests need the package selenium")
    if CHROMIUM is None or DRIVER is None:
        pytest.skip("the browser tests need chromium and chromedriver on the PATH")
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    for option in (*OPTIONS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(option)
    browser = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    yield browser
    browser.quit()


@pytest.fixture
def browser(driver: Any, page: Path) -> Any:
    """The page, freshly opened at 1200 px."""
    resize(driver, 1200)
    driver.get(page.as_uri())
    return driver


def resize(driver: Any, width: int) -> None:
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)


def visible(browser: Any, selector: str) -> list[Any]:
    return [element for element in browser.find_elements("css selector", selector) if element.is_displayed()]


def press(browser: Any, selector: str) -> None:
    browser.execute_script("document.querySelector(arguments[0]).click()", selector)


def test_no_errors_and_nothing_requested(browser: Any) -> None:
    assert browser.get_log("browser") == []
    assert browser.execute_script(REQUESTED) == []


def test_hostile_text_did_not_run(browser: Any) -> None:
    assert browser.title == "What one swapped word does to a safe model"
    assert len(browser.find_elements("css selector", "script")) == 1
    assert browser.find_elements("css selector", "img, main b") == []
    assert "<script>alert(1)</script>" in browser.find_element("css selector", ".model-text").text


def test_table_figures_and_pictures_are_visible(browser: Any) -> None:
    assert len(visible(browser, "table.headline")) == 1
    assert len(visible(browser, "svg.figure")) == 5
    pictures = visible(browser, ".scene svg.picture")
    assert len(pictures) == len(visible(browser, ".example")) == 8
    assert all(picture.size["height"] > 50 for picture in pictures)


def test_other_objects_can_be_chosen(browser: Any) -> None:
    assert [part.get_attribute("id") for part in visible(browser, ".part")] == ["part-0"]
    press(browser, "#choose-part-1")
    assert [part.get_attribute("id") for part in visible(browser, ".part")] == ["part-1"]


def test_filter(browser: Any) -> None:
    press(browser, '[data-filter="kind"][value="harmful"]')
    assert {example.get_attribute("data-kind") for example in visible(browser, ".example")} == {"harmful"}
    press(browser, '[data-filter="split"][value="seen"]')
    shown = visible(browser, ".example")
    assert [example.get_attribute("data-split") for example in shown] == ["seen", "seen"]
    assert len(visible(browser, '[aria-pressed="true"]')) == 2


def test_theme_toggle(browser: Any) -> None:
    background = "return getComputedStyle(document.body).backgroundColor"
    before = browser.execute_script(background)
    press(browser, "#theme")
    assert browser.execute_script(background) != before
    press(browser, "#theme")
    assert browser.execute_script(background) == before


def test_dark_where_the_system_is_dark(browser: Any) -> None:
    background = "return getComputedStyle(document.body).backgroundColor"
    seen = []
    for scheme in ("light", "dark"):
        media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
        seen.append(browser.execute_script(background))
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
    assert seen[0] != seen[1]


@pytest.mark.parametrize("width", [400, 700, 1200])
def test_no_horizontal_overflow(browser: Any, width: int) -> None:
    resize(browser, width)
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width


def test_complete_without_scripts(driver: Any, page: Path) -> None:
    driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        driver.get(page.as_uri())
        shown = driver.find_elements("css selector", ".example")
        assert len(shown) == 8
        assert not driver.find_element("css selector", ".filters").is_displayed()
    finally:
        driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})
