"""A person with a browser: the run form, the run, its log and its outcome, in both interfaces of Prefect's server."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from browser import PICTURES, page_of, picture
from iris import iris_job
from playwright.async_api import Page, expect
from prefect.client.orchestration import PrefectClient
from reach import Execute, containers_of, ended, first_line, lines, runs_of

from prefect_jobs import Docker, Job, JobRun, Parameter, Process, Reason
from prefect_jobs.quantities import Duration

V2, V1 = "/v2", ""


@pytest.fixture
async def page(prefect_api: str) -> AsyncIterator[Page]:
    """A page of a browser on the session's server."""
    async with page_of(prefect_api) as page:
        yield page


async def test_the_form_of_the_iris_job_starts_a_run_that_can_be_watched_until_it_completes(
    page: Page, stock_worker: str, unique: str, iris_image: str, api: PrefectClient
) -> None:
    job_name = "train" if PICTURES else unique
    job = iris_job().model_copy(update={"name": job_name, "infrastructure": "docker", "image": iris_image})
    change = await job.apply(work_pool=stock_worker)

    await page.goto(f"{V2}/deployments/deployment/{change.deployment_id}/run")
    labels = page.locator("form label")
    await expect(labels.filter(has_text="(Optional)")).to_have_text(
        [
            f"{each} (Optional)"
            for each in (
                "MODEL_CLASS",
                "test_size",
                "env",
                "args",
                "command",
                "shape",
                "timeout",
                "infrastructure",
                "inputs",
            )
        ]
    )
    await expect(page.get_by_text("Which model to fit")).to_be_visible()
    model_class, test_size = page.get_by_label("Select MODEL_CLASS"), page.get_by_label("test_size")
    await expect(model_class).to_have_text("svc")
    await expect(test_size).to_have_value("0.2")

    await test_size.fill("0.9")
    await page.get_by_role("button", name="Submit").click()
    await expect(test_size).to_be_focused()
    assert await test_size.evaluate("field => field.validationMessage") == "Value must be less than or equal to 0.5."
    assert await runs_of(job_name) == []

    await test_size.fill("0.3")
    await model_class.click()
    await expect(page.get_by_role("option")).to_have_text(["svc", "forest", "logreg"])
    await page.get_by_role("option", name="forest").click()
    await page.locator("form textarea").nth(1).fill("5m")
    await page.get_by_text("Run Name").scroll_into_view_if_needed()
    await picture(page, "run-form.png", 1170)
    await page.get_by_role("button", name="Submit").click()

    await expect(page.get_by_text("scheduled to start").first).to_be_visible()
    [flow_run] = await runs_of(job_name)
    await page.goto(f"{V2}/runs/flow-run/{flow_run.id}")
    await expect(page.get_by_text("Completed", exact=True)).to_be_visible(timeout=90_000)
    await page.reload()  # Prefect's UI does not ask for the last lines once it knows that a run has ended.
    await expect(page.get_by_text("Accuracy of forest: ")).to_be_visible()
    await picture(page, "run.png", 1880)
    run = await ended(JobRun(flow_run))
    assert {key: value for key, value in flow_run.parameters.items() if key != "job"} == {
        "MODEL_CLASS": "forest",
        "test_size": 0.3,
        "timeout": "5m",
    }
    written = await lines(run)
    assert written[0] == "Fitting forest on 105 flowers, testing on 45"
    assert sum("accuracy" in line for line in written) == 1

    await page.get_by_role("tab", name="Artifacts").click()
    await page.get_by_text(f"Attempt 1: exit code 0 (job {job_name} on docker)").click()
    for name, value in (("reason", "succeeded"), ("exit_code", "0")):
        await expect(page.get_by_role("row").filter(has_text=name)).to_contain_text(value)


async def test_the_form_of_the_older_interface_starts_a_run_too_and_shows_why_a_value_is_refused(
    page: Page, stock_worker: str, unique: str, busybox: str
) -> None:
    job = Job(
        name=unique,
        infrastructure="docker",
        image=busybox,
        command=["sh", "-c", "echo $MODEL_CLASS {{ test_size }} $EXTRA"],
        parameters={
            "MODEL_CLASS": Parameter(enum=["svc", "forest"], default="svc", description="Which model to fit"),
            "test_size": Parameter(type="number", default=0.2, maximum=0.5),
        },
    )
    change = await job.apply(work_pool=stock_worker)

    await page.goto(f"{V1}/deployments/deployment/{change.deployment_id}/run")
    await expect(page.locator("form label").filter(has_text="(Optional)")).to_contain_text(
        ["MODEL_CLASS", "test_size", "env", "args", "command", "shape", "timeout", "infrastructure", "inputs"]
    )
    await expect(page.get_by_text("Which model to fit")).to_be_visible()
    model_class, test_size = page.locator("fieldset button").first, page.locator("fieldset input[type=number]")
    await expect(model_class).to_have_text("svc")
    await expect(test_size).to_have_value("0.2")

    await test_size.fill("0.9")
    await page.get_by_role("button", name="Submit").click()
    refusal = "Validation failed for field 'test_size'. Failure reason: 0.9 is greater than the maximum of 0.5"
    await expect(page.get_by_text(refusal).first).to_be_visible()
    assert await runs_of(unique) == []

    await test_size.fill("0.3")
    await model_class.focus()
    await page.keyboard.press("ArrowDown")
    await page.get_by_role("option", name="forest").click()
    await page.locator("fieldset textarea").first.fill('{"EXTRA": "seen"}')
    await page.get_by_role("button", name="Submit").click()

    await expect(page.get_by_text("scheduled to start").first).to_be_visible()
    [flow_run] = await runs_of(unique)
    await page.goto(f"{V1}/runs/flow-run/{flow_run.id}")
    await expect(page.get_by_text("forest 0.3 seen")).to_be_visible(timeout=90_000)
    await expect(page.get_by_text("Completed", exact=True).first).to_be_visible()
    await page.get_by_text("Artifacts", exact=True).click()
    await page.get_by_text(f"Attempt 1: exit code 0 (job {unique} on docker)").click()
    for name, value in (("reason", "succeeded"), ("exit_code", "0")):
        await expect(page.get_by_role("row").filter(has_text=name)).to_contain_text(value)


@pytest.mark.parametrize("interface", [V2, V1], ids=["v2", "v1"])
async def test_block_forms_show_every_field_with_what_it_means(page: Page, interface: str, prefect_api: str) -> None:
    for block in (Process, Docker):
        await block.register_type_and_schema()
        await page.goto(f"{interface}/blocks/catalog/{block.get_block_type_slug()}/create")
        await expect(page.get_by_text(str(block._description)).first).to_be_visible()
        for field in block.model_fields.values():
            await expect(page.get_by_text(str(field.title)).first).to_be_visible()
            await expect(page.get_by_text(str(field.description)).first).to_be_visible()


async def test_a_block_that_is_made_in_the_browser_is_one_that_a_job_runs_on(
    page: Page, unique: str, execute: Execute
) -> None:
    await Process.register_type_and_schema()
    await page.goto(f"{V2}/blocks/catalog/process/create")
    await page.get_by_label("Name").first.fill(unique)
    await page.get_by_role("button", name="Save").click()
    await expect(page.get_by_text(unique).first).to_be_visible()
    await page.wait_for_url("**/blocks/block/**")

    job = Job(name=unique, infrastructure=f"process/{unique}", command=["echo", "from the browser"], shape="small")
    await job.apply()
    run = await job.run()
    await execute(run)
    assert (run.state, await lines(run)) == ("Completed", ["from the browser"])


async def test_a_run_is_cancelled_with_a_button(page: Page, stock_worker: str, unique: str, busybox: str) -> None:
    job = Job(
        name=unique,
        infrastructure="docker",
        image=busybox,
        command=["sh", "-c", "echo up; exec sleep 300"],
        grace_period=Duration("1s"),
        retries=1,
    )
    await job.apply(work_pool=stock_worker)
    run = await job.run()
    await first_line(run)

    await page.goto(f"{V2}/runs/flow-run/{run.id}")
    await page.locator("button[aria-haspopup=menu]").last.click()
    await page.get_by_role("menuitem", name="Cancel").click()
    await page.get_by_role("button", name="Cancel Flow Run").click()
    await ended(run, 40)
    await expect(page.get_by_text("Cancelled", exact=True).first).to_be_visible()
    assert (run.state, containers_of(run.id)) == ("Cancelled", [])
    assert [outcome.reason for outcome in run.attempts] == [Reason.CANCELLED]
