"""Which installation of Prefect a container belongs to: engines are shared, and nobody sweeps what is another's."""

from __future__ import annotations

from contextlib import suppress
from uuid import uuid4

from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.actions import VariableCreate
from prefect.exceptions import ObjectAlreadyExists

from prefect_jobs.flows.insisting import insist

_VARIABLE = "prefect_jobs_installation"
# It never changes.
_known: dict[str, str] = {}


async def installation_of(client: PrefectClient) -> str:
    """The name of the Prefect server's installation: kept there as a variable, made by whoever asks first."""
    api = str(client.api_url)
    if api not in _known:
        _known[api] = await _ask(client)
    return _known[api]


async def _ask(client: PrefectClient) -> str:
    found = await insist(lambda: client.read_variable_by_name(_VARIABLE), "read a variable")
    if found is None:
        with suppress(ObjectAlreadyExists):
            await client.create_variable(VariableCreate(name=_VARIABLE, value=uuid4().hex))
        found = await insist(lambda: client.read_variable_by_name(_VARIABLE), "read a variable")
    assert found is not None
    return str(found.value)
