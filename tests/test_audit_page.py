"""The audit's page: safe from what the data hold, and in a real browser."""

from __future__ import annotations

import re
import shutil
from typing import Any

import polars as pl
import pytest

from unmirage.audit import FrameSource, audit_data
from unmirage.audit.page import render, write_audit

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
OPTIONS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
)  # fmt: skip
EVIL = "</script><script>document.title='broken'</script><img src=x onerror=document.title='broken'>"
REQUESTED = "return performance.getEntriesByType('resource').map(e => e.name).filter(n => !n.startsWith('data:'))"


@pytest.fixture(scope="module")
def audit():
    questions = [
        f"{'Share' if i % 2 else 'What'} colours of thing {i % 9} {EVIL} \u0634\u0627\u0631\u0643" for i in range(80)
    ]
    ids = [f"{EVIL}{i}" for i in range(80)]
    labels = [i % 2 == 1 for i in range(80)]
    return audit_data(FrameSource(pl.DataFrame({"question": questions, "label": labels, "id": ids})))


def test_text_of_the_data_is_escaped(audit):
    page = render(audit)
    assert page.count("<script") == 2
    assert page.count("</script>") == 2
    assert "<img" not in page
    assert "onerror" in page  # the text is there, as text


def test_the_page_asks_no_network_and_forbids_it(audit):
    page = render(audit)
    assert "default-src 'none'" in page
    assert re.findall(r"(?:src|href)=[\"'](?!data:)", page) == []
    assert "http://www.w3.org/2000/svg" in page
    assert page.count("http") == page.count("http-equiv") + page.count("http://www.w3.org/2000/svg")


def test_a_repair_is_shown_beside(audit, tmp_path):
    paths = write_audit(audit, tmp_path, audit)
    assert [path.name for path in paths] == ["audit.json", "audit.html"]
    assert "after repair" in paths[1].read_text()


@pytest.fixture(scope="module")
def browser(audit, tmp_path_factory):
    webdriver = pytest.importorskip("selenium.webdriver", reason="the browser tests need the package selenium")
    if CHROMIUM is None or DRIVER is None:
        pytest.skip("the browser tests need chromium and chromedriver on the PATH")
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    for option in (*OPTIONS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}", "--window-size=1200,900"):
        options.add_argument(option)
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    driver.get(write_audit(audit, tmp_path_factory.mktemp("audit"))[1].as_uri())
    yield driver
    driver.quit()


def rows(browser: Any) -> list[str]:
    return [row.text.split("\n")[0].split(" ")[0] for row in browser.find_elements("css selector", "#cues tbody tr")]


def press(browser: Any, selector: str) -> None:
    browser.execute_script("document.querySelector(arguments[0]).click()", selector)


@pytest.mark.browser
def test_in_a_browser(browser):
    assert browser.get_log("browser") == []
    assert browser.execute_script(REQUESTED) == []
    assert browser.title == "Audit of frame"
    assert set(rows(browser)) == {"share", "what"}
    assert len(browser.find_elements("css selector", "#picture .cue")) == 4
    press(browser, '[data-position="opening"]')
    assert sorted(rows(browser)) == ["share", "what"]
    press(browser, "#cues tbody tr")
    detail = browser.find_element("css selector", "#detail")
    assert detail.is_displayed()
    assert EVIL in detail.text
    assert len(detail.find_elements("css selector", "li")) == 3
    press(browser, '[data-position="all"]')
    press(browser, '[data-show="all"]')
    assert len(rows(browser)) > 4
    search = browser.find_element("css selector", "#search")
    search.send_keys("SHARE colours")
    assert rows(browser) == ["share"]
    search.clear()
    search.send_keys("nothing like it")
    assert rows(browser) == []
    assert browser.find_element("css selector", "#count").text == "No cue fits."
    assert browser.title == "Audit of frame"
    assert browser.execute_script("return document.documentElement.scrollWidth <= window.innerWidth")
    browser.set_window_size(500, 900)
    assert browser.find_element("css selector", "#scores tbody tr").size["height"] < 100  # no letter a line
