"""Everything is checked before the first change, and pruning stays within a project."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from uuid import uuid4

import pytest
from prefect.client.orchestration import PrefectClient
from prefect.exceptions import ObjectNotFound

from prefect_jobs import apply
from prefect_jobs.deployments.apply import deployments
from prefect_jobs.document import loads, read_document
from prefect_jobs.errors import JobError, TemplateError

WRONG = {
    "a block that is not there": ("infrastructure: docker/no-such-block, image: x", "docker/no-such-block"),
    "a shape that the block has not": ("command: [a], shape: huge", "shape 'huge'"),
    "a right that the block does not give": ("command: [a], security: {privileged: true}", "allow_privileged"),
    "a host folder that is not allowed": ("command: [a], volumes: {/etc: /etc}", "allow_host_folders"),
    "an image that nobody has": (
        "infrastructure: docker, pull_policy: Never, image: 'no-such-image:1'",
        "no-such-image:1",
    ),
    "no image": ("infrastructure: docker, command: [a]", "it has no image"),
    "no command": ("image: x", "it has no command"),
    "a schedule that prefect refuses": ("command: [a], schedules: [{cron: '99 8 * * *'}]", "99 8"),
}


async def _names(api: PrefectClient, start: str) -> set[str]:
    return {deployment.name for deployment in await deployments(api) if deployment.name.startswith(start)}


@pytest.mark.parametrize(("keys", "words"), WRONG.values(), ids=WRONG)
async def test_where_the_second_job_is_wrong_the_first_is_not_made(
    api: PrefectClient, name: str, docker_engine: None, keys: str, words: str
) -> None:
    jobs = loads(f"jobs:\n  {name}-a: {{command: [a]}}\n  {name}-b: {{{keys}}}\n")
    with pytest.raises(JobError, match=words):
        await apply(jobs, work_pool=f"pool-{name}")
    assert await _names(api, name) == set()
    with pytest.raises(ObjectNotFound):
        await api.read_work_pool(f"pool-{name}")


async def test_where_the_second_job_is_wrong_the_first_is_not_changed(api: PrefectClient, name: str) -> None:
    await apply(loads(f"jobs:\n  {name}-a: {{command: [a]}}\n"))
    before = await _versions(api, name)
    with pytest.raises(TemplateError):
        await apply(loads(f"jobs:\n  {name}-a: {{command: [b]}}\n  {name}-b: {{command: [a], shape: huge}}\n"))
    assert await _versions(api, name) == before


async def _versions(api: PrefectClient, start: str) -> dict[str, str | None]:
    return {each.name: each.version for each in await deployments(api) if each.name.startswith(start)}


@pytest.fixture
def project() -> Callable[..., str]:
    """A document of a project that no other test has: ``project("a", "b")`` has these jobs."""
    mark = uuid4().hex[:8]

    def document(*jobs: str, of: str = "mine") -> str:
        lines = [f"  {mark}-{job}: {{command: [a]}}" for job in jobs]
        return "\n".join([f"project: {of}-{mark}", "jobs:", *lines]) if jobs else f"project: {of}-{mark}\njobs: {{}}"

    document.mark = mark  # type: ignore[attr-defined]
    return document


async def test_a_job_that_left_the_file_goes_only_when_pruned(api: PrefectClient, project: Callable[..., str]) -> None:
    mark = project.mark  # type: ignore[attr-defined]
    await apply(loads(project("a", "b")))
    assert [change.what for change in await apply(loads(project("a")))] == ["unchanged"]
    assert await _names(api, mark) == {f"{mark}-a", f"{mark}-b"}
    changes = await apply(loads(project("a")), prune=True)
    assert [(change.name, change.what) for change in changes] == [
        (f"job/{mark}-a", "unchanged"),
        (f"job/{mark}-b", "removed"),
    ]
    assert await _names(api, mark) == {f"{mark}-a"}


async def test_the_last_job_of_a_project_is_pruned_when_the_file_only_names_the_project(
    api: PrefectClient, project: Callable[..., str], tmp_path: Path
) -> None:
    mark = project.mark  # type: ignore[attr-defined]
    await apply(loads(project("a")))
    await apply(loads(project("a", of="theirs").replace(f"{mark}-a", f"{mark}-other")))
    (file := tmp_path / "jobs.yaml").write_text(project())
    document = read_document(file)
    (change,) = await apply(document.jobs, prune=True, project=document.project)
    assert (change.name, change.what) == (f"job/{mark}-a", "removed")
    assert await _names(api, mark) == {f"{mark}-other"}


async def test_a_project_that_is_not_the_jobs_own_is_not_pruned(
    api: PrefectClient, project: Callable[..., str]
) -> None:
    mark = project.mark  # type: ignore[attr-defined]
    await apply(loads(project("a", "b")))
    with pytest.raises(TemplateError, match="more than one project"):
        await apply(loads(project("a")), prune=True, project=f"theirs-{mark}")
    assert await _names(api, mark) == {f"{mark}-a", f"{mark}-b"}


async def test_pruning_leaves_other_projects_and_jobs_without_one_alone(
    api: PrefectClient, project: Callable[..., str]
) -> None:
    mark = project.mark  # type: ignore[attr-defined]
    await apply(loads(project("other", of="theirs")))
    await apply(loads(f"jobs:\n  {mark}-free: {{command: [a]}}\n"))
    await apply(loads(project("a", "b")))
    await apply(loads(project("b")), prune=True)
    assert await _names(api, mark) == {f"{mark}-b", f"{mark}-free", f"{mark}-other"}


async def test_pruning_needs_a_project(api: PrefectClient, name: str) -> None:
    with pytest.raises(TemplateError, match=r"names no project: write 'project: NAME' at its top"):
        await apply(loads(f"jobs:\n  {name}: {{command: [a]}}\n"), prune=True)
    assert await _names(api, name) == set()
