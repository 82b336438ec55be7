"""What becomes of a pipeline when runs of its steps fail."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

Run = Callable[..., Awaitable[Any]]

# Fails where n is BAD or below.
JOBS = """
jobs:
  try-MARK:
    command: [sh, -c, 'test $n -gt ${BAD:-0} || { echo too small >&2; exit 3; }; sleep ${SLEEP:-0}']
    parameters: {n: {type: integer, default: 1}}
"""


def _became(children: list[Any]) -> list[str]:
    return [child.state_name for child in children]


async def test_a_failure_stops_its_step_and_what_needs_it_and_nothing_else(run: Run) -> None:
    there = await run(
        JOBS
        + """
pipelines:
  p-MARK:
    steps:
      fit: {job: try-MARK, matrix: {n: [3, 4, 2, 5, 6, 7]}, env: {BAD: 2}, at_once: 1}
      after: {job: try-MARK, needs: [fit]}
      beside: {job: try-MARK, env: {SLEEP: 1}}
      then: {job: try-MARK, needs: [beside]}
      last: {job: try-MARK, needs: [after, then]}
"""
    )
    assert there.state == "Failed"
    fit = await there.of("fit")
    assert _became(fit) == ["Completed", "Completed", "Failed"]
    assert there.message == (
        f"step 'fit': 1 of 6 runs failed and 3 were not begun; the first is {there.run.name}-fit-2 (n=2): exit code 3"
    )
    assert [_became(await there.of(step)) for step in ("after", "beside", "then", "last")] == [
        [],
        ["Completed"],
        ["Completed"],
        [],
    ]
    said = await there.said()
    assert "after: not begun, for it needs fit, which failed" in said
    assert "last: not begun, for it needs after, which was skipped" in said
    outcomes = {row["step"]: row["outcome"] for row in await there.run.table() if row["step"] != "fit"}
    assert outcomes == {
        "after": "not begun, for it needs fit, which failed",
        "beside": "succeeded",
        "then": "succeeded",
        "last": "not begun, for it needs after, which was skipped",
    }


async def test_what_runs_goes_on_to_its_end_when_another_fails(run: Run) -> None:
    there = await run(
        JOBS
        + """
pipelines:
  p-MARK:
    steps:
      fit: {job: try-MARK, matrix: {include: [{n: 0}, {n: 1}, {n: 2}, {n: 3}]}, env: {SLEEP: 8}, at_once: 3}
"""
    )
    # Three began together; the fourth did not, for the first had failed.
    assert _became(await there.of("fit")) == ["Failed", "Completed", "Completed"]
    assert "1 of 4 runs failed and 1 were not begun" in there.message


async def test_a_step_that_may_fail_counts_as_done(run: Run) -> None:
    there = await run(
        JOBS
        + """
pipelines:
  p-MARK:
    steps:
      fit: {job: try-MARK, matrix: {n: [0, 1, 2]}, on_failure: continue, at_once: 1}
      after: {job: try-MARK, needs: [fit]}
      only: {job: try-MARK, parameters: {n: 0}, on_failure: continue}
      last: {job: try-MARK, needs: [only]}
"""
    )
    assert (there.state, there.message) == ("Completed", "fit failed, after succeeded, only failed, last succeeded")
    assert _became(await there.of("fit")) == ["Failed", "Completed", "Completed"]


async def test_a_share_of_the_runs_must_succeed(run: Run) -> None:
    there = await run(
        JOBS
        + """
pipelines:
  p-MARK:
    steps:
      enough: {job: try-MARK, matrix: {n: [0, 1, 2, 3]}, on_failure: {succeed_at_least: 0.75}, at_once: 1}
      after: {job: try-MARK, needs: [enough]}
      few: {job: try-MARK, matrix: {n: [-1, 1, 0, 3]}, on_failure: {succeed_at_least: 0.7}, at_once: 1}
      never: {job: try-MARK, needs: [few]}
"""
    )
    assert there.state == "Failed"
    assert _became(await there.of("enough")) == ["Failed", "Completed", "Completed", "Completed"]
    assert _became(await there.of("after")) == ["Completed"]
    # Two have failed: the last one could not save it.
    assert _became(await there.of("few")) == ["Failed", "Completed", "Failed"]
    assert _became(await there.of("never")) == []
    assert there.message.startswith("step 'few': 2 of 4 runs failed and 1 were not begun, and 70% must succeed; the ")


async def test_steps_begin_by_what_became_of_others(run: Run) -> None:
    there = await run(
        JOBS
        + """
pipelines:
  p-MARK:
    steps:
      check: {job: try-MARK, parameters: {n: 0}, on_failure: continue}
      good: {job: try-MARK, needs: [check], if: {check: succeeded}}
      bad: {job: try-MARK, needs: [check], if: {check: failed}}
      after-good: {job: try-MARK, needs: [good]}
      without-good: {job: try-MARK, needs: [good, bad], if: {good: skipped}}
"""
    )
    assert there.state == "Completed"
    assert there.message == ("check failed, good skipped, bad succeeded, after-good skipped, without-good succeeded")
    assert [len(await there.of(step)) for step in ("good", "bad", "after-good", "without-good")] == [0, 1, 0, 1]


async def test_a_step_runs_for_a_failure_that_fails_the_pipeline_and_clean_up_runs_always(run: Run) -> None:
    there = await run(
        JOBS
        + """
pipelines:
  p-MARK:
    steps:
      fit: {job: try-MARK, parameters: {n: 0}}
      after: {job: try-MARK, needs: [fit]}
      alarm: {job: try-MARK, needs: [fit], if: {fit: failed}}
      clean: {job: try-MARK, needs: [fit, after], always: true}
"""
    )
    assert there.state == "Failed"
    assert there.message == f"step 'fit': its run {there.run.name}-fit-0 ended Failed: exit code 3"
    assert [_became(await there.of(step)) for step in ("after", "alarm", "clean")] == [[], ["Completed"], ["Completed"]]


async def test_a_clean_up_that_fails_fails_the_pipeline(run: Run) -> None:
    there = await run(
        JOBS + "\npipelines: {p-MARK: {steps: {a: {job: try-MARK}, "
        "clean: {job: try-MARK, needs: [a], always: true, parameters: {n: 0}}}}}"
    )
    assert (there.state, there.message.partition(":")[0]) == ("Failed", "step 'clean'")
