"""A person with a browser sees the runs of a pipeline, the table of all of them, and the graph."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from needs import needs
from playwright.async_api import async_playwright, expect
from servers import Server

Run = Callable[..., Awaitable[Any]]
CHROMIUM = "/usr/bin/chromium"

TEXT = """
jobs: {say-MARK: {command: [sh, -c, 'test $n -lt 3'], parameters: {n: {type: integer, default: 1}}}}
pipelines:
  p-MARK:
    steps:
      fit: {job: say-MARK, matrix: {n: [1, 2, 3]}, on_failure: continue}
      last: {job: say-MARK, needs: [fit]}
"""


async def test_the_graph_is_drawn_and_the_children_are_listed(run: Run, server: Server) -> None:
    if not Path(CHROMIUM).exists():
        needs("no chromium: apt-get install chromium")
    there = await run(TEXT)
    table, picture = await there.artifacts()
    base = f"{server.url.removesuffix('/api')}/v2"
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        page = await browser.new_page(viewport={"width": 1280, "height": 1300}, color_scheme="light")
        await page.goto(f"{base}/artifacts/artifact/{picture.id}")
        graph = page.locator("svg[aria-roledescription]")
        await expect(graph).to_be_visible(timeout=60_000)
        await expect(graph.get_by_text("2 of 3 succeeded")).to_be_visible()
        link = page.get_by_role("link", name=f"{there.run.name}-fit-2")
        await expect(link).to_have_attribute("href", re.compile(r"/runs/flow-run/"))
        await page.goto(f"{base}/artifacts/artifact/{table.id}")
        await expect(page.get_by_text("failed: exit code 1").first).to_be_visible(timeout=60_000)
        await page.goto(f"{base}/runs/flow-run/{there.run.id}?tab=SubflowRuns")
        await expect(page.get_by_text(f"{there.run.name}-fit-1").first).to_be_visible(timeout=60_000)
        await browser.close()
