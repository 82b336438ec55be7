"""Many runs at once: all are there, in their order, and none costs a request while it is waited for."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Awaitable, Callable
from typing import Any

Run = Callable[..., Awaitable[Any]]

COUNT = int(os.environ.get("PREFECT_JOBS_BRANCHES", "60"))


async def test_all_runs_of_a_large_matrix_are_in_the_summary_in_order(run: Run) -> None:
    began = time.monotonic()
    text = f"""
jobs:
  one-MARK: {{command: [sh, -c, 'test $n -ge 0'], parameters: {{n: {{type: integer}}}}}}
pipelines:
  p-MARK: {{steps: {{many: {{job: one-MARK, matrix: {{n: {list(range(COUNT))}}}, at_once: 20}}}}}}
"""
    there = await run(text)
    print(f"{COUNT} runs in {time.monotonic() - began:.0f} s")
    assert there.state == "Completed"
    children = await there.of("many")
    assert [child.parameters["n"] for child in children] == list(range(COUNT))
    table, _ = await there.artifacts()
    rows = json.loads(table.data) if isinstance(table.data, str) else table.data
    assert [(row["index"], row["parameters"], row["outcome"]) for row in rows] == [
        (n, f"n={n}", "succeeded") for n in range(COUNT)
    ]
    # At most so many at the same time.
    moments = sorted([(c.start_time, 1) for c in children] + [(c.end_time, -1) for c in children])
    at_once = most = 0
    for _, change in moments:
        at_once += change
        most = max(most, at_once)
    assert most <= 20
