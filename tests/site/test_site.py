"""The built manual in a browser: `make site-check`. Pictures of it come to lie in build/site."""

from __future__ import annotations

import functools
import http.server
import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal
from urllib.parse import urldefrag, urlsplit

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, sync_playwright

BUILD = Path(__file__).parents[2] / "build"
SITE = BUILD / "docs"
PICTURES = BUILD / "site"
PAGES = sorted(str(path.relative_to(SITE)) for path in SITE.rglob("*.html"))
WIDTHS = {"phone": 390, "tablet": 820, "desktop": 1440}
SHOWN = ("index.html", "tutorial-train.html", "functions.html", "reference.html")
SCHEMES = ("light", "dark")

IDS = "() => [...document.querySelectorAll('[id]')].map(each => each.id)"
LINKS = "() => [...document.querySelectorAll('a[href], link[href]')].map(each => each.href)"
# What is wider than the window, without a box around it in the article that scrolls.
OVERFLOW = """() => {
  const scrolls = each => !each.matches('article') &&
    (getComputedStyle(each).overflowX != 'visible' || scrolls(each.parentElement));
  return [...document.querySelectorAll('article *')]
    .filter(each => each.getBoundingClientRect().right > innerWidth + 1 && !scrolls(each))
    .slice(0, 3).map(each => each.outerHTML.slice(0, 90));
}"""


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


class Server(http.server.ThreadingHTTPServer):
    request_queue_size = 128  # a search fetches a page for each answer, all at once


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    handler = functools.partial(Quiet, directory=str(SITE))
    with Server(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        PICTURES.mkdir(exist_ok=True)
        # As root Chromium starts only without its sandbox; what it shows is ours.
        root = ["--no-sandbox"] if os.geteuid() == 0 else []
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=root)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def page(browser: Browser) -> Iterator[Page]:
    """A page on which nothing may go wrong."""
    page = browser.new_page()
    wrong: list[str] = []
    page.on("console", lambda said: wrong.append(said.text) if said.type == "error" else None)
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on(
        "response",
        lambda answer: (
            wrong.append(f"{answer.status}: {answer.url}") if answer.status >= 400 else None
        ),
    )
    yield page
    page.close()
    assert not wrong


def serious(page: Page, rules: dict[str, object]) -> list[str]:
    found = Axe().run(page, options={"resultTypes": ["violations"], **rules}).response["violations"]
    return [
        f"{page.url}: {each['id']}: {node['html'][:120]}: {node['failureSummary']}"
        for each in found
        if each["impact"] in ("serious", "critical")
        for node in each["nodes"][:2]
    ]


@dataclass
class Seen:
    """What a walk over all pages has seen; it loads each page once, which is what takes time."""

    ids: dict[str, set[str]] = field(default_factory=dict)
    links: set[tuple[str, str]] = field(default_factory=set)
    wide: list[str] = field(default_factory=list)
    serious: list[str] = field(default_factory=list)


@pytest.fixture(scope="module")
def seen(page: Page, address: str) -> Seen:
    seen = Seen()
    for name in PAGES:
        page.goto(f"{address}/{name}")
        seen.ids[page.url] = set(page.evaluate(IDS))
        seen.links |= {(name, link) for link in page.evaluate(LINKS) if link.startswith(address)}
        for width, pixels in WIDTHS.items():
            page.set_viewport_size({"width": pixels, "height": 900})
            seen.wide += [f"{name}: {width}: {each}" for each in page.evaluate(OVERFLOW)]
            if name in SHOWN:
                page.screenshot(path=PICTURES / f"{name}-{width}.png")
        # The longest page is built as the other reference is, and would take as long as all.
        if name != "reference-cpp.html":
            seen.serious += serious(page, {"rules": {"color-contrast": {"enabled": False}}})
    return seen


def test_every_internal_link_answers(seen: Seen) -> None:
    wrong = []
    for name, link in sorted(seen.links):
        target, place = urldefrag(link)
        if target in seen.ids:
            if place and place not in seen.ids[target]:
                wrong.append(f"{name}: {link} has no such place")
        elif not (SITE / urlsplit(target).path.lstrip("/")).is_file():
            wrong.append(f"{name}: {link} is not there")
    assert not wrong
    assert len(seen.links) > len(PAGES)


def test_nothing_is_wider_than_the_window(seen: Seen) -> None:
    assert not seen.wide, "\n".join(seen.wide)


def test_axe_finds_nothing_serious(seen: Seen) -> None:
    assert not seen.serious, "\n".join(seen.serious)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_axe_finds_enough_contrast(
    page: Page, address: str, scheme: Literal["light", "dark"]
) -> None:
    """On few pages: it asks every word, and what has a colour is on these."""
    page.emulate_media(color_scheme=scheme)
    wrong = []
    for name in SHOWN:
        page.goto(f"{address}/{name}")
        wrong += serious(page, {"runOnly": ["color-contrast"]})
        page.screenshot(path=PICTURES / f"{name}-{scheme}.png")
    assert not wrong, "\n".join(wrong)


def test_the_search_finds_a_function(page: Page, address: str) -> None:
    page.goto(f"{address}/search.html?q=to_numpy")
    page.wait_for_selector("#search-results li a")
    page.wait_for_load_state("networkidle")
    found = [each.get_attribute("href") for each in page.locator("#search-results li a").all()]
    assert any(str(link).endswith("reference.html#dlbridge.to_numpy") for link in found)
