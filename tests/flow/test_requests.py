"""What a run asks for shows in its container."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from uuid import uuid4

import pytest
from prefect.blocks.system import Secret
from ran import Ran

from prefect_jobs import Job, Process, Shape
from prefect_jobs.errors import OverrideError

Deploy = Callable[..., Awaitable[Job]]
Start = Callable[..., Awaitable[Ran]]


async def test_typed_parameters_reach_environment_and_command(deploy: Deploy, start: Start) -> None:
    job = await deploy(
        command=["sh", "-c", "echo $who $size $wet; echo {{ who }}-{{ size }}"],
        parameters={
            "who": {"default": "world"},
            "size": {"type": "number", "default": 0.2, "maximum": 1},
            "wet": {"type": "boolean"},
        },
    )
    done = await start(job, wet=True, size=0.5)
    assert done.lines == ["world 0.5 true", "world-0.5"]


async def test_overrides_show_in_the_container(deploy: Deploy, start: Start) -> None:
    job = await deploy(command=["sh", "-c", 'echo "$A $B $*"', "sh"], args=["x"], env={"A": "job", "B": "job"})
    assert (await start(job)).lines == ["job job x"]
    assert (await start(job, env={"B": "run"}, args=["y", "z"])).lines == ["job run y z"]
    assert (await start(job, command=["echo", "other"])).lines == ["other x"]
    assert (await start(job)).lines == ["job job x"]


async def test_a_run_may_choose_another_infrastructure(deploy: Deploy, start: Start, busybox: str) -> None:
    job = await deploy(image=busybox, command=["sh", "-c", "echo ${FROM_IMAGE:-no image}"])
    assert (await start(job)).lines == ["no image"]
    assert (await start(job, infrastructure="docker")).lines == ["kept"]


async def test_a_run_may_choose_another_shape(deploy: Deploy, start: Start, busybox: str) -> None:
    job = await deploy(
        image=busybox,
        command=["sh", "-c", "df -m /dev/shm | tail -1 | awk '{print $2}'"],
        infrastructure="docker",
        shape={"shared_memory": "16Mi", "cpu": 1},
    )
    assert (await start(job)).lines == ["16"]
    assert (await start(job, shape={"shared_memory": "32Mi"})).lines == ["32"]


async def test_a_shape_of_the_block_is_known_by_its_name(deploy: Deploy, start: Start, tmp_path: Path) -> None:
    name = f"shapes-{uuid4().hex[:8]}"
    await Process(home=tmp_path, shapes={"tiny": Shape()}).save(name)
    job = await deploy(command=["echo", "hello"], infrastructure=f"process/{name}", shape="tiny")
    assert (await start(job)).lines == ["hello"]


async def test_a_run_may_choose_another_timeout(deploy: Deploy, start: Start) -> None:
    job = await deploy(command=["sleep", "30"], timeout="1h")
    assert (await start(job, timeout=0.3)).state.name == "TimedOut"


async def test_a_run_has_the_name_and_the_tags_that_were_asked_for(deploy: Deploy, start: Start) -> None:
    job = await deploy(command=["sh", "-c", "echo $JOB_RUN_NAME $JOB_RUN_ID $JOB_NAME $JOB_VERSION"], tags=["job-tag"])
    done = await start(job, run_name="tidy-otter", run_tags=["run-tag"])
    assert set(done.run.flow_run.tags) == {"job-tag", "run-tag"}
    assert done.run.name == "tidy-otter"
    assert done.lines == [f"tidy-otter {done.run.id} {job.name} {done.run.flow_run.deployment_version}"]


async def test_a_run_says_which_version_it_is_and_what_it_overrides(deploy: Deploy, start: Start) -> None:
    job = await deploy(command=["true"])
    done = await start(job, env={"A": "value"}, timeout="1m")
    assert f"Job {job.name}, version {done.run.flow_run.deployment_version}, on process" in done.told
    assert "This run overrides env, timeout" in done.told


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"size": "big"}, "size"),
        ({"size": 2}, "size"),
        ({"unknown": 1}, "has no parameter 'unknown'"),
        ({"env": {"_A": "b"}}, "leading underscore"),
        ({"timeout": "soon"}, "duration"),
    ],
)
async def test_a_wrong_request_is_refused_before_there_is_a_run(
    deploy: Deploy, given: dict[str, object], words: str
) -> None:
    job = await deploy(command=["true"], parameters={"size": {"type": "number", "default": 0.2, "maximum": 1}})
    with pytest.raises(OverrideError, match=words):
        await job.run(**given)


async def test_secrets_reach_the_container_and_show_nowhere(deploy: Deploy, start: Start) -> None:
    name, value = f"secret-{uuid4().hex[:8]}", f"s3cr3t-{uuid4()}"
    await Secret(value=value).save(name)
    script = 'echo "out $TOKEN"; echo "err <$TOKEN$TOKEN>" >&2; echo ${#TOKEN}; exit 3'
    done = await start(await deploy(command=["sh", "-c", script], secrets={"TOKEN": name}))
    assert sorted(done.lines) == sorted([str(len(value)), "err <***>", "out ***"])
    assert done.message == "exit code 3\nerr <***>"
    assert done.run.outcome is not None
    assert value not in done.run.outcome.model_dump_json()
    assert value not in "".join(done.told) + done.run.flow_run.model_dump_json()


async def test_a_secret_of_several_lines_is_masked_line_by_line(deploy: Deploy, start: Start) -> None:
    name = f"secret-{uuid4().hex[:8]}"
    await Secret(value="first-line-of-key\nsecond-line-of-key").save(name)
    done = await start(await deploy(command=["sh", "-c", 'echo "$KEY"'], secrets={"KEY": name}))
    assert done.lines == ["***", "***"]
