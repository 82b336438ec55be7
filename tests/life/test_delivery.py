"""Log records reach Prefect once each, whatever happens on the way."""

from __future__ import annotations

import asyncio

import httpx
import pytest
from prefect.client.orchestration import PrefectClient, get_client

from prefect_jobs import Job
from prefect_jobs.deployments.runs import JobRun
from prefect_jobs.flows.delivery import Delivery


@pytest.fixture
async def run(prefect_api: str) -> JobRun:
    job = Job(name="delivering", command=["true"])
    await job.apply()
    started: JobRun = await job.run()
    return started


async def _put(delivery: Delivery, run: JobRun, numbers: range) -> None:
    start = run.flow_run.expected_start_time
    assert start is not None
    for number in numbers:
        await delivery.put(20, start.add(microseconds=number), f"line {number}")


async def _delivered(run: JobRun) -> list[str]:
    return [log.message for log in await run.logs() if log.name == "container.1"]


def _delivery(client: PrefectClient, run: JobRun) -> Delivery:
    return Delivery(client, "container.1", run.id, run.id)


async def test_a_batch_whose_answer_was_lost_is_not_delivered_twice(
    run: JobRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with get_client() as client:
        deliver, lost = client.create_logs, []

        async def create_logs(logs: list[object]) -> None:
            await deliver(logs)  # type: ignore[arg-type]
            if not lost:
                lost.append(len(logs))
                raise httpx.ReadError("the connection was closed before the answer")

        monkeypatch.setattr(client, "create_logs", create_logs)
        async with _delivery(client, run).open() as delivery:
            await _put(delivery, run, range(700))
    assert lost == [500]
    assert await _delivered(run) == [f"line {number}" for number in range(700)]


class Stumbling(httpx.AsyncBaseTransport):
    """Carries out the first batch of log records and says that it could not, in one way or another."""

    def __init__(self, inner: httpx.AsyncBaseTransport, answer: int | None) -> None:
        self.inner = inner
        self.answer = answer
        self.stumbled = False

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        response = await self.inner.handle_async_request(request)
        if self.stumbled or not request.url.path.endswith("/logs/"):
            return response
        self.stumbled = True
        await response.aread()
        if self.answer is None:
            raise httpx.ReadTimeout("no answer in time", request=request)
        return httpx.Response(self.answer, request=request)


@pytest.mark.parametrize("answer", [None, 502, 503])
async def test_prefects_own_client_does_not_send_twice_what_may_be_there(run: JobRun, answer: int | None) -> None:
    async with get_client() as client:
        client._client._transport = Stumbling(client._client._transport, answer)
        async with _delivery(client, run).open() as delivery:
            await _put(delivery, run, range(20))
        assert client._client._transport.stumbled
    assert await _delivered(run) == [f"line {number}" for number in range(20)]


async def test_who_is_cancelled_while_records_are_delivered_loses_none_of_them(
    run: JobRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with get_client() as client:
        deliver, reached = client.create_logs, asyncio.Event()

        async def create_logs(logs: list[object]) -> None:
            if not reached.is_set():
                reached.set()
                await asyncio.sleep(17)
            await deliver(logs)  # type: ignore[arg-type]

        monkeypatch.setattr(client, "create_logs", create_logs)
        async with _delivery(client, run).open() as delivery:
            putting = asyncio.create_task(_put(delivery, run, range(500)))
            await reached.wait()
            putting.cancel()
            await asyncio.gather(putting, return_exceptions=True)
            await _put(delivery, run, range(500, 520))
    assert await _delivered(run) == [f"line {number}" for number in range(520)]


async def test_a_record_that_the_api_refuses_takes_no_other_with_it(
    run: JobRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with get_client() as client:
        deliver = client.create_logs

        async def create_logs(logs: list[object]) -> None:
            if any(getattr(log, "message", None) == "line 7" for log in logs):
                request = httpx.Request("POST", "http://api/logs/")
                raise httpx.HTTPStatusError("refused", request=request, response=httpx.Response(422, request=request))
            await deliver(logs)  # type: ignore[arg-type]

        monkeypatch.setattr(client, "create_logs", create_logs)
        async with _delivery(client, run).open() as delivery:
            await _put(delivery, run, range(20))
    assert await _delivered(run) == [f"line {number}" for number in range(20) if number != 7]


async def test_records_of_many_runs_travel_together_and_what_is_refused_takes_nobody_elses_with_it(
    run: JobRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = [Job(name=f"together-{number}", command=["true"]) for number in range(5)]
    for job in jobs:
        await job.apply()
    runs = [run, *[await job.run() for job in jobs]]
    async with get_client() as client:
        deliver, requests = client.create_logs, []

        async def create_logs(logs: list[object]) -> None:
            requests.append(len(logs))
            if any(getattr(log, "message", None) == "line 7" for log in logs):
                request = httpx.Request("POST", "http://api/logs/")
                raise httpx.HTTPStatusError("refused", request=request, response=httpx.Response(422, request=request))
            await asyncio.sleep(0.1)
            await deliver(logs)  # type: ignore[arg-type]

        async def one(number: int, run: JobRun) -> None:
            async with _delivery(client, run).open() as delivery:
                await _put(delivery, run, range(20) if number else range(5))

        monkeypatch.setattr(client, "create_logs", create_logs)
        await asyncio.gather(*(one(number, run) for number, run in enumerate(runs)))
    assert requests[0] == 5 + 5 * 20
    assert await _delivered(runs[0]) == [f"line {number}" for number in range(5)]
    for other in runs[1:]:
        assert await _delivered(other) == [f"line {number}" for number in range(20) if number != 7]


async def test_the_latest_record_is_found_at_once_among_those_of_earlier_attempts(
    run: JobRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = run.flow_run.expected_start_time
    assert start is not None
    async with get_client() as client:
        async with _delivery(client, run).open() as delivery:
            await _put(delivery, run, range(1000))
        asked, read_logs = [], client.read_logs

        async def counted(*options: object) -> object:
            asked.append(options)
            return await read_logs(*options)  # type: ignore[arg-type]

        monkeypatch.setattr(client, "read_logs", counted)
        async with Delivery(client, "container.2", run.id, run.id).open() as second:
            assert await second.latest(start.add(microseconds=1000)) is None
            await second.put(20, start.add(microseconds=1000), "its first line")
        assert await second.latest(start.add(microseconds=1000)) == start.add(microseconds=1000)
        assert await _delivery(client, run).latest(start) == start.add(microseconds=999)
    assert len(asked) == 3
