"""What the tests of the document share: documents that are taken, and the problems of one that is refused."""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from typing import Any

import pytest
from ruamel.yaml import YAML

from prefect_jobs.document import loads
from prefect_jobs.errors import DocumentError

Problems = Callable[[str], list[str]]

# Each is the mapping below a job's name. Short and long forms of the same key stand side by side.
TAKEN = {
    "only an image": "image: iris:1",
    "only a command": "command: [echo, hello]",
    "numbers in command and args": "{image: x, command: [sleep, 5, 0.5], args: [-1, '7', 1.0]}",
    "empty args": "{image: x, args: []}",
    "an environment of all kinds": "{image: x, env: {TEXT: a, INTEGER: 3, FLOAT: 0.50, QUOTED: '1', _INTERNAL: b}}",
    "a secret": "{image: x, secrets: {TOKEN: wandb-key}}",
    "a secret as a file": "{image: x, secrets: {TOKEN: wandb-key, KEY: {block: tls-key, file: /run/secrets/tls.key}, "
    "B: {block: b}}}",
    "a short retries": "{image: x, retries: 3}",
    "a long retries": "{image: x, retries: {failures: 2, infrastructure: 5, delay: [10, 1m, 0.5], jitter: 0.2, "
    "never_on: [2]}}",
    "retries that wait longer and longer": "{image: x, retries: {failures: 5, delay: 10s, backoff: 2, max_delay: 10m, "
    "jitter: 1}}",
    "retries with one delay": "{image: x, retries: {failures: 1, delay: 1m30s}}",
    "a timeout in seconds": "{image: x, timeout: 90}",
    "a timeout in words": "{image: x, timeout: 1h30m}",
    "a long timeout": "{image: x, timeout: {attempt: 1h, total: 3h, start: 300}}",
    "a shape by name": "{image: x, shape: small}",
    "a shape in figures": "{image: x, shape: {cpu: 500m, memory: 4Gi, gpu: 1, shared_memory: 2000000}}",
    "a shape in floats": "{image: x, shape: {cpu: 0.5}}",
    "volumes": "{image: x, volumes: {scratch: /scratch, cache: '/cache:ro', /srv/data: '/data/extra:rw'}}",
    "rights": "{image: x, security: {privileged: true, host_network: true, capabilities: [NET_ADMIN], "
    "devices: [/dev/fuse], user: '1000:1000'}}",
    "a pull policy": "{image: x, pull_policy: Never}",
    "a grace period": "{image: x, grace_period: 0.5s}",
    "a failed container that is kept": "{image: x, keep: 1h}",
    "a short concurrency": "{image: x, concurrency: 2}",
    "a long concurrency": "{image: x, concurrency: {limit: 2, beyond: refuse}}",
    "a concurrency that says nothing": "{image: x, concurrency: null}",
    "schedules": "{image: x, schedules: [{cron: '0 8 * * *', timezone: Europe/Berlin}, {interval: 1d}, "
    "{rrule: 'FREQ=DAILY;COUNT=3'}, {cron: '@daily'}]}",
    "logging": "{image: x, logging: {prefect: false, level: WARNING}}",
    "inputs": "{image: x, inputs: {iris: 's3://bucket/a b/iris.csv', all: 'gs://b/p/', local: 'file:///srv/data'}}",
    "a short store": "{image: x, store: state, inputs: {own: 'store://datasets/iris.csv'}, checkpoint: job}",
    "a long store": "{image: x, store: {block: state, credentials: true}, logging: {store: false}}",
    "tags and text": "{image: x, description: 'Ünïcode, \"quotes\" and: colons', tags: [iris, 'a b', '1']}",
    "defaults, written out": "{image: x, env: {}, retries: 0, tags: [], parameters: {}, infrastructure: process}",
    "an infrastructure": "{image: x, infrastructure: docker/local}",
    "parameters of all types": """
        image: x
        command: [run, "{{ who }}", "{{who}} and {{ ratio }}"]
        parameters:
          who: {description: Whom to greet, default: world, pattern: "^w"}
          ratio: {type: number, default: 0.2, minimum: 0.05, maximum: 0.5}
          whole: {type: number, default: 1, minimum: 1}
          how_many: {type: integer, enum: [1, 2, 3], default: 3}
          wet: {type: boolean, default: false}
          names: {type: list, default: [a, b]}
          sizes: {type: list, items: integer, enum: [1, 2], default: []}
          asked: {}
          asked_number: {type: number}
        """,
    "a schedule with parameters": """
        image: x
        parameters: {size: {type: number}}
        schedules: [{cron: "0 8 * * 1-5", parameters: {size: 0.5, env: {A: b}, timeout: 1h}}]
        """,
}


@pytest.fixture
def problems() -> Problems:
    """The problems of a document; it fails where the document is taken."""

    def of(text: str) -> list[str]:
        with pytest.raises(DocumentError) as refused:
            loads(textwrap.dedent(text).lstrip("\n"), file="jobs.yaml")
        assert str(refused.value) == "\n".join(refused.value.problems)
        return refused.value.problems

    return of


@pytest.fixture
def problem(problems: Problems) -> Callable[[str], str]:
    """The only problem of the job ``a`` whose keys are given; its first key stands in line 3."""

    def of(keys: str) -> str:
        body = textwrap.indent(textwrap.dedent(keys).strip("\n"), "    ")
        (only,) = problems(f"jobs:\n  a:\n{body}\n")
        return only

    return of


@pytest.fixture(params=TAKEN.values(), ids=TAKEN)
def document(request: pytest.FixtureRequest) -> dict[str, Any]:
    """A document that is taken, as data; its job is called ``a``."""
    return {"jobs": {"a": YAML(typ="safe", pure=True).load(request.param)}}
