"""The supervisor may die at any moment: the container goes on, and whoever runs the flow run again takes it up."""

from __future__ import annotations

import httpx
import pytest
from prefect.client.orchestration import get_client
from supervisors import supervise

from prefect_jobs import Job
from prefect_jobs.blocks.loading import load_infrastructure
from prefect_jobs.deployments.runs import JobRun
from prefect_jobs.flows.delivery import Delivery
from prefect_jobs.outcome import Reason

LINES = 100
# Counts its own starts in the folder that all attempts share, then writes numbered lines for about two seconds.
COUNTING = f"""
echo x >> $JOB_CHECKPOINT_DIR/starts; echo starts $(wc -l < $JOB_CHECKPOINT_DIR/starts)
i=0; while [ $i -lt {LINES} ]; do echo line $i; i=$((i+1)); sleep 0.02; done; exit 3
"""
EXPECTED = ["starts 1", *(f"line {number}" for number in range(LINES))]


async def _container_lines(run: JobRun) -> list[str]:
    return [log.message for log in await run.logs() if log.name.startswith("container.")]


@pytest.mark.parametrize("infrastructure", ["process", "docker"])
@pytest.mark.parametrize("moments", [(3.0, 4.0), (3.6,), (4.2, 3.3), (4.8,)], ids=str)
async def test_a_run_whose_supervisor_was_killed_ends_as_if_nothing_had_happened(
    infrastructure: str, moments: tuple[float, ...], busybox: str, prefect_api: str
) -> None:
    name = f"counting-{infrastructure}-{len(moments)}-{moments[0]:g}".replace(".", "-")
    job = Job(name=name, infrastructure=infrastructure, image=busybox, command=["sh", "-c", COUNTING])
    await job.apply()
    run = await job.run()
    for seconds in moments:
        await supervise(run, seconds)
        await run.refresh()
    if run.flow_run.state is None or not run.flow_run.state.is_final():
        await supervise(run)
        await run.refresh()
    assert run.state == "Failed"
    assert [(outcome.attempt, outcome.exit_code) for outcome in run.attempts] == [(1, 3)]
    assert await _container_lines(run) == EXPECTED
    async with (await load_infrastructure(infrastructure)).engine() as engine:
        assert run.id not in [found.run_id for found in await engine.containers()]


async def test_a_run_that_a_person_starts_again_makes_a_new_attempt(prefect_api: str) -> None:
    job = Job(name="started-again", command=["sh", "-c", "echo attempt $JOB_ATTEMPT; exit 3"])
    await job.apply()
    run = await job.run()
    await supervise(run)
    async with get_client() as client:
        from prefect.states import Scheduled

        await client.set_flow_run_state(run.id, Scheduled(name="AwaitingRetry"), force=True)
    await supervise(run)
    await run.refresh()
    assert [(outcome.attempt, outcome.reason) for outcome in run.attempts] == [(1, Reason.FAILED), (2, Reason.FAILED)]
    assert await _container_lines(run) == ["attempt 1", "attempt 2"]


async def test_a_batch_whose_answer_was_lost_is_not_delivered_twice(
    prefect_api: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = Job(name="lost-answer", command=["true"])
    await job.apply()
    run = await job.run()
    async with get_client() as client:
        deliver = client.create_logs
        lost: list[int] = []

        async def create_logs(logs: list[object]) -> None:
            await deliver(logs)  # type: ignore[arg-type]
            if not lost:
                lost.append(len(logs))
                raise httpx.ReadError("the connection was closed before the answer")

        monkeypatch.setattr(client, "create_logs", create_logs)
        delivery = Delivery(client, "container.1", run.id, run.id)
        start = run.flow_run.expected_start_time
        assert start is not None
        async with delivery.open():
            for number in range(700):
                await delivery.put(20, start.add(microseconds=number), f"line {number}")
        assert lost == [500]
        assert await delivery.latest() == start.add(microseconds=699)
    assert await _container_lines(run) == [f"line {number}" for number in range(700)]
