"""Prefect's server stumbles over a request, and says 500: how a run ended is told again, and the run ends as it did."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import ClientSession, web
from looks import states_of
from ports import free_port
from reach import ended
from workers import worker

from prefect_jobs import Job, JobRun

# The first report of each run is lost on its way, and of the second the answer.
STUMBLES = 2


class Stumbling:
    """A way to an API that answers 500 to the first reports of each end."""

    def __init__(self, api: str, session: ClientSession) -> None:
        self._host = api.removesuffix("/api")
        self._session = session
        self.ends: Counter[str] = Counter()
        """Reports of ends, by the paths of their runs."""

    async def pass_on(self, request: web.Request) -> web.Response:
        """Answer a request as the API does, or with 500."""
        body = await request.read()
        is_end = request.path.endswith("/set_state") and b'"COMPLETED"' in body
        self.ends[request.path] += is_end
        if is_end and self.ends[request.path] < STUMBLES:
            return web.Response(status=500)
        kept = {name: text for name, text in request.headers.items() if name.lower() != "host"}
        url = f"{self._host}{request.path_qs}"
        async with self._session.request(request.method, url, data=body, headers=kept) as answer:
            if is_end and self.ends[request.path] == STUMBLES:
                return web.Response(status=500)
            text = await answer.read()
            return web.Response(status=answer.status, body=text, content_type=answer.content_type)


@asynccontextmanager
async def stumbling(api: str) -> AsyncIterator[tuple[str, Stumbling]]:
    """The address of such a way, and the way."""
    async with ClientSession() as session:
        way, app, port = Stumbling(api, session), web.Application(), free_port()
        app.router.add_route("*", "/{path:.*}", way.pass_on)
        runner = web.AppRunner(app)
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", port).start()
            yield f"http://127.0.0.1:{port}/api", way
        finally:
            await runner.cleanup()


async def test_a_run_whose_end_the_server_stumbles_over_ends_as_it_did(prefect_api: str, pool: str) -> None:
    job = Job(name=pool, command=["true"])
    await job.apply(work_pool=pool)
    async with stumbling(prefect_api) as (url, way):
        async with worker("prefect-jobs", "worker", "--pool", pool, env={"PREFECT_API_URL": url}):
            run: JobRun = await ended(await job.run(), 60)
        assert run.state == "Completed"
        assert [state.name for state in await states_of(run.id)] == ["Scheduled", "Pending", "Running", "Completed"]
        assert way.ends[f"/api/flow_runs/{run.id}/set_state"] == STUMBLES + 1
