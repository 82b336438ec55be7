"""How often a run reaches Prefect's API: each request costs the server, and hundreds of runs at once wait for it."""

from __future__ import annotations

from collections import Counter

from looks import all_ended
from proxy import api_proxy
from servers import Server
from workers import StartWorker

from prefect_jobs import Job, JobRun

MOST_REQUESTS = 10
"""Of one run whose container writes nothing and succeeds. Who makes it less lowers this."""
RUNS = 5
# What the worker asks on its own behalf, however many runs there are.
OF_THE_WORKER = (
    "/api/events",
    "/api/variables",
    "/api/work_pools",
    "/api/work_queues",
    "/api/flow_runs/count",
    "/api/admin",
)


async def test_a_run_takes_no_more_requests_than_is_written_down(
    start_worker: StartWorker, pool: str, busybox: str, server: Server
) -> None:
    async with api_proxy(server.url) as proxy:
        await start_worker(PREFECT_API_URL=proxy.url)
        job = Job(name=pool, infrastructure="docker", image=busybox, command=["true"])
        await job.apply(work_pool=pool)
        await all_ended([await job.run()], 60)
        before = Counter(proxy.requests)
        for _ in range(RUNS):
            run: JobRun = await job.run()
            await all_ended([run], 60)
            assert run.state == "Completed"
        found = Counter({what: number for what, number in (proxy.requests - before).items() if not _is_apart(what)})
    table = "\n".join(f"{number / RUNS:6.1f} {what}" for what, number in found.most_common())
    print(f"{found.total() / RUNS:6.1f} requests for one run\n{table}")
    assert found.total() / RUNS <= MOST_REQUESTS, table
    # The proxy counts what a run cannot do without.
    assert found["POST /api/flow_runs/{id}/set_state"] >= 3 * RUNS


def _is_apart(what: str) -> bool:
    return what.partition(" ")[2].startswith(OF_THE_WORKER)
