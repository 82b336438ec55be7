"""The demo: the model search of the iris example, with a Prefect server, a worker and a store of its own.

Imports neither Prefect nor what stands on it before the settings are the demo's own, so that nobody's profile, server
or API key is touched.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from httpx import HTTPError

import prefect_jobs
from prefect_jobs.deployments.demo_environment import EnvironmentNotMade, cache_folder, make_environment
from prefect_jobs.deployments.demo_home import alone_in, own_environment, own_settings, write_profile
from prefect_jobs.deployments.demo_processes import Background, while_serving
from prefect_jobs.deployments.demo_words import Teller, how_to_go_on
from prefect_jobs.errors import InfrastructureError, JobError
from prefect_jobs.names import DEFAULT_WORK_POOL, WORKER_TYPE

if TYPE_CHECKING:
    from prefect.client.schemas.objects import FlowRun, Log

    from prefect_jobs.deployments.runs import JobRun

EXAMPLE = (Path(prefect_jobs.__file__).parent / "examples" / "iris").resolve()
_PREPARE_SECONDS = 900.0
_SERVER_SECONDS = 120.0
_RUN_SECONDS = 600.0


def demo(folder: Path | None = None) -> int:
    """Find the best model for the iris data, with a Prefect server, a worker and a Python environment of its own.

    ``folder`` is where the server keeps what was done (its PREFECT_HOME) and the store what the runs leave, by default
    below `cache_folder`; the Python environment is kept there in any case. All that was started is stopped, however the
    demo ends. Returns 0 if the search completed, 128 plus the signal's number after a signal, else 1. Call it without a
    running event loop.

    Example:
        >>> demo()
        0
    """
    home = (folder or cache_folder() / "demo").absolute()
    tell = Teller()
    foreign = sorted(name for name in os.environ if name.startswith("PREFECT_") and name != "PREFECT_HOME")
    background: list[Background] = []
    try:
        with alone_in(home), own_environment(home), tell.waiting():
            code = asyncio.run(_Demo(home, tell, background).run())
    except EnvironmentNotMade as error:
        tell.problem(str(error), [], home)
        return 1
    except JobError as error:
        tell.problem(str(error), background, home)
        return 1
    if code == 0:
        tell.text(how_to_go_on(home, EXAMPLE, write_profile(home), foreign))
    return code


class _Demo:
    def __init__(self, home: Path, tell: Teller, background: list[Background]) -> None:
        self.home = home
        self.tell = tell
        self.background = background
        self.search: JobRun | None = None
        self.playing: asyncio.Task[int] | None = None
        self.received: signal.Signals | None = None

    async def run(self) -> int:
        """Play the demo, and stop all that was started."""
        with _signals_handled(self._receive):
            try:
                async with AsyncExitStack() as stack:
                    self.playing = asyncio.current_task()
                    try:
                        await self._play(stack)
                    finally:
                        self.playing = None
            except asyncio.CancelledError:
                if self.received is None:
                    raise
                self.tell.step("stopped; nothing is left running")
                return 128 + self.received
            except HTTPError as error:
                raise InfrastructureError(f"the Prefect server did not answer as it should: {error!r}") from error
        return 0

    def _receive(self, number: signal.Signals) -> None:
        """A signal that asks to end is heard once; nothing interrupts the stopping."""
        if self.playing is not None and self.received is None:
            self.received = number
            self.tell.step(f"{number.name}: stopping all that was started")
            self.playing.cancel()

    async def _play(self, stack: AsyncExitStack) -> None:
        self.tell.text(
            f"The pipeline 'search' of {EXAMPLE}: nine models side by side, then the best one, without Docker\n"
        )
        url = os.environ["PREFECT_API_URL"]
        host, port = url.removeprefix("http://").removesuffix("/api").split(":")
        server = await stack.enter_async_context(
            self._serving("server", "server", "start", "--host", host, "--port", port)
        )
        self.tell.wait_for("the Python environment")
        environment = await while_serving(self._prepare(), server, seconds=_PREPARE_SECONDS, what="the preparation")
        stack.enter_context(own_settings())
        self.tell.wait_for("the Prefect server")
        await while_serving(self._server_answers(url), server, seconds=_SERVER_SECONDS, what="the server's start")
        stack.push_async_callback(self._end_runs)
        worker = await stack.enter_async_context(
            self._serving("worker", "worker", "start", "--pool", DEFAULT_WORK_POOL, "--type", WORKER_TYPE)
        )
        self.tell.wait_for("the runs")
        work = self._run_search(environment)
        await while_serving(work, server, worker, seconds=_RUN_SECONDS, what="the search")

    @asynccontextmanager
    async def _serving(self, name: str, *arguments: str) -> AsyncIterator[Background]:
        background = await Background.start(name, self.home / f"{name}.log", os.environ, *arguments)
        self.background.append(background)
        try:
            yield background
        finally:
            await background.stop()

    async def _prepare(self) -> Path:
        """Make the Python environment; meanwhile import Prefect, which takes seconds too."""
        environment, _ = await asyncio.gather(
            make_environment(EXAMPLE / "requirements.txt", cache_folder()),
            asyncio.to_thread(import_module, "prefect_jobs.deployments.runs"),
        )
        self.tell.step(f"Python environment with scikit-learn: {environment}")
        return environment

    async def _server_answers(self, url: str) -> None:
        from prefect.client.orchestration import get_client

        async with get_client() as client:
            while await client.api_healthcheck() is not None:  # noqa: ASYNC110 - a server does not say when it is up.
                await asyncio.sleep(0.1)
        self.tell.step(f"Prefect server: {url.removesuffix('/api')}")

    async def _run_search(self, environment: Path) -> None:
        """Apply the example's document, start the search, and tell how it goes and what it found."""
        from prefect_jobs.blocks.object_store import ObjectStore
        from prefect_jobs.blocks.process import Process
        from prefect_jobs.deployments.apply import apply_all
        from prefect_jobs.deployments.printing import as_table, nothing, without_links
        from prefect_jobs.deployments.runs import start_pipeline
        from prefect_jobs.document import read_document

        block = Process(workspace=EXAMPLE, search_path=[str(environment / "bin")])
        await block.asave("iris", overwrite=True)
        store = ObjectStore(url=(self.home / "store").as_uri())
        await store.asave("iris", overwrite=True)
        document = read_document(EXAMPLE / "jobs.yaml")
        for change in await apply_all(document.jobs, document.pipelines):
            self.tell.step(f"{change.name} {change.what}, version {change.version}")
        self.search = run = await start_pipeline("search")
        self.tell.step(f"search: run {run.name}")
        await run.watch(self._said, self._state_shown, nothing)
        if run.exit_code != 0:
            message = run.flow_run.state.message if run.flow_run.state else None
            raise InfrastructureError(f"run {run.name} of the search ended {run.state}: {message}")
        rows = await run.table()
        final = await _run_named(next(row["run"] for row in rows if row["step"] == "final"))
        self.tell.report(f"{final.name}: what its container wrote", await _container_lines(final))
        self.tell.report(f"{run.name}: all runs", as_table(without_links(rows)).splitlines())
        self.tell.text(f"\n{_best(final)}; model and report: {store.url}/final/{final.id}/output")

    def _said(self, log: Log) -> None:
        """How far the steps are, in the words of the pipeline's flow."""
        if log.name == "prefect.flow_runs":
            self.tell.step(log.message)

    def _state_shown(self, flow_run: FlowRun) -> None:
        self.tell.step(f"search: {flow_run.state.name if flow_run.state else 'Unknown'}")

    async def _end_runs(self) -> None:
        """After the worker's end: end whatever outlived it, and the runs that nobody would end any more."""
        from prefect.client.orchestration import get_client
        from prefect.states import Cancelled

        from prefect_jobs.blocks.process import Process
        from prefect_jobs.flows.children import children_of
        from prefect_jobs.spec import Identity

        if self.search is None:
            return
        ours = {self.search.id}
        with suppress(HTTPError):  # Without the server there is nobody to tell.
            async with get_client() as client:
                ours |= {child.id async for child in children_of(client, self.search.id)}
                for run_id in ours:
                    flow_run = await client.read_flow_run(run_id)
                    if flow_run.state is None or not flow_run.state.is_final():
                        await client.set_flow_run_state(run_id, Cancelled(message="the demo was stopped"))
        async with Process().engine() as engine:
            for found in await engine.containers():
                if found.run_id in ours:
                    identity = Identity(
                        job=found.job, version="", run_id=found.run_id, run_name="", attempt=found.attempt
                    )
                    await engine.discard(identity)
            for run_id in ours:
                await engine.release(run_id)


async def _run_named(name: str) -> JobRun:
    from prefect.client.orchestration import get_client

    from prefect_jobs.deployments.runs import find_run

    async with get_client() as client:
        found: JobRun = await (await find_run(client, name)).refresh()
    return found


async def _container_lines(run: JobRun) -> list[str]:
    """What the run's container wrote."""
    from prefect_jobs.flows.log import is_container_line

    return [log.message for log in await run.logs() if is_container_line(log.name)]


def _best(run: JobRun) -> str:
    """What the last step says of the best model."""
    assert run.outcome is not None
    result: Any = run.outcome.result
    model = f"{result['model_class']} with {result['strength']:g}"
    return f"The best model: {model}, accuracy {result['accuracy']:.4f} in the test"


@contextmanager
def _signals_handled(receive: Callable[[signal.Signals], None]) -> Iterator[None]:
    """Hand the signals that ask to end to a function of the running loop."""
    loop = asyncio.get_running_loop()
    handled = []
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        # Outside the main thread nobody can handle signals; an ignored one stays ignored (nohup).
        with suppress(RuntimeError, ValueError):
            if signal.getsignal(number) is not signal.SIG_IGN:
                loop.add_signal_handler(number, receive, number)
                handled.append(number)
    try:
        yield
    finally:
        for number in handled:
            loop.remove_signal_handler(number)


if __name__ == "__main__":
    sys.exit(demo())
