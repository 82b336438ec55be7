"""Runs brought to a phase under a worker, cancelled in a way, and measured: how soon nothing is left of them."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

from hosts import docker
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import State, StateType
from prefect.states import Paused, Scheduled
from prefect_docker.host import DockerHost
from proxy import Proxy
from reach import BIN, containers_of, first_line, until
from session import root
from slow_registry import slow_registry

from prefect_jobs import Docker, Job, JobRun

GRACE = 3.0
"""The grace period of the jobs, in seconds."""
LONG = ["sh", "-c", "echo up; sleep 600 & wait"]
STUBBORN = ["sh", "-c", "trap '' TERM; echo up; while true; do sleep 1; done"]
FAILING = ["sh", "-c", "echo up; exit 3"]


@dataclass(frozen=True)
class Place:
    """Where runs are sent and run."""

    pool: str | None
    infrastructure: str
    image: str

    async def start(self, command: list[str], *, state: State[Any] | None = None, **keys: Any) -> JobRun:
        """A run of a new job, as soon as it is created."""
        fields = {
            "infrastructure": self.infrastructure,
            "image": self.image,
            "grace_period": f"{GRACE:g}s",
            "retries": 2,
            **keys,
        }
        job = Job.model_validate({"name": f"job-{uuid4().hex[:8]}", "command": command, **fields})
        change = await job.apply(work_pool=self.pool)
        async with get_client() as client:
            return JobRun(await client.create_flow_run_from_deployment(change.deployment_id, state=state))


Phase = Callable[[Place], "contextlib.AbstractAsyncContextManager[JobRun]"]


async def in_state(run: JobRun, *names: str, seconds: float = 60) -> JobRun:
    """The run as soon as it is in one of these states."""

    async def is_so() -> bool:
        return (await run.refresh()).state in names

    try:
        await until(is_so, seconds, f"one of {names}")
    except AssertionError as error:
        raise AssertionError(f"{error}; it is {run.state}") from None
    return run


@asynccontextmanager
async def far_ahead(place: Place) -> AsyncIterator[JobRun]:
    yield await place.start(LONG, state=Scheduled(scheduled_time=datetime.now(UTC) + timedelta(days=2)))


@asynccontextmanager
async def without_worker(place: Place) -> AsyncIterator[JobRun]:
    nowhere = Place("nobody-serves-this", place.infrastructure, place.image)
    yield await nowhere.start(LONG)


@asynccontextmanager
async def behind_a_limit(place: Place) -> AsyncIterator[JobRun]:
    first = await place.start(LONG, concurrency=1)
    await first_line(first)
    async with get_client() as client:
        assert first.flow_run.deployment_id is not None
        second = JobRun(await client.create_flow_run_from_deployment(first.flow_run.deployment_id))
    await in_state(second, "AwaitingConcurrencySlot")
    try:
        yield second
    finally:
        await first.cancel()


@asynccontextmanager
async def process_on_its_way(place: Place) -> AsyncIterator[JobRun]:
    run = await place.start(LONG)
    await in_state(run, "Pending", "Submitting", "InfrastructurePending", "Running")
    yield run


@asynccontextmanager
async def process_importing(place: Place) -> AsyncIterator[JobRun]:
    run = await place.start(LONG)

    async def has_process() -> bool:
        return bool((await run.refresh()).flow_run.infrastructure_pid)

    await until(has_process, 60, "the flow's process")
    yield run


@asynccontextmanager
async def flow_begins(place: Place) -> AsyncIterator[JobRun]:
    yield await in_state(await place.start(LONG), "Running")


@asynccontextmanager
async def pulling(place: Place) -> AsyncIterator[JobRun]:
    async with slow_registry() as registry:
        run = await Place(place.pool, "docker", registry.image).start(LONG)

        async def pulls() -> bool:
            return registry.pulls > 0

        await until(pulls, 60, "the pull")
        yield run


class Holding(Proxy):
    """Lets nothing through that would start a container."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.held = asyncio.Event()

    async def _pipe(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, count: bool = False) -> None:
        if count:
            return await super()._pipe(reader, writer, count)
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(1 << 14):
                if b"/start HTTP/" in data:
                    self.held.set()
                    await reader.read()  # Until whoever asked for it gives up.
                    return None
                writer.write(data)
                await writer.drain()
        return None


@asynccontextmanager
async def created_and_not_started(place: Place) -> AsyncIterator[JobRun]:
    name = f"held-{uuid4().hex[:6]}"
    proxy = Holding(root() / f"{name}.sock")
    await proxy.open()
    try:
        await Docker(host=DockerHost(base_url=proxy.url)).save(name)
        run = await Place(place.pool, f"docker/{name}", place.image).start(LONG)
        async with asyncio.timeout(60):
            await proxy.held.wait()
        assert containers_of(run.id)
        yield run
    finally:
        await proxy.shut()


@asynccontextmanager
async def running(place: Place) -> AsyncIterator[JobRun]:
    run = await place.start(LONG)
    await first_line(run)
    yield run


@asynccontextmanager
async def ignoring_sigterm(place: Place) -> AsyncIterator[JobRun]:
    run = await place.start(STUBBORN)
    await first_line(run)
    yield run


@asynccontextmanager
async def waiting_for_a_retry(place: Place) -> AsyncIterator[JobRun]:
    run = await place.start(FAILING, retries={"failures": 3, "delay": 60})

    async def has_failed() -> bool:
        return len((await run.refresh()).attempts) == 1

    await until(has_failed, 60, "the first attempt's end")
    await asyncio.sleep(1)
    yield run


@asynccontextmanager
async def between_quick_retries(place: Place) -> AsyncIterator[JobRun]:
    run = await place.start(FAILING, retries={"failures": 50, "delay": 1})

    async def has_failed() -> bool:
        return len((await run.refresh()).attempts) >= 2

    await until(has_failed, 60, "the second attempt's end")
    yield run


@asynccontextmanager
async def just_ending(place: Place) -> AsyncIterator[JobRun]:
    run = await place.start(["sh", "-c", "echo up; sleep 1"])
    await first_line(run)
    await asyncio.sleep(0.7)
    yield run


@asynccontextmanager
async def suspended(place: Place) -> AsyncIterator[JobRun]:
    run = await place.start(LONG)
    await first_line(run)
    async with get_client() as client:
        await client.set_flow_run_state(run.id, Paused(reschedule=True, timeout_seconds=300), force=True)
    await asyncio.sleep(3)
    yield run


@asynccontextmanager
async def paused(place: Place) -> AsyncIterator[JobRun]:
    run = await place.start(LONG)
    await first_line(run)
    async with get_client() as client:
        await client.set_flow_run_state(run.id, Paused(timeout_seconds=300), force=True)
    await asyncio.sleep(1)
    yield run


PHASES: dict[str, Phase] = {
    each.__name__: each
    for each in (
        far_ahead, without_worker, behind_a_limit, process_on_its_way, process_importing, flow_begins, pulling,
        created_and_not_started, running, ignoring_sigterm, waiting_for_a_retry, between_quick_retries, just_ending,
        suspended, paused,
    )
}  # fmt: skip


async def _handle(run: JobRun) -> None:
    await run.cancel()


async def _api(run: JobRun, force: bool = False) -> None:
    async with get_client() as client:
        await client.set_flow_run_state(run.id, State(type=StateType.CANCELLING, name="Cancelling"), force=force)


async def _interface(run: JobRun) -> None:
    """As Prefect's newer interface does."""
    await _api(run, force=True)


async def _command(*words: str) -> None:
    process = await asyncio.create_subprocess_exec(
        BIN / words[0], *words[1:], stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    printed, _ = await process.communicate()
    print(*words, process.returncode, printed.decode())


async def _own(run: JobRun) -> None:
    await _command("prefect-jobs", "cancel", str(run.id))


async def _prefects(run: JobRun) -> None:
    await _command("prefect", "flow-run", "cancel", str(run.id))


WAYS = {
    "handle": _handle,
    "api": _api,
    "interface": _interface,
    "prefect-jobs cancel": _own,
    "prefect flow-run cancel": _prefects,
}


@dataclass(frozen=True)
class Measured:
    """What became of a cancelled run."""

    gone: float
    """Seconds from when Prefect knew of the cancellation until no container and no process of it was there."""
    final: float
    """Seconds until its state was final."""
    state: str
    message: str
    attempts: int
    """How many containers wrote a line."""
    left: list[str]


def processes_of(run_id: UUID) -> list[str]:
    """Shims of a run."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            words = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
            folder = Path(os.readlink(f"/proc/{pid}/cwd"))
            if any(f"/runs/{run_id}/" in word for word in (*words, f"{folder}/")):
                found.append(f"{pid}: {' '.join(words)}")
    return found


def left_by(run_id: UUID) -> list[str]:
    """Everything that is there of a run: containers, volumes, folders, processes."""
    mine = ("--filter", f"label=prefect-jobs/run-id={run_id}", "--format")
    found = docker("ps", "--all", *mine, "{{ .Names }}").split()
    found += docker("volume", "ls", *mine, "{{ .Name }}").split()
    found += map(str, (root() / "prefect/jobs/runs").glob(f"{run_id}*"))
    return found + processes_of(run_id)


async def measure(run: JobRun, cancel: Callable[[JobRun], Coroutine[Any, Any, None]], seconds: float = 90) -> Measured:
    """Cancel a run and watch what becomes of it, until its flow's process has ended too."""
    began = time.time()
    cancelling = asyncio.create_task(cancel(run))
    gone = final = None
    while (gone is None or final is None) and time.time() - began < seconds:
        state = (await run.refresh()).flow_run.state
        asked = cancelling.done() or run.state in ("Cancelling", "Cancelled")
        is_there = await asyncio.to_thread(lambda: bool(containers_of(run.id) or processes_of(run.id)))
        gone = (gone or time.time()) if asked and not is_there else None
        final = final or (time.time() if state is not None and state.is_final() else None)
        await asyncio.sleep(0.2)
    await cancelling
    pid = run.flow_run.infrastructure_pid
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(20):
            while pid and Path(f"/proc/{pid}").exists():
                await asyncio.sleep(0.2)
    await run.refresh()
    async with get_client() as client:
        states = await client.read_flow_run_states(run.id)
    known = min((each.timestamp.timestamp() for each in states if str(each.name).startswith("Cancel")), default=began)
    state = run.flow_run.state
    return Measured(
        (gone or float("inf")) - known,
        (final or float("inf")) - known,
        run.state,
        (state.message or "") if state else "",
        sum(log.message == "up" for log in await run.logs()),
        await asyncio.to_thread(left_by, run.id),
    )
