"""A browser on a Prefect server's interface, and pictures of it for the README."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from needs import needs
from PIL import Image
from playwright.async_api import Page, Route, async_playwright, expect

PROJECT = Path(__file__).parents[2]
CHROMIUM = "/usr/bin/chromium"
QUIET = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"]
QUIET += ["--disable-background-networking", "--disable-component-update"]
# For pictures jobs and pipelines have the names that people give them.
PICTURES = os.environ.get("PREFECT_JOBS_SCREENSHOTS") == "1"
expect.set_options(timeout=30_000)


@asynccontextmanager
async def page_of(api_url: str) -> AsyncIterator[Page]:
    """A page of a browser; addresses are the server's own."""
    server = api_url.removesuffix("/api")

    async def answer(route: Route) -> None:
        # Not by the browser itself, which drops its requests whenever a container's network interface comes or goes.
        request = route.request
        if not request.url.startswith(server):
            await route.abort()
            return
        # The server may close a connection in the moment in which it is used again. What starts a run is sent once.
        retries = 0 if request.url.endswith("/create_flow_run") else 3
        response = await route.fetch(max_retries=retries)
        while response.status == 503:  # SQLite is busy with other tests; a person would press again.
            await asyncio.sleep(0.5)
            response = await route.fetch(max_retries=retries)
        if response.status >= 400:  # Shown when the test fails.
            print(request.method, request.url, request.post_data, response.status, await response.text())
        await route.fulfill(response=response)

    if not Path(CHROMIUM).exists():
        needs("no chromium: apt-get install chromium")
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        page = await browser.new_page(
            base_url=server, viewport={"width": 1280, "height": 1300}, color_scheme="light", reduced_motion="reduce"
        )
        page.set_default_timeout(30_000)
        await page.route("**/*", answer)
        try:
            yield page
        finally:
            await page.unroute_all(behavior="ignoreErrors")
            await browser.close()


async def picture(page: Page, name: str, height: int) -> None:
    """Keep a picture for the README, where that is asked for (PREFECT_JOBS_SCREENSHOTS=1)."""
    if PICTURES:
        await page.set_viewport_size({"width": 1280, "height": height})
        await page.wait_for_timeout(1500)  # Everything that moves has come to rest.
        (PROJECT / "docs/images").mkdir(parents=True, exist_ok=True)
        path = PROJECT / "docs/images" / name
        await page.screenshot(path=path)
        Image.open(path).quantize(128).save(path, optimize=True)
