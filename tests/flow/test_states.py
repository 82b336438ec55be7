"""How a run ended: its state's type, name and message."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from uuid import uuid4

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import StateType
from ran import Execute, Ran, ran

from prefect_jobs import Job, JobRun, Reason
from prefect_jobs.deployments.runs import read_job
from prefect_jobs.errors import JobError

Sh = Callable[..., Awaitable[Ran]]
Deploy = Callable[..., Awaitable[Job]]
Start = Callable[..., Awaitable[Ran]]


async def test_exit_code_0_completes_the_run(sh: Sh) -> None:
    done = await sh("echo hello")
    assert (done.state.type, done.state.name, done.message) == (StateType.COMPLETED, "Completed", "exit code 0")
    assert done.run.exit_code == 0


async def test_another_exit_code_fails_it_with_the_last_lines_of_stderr(sh: Sh) -> None:
    done = await sh("echo out; echo one >&2; sleep 0.05; echo two >&2; exit 3")
    assert (done.state.type, done.state.name) == (StateType.FAILED, "Failed")
    assert done.message == "exit code 3\none\ntwo"
    assert done.run.exit_code == 3


async def test_where_stderr_is_silent_the_last_lines_of_stdout_are_shown(sh: Sh) -> None:
    done = await sh("seq 100; exit 1")
    assert done.message.splitlines() == ["exit code 1", *map(str, range(91, 101))]


async def test_a_long_line_does_not_fill_the_message(sh: Sh) -> None:
    done = await sh("head -c 100000 /dev/zero | tr '\\0' x >&2; exit 1")
    assert len(done.message) < 1000


async def test_a_command_that_is_not_there_fails_with_127(sh: Sh, start: Start, deploy: Deploy) -> None:
    done = await start(await deploy(command=["no-such-program-anywhere"]))
    assert done.state.name == "Failed"
    assert done.message.startswith("exit code 127")
    assert "no-such-program-anywhere" in done.message


async def test_an_image_that_cannot_be_had_crashes_the_run_and_is_not_tried_again(
    deploy: Deploy, start: Start, docker_engine: None
) -> None:
    job = await deploy(image=f"missing-{uuid4()}:1", command=["true"], pull_policy="Never", retries=3)
    done = await start(job, infrastructure="docker")
    assert (done.state.type, done.state.name) == (StateType.CRASHED, "ImageUnavailable")
    assert f"image '{job.image}' is not on the engine, and the pull policy is Never" in done.message
    assert [outcome.reason for outcome in done.run.attempts] == [Reason.IMAGE_UNAVAILABLE]
    assert done.run.exit_code == 1


async def test_a_run_cannot_replace_the_template(deploy: Deploy, execute: Execute) -> None:
    job = await deploy(command=["echo", "harmless"])
    async with get_client() as client:
        deployment = await read_job(client, job.name)
        forged = {**deployment.parameters["job"]}
        forged["template"] = {**forged["template"], "command": ["echo", "forged"]}
        flow_run = await client.create_flow_run_from_deployment(deployment.id, parameters={"job": forged})
    done = await ran(execute, JobRun(flow_run))
    assert done.state.type is StateType.FAILED
    assert "a run cannot replace the template" in done.message
    assert done.records == []
    assert done.run.attempts == []


async def test_a_secret_that_is_not_there_is_named(sh: Sh) -> None:
    done = await sh("true", secrets={"TOKEN": "no-such-secret"})
    assert done.state.type is StateType.FAILED
    assert (
        "takes TOKEN from the Prefect Secret block 'no-such-secret', which does not exist: make it in" in done.message
    )
    assert done.run.attempts == []


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        ({"infrastructure": "docker/no-such-block"}, "no infrastructure block 'docker/no-such-block'"),
        ({"infrastructure": "docker"}, "it has no image"),
        ({"shape": "no-such-shape"}, "shape 'no-such-shape': process defines small, medium, large"),
    ],
)
async def test_what_a_run_asks_for_in_vain_is_refused_or_fails_it_before_anything_starts(
    deploy: Deploy, execute: Execute, request_: dict[str, str], words: str
) -> None:
    job = await deploy(command=["true"])
    with pytest.raises(JobError, match=re.escape(words)):
        await job.run(**request_)
    # As from the UI, where nobody looks at the block.
    async with get_client() as client:
        deployment = await client.read_deployment_by_name(f"job/{job.name}")
        asked = await client.create_flow_run_from_deployment(deployment.id, parameters=request_)
    done = await ran(execute, JobRun(asked))
    assert done.state.type is StateType.FAILED
    assert words in done.message
    assert done.run.attempts == []
