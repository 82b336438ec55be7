"""Which errors of Prefect's API a watched run rides out, and which end the watching."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any
from uuid import uuid4

import httpx
import pytest
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.objects import FlowRun
from prefect.exceptions import PrefectHTTPStatusError
from prefect.states import Cancelled, Running

from prefect_jobs import Job
from prefect_jobs.deployments import watch
from prefect_jobs.deployments.cli import app
from prefect_jobs.deployments.printing import nothing
from prefect_jobs.errors import NotFoundError
from prefect_jobs.flows import insisting


def _refusal(status: int) -> Exception:
    request = httpx.Request("GET", "http://127.0.0.1/api")
    return PrefectHTTPStatusError(f"{status}", request=request, response=httpx.Response(status, request=request))


class Api:
    """An API that fails in the ways given, and then tells of a run that was cancelled."""

    def __init__(self, *failures: Exception) -> None:
        self.failures = list(failures)
        self.run = FlowRun(flow_id=uuid4(), state=Running())

    async def read_flow_run(self, run_id: object) -> FlowRun:
        if self.failures:
            raise self.failures.pop(0)
        return self.run.model_copy(update={"state": Cancelled()})

    async def read_logs(self, *_: Any, **__: Any) -> list[Any]:
        return []


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a stream of events, and without waiting before the API is asked again."""

    async def silence(*_: Any) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(watch, "_ring", silence)
    monkeypatch.setattr(insisting._PATIENCE, "first", 0.01)


async def _follow(api: Any, on_state: Callable[[FlowRun], None] = nothing) -> None:
    async with asyncio.timeout(10):
        await watch.follow(api, api.run, on_state=on_state, on_log=nothing)


@pytest.mark.parametrize("status", [400, 401, 403])
async def test_an_api_that_refuses_ends_the_watching(quick: None, status: int) -> None:
    with pytest.raises(httpx.HTTPStatusError) as refused:
        await _follow(Api(_refusal(status)))
    assert refused.value.response.status_code == status


async def test_an_api_that_is_away_or_busy_is_asked_again(quick: None) -> None:
    shown: list[FlowRun] = []
    api = Api(httpx.ConnectError("away"), httpx.ReadTimeout("slow"), _refusal(429), _refusal(500), _refusal(503))
    await _follow(api, shown.append)
    assert api.failures == []
    assert [run.state.name for run in shown if run.state] == ["Cancelled"]


@pytest.mark.parametrize("what", ["wait", "watch", "refresh", "cancel"])
async def test_a_run_that_was_deleted_is_named(api: PrefectClient, greet: Job, what: str) -> None:
    run = await greet.run()
    await api.delete_flow_run(run.id)
    with pytest.raises(NotFoundError, match=f"run {run.id} is not there any more: somebody deleted it"):
        async with asyncio.timeout(30):
            await getattr(run, what)()


async def test_watching_a_run_that_is_deleted_meanwhile_ends_with_one_line(
    api: PrefectClient, greet: Job, capsys: pytest.CaptureFixture[str]
) -> None:
    run = await greet.run()

    async def delete_soon() -> None:
        await asyncio.sleep(2)
        await api.delete_flow_run(run.id)

    deleting = asyncio.create_task(delete_soon())
    with pytest.raises(SystemExit) as ended:
        await asyncio.to_thread(app, ["watch", str(run.id)])
    await deleting
    assert ended.value.code == 1
    assert capsys.readouterr().err.splitlines()[-1] == f"the run {run.id} is not there any more: somebody deleted it"
