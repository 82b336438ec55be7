"""An attempt is started once, whoever asks for it, however often, and whatever became of those who asked before."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Callable
from uuid import UUID, uuid4

from bench import Bench, first_line, read
from hosts import Host, processes_with

from prefect_jobs.blocks.engine import FENCE
from prefect_jobs.outcome import Outcome, Reason
from prefect_jobs.spec import Identity

# Counts the starts in the run's checkpoint folder, which all containers of the run share.
COUNTING = 'echo started >> "$JOB_CHECKPOINT_DIR/starts"; cat "$JOB_CHECKPOINT_DIR/starts"; '
STUBBORN = "trap '' TERM; echo up; while :; do sleep 0.05; done"


async def _starts(bench: Bench, run_id: UUID) -> int:
    """How often an attempt of the run was started."""
    ended = await bench.run(bench.sh('cat "$JOB_CHECKPOINT_DIR/starts"'), bench.identity(run_id, attempt=99))
    return len(ended.texts)


def _but_usage(outcome: Outcome) -> Outcome:
    """An outcome without what an engine knows only while a container runs."""
    return outcome.model_copy(update={"cpu_seconds": None, "peak_memory": None})


async def test_launching_what_runs_attaches_to_it(bench: Bench) -> None:
    identity = bench.identity()
    spec = bench.sh(COUNTING + "sleep 1; echo end")
    first = await bench.launch(spec, identity)
    assert await first_line(first) == "started"
    second = await bench.launch(spec, identity)
    one, two = await asyncio.gather(bench.end_of(first), bench.end_of(second))
    assert _but_usage(one.outcome) == _but_usage(two.outcome)
    assert one.lines == two.lines
    assert one.texts == ["started", "end"]
    assert await _starts(bench, identity.run_id) == 1


async def test_launching_what_has_ended_gives_its_outcome_and_its_whole_log(bench: Bench) -> None:
    identity = bench.identity()
    spec = bench.sh(COUNTING + "seq 10; exit 3")
    ended = await bench.run(spec, identity)
    for _ in range(2):
        again = await bench.run(spec, identity)
        assert _but_usage(again.outcome) == _but_usage(ended.outcome)
        assert again.lines == ended.lines
    assert (ended.outcome.reason, ended.outcome.exit_code) == (Reason.FAILED, 3)
    assert await _starts(bench, identity.run_id) == 1


async def test_many_who_launch_at_once_get_one_container(bench: Bench) -> None:
    identity = bench.identity()
    spec = bench.sh(COUNTING + "sleep 0.5")
    containers = await asyncio.gather(*(bench.launch(spec, identity) for _ in range(5)))
    found = [each for each in await bench.engine.containers() if each.run_id == identity.run_id]
    assert len(found) == 1
    ended = await asyncio.gather(*(bench.end_of(container) for container in containers))
    assert [each.texts for each in ended] == [["started"]] * 5
    assert await _starts(bench, identity.run_id) == 1


async def test_many_who_launch_a_short_one_at_once_start_it_once(bench: Bench) -> None:
    for _ in range(3):
        identity = bench.identity()
        containers = await asyncio.gather(*(bench.launch(bench.sh(COUNTING), identity) for _ in range(4)))
        ended = await asyncio.gather(*(bench.end_of(container) for container in containers))
        assert [each.texts for each in ended] == [["started"]] * 4


async def test_two_processes_that_launch_at_once_get_one_container(
    bench: Bench, elsewhere: Callable[[str], str]
) -> None:
    identity = bench.identity()
    program = elsewhere(_LAUNCH.format(identity=identity.model_dump_json(), script=COUNTING + "sleep 1; exit 4"))
    both = [_start(program), _start(program)]
    for process in both:
        assert process.stdout is not None
        assert await asyncio.to_thread(process.stdout.readline) == "ready\n"
    for process in both:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.close()
    said = [json.loads(await asyncio.to_thread(process.stdout.read)) for process in both if process.stdout]
    assert said == [{"code": 4, "lines": ["started"]}] * 2
    assert [await asyncio.to_thread(process.wait, 30) for process in both] == [0, 0]
    assert await _starts(bench, identity.run_id) == 1


async def test_a_container_outlives_the_process_that_launched_it(bench: Bench, elsewhere: Callable[[str], str]) -> None:
    identity = bench.identity()
    script = COUNTING + "seq 3; sleep 1.5; seq 4 6; exit 5"
    launcher = _start(elsewhere(_LAUNCH.format(identity=identity.model_dump_json(), script=script)))
    assert launcher.stdin is not None
    launcher.stdin.write("go\n")
    launcher.stdin.flush()
    await _running(bench, identity)
    launcher.kill()
    await asyncio.to_thread(launcher.wait)
    ended = await bench.run(bench.sh(script), identity)
    assert ended.texts == ["started", *map(str, range(1, 7))]
    assert ended.outcome.exit_code == 5
    assert await _starts(bench, identity.run_id) == 1


async def test_attempts_of_one_run_are_containers_of_their_own(bench: Bench) -> None:
    run_id = uuid4()
    spec = bench.sh("echo $JOB_ATTEMPT")
    both = await asyncio.gather(*(bench.run(spec, bench.identity(run_id, attempt=number)) for number in (1, 2)))
    assert [ended.texts for ended in both] == [["1"], ["2"]]


async def test_nothing_is_left_of_a_run_that_was_removed_and_released(bench: Bench, host: Host) -> None:
    identity = bench.identity()
    container = await bench.launch(bench.sh('touch "$JOB_CHECKPOINT_DIR/file"; echo hello'), identity)
    await container.wait()
    assert host.left_by(identity.run_id)
    await container.remove()
    await container.remove()
    assert [each for each in await bench.engine.containers() if each.run_id == identity.run_id] == []
    await bench.engine.release(identity.run_id)
    await bench.engine.release(identity.run_id)
    assert host.left_by(identity.run_id) == []


async def test_a_running_container_that_is_removed_runs_no_more(bench: Bench, host: Host) -> None:
    identity, mark = bench.identity(), f"mark-{uuid4()}"
    container = await bench.launch(bench.spec("sh", "-c", STUBBORN, mark), identity)
    await first_line(container)
    assert processes_with(mark)
    await container.remove()
    assert processes_with(mark) == []
    async with asyncio.timeout(10):
        assert (await container.wait()).reason is Reason.LOST
        assert await read(container) == []
    await bench.engine.release(identity.run_id)
    assert host.left_by(identity.run_id) == []


async def test_discarding_an_attempt_removes_it_running_or_not(bench: Bench) -> None:
    identity, mark = bench.identity(), f"mark-{uuid4()}"
    await bench.engine.discard(identity)
    await first_line(await bench.launch(bench.spec("sh", "-c", STUBBORN, mark), identity))
    await bench.engine.discard(identity)
    assert processes_with(mark) == []
    assert [each for each in await bench.engine.containers() if each.run_id == identity.run_id] == []


async def test_all_containers_are_listed_with_their_runs(bench: Bench) -> None:
    running, ended = bench.identity(job="long", attempt=2), bench.identity(job="short")
    await first_line(await bench.launch(bench.sh("echo up; sleep 60"), running))
    await bench.run(bench.spec("true"), ended)
    found = {each.run_id: each for each in await bench.engine.containers()}
    assert (found[running.run_id].job, found[running.run_id].attempt, found[running.run_id].running) == (
        "long",
        2,
        True,
    )
    assert (found[ended.run_id].job, found[ended.run_id].attempt, found[ended.run_id].running) == ("short", 1, False)


async def _running(bench: Bench, identity: Identity) -> None:
    async with asyncio.timeout(30):
        while not any(each.run_id == identity.run_id and each.running for each in await bench.engine.containers()):
            await asyncio.sleep(0.05)


def _start(program: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", program],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


_LAUNCH = """
import asyncio, sys
from prefect_jobs.spec import ContainerSpec, Identity

async def main():
    identity = Identity.model_validate_json({identity!r})
    spec = ContainerSpec(image=image, command=["sh", "-c", {script!r}])
    async with block.engine() as engine:
        print("ready", flush=True)
        sys.stdin.readline()
        container = await engine.launch(spec, identity, {{}}, lambda message: None)
        lines = [line.text async for line in container.logs()]
        outcome = await container.wait()
    print(json.dumps({{"code": outcome.exit_code, "lines": lines}}))

asyncio.run(main())
"""


async def test_nothing_is_started_for_whoever_may_not_yet_and_all_is_once_they_may(bench: Bench) -> None:
    passed, asked = asyncio.Event(), asyncio.Event()

    async def wait() -> None:
        asked.set()
        await passed.wait()

    FENCE.set(wait)
    mark, identity = uuid4().hex, bench.identity()
    script = COUNTING + "sleep 2; true"
    launching = asyncio.create_task(bench.launch(bench.spec("sh", "-c", script, mark), identity))
    await asked.wait()
    await asyncio.sleep(1.0)
    assert not launching.done()
    assert processes_with(mark) == []
    passed.set()
    container = await launching
    assert await first_line(container) == "started"
    assert processes_with(mark)
    assert (await bench.end_of(container)).texts == ["started"]
