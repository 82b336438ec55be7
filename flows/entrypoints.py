"""Flows that take a template and its typed parameters, and the entrypoints by which deployments name them.

Prefect hands a flow only parameters that its signature has, so that a deployment names the typed ones in brackets,
``prefect_jobs.flows.job.run_job[MODEL_CLASS,size]``, and the module's ``__getattr__`` makes the flow of that signature.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Iterable
from functools import cache
from typing import Any, cast

from prefect import Flow
from prefect.client.schemas.objects import State
from prefect.settings import get_current_settings

Run = Callable[[dict[str, Any]], Awaitable[State[Any]]]


class Entrypoints:
    """The flows of one module that all do the same, each with typed parameters of its own."""

    def __init__(self, module: str, flow: str, run: Run, hidden: tuple[str, ...], does: str) -> None:
        self._module = module
        self._flow = flow
        self._function = f"run_{flow}"
        self._run = run
        self._hidden = hidden
        self._does = does
        self.flow_of = cache(self._flow_of)
        """The flow whose signature has these typed parameters beside all that is no parameter of a template."""

    def _flow_of(self, names: tuple[str, ...]) -> Flow[..., State[Any]]:
        async def run(**parameters: Any) -> State[Any]:
            return await self._run(parameters)

        run.__name__ = run.__qualname__ = self._function
        run.__module__ = self._module
        known = (self._flow, *names, *self._hidden)
        run.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
            [inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None) for name in known]
        )
        run.__doc__ = self._does
        # The server has checked the parameters against the deployment's schema, and the flow checks them against its
        # template. It keeps no result; without a storage Prefect asks the server for one, each time and with all else
        # waiting.
        storage = get_current_settings().results.local_storage_path
        made: Any = Flow(
            cast("Any", run), name=self._flow, validate_parameters=False, persist_result=False, result_storage=storage
        )
        return cast("Flow[..., State[Any]]", made)

    def entrypoint(self, parameters: Iterable[str], earlier: str | None = None) -> str:
        """By which a deployment names the flow for these typed parameters.

        Those of its ``earlier`` entrypoint stay: a run that waits was started with them.
        """
        before = self._names((earlier or "").removeprefix(f"{self._module}.")) or ()
        names = ",".join(dict.fromkeys([*parameters, *before]))
        return f"{self._module}.{self._function}" + (f"[{names}]" if names else "")

    def named(self, name: str) -> Flow[..., State[Any]]:
        """The flow by the name that stands behind the module in an entrypoint.

        Raises:
            AttributeError: it is another name.
        """
        names = self._names(name)
        if names is None:
            raise AttributeError(f"module {self._module!r} has no attribute {name!r}")
        return self.flow_of(names)

    def _names(self, function: str) -> tuple[str, ...] | None:
        """The typed parameters in ``run_job[MODEL_CLASS,size]``; None where it is another function."""
        if function == self._function:
            return ()
        if function.startswith(f"{self._function}[") and function.endswith("]"):
            return tuple(function.removeprefix(f"{self._function}[").removesuffix("]").split(","))
        return None
