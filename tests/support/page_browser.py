"""Chromium as a person has it in front of them, driven by Playwright; what it complains about is kept."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from capabilities import missing
from playwright.sync_api import Browser, ConsoleMessage, Page, Request, sync_playwright
from waiting import HANG_S

PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
_TIMEOUT_MS = HANG_S * 1000


@dataclass
class Window:
    """One browser window; ``complaints`` are errors of scripts, refusals by the page's own security policy, and
    requests that went to another host."""

    page: Page
    url: str
    complaints: list[str] = field(default_factory=list)

    def open(self, path: str) -> Page:
        self.page.goto(self.url + path)
        return self.page

    def log_in(self, access_key: str, secret_key: str) -> None:
        self.open("/login")
        self.page.get_by_label("access_key").fill(access_key)
        self.page.get_by_label("secret_key").fill(secret_key)
        self.page.get_by_role("button", name="Log in").click()
        self.page.get_by_role("heading", name="Dashboard").wait_for()

    def _heard(self, message: ConsoleMessage) -> None:
        # A refusal of the server is part of what the tests do: the browser and htmx write it down, the page shows it.
        refusals = ("Failed to load resource", "Response Status Error Code")
        if message.type == "error" and not message.text.startswith(refusals):
            self.complaints.append(message.text)

    def _asked(self, request: Request) -> None:
        if not request.url.startswith((self.url, "data:", "blob:")):
            self.complaints.append(f"asked another host: {request.url}")

    def watch(self) -> None:
        self.page.on("console", self._heard)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", self._asked)


@contextmanager
def chromium(home: Path) -> Iterator[Browser]:
    """The machine's own browser: none is downloaded."""
    program = next(filter(None, map(shutil.which, PROGRAMS)), None)
    if program is None:
        missing("browser", f"none of {', '.join(PROGRAMS)} is installed")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=program,
            args=["--no-sandbox", "--disable-gpu", "--no-first-run"],
            env={**os.environ, "HOME": str(home)},
            timeout=_TIMEOUT_MS,
        )
        yield browser
        browser.close()


@contextmanager
def window(browser: Browser, url: str) -> Iterator[Window]:
    """A window with nothing of earlier ones: no cookie, no cache."""
    context = browser.new_context(viewport={"width": 1400, "height": 900})
    context.set_default_timeout(_TIMEOUT_MS)
    opened = Window(context.new_page(), url)
    opened.watch()
    yield opened
    context.close()
