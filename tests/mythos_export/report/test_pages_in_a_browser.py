"""Reports as they are read: no page is wider than its window, wide tables scroll, and links lead somewhere."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from golden_bundles import Bundles

RESULTS = Path(__file__).parents[3] / "benchmarks" / "results"
PAGES = sorted(RESULTS.rglob("*.html"))
FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--hide-scrollbars")
WIDER = """
const wide = (element) => element.scrollWidth > element.clientWidth + 1;
return {
  page: wide(document.documentElement),
  hidden: [...document.querySelectorAll("table")].filter((table) =>
    table.getBoundingClientRect().right > innerWidth && !table.closest(".scroll")).length,
  scrolling: [...document.querySelectorAll(".scroll")].filter(wide).length,
  paper: getComputedStyle(document.body).backgroundColor,
};
"""


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(RESULTS)))
def test_links_lead_somewhere(page: Path) -> None:
    for link in re.findall(r'href="([^"#][^"]*)"', page.read_text()):
        assert link.startswith("https://") or (page.parent / link).is_file(), link


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    webdriver = pytest.importorskip("selenium.webdriver")
    programs = shutil.which("chromium"), shutil.which("chromedriver")
    if None in programs:
        pytest.skip("no Chromium here: apt-get install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = programs[0]
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('chromium')}"):
        options.add_argument(flag)
    driver = webdriver.Chrome(options, webdriver.ChromeService(programs[1]))
    yield driver
    driver.quit()


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_pages_fit_their_window(scheme: str, browser: Any, bundles: Bundles) -> None:
    feature = {"name": "prefers-color-scheme", "value": scheme}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
    papers, scrolling = set(), 0
    for page in (*PAGES, bundles["mla_decode"] / "reports" / "parity.html"):
        for width in (1280, 500):
            size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
            browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
            browser.get(page.as_uri())
            found = browser.execute_script(WIDER)
            assert not found["page"] and not found["hidden"], (page, width, found)
            papers.add(found["paper"])
            scrolling += found["scrolling"]
    assert papers == {"rgb(255, 255, 255)" if scheme == "light" else "rgb(23, 25, 28)"}
    assert scrolling > 0  # some tables are wider than 500 pixels
