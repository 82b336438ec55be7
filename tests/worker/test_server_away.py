"""Prefect's server is away for a while: containers go on, nothing is failed, and all is reported when it is back.

PREFECT_JOBS_AWAY_SECONDS=240 PREFECT_JOBS_AWAY_RUNS=50 is what the worker promises; the suite has it shorter.
"""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from functools import partial

import pytest
from counting import Counting, container_starts
from looks import all_ended, attempts_become, lines_of, states_of
from proxy import ApiProxy
from reach import containers_of, first_line, until
from servers import Server, postgres_database
from workers import Worker, workers_of

from prefect_jobs import Job, JobRun

SECONDS = float(os.environ.get("PREFECT_JOBS_AWAY_SECONDS", "20"))
RUNS = int(os.environ.get("PREFECT_JOBS_AWAY_RUNS", "6"))
# Half of them end while it is away, the others after it is back.
SHORT = Counting(lines=int(SECONDS / 2 / 0.5), pause=0.5, exit_code=0)
LONG = Counting(lines=int((SECONDS + 25) / 0.5), pause=0.5, exit_code=0)


@pytest.mark.timeout(0)
async def test_runs_during_which_the_server_was_away_end_right(pool: str, busybox: str) -> None:
    server = Server(f"server-{pool}", postgres_database(pool))
    try:
        await server.start()
        with server.used():
            async with workers_of(pool, **server.environment) as start_worker, container_starts(pool) as starts:
                worker = await start_worker()
                job = Job(name=pool, infrastructure="docker", image=busybox, command=LONG.command)
                await job.apply(work_pool=pool)
                runs: list[JobRun] = [
                    await (job.run(command=SHORT.command) if number % 2 else job.run()) for number in range(RUNS)
                ]
                await asyncio.gather(*map(first_line, runs))
                await server.kill()
                await worker.says("Prefect's API does not answer")
                await asyncio.sleep(SECONDS)
                there = [len(await asyncio.to_thread(containers_of, run.id)) for run in runs]
                assert there == [1] * RUNS
                await server.start()
                await all_ended(runs, 120 + 2 * RUNS)

                assert Counter(run.state for run in runs) == {"Completed": RUNS}
                expected = [SHORT.expected if number % 2 else LONG.expected for number in range(RUNS)]
                assert await lines_of(runs) == expected
                assert starts == {str(run.id): 1 for run in runs}
                assert [containers_of(run.id) for run in runs] == [[]] * RUNS
                for run in runs:
                    names = {state.name for state in await states_of(run.id)}
                    assert names == {"Scheduled", "Pending", "Running", "Completed"}
                    ends = {("attempt 1", "Completed"): 1}
                    await attempts_become(run.id, ends)
                later: JobRun = await job.run(command=["sh", "-c", "echo still here"])
                await all_ended([later], 60)
                assert (later.state, await lines_of([later])) == ("Completed", [["still here"]])
                assert "Traceback" not in worker.said
    finally:
        await server.kill()


class Busy(ApiProxy):
    """A way to the API on which a server that has too much to do can answer."""

    busy = False

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not self.busy:
            return await super()._connect(reader, writer)
        await reader.read(1 << 14)
        said = b'{"exception_message": "Service Unavailable"}'
        writer.write(b"HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(said))
        writer.write(said)
        writer.close()


async def test_a_server_that_is_busy_is_said_to_be_so_and_the_hint_comes_once(pool: str, server: Server) -> None:
    relay = Busy(server.url)
    await relay.open()
    busy = "Prefect's API is busy (it answered 503 Service Unavailable): what runs goes on, and is reported later"
    async with workers_of(pool, PREFECT_API_URL=relay.url) as start_worker:
        worker = await start_worker()
        for _ in range(2):
            # Away first: that it is busy is said although it was away already.
            since = len(worker.said)
            await relay.shut()
            await until(partial(says_since, worker, "Prefect's API does not answer", since), 20, "it is away")
            relay.busy, since = True, len(worker.said)
            await relay.open()
            await until(partial(says_since, worker, busy, since), 20, busy)
            relay.busy, since = False, len(worker.said)
            await until(partial(says_since, worker, "Prefect's API answers again", since), 20, "it answers again")
        assert worker.said.count("SQLite") == 1
        assert await worker.stop() == 0
    await relay.shut()


async def says_since(worker: Worker, words: str, since: int) -> bool:
    return words in worker.said[since:]


async def test_a_worker_that_starts_before_the_server_waits_for_it(pool: str, busybox: str) -> None:
    server = Server(f"server-{pool}")
    try:
        await server.start()
        with server.used():
            async with workers_of(pool, **server.environment) as start_worker:
                await (await start_worker()).stop()  # Its pool and job are there.
                job = Job(name=pool, command=["sh", "-c", "echo came late"])
                await job.apply(work_pool=pool)
                run: JobRun = await job.run()
                await server.kill()
                worker = await start_worker(seconds=0)
                with pytest.raises(AssertionError):
                    await worker.ended(15)
                await server.start()
                await all_ended([run], 90)
                assert (run.state, await lines_of([run])) == ("Completed", [["came late"]])
                # It ends without the server, too.
                await server.kill()
                assert await worker.stop(45) == 0
    finally:
        await server.kill()
