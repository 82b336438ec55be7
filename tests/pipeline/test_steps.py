"""The steps of a pipeline: begun in the order of their needs, many at once, each a run of its own."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from reach import lines

from prefect_jobs import JobRun

Run = Callable[..., Awaitable[Any]]

SAY = """
jobs:
  say-MARK:
    command: [sh, -c, 'echo $WHAT $n $JOB_INDEX/$JOB_COUNT $EXTRA; sleep ${SLEEP:-0}']
    parameters: {WHAT: {default: nothing}, n: {type: integer, default: 0}}
"""


async def test_each_step_begins_when_what_it_needs_has_ended_and_each_run_is_a_child(run: Run) -> None:
    there = await run(
        SAY
        + """
pipelines:
  p-MARK:
    parameters: {word: {default: hello}, many: {type: integer, default: 3}}
    steps:
      first: {job: say-MARK, parameters: {WHAT: "{{ word }}", n: "{{ many }}"}}
      middle:
        job: say-MARK
        needs: [first]
        matrix: {WHAT: [a, b], n: [1, "{{ many }}"]}
        env: {EXTRA: "of {{ word }}"}
      last: {job: say-MARK, needs: [first, middle], env: {EXTRA: "{{ many }}!"}}
""",
        word="hi",
    )
    assert (there.state, there.message) == ("Completed", "first succeeded, middle succeeded, last succeeded")
    first, (a1, a2, b1, b2), last = await there.of("first"), await there.of("middle"), await there.of("last")
    assert [await lines(JobRun(child)) for child in (*first, a1, a2, b1, b2, *last)] == [
        ["hi 3 0/1"],
        ["a 1 0/4 of hi"],
        ["a 3 1/4 of hi"],
        ["b 1 2/4 of hi"],
        ["b 3 3/4 of hi"],
        ["nothing 0 0/1 3!"],
    ]
    assert a2.name == f"{there.run.name}-middle-1"
    assert first[0].end_time is not None
    assert min(child.start_time for child in (a1, a2, b1, b2)) > first[0].end_time
    assert last[0].start_time > max(child.end_time for child in (a1, a2, b1, b2))
    assert any("middle: 4 of 4 done" in words for words in await there.said())
