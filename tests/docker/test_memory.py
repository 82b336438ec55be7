from __future__ import annotations

from bench import Bench

from prefect_jobs.outcome import Reason
from prefect_jobs.quantities import Memory
from prefect_jobs.spec import Shape

GREEDY = "tail -c 200000000 /dev/zero"
SMALL = Shape(memory=Memory("32Mi"))


async def test_a_container_that_takes_more_memory_than_its_limit_is_told_so(bench: Bench) -> None:
    outcome = (await bench.run(bench.spec(*GREEDY.split(), shape=SMALL))).outcome
    assert (outcome.reason, outcome.exit_code) == (Reason.OUT_OF_MEMORY, 137)
    assert "its limit of 32 MiB" in outcome.message
    assert "more memory" in outcome.message


async def test_a_container_that_fails_because_its_child_was_killed_is_out_of_memory(bench: Bench) -> None:
    outcome = (await bench.run(bench.sh(f"{GREEDY} || exit 3", shape=SMALL))).outcome
    assert (outcome.reason, outcome.exit_code) == (Reason.OUT_OF_MEMORY, 3)


async def test_exit_code_0_is_success_whatever_was_killed_on_the_way(bench: Bench) -> None:
    outcome = (await bench.run(bench.sh(f"{GREEDY}; exit 0", shape=SMALL))).outcome
    assert (outcome.reason, outcome.exit_code) == (Reason.SUCCEEDED, 0)
