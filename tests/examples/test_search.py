"""The model search of the iris example: on processes with a folder and in Docker with S3 it finds the same model."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any
from uuid import uuid4

from browser import PICTURES, page_of, picture
from iris import FOLDER, save_process
from pipelines import There
from playwright.async_api import Page, expect
from prefect.client.orchestration import get_client
from reach import runs_of
from s3 import session_s3, unique
from servers import Server

from prefect_jobs import JobRun, ObjectStore, Pipeline, apply
from prefect_jobs.deployments.apply import Change
from prefect_jobs.deployments.outputs import outputs_of
from prefect_jobs.deployments.runs import find_run
from prefect_jobs.document import load_document

BRANCHES = 9


async def _deployed(mark: str, store: ObjectStore, pool: str) -> tuple[Pipeline, Change]:
    """The document with its own names for everything that others have, too."""
    text = re.sub(r"(?m)^(  (?:train|split|fit|final|search)):", rf"\1{mark}:", (FOLDER / "jobs.yaml").read_text())
    text = re.sub(r"\bjob: (\w+)", rf"job: \1{mark}", text).replace("store: iris", f"store: iris{mark}")
    document = load_document(text)
    await save_process()
    await store.asave(f"iris{mark}", overwrite=True)
    *_, change = await apply(document.jobs, document.pipelines, work_pool=pool)
    return document.pipelines[0], change


async def _started_in_the_browser(page: Page, change: Change) -> There:
    """The pipeline's run that a person starts who fills in the form."""
    await page.goto(f"/v2/deployments/deployment/{change.deployment_id}/run")
    where = page.get_by_label("Select where")
    await expect(where).to_have_text("process/iris")
    await where.click()
    await page.get_by_role("option", name="docker").click()
    await expect(page.get_by_label("test_size")).to_have_value("0.2")
    await picture(page, "pipeline-form.png", 900)
    await page.get_by_role("button", name="Submit").click()
    await expect(page.get_by_text("scheduled to start").first).to_be_visible()
    [found] = await runs_of(change.name.partition("/")[2])
    return There(JobRun(found))


def _compared(rows: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    """What must not depend on where they ran."""
    return [(row["step"], row["index"], row["parameters"], row["metric"], row["best"], row["outcome"]) for row in rows]


async def _final(there: There, folder: Path) -> dict[str, Any]:
    """What the final job left, downloaded and checked: its result, and nothing is missing."""
    [child] = await there.of("final")
    async with get_client() as client:
        _, rows = await outputs_of(client, str(child.id), folder, print)
        outcome = (await (await find_run(client, str(child.id))).refresh()).outcome
    assert {row["name"] for row in rows} == {"model.joblib", "report.md", "result.json"}
    result: dict[str, Any] = json.loads((folder / "result.json").read_text())
    assert outcome.result == result
    report = (folder / "report.md").read_text()
    assert report.startswith(f"# {result['model_class']} with {result['strength']:g}\n")
    assert report.count("| svc |") == report.count("| forest |") == report.count("| logreg |") == 3
    return result


async def test_it_finds_the_same_model_in_docker_with_s3_started_in_the_browser_and_on_processes_with_a_folder(
    served: str, server: Server, iris_image: str, tmp_path: Path
) -> None:
    mark = "" if PICTURES else f"-{uuid4().hex[:8]}"
    _, change = await _deployed(mark, session_s3().block(unique()), served)
    here, _ = await _deployed(f"{mark}-here", ObjectStore(url=(tmp_path / "store").as_uri()), served)
    async with page_of(server.url) as page:
        in_docker = await _started_in_the_browser(page, change)
        await in_docker.ended()
        assert in_docker.state == "Completed", in_docker.message
        on_processes = await There(await here.run()).ended()
        assert on_processes.state == "Completed", on_processes.message

        tables = [await there.run.table() for there in (in_docker, on_processes)]
        assert _compared(tables[0]) == _compared(tables[1])
        fit = [row for row in tables[0] if row["step"] == "fit"]
        assert [row["index"] for row in fit] == list(range(BRANCHES))
        best = next(row for row in fit if row["best"])
        assert best["metric"] == max(row["metric"] for row in fit)
        finals = [await _final(there, tmp_path / name) for there, name in ((in_docker, "s3"), (on_processes, "folder"))]
        assert finals[0] == finals[1]
        found = f"MODEL_CLASS={finals[0]['model_class']}, STRENGTH={finals[0]['strength']:g}"
        assert (best["parameters"], best["metric"]) == (found, finals[0]["cross_validation"])
        assert finals[0]["accuracy"] > 0.9

        await _shown(page, in_docker, finals[0])


async def _shown(page: Page, there: There, final: dict[str, Any]) -> None:
    """Children, table and graph, as a person looks at them."""
    table, graph = await there.artifacts()
    await page.goto(f"/v2/runs/flow-run/{there.run.id}?tab=SubflowRuns")
    await expect(page.get_by_text(f"{there.run.name}-fit-8").first).to_be_visible(timeout=60_000)
    await picture(page, "pipeline-runs.png", 1300)
    await page.goto(f"/v2/artifacts/artifact/{table.id}")
    await expect(
        page.get_by_text(f"MODEL_CLASS={final['model_class']}, STRENGTH={final['strength']:g}").first
    ).to_be_visible()
    await picture(page, "pipeline-table.png", 900)
    await page.goto(f"/v2/artifacts/artifact/{graph.id}")
    drawn = page.locator("svg[aria-roledescription]")
    await expect(drawn.get_by_text(f"{BRANCHES} of {BRANCHES} succeeded")).to_be_visible(timeout=60_000)
    await picture(page, "pipeline-graph.png", 900)
