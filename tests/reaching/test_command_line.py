"""The command line: what a person types, what it answers, and what it ends with."""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from uuid import uuid4

import jsonschema
import pytest
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.actions import WorkPoolUpdate
from prefect.exceptions import ObjectNotFound
from prefect.settings import PREFECT_API_URL, temporary_settings
from proxy import ApiProxy
from reach import BIN, Cli, Command, Execute, runs_of

from prefect_jobs import Job, JobRun
from prefect_jobs.deployments.printing import nothing

AWAY = {"PREFECT_API_URL": "http://127.0.0.1:9/api"}
DOCUMENT = """\
project: {project}
jobs:
  {name}:
    description: Greets
    command: [sh, -c, "echo hello $who; test $who != nobody || (echo no such person >&2; exit 3)"]
    parameters:
      who: {{type: string, default: world, pattern: "^[a-z]+$"}}
      times: {{type: integer, default: 1}}
    schedules: [{{cron: "0 8 * * *", timezone: Europe/Berlin, parameters: {{who: moon}}}}]
"""


@pytest.fixture
def file(tmp_path: Path, unique: str) -> Path:
    """A document with one job, whose project is its own."""
    path = tmp_path / "jobs.yaml"
    path.write_text(DOCUMENT.format(name=unique, project=unique))
    return path


async def test_apply_says_what_it_did_and_prune_removes_what_left_the_file(
    prefect_api: str, file: Path, unique: str, cli: Cli
) -> None:
    first = (await cli("apply")).stdout
    assert re.fullmatch(rf"job/{unique}: created, version [0-9a-f]{{16}}\n", first)
    again = (await cli("apply", file)).stdout
    assert again == first.replace("created", "unchanged")

    file.write_text(file.read_text().replace("Greets", "Greets people").replace("0 8 * * *", "0 9 * * *"))
    file.write_text(file.read_text() + f"  {unique}-2:\n    command: [echo]\n")
    updated, created = (await cli("apply")).stdout.splitlines()
    assert updated.startswith(f"job/{unique}: updated (version, description, parameters, schedule cron-0-8-")
    assert "removed, schedule cron-0-9-" in updated
    assert updated.split("version ")[1] != first.split("version ")[1].strip()
    assert created.startswith(f"job/{unique}-2: created, version ")

    file.write_text(f"project: {unique}\njobs:\n  {unique}-2:\n    command: [echo]\n")
    assert (await cli("apply")).stdout == created.replace("created", "unchanged") + "\n"
    unchanged, removed = (await cli("apply", "--prune")).stdout.splitlines()
    assert unchanged == created.replace("created", "unchanged")
    assert removed.startswith(f"job/{unique}: removed, version ")

    file.write_text(f"project: {unique}\njobs: {{}}\n")
    [removed] = (await cli("apply", "--prune")).stdout.splitlines()
    assert removed.startswith(f"job/{unique}-2: removed, version ")
    assert f"no job or pipeline {unique!r}" in (await cli("run", unique, expect=1)).stderr


async def test_errors_in_a_file_name_file_and_line_and_nothing_changes_on_the_server(
    file: Path, unique: str, cli: Cli, api: PrefectClient
) -> None:
    file.write_text(file.read_text() + f"  {unique}-2:\n    comand: [echo]\n    retries: many\n")
    refused = await cli("apply", expect=1)
    assert refused.stdout == ""
    assert [line.split(": ")[0] for line in refused.stderr.splitlines()] == ["jobs.yaml:11", "jobs.yaml:12"]
    assert f"jobs.yaml:11: jobs.{unique}-2.comand: unknown key; expected one of description," in refused.stderr

    file.write_text(
        file.read_text().split(f"  {unique}-2:")[0] + f"  {unique}-2:\n    infrastructure: docker\n    command: [a]\n"
    )
    refused = await cli("apply", expect=1)
    assert f"job '{unique}-2' is not allowed on docker: it has no image" in refused.stderr
    for name in (unique, f"{unique}-2"):
        with pytest.raises(ObjectNotFound):
            await api.read_deployment_by_name(f"job/{name}")


async def test_jobs_and_runs_are_listed_and_shown(execute: Execute, file: Path, unique: str, cli: Cli) -> None:
    await cli("apply")
    good, bad = [
        await Job(name=unique, command=["-"]).run(who=who, run_name=f"{unique}-{who}") for who in ("mars", "nobody")
    ]
    for run in (good, bad):
        await execute(run)

    [row] = [row for row in json.loads((await cli("list", "--json")).stdout) if row["job"] == unique]
    assert (row["infrastructure"], row["description"]) == ("process", "Greets")
    assert row["schedules"].startswith("cron-0-8-europe-berlin-")
    listed = (await cli("list")).stdout.splitlines()
    assert listed[0].split()[:6] == ["job", "version", "infrastructure", "image", "schedules", "description"]
    assert any(line.split()[:3] == [unique, row["version"], "process"] for line in listed)

    rows = json.loads((await cli("runs", unique, "--json")).stdout)
    assert [(row["run"], row["state"]) for row in rows] == [(bad.name, "Failed"), (good.name, "Completed")]
    [shown] = (await cli("runs", unique, "--limit", "1")).stdout.splitlines()[1:]
    assert shown.split()[:3] == [bad.name, unique, "Failed"]
    assert str(bad.id) in shown

    job = (await cli("show", unique)).stdout
    assert job.startswith(f"# deployment: job/{unique}\n# version: {row['version']}\n# schedules: cron-0-8-")
    (copy := file.with_name("copy.yaml")).write_text(job)
    assert (await cli("apply", copy)).stdout == f"job/{unique}: unchanged, version {row['version']}\n"

    run = (await cli("show", bad.name)).stdout
    assert "asked for: {'who': 'nobody'}" in run
    assert re.search(r"attempt 1 after \d+\.\d s: exit code 3\n    no such person\n", run)
    assert (await cli("show", str(bad.id))).stdout == run

    texts = [line.partition(" ")[2] for line in (await cli("logs", str(bad.id))).stdout.splitlines()]
    assert texts.index("hello nobody") < texts.index("no such person")
    watched = await cli("watch", bad.name, expect=3)
    assert [line.partition(" ")[2] for line in watched.stdout.splitlines()] == texts
    assert watched.stderr == "[Failed]\nexit code 3\nno such person\n"


async def test_what_a_run_cannot_be_asked_for_is_said_and_no_run_is_made(file: Path, unique: str, cli: Cli) -> None:
    await cli("apply")
    for words, message in (
        (["-p", "who"], "--param 'who': expected NAME=VALUE"),
        (["-p", "whom=you"], f"job {unique!r} has no parameter 'whom'; it has: who, times"),
        (["-p", "job=3"], f"job {unique!r} has no parameter 'job'; it has: who, times"),
        (["-p", "run_name=q"], f"job {unique!r} has no parameter 'run_name'; it has: who, times"),
        (["-p", 'env={"A": "b"}'], "--param 'env': is an override and not a parameter; use --env NAME=VALUE"),
        (["-p", "args=[]"], "--param 'args': is an override and not a parameter; use -- ARGS"),
        (["-p", "who=123"], f"parameter 'who' of job {unique!r}: '123' is not allowed: expected a match of"),
        (
            ["-p", "times=twice"],
            f"parameter 'times' of job {unique!r}: 'twice' does not read as type 'integer'; write it as JSON, such as",
        ),
        (["--command", "a 'b"], "--command \"a 'b\": does not read as a shell's words: No closing quotation"),
        (
            ["-p", "who=World"],
            f"parameter 'who' of job {unique!r}: 'World' is not allowed: expected a match of '^[a-z]+$'",
        ),
        (["-e", "JOB_NAME=x"], "override 'env.JOB_NAME' of job "),
        (["--timeout", "soon"], f"override 'timeout' of job {unique!r}: expected a duration"),
    ):
        refused = await cli("run", unique, *words, expect=1)
        assert refused.stderr.startswith(message)
        assert refused.stderr.count("\n") == 1
    assert [run for run in await runs_of(unique) if not run.auto_scheduled] == []

    nowhere = f"no-{uuid4().hex[:8]}"
    assert (await cli("run", nowhere, expect=1)).stderr == (
        f"there is no job or pipeline {nowhere!r}; 'prefect-jobs list' shows all, 'prefect-jobs apply' adds some\n"
    )
    assert (await cli("logs", nowhere, expect=1)).stderr == (
        f"there is no run {nowhere!r}; 'prefect-jobs runs' shows the latest\n"
    )


@pytest.mark.parametrize("words", [["list"], ["run", "greet"]], ids=" ".join)
def test_a_server_that_is_away_is_named_with_what_to_do(words: list[str], file: Path, command: Command) -> None:
    failed = command("prefect-jobs", *words, env=AWAY, expect=1)
    assert failed.stdout == ""
    assert failed.stderr == (
        "Prefect's API at http://127.0.0.1:9/api did not answer (All connection attempts failed); start a server with "
        "'prefect server start', or set PREFECT_API_URL\n"
    )


async def test_apply_waits_for_a_server_that_is_not_there_yet(file: Path, prefect_api: str) -> None:
    relay = ApiProxy(prefect_api)
    applying = await asyncio.create_subprocess_exec(
        BIN / "prefect-jobs", "apply", file, stderr=subprocess.PIPE, stdout=subprocess.PIPE,
        env=os.environ | {"PREFECT_API_URL": relay.url},
    )  # fmt: skip
    assert applying.stderr is not None
    said = (await applying.stderr.readline()).decode()
    assert said == f"Nothing listens at {relay.url} yet; waiting up to 30 s for Prefect's server\n"
    await relay.open()
    printed, more = await applying.communicate()
    await relay.shut()
    assert (applying.returncode, more) == (0, b"")
    assert b": created, version " in printed


async def test_apply_does_not_wait_for_ever(file: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("prefect_jobs.deployments.reachable._SECONDS", 1)
    with temporary_settings({PREFECT_API_URL: AWAY["PREFECT_API_URL"]}):
        failed = await cli("apply", file, expect=1)
    assert "start a server with 'prefect server start', or set PREFECT_API_URL" in failed.stderr


async def test_who_watches_a_run_that_nobody_takes_is_told_what_to_do(api: PrefectClient, unique: str) -> None:
    job = Job(name=unique, command=["true"])
    await job.apply(work_pool=unique)

    async def hints() -> list[str]:
        run: JobRun = await job.run()
        scheduled, found = asyncio.Event(), list[str]()
        watching = asyncio.ensure_future(run.watch(nothing, lambda _: scheduled.set(), found.append))
        await scheduled.wait()
        await (await JobRun(run.flow_run).refresh()).cancel()
        await watching
        return found

    assert await hints() == [f"no worker serves the work pool {unique!r}: prefect-jobs worker --pool {unique}"]
    await api.send_worker_heartbeat(unique, "somebody", 30)
    assert await hints() == []
    await api.update_work_pool(unique, WorkPoolUpdate(is_paused=True))
    assert await hints() == [f"the work pool {unique!r} is paused: prefect work-pool resume {unique}"]


def test_the_schema_of_the_document_is_a_json_schema_that_takes_what_apply_takes(file: Path, command: Command) -> None:
    from ruamel.yaml import YAML

    schema = json.loads(command("prefect-jobs", "schema").stdout)
    validator = jsonschema.Draft202012Validator(schema)
    validator.check_schema(schema)
    document = YAML(typ="safe").load(file)
    validator.validate(document)
    next(iter(document["jobs"].values()))["comand"] = ["echo"]
    assert not validator.is_valid(document)


async def test_help_names_every_command_and_version_is_the_packages(cli: Cli) -> None:
    shown = (await cli("--help")).stdout
    for name in ("apply", "list", "schema", "run", "watch", "logs", "cancel", "runs", "show", "demo"):
        assert f"│ {name} " in shown
        assert (await cli(name, "--help")).stdout.startswith(f"Usage: prefect-jobs {name}")
    assert (await cli("--version")).stdout == f"{version('prefect-jobs')}\n"


def imported(*words: str, cwd: Path, expect: int) -> set[str]:
    """The packages that a command imports."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", BIN / "prefect-jobs", *words],
        cwd=cwd,
        env={**os.environ, **AWAY},
        capture_output=True,
        text=True,
    )
    assert done.returncode == expect, done.stderr
    return set(re.findall(r"^import time:.*\| +(\w+)", done.stderr, re.MULTILINE))


@pytest.mark.parametrize(
    ("words", "code"), [(["--help"], 0), (["--version"], 0), (["run", "--help"], 0), (["schema"], 0), (["apply"], 1)]
)
def test_what_needs_no_server_answers_without_importing_prefect(words: list[str], code: int, file: Path) -> None:
    file.write_text(file.read_text().replace("command", "comand"))
    found = imported(*words, cwd=file.parent, expect=code)
    assert "prefect_jobs" in found
    assert found & {"prefect", "httpx", "sqlalchemy", "fastapi", "aiodocker"} == set()


def test_what_needs_a_server_imports_prefect(file: Path) -> None:
    assert {"prefect", "prefect_jobs"} <= imported("list", cwd=file.parent, expect=1)
