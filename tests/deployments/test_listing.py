"""What is listed and shown where a deployment is not what prefect-jobs wrote."""

from __future__ import annotations

from typing import Any

import pytest
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.actions import DeploymentUpdate

from prefect_jobs import Job
from prefect_jobs.deployments.apply import apply_all
from prefect_jobs.deployments.listing import describe, list_jobs, list_runs
from prefect_jobs.deployments.printing import show_rows
from prefect_jobs.deployments.runs import read_job
from prefect_jobs.errors import NotFoundError


async def test_a_job_that_cannot_be_read_is_a_row_with_a_note_and_the_others_are_listed(
    api: PrefectClient, greet: Job, name: str
) -> None:
    other = f"{name}-other"
    await Job(name=other, command=["echo"], description="Fine").apply(work_pool=None)
    deployment = await read_job(api, greet.name)
    await api.update_deployment(deployment.id, DeploymentUpdate(version="2"))
    try:
        rows = {row["job"]: row for row in await list_jobs(api)}
    finally:
        await api.delete_deployment(deployment.id)
    assert (rows[other]["description"], rows[other]["infrastructure"]) == ("Fine", "process")
    assert "note" not in rows[other]
    assert rows[name]["version"] == "2"
    assert rows[name]["infrastructure"] is None
    assert "but its deployment gave it version 2" in rows[name]["note"]
    assert list(rows[name])[:-1] == list(rows[other])


def test_a_note_of_one_row_is_a_column_of_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    show_rows([{"job": "a", "image": None}, {"job": "b", "image": "x", "note": "broken"}], False, "none")
    head, first, second = (line.split() for line in capsys.readouterr().out.splitlines())
    assert (head, first, second) == (["job", "image", "note"], ["a"], ["b", "x", "broken"])


@pytest.mark.parametrize("parameters", [{}, {"job": "x"}, {"job": None}, {"other": {}}], ids=str)
async def test_a_deployment_of_somebody_elses_flow_is_not_listed_and_not_shown(
    api: PrefectClient, foreign: Any, parameters: dict[str, Any]
) -> None:
    name = await foreign(**parameters)
    assert name not in [row["job"] for row in await list_jobs(api)]
    for ask in (describe(api, name), list_runs(api, name, 5)):
        with pytest.raises(NotFoundError, match=rf"deployment 'job/{name}' was not made by prefect-jobs"):
            await ask


@pytest.mark.parametrize("parameters", [{}, {"job": "x"}], ids=str)
async def test_runs_of_somebody_elses_flow_are_listed_without_a_job(
    api: PrefectClient, foreign: Any, parameters: dict[str, Any]
) -> None:
    name = await foreign(**parameters)
    deployment = await api.read_deployment_by_name(f"job/{name}")
    run = await api.create_flow_run_from_deployment(deployment.id)
    rows = [row for row in await list_runs(api, None, 200) if row["id"] == str(run.id)]
    assert [row["job"] for row in rows] == [None]


async def test_pruning_passes_over_somebody_elses_deployments(api: PrefectClient, foreign: Any) -> None:
    name = await foreign(job="x")
    assert await apply_all([], work_pool=None, prune=True, project=f"project-{name}") == []
    assert (await api.read_deployment_by_name(f"job/{name}")).name == name


async def test_what_is_neither_a_job_nor_a_run_is_named_with_where_to_look(api: PrefectClient, name: str) -> None:
    with pytest.raises(NotFoundError, match=rf"there is no job or pipeline '{name}'.*\nthere is no run '{name}'"):
        await describe(api, name)
