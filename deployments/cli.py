"""The command line. Prefect is imported only by the commands that talk to it, so that the others answer at once."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NoReturn, ParamSpec

from cyclopts import App, Group, Parameter

from prefect_jobs.deployments import terminal
from prefect_jobs.deployments.printing import print_log, show_rows
from prefect_jobs.errors import JobError
from prefect_jobs.names import DEFAULT_WORK_POOL

if TYPE_CHECKING:
    from prefect_jobs.deployments.runs import JobRun

P = ParamSpec("P")

# By which option a run is asked for each override.
OVERRIDE_OPTIONS = {
    "env": "--env NAME=VALUE",
    "args": "-- ARGS",
    "command": "--command",
    "shape": "--shape",
    "timeout": "--timeout",
    "infrastructure": "--infrastructure",
    "inputs": "--input NAME=URI",
}
_JOBS, _RUNS, _MORE = Group.create_ordered("Jobs"), Group.create_ordered("Runs"), Group.create_ordered("More")

app = App(
    name="prefect-jobs",
    help="Container jobs on Prefect: any image, no Prefect inside it. Blocks, work pools, automations and everything "
    "else of Prefect's are at home in the command 'prefect'.",
    version_flags=["--version"],
    version=lambda: __import__("importlib.metadata").metadata.version("prefect-jobs"),
    help_format="plaintext",
)

File = Annotated[Path, Parameter(help="The document with jobs and pipelines.")]
RunName = Annotated[str, Parameter(help="The run's id or name.")]
As = Annotated[bool, Parameter(name=["--json"], negative="", help="Print JSON for programs.")]


def _command(group: Group, below: App = app) -> Callable[[Callable[P, int | None]], Callable[P, None]]:
    """Register a command: an expected error becomes a message and exit code 1, a returned number the exit code."""

    def register(function: Callable[P, int | None]) -> Callable[P, None]:
        @wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> None:
            try:
                code = function(*args, **kwargs)
            except JobError as error:
                _fail(str(error))
            except KeyboardInterrupt:
                sys.exit(130)
            except Exception as error:
                if message := _wrong_setting(error) or _api_problem(error):
                    _fail(message)
                raise
            sys.exit(code or 0)

        below.command(call, group=group, name=function.__name__.rstrip("_").replace("list_jobs", "list"))
        return call

    return register


def _fail(message: str) -> NoReturn:
    print(message, file=sys.stderr)
    sys.exit(1)


def _wrong_setting(error: Exception) -> str | None:
    """What to tell a person whose setting Prefect cannot read; the value stays unsaid, it may be a secret."""
    from pydantic import ValidationError

    if not isinstance(error, ValidationError) or not error.title.endswith("Settings"):
        return None
    lines = []
    for each in error.errors(include_url=False):
        key = f"{error.title}.{'.'.join(map(str, each['loc']))}"
        names = [name for name, text in os.environ.items() if name.startswith("PREFECT_") and text == each["input"]]
        lines.append(f"{' or '.join(names) or key}: Prefect cannot read this setting: {each['msg']}")
    return "\n".join(lines)


def _api_problem(error: Exception) -> str | None:
    """What to tell a person when Prefect's API is away or refuses; None for what is our own mistake."""
    import httpx
    from prefect.settings import get_current_settings

    url = get_current_settings().api.url or "a temporary local server"
    if isinstance(error, httpx.HTTPStatusError):
        return f"Prefect's API at {url} refused: {error}"
    if isinstance(error, httpx.TransportError):
        return (
            f"Prefect's API at {url} did not answer ({error}); start a server with 'prefect server start', or set "
            "PREFECT_API_URL"
        )
    return None


@_command(_JOBS)
def apply(
    file: File = Path("jobs.yaml"),
    /,
    *,
    work_pool: Annotated[
        str, Parameter(name=["--work-pool", "--pool"], help="Where runs are sent.")
    ] = DEFAULT_WORK_POOL,
    prune: Annotated[
        bool, Parameter(negative="", help="Remove jobs and pipelines of the file's project that left it.")
    ] = False,
) -> None:
    """Make the deployments what the document says. The same document changes nothing."""
    from prefect_jobs.document import read_document

    document = read_document(file)

    from prefect_jobs.deployments.apply import apply as apply_jobs
    from prefect_jobs.deployments.reachable import wait_for_server

    wait_for_server(terminal.tell)
    try:
        changes = apply_jobs(
            document.jobs, document.pipelines, work_pool=work_pool, prune=prune, project=document.project
        )
    except JobError as error:
        if place := document.places.get(error.key or ""):
            _fail(f"{place}: {error.key}: {error}")
        raise
    for change in changes:
        details = f" ({', '.join(change.details)})" if change.details else ""
        print(f"{change.name}: {change.what}{details}, version {change.version}")


@_command(_JOBS)
def list_jobs(*, as_json: As = False) -> None:
    """Show all jobs and pipelines."""
    rows = _in_loop(_list)
    show_rows(rows, as_json, "No jobs yet; 'prefect-jobs apply' adds those of jobs.yaml.")


@_command(_JOBS)
def schema() -> None:
    """Print the JSON Schema of jobs.yaml, for editors."""
    from prefect_jobs import document

    print(json.dumps(document.schema(), indent=2))


@_command(_RUNS)
def run(
    job: Annotated[str, Parameter(help="The name of the job, or of the pipeline: pipeline/NAME.")],
    /,
    *args: Annotated[str, Parameter(help="After --: arguments in place of the job's.")],
    param: Annotated[
        list[str] | None, Parameter(name=["--param", "-p"], help="A typed parameter: NAME=VALUE.", negative="")
    ] = None,
    env: Annotated[
        list[str] | None, Parameter(name=["--env", "-e"], help="An environment variable: NAME=VALUE.", negative="")
    ] = None,
    command: Annotated[
        str | None, Parameter(help="The command in place of the job's, as a shell would split it.")
    ] = None,
    shape: Annotated[str | None, Parameter(help="A shape's name, or cpu=2,memory=4Gi,gpu=1.")] = None,
    timeout: Annotated[str | None, Parameter(help="How long one attempt may run, such as 90s or 1h.")] = None,
    infrastructure: Annotated[str | None, Parameter(help="Where this run runs, such as docker/local.")] = None,
    input_: Annotated[
        list[str] | None, Parameter(name=["--input", "-i"], help="An input: NAME=URI.", negative="")
    ] = None,
    name: Annotated[str | None, Parameter(help="The run's name.")] = None,
    tag: Annotated[list[str] | None, Parameter(name=["--tag", "-t"], help="A tag of the run.", negative="")] = None,
    watch: Annotated[
        bool, Parameter(name=["--watch", "-w"], negative="", help="Follow it and end with its exit code.")
    ] = False,
) -> int | None:
    """Start a run of a job or a pipeline; what is given here overrides the job's template for this run."""
    texts = _values("--param", param)
    for override, option in OVERRIDE_OPTIONS.items():
        if override in texts:
            _fail(f"--param {override!r}: is an override and not a parameter; use {option}")
    overrides = {
        "env": _values("--env", env) or None,
        "args": list(args) or None,
        "command": _command_words(command),
        "shape": _shape(shape),
        "timeout": timeout,
        "infrastructure": infrastructure,
        "inputs": _values("--input", input_) or None,
    }

    from prefect_jobs.deployments.runs import start

    asked = {key: value for key, value in overrides.items() if value is not None}
    started = start(job, asked, texts=texts, run_name=name, run_tags=tag)
    print(f"{started.name} ({started.id})")
    return terminal.watch(started) if watch else None


@_command(_RUNS)
def watch(run: RunName, /) -> int:
    """Show state and log of a run as they come; ends with the exit code of its container."""
    return terminal.watch(_find(run))


@_command(_RUNS)
def logs(run: RunName, /) -> None:
    """Print the log of a run so far."""
    for log in _find(run).logs():
        print_log(log)


@_command(_RUNS)
def cancel(
    run: RunName,
    /,
    *,
    wait: Annotated[
        bool, Parameter(help="Wait until it has ended, and stop its container where no worker does.")
    ] = True,
    force: Annotated[
        bool, Parameter(negative="", help="Stop its container from here, and end it even where none is found.")
    ] = False,
) -> int:
    """Cancel a run: its container is stopped, it ends Cancelled."""
    return terminal.cancel(_find(run), wait=wait, force=force)


@_command(_RUNS)
def runs(
    job: Annotated[str | None, Parameter(help="Only the runs of this job or pipeline.")] = None,
    /,
    *,
    limit: Annotated[int, Parameter(help="How many, the newest first.")] = 20,
    as_json: As = False,
) -> None:
    """Show the latest runs."""
    show_rows(_in_loop(_runs, job, limit), as_json, "No runs yet; 'prefect-jobs run JOB' starts one.")


@_command(_RUNS)
def show(what: Annotated[str, Parameter(help="The name of a job or a pipeline, or a run's id or name.")], /) -> None:
    """Show a job or a pipeline as YAML with its version and schedules, or a run with all its attempts."""
    print(_in_loop(_describe, what))


@_command(_RUNS)
def sweep(
    *,
    infrastructure: Annotated[
        list[str] | None, Parameter(help="Where to look, such as docker/local; default: everywhere.", negative="")
    ] = None,
    older_than: Annotated[str, Parameter(help="How long ago a run must have ended.")] = "10m",
    dry_run: Annotated[bool, Parameter(negative="", help="Only show what would be removed.")] = False,
    every: Annotated[
        str | None, Parameter(help="Do not sweep now: make a deployment that sweeps so often, such as 15m.")
    ] = None,
    work_pool: Annotated[
        str, Parameter(name=["--work-pool", "--pool"], help="Where the deployment runs.")
    ] = DEFAULT_WORK_POOL,
) -> int:
    """Remove containers, volumes and folders that runs left which ended or vanished; nothing else."""
    from prefect_jobs.deployments.sweeping import deploy_sweep, sweep_now

    if every is not None:
        print(deploy_sweep(every, infrastructure or [], older_than, work_pool))
        return 0
    lines, complete = sweep_now(infrastructure or [], older_than, dry_run)
    print("\n".join(lines) or "Nothing was left.")
    return 0 if complete else 1


@_command(_RUNS)
def outputs(
    run: RunName,
    /,
    *,
    download: Annotated[str | None, Parameter(help="A folder that gets them, each checked.")] = None,
    as_json: As = False,
) -> None:
    """Show what a run left in its store, or download it."""
    from prefect_jobs.deployments.outputs import outputs_of

    if download == "":
        _fail("--download: expected the name of a folder, which may be '.', and found nothing")
    uri, rows = _in_loop(outputs_of, run, download and Path(download), print)
    show_rows(rows, as_json, "It left nothing.")
    if not as_json:
        print(f"in {uri}" if download is None else f"{len(rows)} files are in {download}")


@_command(_MORE)
def worker(
    *,
    pool: Annotated[
        str, Parameter(name=["--pool", "--work-pool", "-p"], help="The work pool whose runs it takes.")
    ] = DEFAULT_WORK_POOL,
    name: Annotated[str | None, Parameter(name=["--name", "-n"], help="The worker's name.")] = None,
    limit: Annotated[int | None, Parameter(name=["--limit", "-l"], help="How many runs at most at once.")] = None,
    work_queue: Annotated[
        list[str] | None, Parameter(name=["--work-queue", "-q"], help="Only runs of this queue.", negative="")
    ] = None,
    prefetch_seconds: Annotated[float | None, Parameter(help="How long before its time a run is asked for.")] = None,
    on_stop: Annotated[
        Literal["detach", "wait", "cancel"] | None,
        Parameter(
            help="What becomes of its runs when it is told to stop: they go on and the next worker takes them over, "
            "it waits for them, or it cancels them; default: PREFECT_JOBS_ON_STOP, else detach."
        ),
    ] = None,
    run_once: Annotated[bool, Parameter(negative="", help="Run what is due, wait for its end, and end.")] = False,
    with_healthcheck: Annotated[bool, Parameter(negative="", help="Serve /health for whoever restarts it.")] = False,
) -> None:
    """Run the jobs of a work pool inside this process, hundreds at a time."""
    if limit is not None and limit < 1:
        _fail(f"--limit {limit}: a worker that may run nothing is of no use; expected 1 or more")
    if prefetch_seconds is not None and prefetch_seconds < 0:
        _fail(f"--prefetch-seconds {prefetch_seconds:g}: a run cannot be asked for after its time; expected 0 or more")
    if name is not None and set(name) & set("/%"):
        _fail(f"--name {name!r}: Prefect takes no worker's name with / or % in it")

    from prefect_jobs.deployments.worker_command import work

    options = {"work_queues": work_queue, "limit": limit, "prefetch_seconds": prefetch_seconds, "on_stop": on_stop}
    given = {key: value for key, value in options.items() if value is not None}
    work(pool, name, given, run_once=run_once, with_healthcheck=with_healthcheck)


_store = App(name="store", help="See whether an object store can be used.", help_format="plaintext", group=_MORE)
app.command(_store)


@_command(_MORE, below=_store)
def check(name: Annotated[str, Parameter(help="The object store block, such as state.")], /) -> int:
    """Write, list, read and delete a small object in a store; says each step and its time."""
    from prefect_jobs.deployments.store_command import check_store

    return check_store(name)


@_command(_MORE)
def demo() -> int:
    """Find the best model for the iris data, with a Prefect server of its own. Ends by itself."""
    from prefect_jobs.deployments.demo import demo as run_demo

    return int(run_demo())


def main() -> None:
    """Entry point of ``prefect-jobs``."""
    try:
        app()
    except BrokenPipeError:
        # Whoever read the output has enough of it; nothing is left to say, not even by the interpreter at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)


def _values(option: str, pairs: list[str] | None) -> dict[str, str]:
    """``NAME=VALUE`` pairs."""
    values: dict[str, str] = {}
    for pair in pairs or []:
        name, equals, text = pair.partition("=")
        if not equals or not name:
            _fail(f"{option} {pair!r}: expected NAME=VALUE")
        values[name] = text
    return values


def _command_words(command: str | None) -> list[str] | None:
    import shlex

    try:
        return shlex.split(command) if command else None
    except ValueError as error:
        _fail(f"--command {command!r}: does not read as a shell's words: {error}")


def _shape(text: str | None) -> Any:
    if text is None or "=" not in text:
        return text
    values: dict[str, Any] = dict(_values("--shape", text.split(",")))
    if "gpu" in values and values["gpu"].isdigit():
        values["gpu"] = int(values["gpu"])
    return values


def _in_loop(function: Callable[..., Any], *args: Any) -> Any:
    """Call a coroutine function with a client of Prefect's API and these arguments; what it returns."""
    import asyncio

    from prefect.client.orchestration import get_client

    async def call() -> Any:
        async with get_client() as client:
            return await function(client, *args)

    return asyncio.run(call())


def _find(reference: str) -> JobRun:
    from prefect_jobs.deployments.runs import find_run

    found: JobRun = _in_loop(find_run, reference)
    return found


async def _list(client: Any) -> list[dict[str, Any]]:
    from prefect_jobs.deployments.listing import list_jobs as rows

    return await rows(client)


async def _runs(client: Any, job: str | None, limit: int) -> list[dict[str, Any]]:
    from prefect_jobs.deployments.listing import list_runs

    return await list_runs(client, job, limit)


async def _describe(client: Any, what: str) -> str:
    from prefect_jobs.deployments.listing import describe

    return await describe(client, what)
