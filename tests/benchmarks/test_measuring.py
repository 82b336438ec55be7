"""The parts of the benchmark that measure, on processes and containers that do a known thing."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from uuid import uuid4

import aiodocker
import psutil
import pytest
from hosts import docker
from needs import needs
from session import root

from benchmarks.bench import measure
from benchmarks.measure import container_starts, cpu_seconds, memory
from benchmarks.peers.bare import PREFIX, Bare
from benchmarks.plan import Plan
from benchmarks.processes import serving, until
from benchmarks.servers import PrefectServer, postgres_program
from prefect_jobs.deployments.demo_processes import Background

BURN = "import time\nwhile time.process_time() < 0.6: pass"


PLAN = Plan(rounds=1, runs=4, at_once=2, full_runs=6, full_at_once=3, singles=2, pause=0.1, many=3, warm_ups=1)


@asynccontextmanager
async def python(code: str) -> AsyncIterator[int]:
    """A process that runs code, says so by a line, and waits to be ended."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", f"{code}\nprint(flush=True)\nimport time; time.sleep(60)"), stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    async with asyncio.timeout(30):
        assert await process.stdout.readline() == b"\n"
    try:
        yield process.pid
    finally:
        process.kill()
        await process.wait()


async def test_cpu_of_a_child_that_has_ended_counts() -> None:
    async with (
        python("") as idle,
        python(f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', {BURN!r}])") as busy,
    ):
        assert 0.5 <= cpu_seconds([busy]) - cpu_seconds([idle]) < 1.3
        assert cpu_seconds([busy, idle, busy]) == pytest.approx(cpu_seconds([busy]) + cpu_seconds([idle]), abs=0.05)


async def test_memory_of_a_living_child_counts() -> None:
    held = "held = bytearray(b'x') * (64 << 20)"
    child = f"import subprocess, sys\nsubprocess.Popen([sys.executable, '-c', {held + '; input()'!r}], stdin=-1)"

    async with python("") as small, python(child) as parent:

        async def is_held() -> bool:
            return memory([parent]) - memory([small]) >= 64 << 20

        await until(is_held, 30, "the child's memory")
        assert memory([parent]) - memory([small]) < 100 << 20


async def test_what_has_ended_has_neither_cpu_nor_memory() -> None:
    async with python("") as pid:
        pass
    assert (cpu_seconds([pid]), memory([pid])) == (0.0, 0)


async def test_a_container_started_when_the_engine_says_so(busybox: str) -> None:
    name = f"{PREFIX}-test-{uuid4().hex[:8]}"
    try:
        async with aiodocker.Docker() as client, container_starts(client) as starts:
            docker("run", "--name", name, busybox, "true")
            found = await starts.of([name], lambda attributes: attributes.get("name"), 30)
            with pytest.raises(TimeoutError, match=r"^1 of 2 containers started within 0\.1 s$"):
                await starts.of([name, "other"], lambda attributes: attributes.get("name"), 0.1)
        [inspected] = json.loads(docker("inspect", name))
    finally:
        docker("rm", "--force", name)
    began = datetime.fromisoformat(inspected["State"]["StartedAt"]).timestamp()
    assert found[name].moment == pytest.approx(began, abs=0.5)
    assert found[name].container == inspected["Id"]


async def test_requests_are_counted_from_the_servers_own_log_without_ids_and_without_those_that_create(
    tmp_path: Path,
) -> None:
    log = tmp_path / "log"
    log.write_text('INFO: 127.0.0.1:1 - "GET /api/health HTTP/1.1" 200 OK\n')
    async with serving("nothing", log, {}, "true") as process:
        server = PrefectServer(process, tmp_path, "", "")
        since = server.logged()
        one, other = uuid4(), uuid4()
        with log.open("a") as file:
            file.write(
                f'x - "GET /api/flow_runs/{one} HTTP/1.1" 200\nx - "GET /api/flow_runs/{other}?a=b HTTP/1.1" 200\n'
            )
            file.write(f'x - "POST /api/deployments/{one}/create_flow_run HTTP/1.1" 201\n')
            file.write('x - "WebSocket /api/events/in" [accepted]\nx - "GET /dashboard HTTP/1.1" 200\n')
    assert server.requests(since, leave_out="/create_flow_run") == {
        "GET /api/flow_runs/…": 2,
        "WebSocket /api/events/in": 1,
    }


async def test_what_ended_by_itself_is_said_with_its_last_words(tmp_path: Path) -> None:
    async def never() -> bool:
        return False

    async with serving("the talker", tmp_path / "log", {}, "sh", "-c", "echo farewell; exit 3") as process:
        with pytest.raises(RuntimeError, match="it all: the talker has ended:\nfarewell"):
            await until(never, 30, "it all", process)
    assert isinstance(process, Background)


def left() -> set[str]:
    containers = docker("ps", "--all", "--format", "{{ .Names }}", "--filter", f"name={PREFIX}").split()
    folders = map(str, Path(tempfile.gettempdir()).glob("prefect-jobs-bench-*"))
    return {*containers, *folders}


def started() -> set[int]:
    """The processes that this one has started, but those of the whole session, such as its Postgres."""
    shared = {int(file.read_text()) for file in root().glob("*.pid")}
    mine = [each for each in psutil.Process().children() if each.pid not in shared]
    return {each.pid for each in (*mine, *(child for each in mine for child in each.children(recursive=True)))}


@pytest.fixture
def nothing_left(busybox: str) -> Iterator[None]:
    """Postgres is there, and the test leaves neither containers nor folders nor processes."""
    try:
        postgres_program("initdb")
    except RuntimeError as error:
        needs(str(error))
    before, before_it = left(), started()
    yield
    assert left() <= before
    assert started() <= before_it


@pytest.mark.usefixtures("nothing_left")
async def test_a_peer_that_is_stopped_in_the_middle_leaves_nothing() -> None:
    before = left()
    measuring = asyncio.create_task(measure([Bare()], replace(PLAN, many=5)))

    async def sleeps() -> bool:
        names = [name for name in left() - before if "/" not in name]
        return len(names) == 5

    await until(sleeps, 120, "five sleeping containers")
    measuring.cancel()
    with pytest.raises(asyncio.CancelledError):
        await measuring


@pytest.mark.usefixtures("nothing_left")
async def test_a_peer_is_measured() -> None:
    results = await measure([Bare()], PLAN)

    [bare] = results.peers
    [round_] = bare.rounds
    assert (len(round_.singles), round_.batch.runs, round_.full and round_.full.at_once) == (2, 4, 3)
    assert all(0 < seconds < 30 for seconds in (*round_.singles, *round_.batch.to_start))
    assert round_.batch.seconds > max(round_.batch.to_start)
    assert round_.batch.used.supervisor > 0
    assert [each.at_once for each in bare.memory] == [2, 3]
    assert all(each.supervisor > 10 << 20 for each in bare.memory)
