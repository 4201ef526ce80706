"""The page at /, in headless Chromium: prompts in, depth as colour out, in both schemes."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait
from served_bundles import NAME, Serving, all_free, serving

FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    programs = shutil.which("chromium"), shutil.which("chromedriver")
    if None in programs:
        pytest.skip("no Chromium here: apt-get install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = programs[0]
    for flag in (*FLAGS.split(), f"--user-data-dir={tmp_path_factory.mktemp('chromium')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options, webdriver.ChromeService(programs[1]))
    yield driver
    driver.quit()


def opened(browser: Any, server: Serving) -> Any:
    browser.get(server.url)
    return browser


def until(browser: Any, words: str) -> str:
    """What the page says, once it says that."""

    def said(driver: Any) -> str | None:
        text: str = driver.find_element(By.ID, "said").text
        return text if words in text else None

    found: str = WebDriverWait(browser, 20, poll_frequency=0.02).until(said)
    return found


def put(browser: Any, field: str, value: str) -> None:
    element = browser.find_element(By.ID, field)
    element.clear()
    element.send_keys(value)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_depth_is_colour(browser: Any, server: Serving, scheme: str) -> None:
    feature = {"name": "prefers-color-scheme", "value": scheme}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
    opened(browser, server)
    WebDriverWait(browser, 20).until(lambda driver: driver.title == NAME)
    put(browser, "prompt", "why? ")
    put(browser, "tokens", "30")
    put(browser, "temperature", "1")
    put(browser, "seed", "7")
    browser.find_element(By.ID, "go").click()
    said = until(browser, "tokens/s")
    ask: dict[str, Any] = {"model": NAME, "prompt": "why? ", "max_tokens": 30, "temperature": 1, "seed": 7}
    expected = server.openai().completions.create(**ask, extra_body={"return_depth": True}).choices[0]
    depths: list[int] = (expected.model_extra or {})["depth"]
    assert said.startswith(f"30 tokens, mean depth {sum(depths) / 30:.2f} loops")
    tokens = browser.find_elements(By.CSS_SELECTOR, "#output .token")
    assert "".join(token.get_property("textContent") for token in tokens) == expected.text
    colours: dict[int, set[str]] = {}
    for token in tokens:
        deepest = max(map(int, token.get_attribute("data-depth").split()))
        colours.setdefault(deepest, set()).add(token.value_of_css_property("background-color"))
    assert set(colours) > {1} and all(len(each) == 1 for each in colours.values())
    assert len(set().union(*colours.values())) == len(colours)  # one colour for each depth
    rows = browser.find_elements(By.CSS_SELECTOR, "#depths .count")
    assert sum(int(row.text) for row in rows) == 30
    ink, paper = (
        browser.execute_script("return getComputedStyle(document.body)[arguments[0]]", name)
        for name in ("color", "backgroundColor")
    )
    assert (_light(ink) < _light(paper)) == (scheme == "light")
    assert browser.get_log("browser") == []  # nothing was refused, nothing is missing


def _light(colour: str) -> int:
    """The sum of an rgb(...)."""
    return sum(map(int, colour[4:-1].split(",")))


def test_stop_and_errors(browser: Any, server: Serving, unhurried: None) -> None:
    opened(browser, server)
    WebDriverWait(browser, 20).until(lambda driver: driver.title == NAME)
    put(browser, "tokens", "100")
    browser.find_element(By.ID, "go").click()
    until(browser, "tokens …")
    browser.find_element(By.ID, "stop").click()
    until(browser, "stopped")
    assert all_free(server.loop)
    put(browser, "prompt", "x" * 129)
    browser.find_element(By.ID, "go").click()
    assert "the prompt has 129 tokens" in until(browser, "prompt")
    assert "wrong" in browser.find_element(By.ID, "said").get_attribute("class")


def test_a_key_is_asked_for(browser: Any, small: Path) -> None:
    with serving(small, keys=("secret",)) as server:
        opened(browser, server)
        assert "a key is needed" in until(browser, "key")
        put(browser, "key", "secret\t")
        WebDriverWait(browser, 20).until(lambda driver: driver.title == NAME)
