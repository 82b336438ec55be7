"""Every way in which an attempt may end, how to bring it about, and what Prefect must show then."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

from engines import own_engine
from hosts import docker, processes_with
from needs import needs
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import StateType
from prefect.states import Cancelling
from ran import deployed
from registries import Registry, busy_door, registry_in
from slow_registry import slow_registry
from supervisors import kill, start_supervisor, supervise

from faults.stage import Seen, Stage, container_of, once_up
from prefect_jobs import JobRun, Reason
from prefect_jobs.blocks.docker import Docker
from prefect_jobs.blocks.process import Process
from prefect_jobs.outcome import Blame

Play = Callable[[Stage], Awaitable[Seen]]
COMPLETED, FAILED, CRASHED, CANCELLED = (
    StateType.COMPLETED,
    StateType.FAILED,
    StateType.CRASHED,
    StateType.CANCELLED,
)
# Goes on until it is told to end, and ends so that nobody could take it for its own doing.
LONG = "trap 'exit 5' TERM; echo up; sleep 60 & wait"


@dataclass(frozen=True)
class Case:
    """A fault on an infrastructure, and what it must look like."""

    fault: str
    infrastructure: str
    play: Play
    reason: Reason
    type: StateType
    name: str
    message: str
    """A pattern of the whole first line of the state's message."""
    seconds: float = 15.0
    """Within how many seconds it must be known."""

    def __str__(self) -> str:
        return f"{self.fault} ({self.infrastructure})"

    @property
    def cells(self) -> tuple[str, str, str, str, str]:
        """What the table says of it that no run changes."""
        state = self.name if self.name.upper() == self.type.name else f"{self.type.value.title()}, {self.name}"
        return self.fault, self.infrastructure, state, str(self.reason), _COUNTS[self.blame]

    @property
    def blame(self) -> Blame:
        """Whose retries it must count against."""
        if self.reason in (Reason.FAILED, Reason.OUT_OF_MEMORY, Reason.TIMED_OUT):
            return Blame.JOB
        if self.reason in (Reason.SUCCEEDED, Reason.CANCELLED, Reason.IMAGE_UNAVAILABLE):
            return Blame.NOBODY
        return Blame.INFRASTRUCTURE


_COUNTS = {Blame.NOBODY: "—", Blame.JOB: "failures", Blame.INFRASTRUCTURE: "infrastructure"}
CASES: list[Case] = []


def case(
    fault: str, reason: Reason, type: StateType, name: str, message: str, *infrastructures: str, seconds: float = 15.0
) -> Callable[[Play], Play]:
    """A case on each of the infrastructures, both where none is named."""

    def add(play: Play) -> Play:
        where = infrastructures or ("process", "docker")
        CASES.extend(Case(fault, each, play, reason, type, name, message, seconds) for each in where)
        return play

    return add


def exits(code: int, reason: Reason, type: StateType, name: str, message: str) -> None:
    """A program that ends with a code."""

    @case(f"exit code {code}", reason, type, name, message)
    async def play(stage: Stage) -> Seen:
        return await stage.run(f"echo out; echo last words >&2; exit {code}")


exits(0, Reason.SUCCEEDED, COMPLETED, "Completed", "exit code 0")
for number in (1, 2, 7, 255):
    exits(number, Reason.FAILED, FAILED, "Failed", f"exit code {number}")


@case("exit code 126: the command is no program", Reason.FAILED, FAILED, "Failed", "exit code 126.*")
async def no_program(stage: Stage) -> Seen:
    return await _from_its_start(stage, command=["/etc"])


@case("exit code 127: the command does not exist", Reason.FAILED, FAILED, "Failed", "exit code 127.*")
async def no_command(stage: Stage) -> Seen:
    return await _from_its_start(stage, command=["no-such-program"])


@case("it crashes (SIGSEGV)", Reason.FAILED, FAILED, "Failed", r"exit code 139: ended by signal 11 \(SIGSEGV\)")
async def crashes(stage: Stage) -> Seen:
    return await stage.run("sh -c 'kill -SEGV $$'; exit $?")


def _send(number: signal.Signals, mark: str) -> Callable[[JobRun], None]:
    def send(_: JobRun) -> None:
        for pid in processes_with(mark):
            os.kill(pid, number)

    return send


@case(
    "somebody kills it (kill -9)", Reason.KILLED, CRASHED, "Killed",
    r"killed: ended by signal 9 \(SIGKILL\) from outside: somebody, or something on its machine, killed it",
)  # fmt: skip
async def killed(stage: Stage) -> Seen:
    mark = f"mark-{uuid4()}"
    return await stage.command("sh", "-c", LONG, mark, during=once_up(_send(signal.SIGKILL, mark)))


@case(
    "somebody tells it to end (SIGTERM), exit code 143", Reason.KILLED, CRASHED, "Killed",
    r"killed: ended by signal 15 \(SIGTERM\) from outside: .*",
)  # fmt: skip
async def terminated(stage: Stage) -> Seen:
    mark, script = f"mark-{uuid4()}", LONG.replace("exit 5", "exit 143")
    return await stage.command("sh", "-c", script, mark, during=once_up(_send(signal.SIGTERM, mark)))


@case(
    "docker stop", Reason.KILLED, CRASHED, "Killed",
    r"killed: the Docker engine sent it signal 15 \(SIGTERM\), for somebody or .*; it ended with exit code 5", "docker",
)  # fmt: skip
async def docker_stop(stage: Stage) -> Seen:
    return await stage.run(LONG, once_up(lambda run: docker("stop", container_of(run)) and None))


@case(
    "out of memory", Reason.OUT_OF_MEMORY, FAILED, "OutOfMemory",
    r"out of memory: the kernel killed it at its limit of 32 MiB \(it used up to 32 MiB\); give the job a shape .*",
    "docker",
)  # fmt: skip
async def out_of_memory(stage: Stage) -> Seen:
    return await stage.run("tail -c 200000000 /dev/zero", shape={"memory": "32Mi"})


@case(
    "out of memory (of its control group)", Reason.OUT_OF_MEMORY, FAILED, "OutOfMemory",
    r"out of memory: the kernel killed it because .* \(it used up to [23]\d MiB\); .*", "process",
)  # fmt: skip
async def out_of_memory_of_the_machine(stage: Stage) -> Seen:
    with _control_group(32 << 20) as group:
        use = f"exec {sys.executable} -c \"bytearray(b'x') * 200_000_000\""
        return await stage.run(f"echo $$ > {group}/cgroup.procs; {use}")


@contextmanager
def _control_group(limit: int) -> Iterator[Path]:
    old = Path("/sys/fs/cgroup/memory")
    group = (old if old.exists() else Path("/sys/fs/cgroup")) / f"prefect-jobs-test-{uuid4().hex[:8]}"
    try:
        group.mkdir()
        (group / ("memory.limit_in_bytes" if old.exists() else "memory.max")).write_text(str(limit))
    except OSError as error:
        needs(f"no control group can be made ({error}): run the tests as root")
    try:
        yield group
    finally:
        group.rmdir()


@case(
    "attempt timeout", Reason.TIMED_OUT, FAILED, "TimedOut", r"timed out: it ran longer than its timeout of 1 s"
)  # fmt: skip
async def attempt_timeout(stage: Stage) -> Seen:
    return _late_by(1, await stage.run(LONG, timeout={"attempt": 1}))


def _late_by(seconds: float, seen: Seen) -> Seen:
    """A run whose container had so many seconds."""
    assert seen.outcome.started is not None
    return Seen(seen.run, seen.outcome.started + timedelta(seconds=seconds))


@case("total timeout", Reason.TIMED_OUT, FAILED, "TimedOut", r"timed out: the total timeout has passed")
async def total_timeout(stage: Stage) -> Seen:
    return await stage.run(LONG, timeout={"total": 2})


@case(
    "attempt timeout, and it ignores SIGTERM", Reason.TIMED_OUT, FAILED, "TimedOut",
    r"timed out: it ran longer than its timeout of 1 s",
)  # fmt: skip
async def stubborn(stage: Stage) -> Seen:
    return _late_by(1, await stage.run("trap '' TERM; echo up; while :; do sleep 0.1; done", timeout={"attempt": 1}))


@case(
    "start timeout: the image takes too long", Reason.UNSCHEDULABLE, CRASHED, "Unschedulable",
    r"unschedulable: it had not started after 2 s; the last that was tried: Pulling image .*", "docker",
)  # fmt: skip
async def slow_image(stage: Stage) -> Seen:
    async with slow_registry() as registry:
        return await _from_its_start(stage, 2.0, image=registry.image, timeout={"start": 2})


@case(
    "start timeout: the engine is away", Reason.UNSCHEDULABLE, CRASHED, "Unschedulable",
    r"unschedulable: it had not started after 1 s; the last that was tried: The Docker engine does not answer.*",
    "docker", seconds=60,
)  # fmt: skip
async def no_engine(stage: Stage) -> Seen:
    away = await stage.docker_at("unix:///no/such/docker.sock")
    return await _from_its_start(stage, 1.0, infrastructure=away, timeout={"start": 1})


async def _from_its_start(stage: Stage, seconds: float = 0.0, **keys: object) -> Seen:
    """A run whose fault shows so many seconds after its start."""
    seen = await stage.command("true", **keys)
    begun = seen.run.flow_run.start_time
    assert begun is not None
    return Seen(seen.run, datetime.fromtimestamp(begun.timestamp() + seconds, UTC))


@case(
    "the engine refuses the container (no GPU)", Reason.UNSCHEDULABLE, CRASHED, "Unschedulable",
    r"unschedulable: the Docker engine refused the container of job '.*': could not select device driver .*", "docker",
)  # fmt: skip
async def refused(stage: Stage) -> Seen:
    return await _from_its_start(stage, shape={"gpu": 1})


@case(
    "the image is not on the engine, pull policy Never", Reason.IMAGE_UNAVAILABLE, CRASHED, "ImageUnavailable",
    r"image unavailable: image 'missing-.*' is not on the engine, and the pull policy is Never", "docker",
)  # fmt: skip
async def never_pulled(stage: Stage) -> Seen:
    return await _from_its_start(stage, image=f"missing-{uuid4()}:1", pull_policy="Never")


@case(
    "the image has no valid name", Reason.IMAGE_UNAVAILABLE, CRASHED, "ImageUnavailable",
    r"image unavailable: image 'Upper/Case:1' .*", "docker",
)  # fmt: skip
async def bad_name(stage: Stage) -> Seen:
    return await _from_its_start(stage, image="Upper/Case:1")


@asynccontextmanager
async def _registry(stage: Stage) -> AsyncIterator[tuple[Registry, str]]:
    """A registry with a password, and the name of a private image in it."""
    with registry_in(stage.folder) as registry:
        name = registry.push(stage.image, f"private/{os.urandom(4).hex()}:1")
        try:
            yield registry, name
        finally:
            registry.forget(name)


@case(
    "the registry does not have the image", Reason.IMAGE_UNAVAILABLE, CRASHED, "ImageUnavailable",
    r"image unavailable: image '.*' cannot be pulled: .*manifest unknown.*", "docker",
)  # fmt: skip
async def unknown_image(stage: Stage) -> Seen:
    async with _registry(stage) as (registry, name):
        block = await _with_credentials(registry)
        return await _from_its_start(stage, image=f"{name}-other", infrastructure=block)


@case(
    "the registry refuses (no credentials)", Reason.IMAGE_UNAVAILABLE, CRASHED, "ImageUnavailable",
    r"image unavailable: image '.*' cannot be pulled: .*no basic auth credentials.*", "docker",
)  # fmt: skip
async def registry_refuses(stage: Stage) -> Seen:
    async with _registry(stage) as (_, name):
        return await _from_its_start(stage, image=name)


@case(
    "the registry has too many requests, then works", Reason.SUCCEEDED, COMPLETED, "Completed", "exit code 0",
    "docker", seconds=60,
)  # fmt: skip
async def busy_registry(stage: Stage) -> Seen:
    async with _registry(stage) as (registry, name), busy_door(registry, refusals=3) as door:
        through = name.replace(registry.address, door)
        block = await _with_credentials(registry, door)
        try:
            return await stage.run("true", image=through, infrastructure=block)
        finally:
            registry.forget(through)


async def _with_credentials(registry: Registry, address: str | None = None) -> str:
    name = f"own-{uuid4().hex[:8]}"
    credentials = registry.credentials.model_copy(update={"registry_url": address or registry.address})
    await Docker(registry=credentials).save(name)
    return f"docker/{name}"


@case(
    "somebody removes the container", Reason.LOST, CRASHED, "Lost",
    r"lost: somebody removed the container while it ran; start the run again", "docker",
)  # fmt: skip
async def removed(stage: Stage) -> Seen:
    return await stage.run(LONG, once_up(lambda run: docker("rm", "--force", container_of(run)) and None))


@case(
    "the process and its shim are killed", Reason.LOST, CRASHED, "Lost",
    r"lost: the process and its shim are gone without a trace .*", "process",
)  # fmt: skip
async def gone(stage: Stage) -> Seen:
    def kill_both(run: JobRun) -> None:
        (marks,) = (Process().folder / "runs" / str(run.id)).glob("attempt-*/started.json")
        content = json.loads(marks.read_text())
        for name in ("shim", "process"):
            os.kill(content[name]["pid"], signal.SIGKILL)

    return await stage.run(LONG, once_up(kill_both))


@case(
    "the engine stops, and starts again", Reason.KILLED, CRASHED, "Killed",
    r"killed: the Docker engine sent it signal 15 \(SIGTERM\), for somebody or .*; it ended with exit code 5",
    "docker", seconds=60,
)  # fmt: skip
async def engine_restarts(stage: Stage) -> Seen:
    async with own_engine() as engine:
        await engine.start()
        await engine.load(stage.image)

        async def restart(_: JobRun) -> None:
            await engine.stop()
            await engine.start()

        return await stage.run(LONG, once_up(restart), infrastructure=await stage.docker_at(engine.url))


@case("its disk is full", Reason.FAILED, FAILED, "Failed", "exit code 1", "docker")
async def disk_full(stage: Stage) -> Seen:
    script = "dd if=/dev/zero of=/dev/shm/big bs=1000000 count=20 || exit 1"
    seen = await stage.run(script, shape={"shared_memory": "1Mi"})
    assert "No space left on device" in seen.tail
    return seen


@case(
    "its disk is full, and its log's", Reason.FAILED, FAILED, "Failed",
    r"exit code 1: \d lines could not be written to the log, or not whole: the disk was full", "process",
)  # fmt: skip
async def disk_of_the_log_full(stage: Stage) -> Seen:
    with _small_disk(stage.folder / "small"):
        block = await stage.process_in(stage.folder / "small")
        return await stage.run("dd if=/dev/zero of=big bs=1000000 count=20 || exit 1", infrastructure=block)


@contextmanager
def _small_disk(folder: Path) -> Iterator[None]:
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)]).returncode != 0:
        needs("no small disk can be mounted: run the tests as root")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@case("cancelled", Reason.CANCELLED, CANCELLED, "Cancelled", ".*")
async def cancelled(stage: Stage) -> Seen:
    async def cancel(run: JobRun) -> None:
        async with get_client() as client:
            await client.set_flow_run_state(run.id, Cancelling(), force=True)

    return await stage.run(LONG, once_up(cancel))


@case(
    "its supervisor is killed, and the run is run again", Reason.SUCCEEDED, COMPLETED, "Completed", "exit code 0",
    seconds=60,
)  # fmt: skip
async def supervisor_killed(stage: Stage) -> Seen:
    script = (
        "echo up; sleep 3; echo starts >> $JOB_CHECKPOINT_DIR/starts; [ $(wc -l < $JOB_CHECKPOINT_DIR/starts) = 1 ]"
    )
    fields = {"image": stage.image, "command": ["sh", "-c", script], "infrastructure": stage.infrastructure}
    run = await (await deployed(f"job-{uuid4().hex[:8]}", **fields)).run()
    supervisor = await start_supervisor(run)
    moment = await once_up(lambda _: None)(run)
    await kill(supervisor)
    await supervise(run)
    return Seen(await run.refresh(), moment)
