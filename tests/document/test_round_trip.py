from __future__ import annotations

from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from prefect_jobs.document import dumps, loads, read, read_document
from prefect_jobs.job import Job


def _data(text: str) -> Any:
    return YAML(typ="safe", pure=True).load(text)


def _text(data: Any, path: Path) -> str:
    YAML(typ="safe", pure=True).dump(data, path)
    return path.read_text()


def test_a_document_read_and_written_holds_the_same_data(document: dict[str, Any], tmp_path: Path) -> None:
    assert _data(dumps(loads(_text(document, tmp_path / "jobs.yaml")))) == document


def test_a_document_keeps_numbers_apart_from_texts(document: dict[str, Any], tmp_path: Path) -> None:
    # 1, 1.0 and True are equal in Python, and different in a document.
    written = _data(dumps(loads(_text(document, tmp_path / "jobs.yaml"))))

    def kinds(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: kinds(item) for key, item in value.items()}
        return [kinds(item) for item in value] if isinstance(value, list) else type(value)

    ignored = ("parameters",)  # A bound is a number: 1 and 1.0 are the same one.
    for data in (written, document):
        for key in ignored:
            data["jobs"]["a"].pop(key, None)
    assert kinds(written) == kinds(document)


def test_jobs_written_and_read_are_equal(document: dict[str, Any], tmp_path: Path) -> None:
    jobs = loads(_text(document, tmp_path / "jobs.yaml"))
    assert loads(dumps(jobs)) == jobs


def test_the_order_of_jobs_and_parameters_is_kept() -> None:
    text = "jobs:\n  b: {image: x, parameters: {z: {}, a: {}}}\n  a: {image: y}\n"
    jobs = loads(dumps(loads(text)))
    assert [job.name for job in jobs] == ["b", "a"]
    assert list(jobs[0].parameters) == ["z", "a"]


def test_the_project_belongs_to_the_document_and_reaches_every_job() -> None:
    jobs = loads("project: iris\njobs: {a: {image: x}, b: {image: y}}")
    assert [job.project for job in jobs] == ["iris", "iris"]
    assert _data(dumps(jobs)) == {"project": "iris", "jobs": {"a": {"image": "x"}, "b": {"image": "y"}}}


def test_a_job_made_in_python_is_written_as_it_was_made() -> None:
    job = Job(name="a", image="x", retries=2, command=["echo", 1])
    assert _data(dumps([job])) == {"jobs": {"a": {"image": "x", "retries": 2, "command": ["echo", 1]}}}


def test_an_anchor_stands_for_what_it_names() -> None:
    first, second = loads("jobs:\n  a: &a {image: x, retries: 1}\n  b: {<<: *a, retries: 2}\n")
    assert (first.image, first.retries, second.image, second.retries) == ("x", 1, "x", 2)


def test_a_document_without_jobs_has_none() -> None:
    assert loads("jobs: {}") == []


def test_the_project_is_known_where_no_job_is_left(tmp_path: Path) -> None:
    (file := tmp_path / "jobs.yaml").write_text("project: iris\njobs: {}\n")
    document = read_document(file)
    assert (document.project, document.jobs) == ("iris", [])
    assert read(file) == []


def test_the_example_of_the_design_is_read(tmp_path: Path) -> None:
    file = tmp_path / "jobs.yaml"
    file.write_text(
        """
jobs:
  train:
    description: Fit one model class on the iris data
    infrastructure: docker/local
    image: iris:1
    command: [python, train.py, --test-size, "{{ test_size }}"]
    env: {PYTHONUNBUFFERED: "1"}
    secrets: {WANDB_KEY: wandb-key}
    parameters:
      MODEL_CLASS: {type: string, enum: [svc, forest, logreg], default: svc, description: Which model to fit}
      test_size: {type: number, default: 0.2, minimum: 0.05, maximum: 0.5}
    shape: small
    volumes: {scratch: /scratch}
    retries: {failures: 2, infrastructure: 5, delay: [10, 60], jitter: 0.2, never_on: [2]}
    timeout: {attempt: 1h, total: 3h, start: 5m}
    concurrency: {limit: 2, beyond: queue}
    schedules: [{cron: "0 8 * * *", timezone: Europe/Berlin, parameters: {MODEL_CLASS: forest}}]
    logging: {prefect: true, level: INFO}
    tags: [iris]
"""
    )
    (job,) = read(file)
    assert job.name == "train"
    assert job.infrastructure == "docker/local"
    assert job.parameters["MODEL_CLASS"].enum == ["svc", "forest", "logreg"]
    assert job.parameters["test_size"].maximum == 0.5
    assert job.retry_policy.delay_before(2) == 60
    assert job.timeouts.total is not None
    assert job.timeouts.total.seconds == 3 * 3600
    assert [mount.target for mount in job.mounts] == ["/scratch"]
    assert job.schedules[0].parameters == {"MODEL_CLASS": "forest"}
