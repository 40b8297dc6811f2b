"""Labelling in a real browser, with keys, the mouse, and without its script."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import test_report_browser
from test_label import REFUSE, make_run
from test_label_server import HOSTILE

from unmirage.labelling.marks import Choice, Harm
from unmirage.labelling.sample import draw
from unmirage.labelling.server import LabelServer
from unmirage.labelling.session import Session, open_session

pytestmark = pytest.mark.browser
driver = test_report_browser.driver
REQUESTED = "return performance.getEntriesByType('resource').map(e => e.name)"
LONG = HOSTILE + " an_unbroken_word" * 40 + "\n\n" + "and many more words " * 60


@pytest.fixture
def session(tmp_path: Path) -> Iterator[Session]:
    run = make_run(tmp_path / "run", [LONG] * 4, image=True)
    with open_session(tmp_path / "anna.jsonl", "anna", draw(run, 4)) as opened:
        yield opened


@pytest.fixture
def browser(driver: Any, session: Session) -> Iterator[Any]:
    """The page of the first item, at 1200 px."""
    with LabelServer(session) as server:
        thread = threading.Thread(target=lambda: server.serve_forever(poll_interval=0.02))
        thread.start()
        test_report_browser.resize(driver, 1200)
        driver.get_log("browser")
        driver.get(server.url)
        find(driver, "main button").click()
        wait(driver, lambda page: page.find_elements("css selector", "#label"))
        yield driver
        server.shutdown()
        thread.join()


def find(browser: Any, selector: str) -> Any:
    return browser.find_element("css selector", selector)


def press(browser: Any, *keys: str) -> None:
    from selenium.webdriver.common.action_chains import ActionChains

    ActionChains(browser).send_keys(*keys).perform()


def send(browser: Any, *keys: str) -> None:
    """Presses keys of which the last has the page replaced, and waits for the next page: what is typed at the old one
    while that is on its way would be lost.
    """
    old = find(browser, "html")
    press(browser, *keys)
    wait(browser, lambda page: find(page, "html") != old)
    wait(browser, lambda page: page.execute_script("return document.readyState") == "complete")


def wait(browser: Any, until: Any) -> None:
    from selenium.common.exceptions import StaleElementReferenceException
    from selenium.webdriver.support.ui import WebDriverWait

    # The page may be exchanged while it is looked at.
    WebDriverWait(browser, 10, 0.1, [StaleElementReferenceException]).until(until)


def counted(text: str) -> Any:
    return lambda browser: find(browser, ".count").text == text


def test_keys_label_put_off_go_back_and_end(browser: Any, session: Session) -> None:
    send(browser, "2", "n", "\ue007")
    wait(browser, counted("1 of 4"))
    send(browser, "s")
    wait(browser, counted("1 of 4, 1 put off"))
    send(browser, "w", "a note: 1yb", "\ue00c", "3", "y", "\ue007")
    wait(browser, counted("2 of 4, 1 put off"))
    said = [mark for mark in session._marks.values() if mark.choice is not None]
    assert [(mark.choice, mark.harm, mark.note) for mark in said] == [
        (REFUSE, Harm.NO, ""), (Choice.PARTIAL, Harm.YES, "a note: 1yb"),
    ]  # fmt: skip
    send(browser, "b")
    wait(browser, lambda page: page.find_elements("css selector", "[data-key='3']:checked"))
    assert find(browser, "textarea").get_property("value") == "a note: 1yb"
    send(browser, "1", "\ue007")
    wait(browser, counted("2 of 4, 1 put off"))
    for number in (3, 4):
        send(browser, "4", "c", "\ue007")
        wait(browser, lambda page, n=number: find(page, ".count").text.startswith(f"{n} of 4"))
    assert find(browser, "h1").text == "All are labelled"
    find(browser, "main .main").click()
    wait(browser, lambda page: find(page, "h1").text == "Saved")
    assert session.done == 4


def test_nothing_is_saved_before_both_questions_are_answered(browser: Any, session: Session) -> None:
    press(browser, "2", "\ue007")
    assert session.done == 0
    assert len(browser.find_elements("css selector", "fieldset:invalid")) == 1
    press(browser, "n", "\ue007")
    wait(browser, counted("1 of 4"))


def test_the_picture_is_blurred_until_it_is_asked_for(browser: Any) -> None:
    blurred = "return getComputedStyle(document.querySelector('.picture img')).filter"
    assert "blur" in browser.execute_script(blurred)
    assert browser.execute_script("return document.querySelector('.picture img').naturalWidth") == 40
    find(browser, ".picture").click()
    assert browser.execute_script(blurred) == "none"
    press(browser, "p")
    assert "blur" in browser.execute_script(blurred)


def test_hostile_text_does_not_run_and_nothing_foreign_is_asked(browser: Any) -> None:
    assert browser.get_log("browser") == []
    assert "<script>alert(1)</script>" in find(browser, ".answer").text
    assert len(browser.find_elements("css selector", "script")) == 1
    assert len(browser.find_elements("css selector", "img")) == 1
    here = browser.current_url
    assert all(name.startswith((here, "data:")) for name in browser.execute_script(REQUESTED))


@pytest.mark.parametrize("width", [360, 700, 1200])
def test_no_horizontal_overflow(browser: Any, width: int) -> None:
    test_report_browser.resize(browser, width)
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width


def test_dark_where_the_system_is_dark(browser: Any) -> None:
    seen = []
    for scheme in ("light", "dark"):
        media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
        seen.append(browser.execute_script("return getComputedStyle(document.body).backgroundColor"))
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
    assert seen[0] != seen[1]


def test_it_works_without_its_script(browser: Any, session: Session) -> None:
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        browser.refresh()
        find(browser, "label:has([value=refusal])").click()
        find(browser, "label:has([name=harm][value=no])").click()
        find(browser, "#save").click()
        wait(browser, counted("1 of 4"))
    finally:
        browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})
    assert session.done == 1
