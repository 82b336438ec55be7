"""The server itself refuses a wrong value before there is a run: for the UI, for REST, for everybody."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.responses import DeploymentResponse
from prefect.exceptions import PrefectHTTPStatusError

from prefect_jobs import Job

Make = Callable[..., Job]
There = Callable[[], Awaitable[DeploymentResponse]]

PARAMETERS: dict[str, Any] = {
    "MODEL": {"enum": ["svc", "forest"], "default": "svc"},
    "size": {"type": "number", "default": 0.2, "minimum": 0.05, "maximum": 0.5},
    "depth": {"type": "integer", "default": 1},
    "wet": {"type": "boolean", "default": False},
    "names": {"type": "list", "default": []},
    "word": {"pattern": "^a+$", "default": "a"},
}
REFUSED: list[tuple[dict[str, Any], list[str]]] = [
    ({"MODEL": "nonsense"}, ["MODEL", "nonsense", "svc"]),
    ({"size": 0.9}, ["size", "0.9", "0.5"]),
    ({"size": 0.01}, ["size", "0.05"]),
    ({"size": "big"}, ["size", "number"]),
    ({"depth": 1.5}, ["depth", "integer"]),
    ({"wet": "yes"}, ["wet", "boolean"]),
    ({"names": "a"}, ["names", "array"]),
    ({"names": [1]}, ["names", "string"]),
    ({"word": "b"}, ["word", "^a+$"]),
    ({"unknown": 1}, ["unknown"]),
    ({"MODEL_": "svc"}, ["MODEL_"]),
    ({"env": {"_INTERNAL": "x"}}, ["_INTERNAL"]),
    ({"env": ["A"]}, ["env"]),
    ({"args": "a b"}, ["args"]),
    ({"shape": {"cpus": 1}}, ["shape"]),
]


@pytest.mark.parametrize(("given", "words"), REFUSED, ids=str)
async def test_a_wrong_value_is_refused_with_its_name(
    make: Make, there: There, api: PrefectClient, given: dict[str, Any], words: list[str]
) -> None:
    await make(parameters=PARAMETERS).apply(work_pool=None)
    deployment = await there()
    with pytest.raises(PrefectHTTPStatusError) as refused:
        await api.create_flow_run_from_deployment(deployment.id, parameters=given)
    assert refused.value.response.status_code == 409
    detail = refused.value.response.json()["detail"]
    assert [word for word in words if word not in detail] == [], detail


async def test_a_parameter_without_default_is_asked_for(make: Make, there: There, api: PrefectClient) -> None:
    await make(parameters={"who": {}}).apply(work_pool=None)
    deployment = await there()
    with pytest.raises(PrefectHTTPStatusError, match="409"):
        await api.create_flow_run_from_deployment(deployment.id)
    assert await api.create_flow_run_from_deployment(deployment.id, parameters={"who": "me"})


async def test_what_the_form_offers_is_taken(make: Make, there: There, api: PrefectClient) -> None:
    await make(parameters=PARAMETERS).apply(work_pool=None)
    given: dict[str, Any] = {
        "MODEL": "forest",
        "size": 0.5,
        "depth": 3,
        "wet": True,
        "names": ["a", "b"],
        "word": "aaa",
        "env": {"A": "b", "N": 1},
        "args": ["a"],
        "command": ["c"],
        "shape": {"cpu": 1, "memory": "1Gi"},
        "infrastructure": "process",
    }
    flow_run = await api.create_flow_run_from_deployment((await there()).id, parameters=given)
    assert given.items() <= flow_run.parameters.items()
    assert (await api.create_flow_run_from_deployment((await there()).id)).parameters["job"]
