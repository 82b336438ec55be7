"""A person with a browser sees the runs of a pipeline, the table of all of them, and the graph."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from typing import Any

from browser import page_of
from playwright.async_api import expect
from servers import Server

Run = Callable[..., Awaitable[Any]]

TEXT = """
jobs: {say-MARK: {command: [sh, -c, 'test $n -lt 3'], parameters: {n: {type: integer, default: 1}}}}
pipelines:
  p-MARK:
    steps:
      fit: {job: say-MARK, matrix: {n: [1, 2, 3]}, on_failure: continue}
      last: {job: say-MARK, needs: [fit]}
"""


async def test_the_graph_is_drawn_and_the_children_are_listed(run: Run, server: Server) -> None:
    there = await run(TEXT)
    table, picture = await there.artifacts()
    async with page_of(server.url) as page:
        await page.goto(f"/v2/artifacts/artifact/{picture.id}")
        graph = page.locator("svg[aria-roledescription]")
        await expect(graph).to_be_visible(timeout=60_000)
        await expect(graph.get_by_text("2 of 3 succeeded")).to_be_visible()
        link = page.get_by_role("link", name=f"{there.run.name}-fit-2")
        await expect(link).to_have_attribute("href", re.compile(r"/runs/flow-run/"))
        await page.goto(f"/v2/artifacts/artifact/{table.id}")
        await expect(page.get_by_text("failed: exit code 1").first).to_be_visible(timeout=60_000)
        await page.goto(f"/v2/runs/flow-run/{there.run.id}?tab=SubflowRuns")
        await expect(page.get_by_text(f"{there.run.name}-fit-1").first).to_be_visible(timeout=60_000)
