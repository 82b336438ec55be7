"""Every error says: file, line, key, what was found, what is expected."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from prefect_jobs.document import loads, read
from prefect_jobs.errors import DocumentError

Problem = Callable[[str], str]
Problems = Callable[[str], list[str]]

# The keys of job "a" (the first in line 3): where the problem is, and what its message says.
WRONG = {
    "an image that is a number": ("image: 3", "3: jobs.a.image", ["string", "found 3"]),
    "an empty image": ("image: ''", "3: jobs.a.image", ["at least 1 character", "found ''"]),
    "a command that is a text": (
        "command: echo hi",
        "3: jobs.a.command",
        ["list of strings", "[echo, hi]", "'echo hi'"],
    ),
    "an empty command": ("image: x\ncommand: []", "4: jobs.a.command", ["at least 1 item"]),
    "a null in a command": ("command:\n  - echo\n  - null", "5: jobs.a.command.1", ["string or a number", "None"]),
    "a boolean argument": ("image: x\nargs: [true]", "4: jobs.a.args.0", ["string or a number", "quotes", "True"]),
    "a mapping as an argument": ("image: x\nargs: [{a: 1}]", "4: jobs.a.args.0", ["string or a number"]),
    "a boolean in the environment": ("image: x\nenv:\n  A: b\n  B: true", "6: jobs.a.env.B", ["quotes", "found True"]),
    "a null in the environment": ("image: x\nenv: {A: null}", "4: jobs.a.env.A", ["string or a number", "None"]),
    "a date in the environment": ("image: x\nenv: {A: 2026-01-01}", "4: jobs.a.env.A", ["put it in quotes"]),
    "a list for the environment": ("image: x\nenv: [A]", "4: jobs.a.env", ["a mapping"]),
    "a wrong name in the environment": ("image: x\nenv: {a-b: c}", "4: jobs.a.env.a-b", ["letters, digits", "'a-b'"]),
    "a reserved name in the environment": (
        "image: x\nenv:\n  JOB_NAME: b",
        "5: jobs.a.env.JOB_NAME",
        ["sets this name"],
    ),
    "a reserved name as a secret": (
        "image: x\nsecrets: {LAB_API_TOKEN: b}",
        "4: jobs.a.secrets.LAB_API_TOKEN",
        ["sets"],
    ),
    "a secret that is a number": ("image: x\nsecrets: {A: 3}", "4: jobs.a.secrets.A", ["string", "found 3"]),
    "negative retries": ("image: x\nretries: -1", "4: jobs.a.retries", ["greater than or equal to 0", "found -1"]),
    "retries in quotes": ("image: x\nretries: '3'", "4: jobs.a.retries", ["integer", "found '3'"]),
    "boolean retries": ("image: x\nretries: true", "4: jobs.a.retries", ["integer", "found True"]),
    "a wrong delay": (
        "image: x\nretries:\n  failures: 1\n  delay:\n    - 10s\n    - soon",
        "8: jobs.a.retries.delay.1",
        ["duration such as", "found 'soon'"],
    ),
    "a wrong exit code": ("image: x\nretries: {never_on: [two]}", "4: jobs.a.retries.never_on.0", ["integer", "'two'"]),
    "a wrong timeout": ("image: x\ntimeout: soon", "4: jobs.a.timeout", ["duration such as 90", "found 'soon'"]),
    "a negative timeout": ("image: x\ntimeout: -5", "4: jobs.a.timeout", ["duration such as 90", "found -5"]),
    "an empty timeout": ("image: x\ntimeout: ''", "4: jobs.a.timeout", ["duration such as 90", "found ''"]),
    "a wrong long timeout": ("image: x\ntimeout:\n  start: 5 min", "5: jobs.a.timeout.start", ["duration", "'5 min'"]),
    "a timeout of nothing": ("image: x\ntimeout: 0", "4: jobs.a.timeout", ["above zero", "found 0"]),
    "an attempt of nothing": ("image: x\ntimeout: {attempt: 0s}", "4: jobs.a.timeout.attempt", ["above zero", "'0s'"]),
    "a total of nothing": ("image: x\ntimeout: {total: 0m}", "4: jobs.a.timeout.total", ["above zero", "'0m'"]),
    "a start of nothing": ("image: x\ntimeout: {start: 0.0}", "4: jobs.a.timeout.start", ["above zero", "found 0.0"]),
    "a secret's file elsewhere": (
        "image: x\nsecrets: {KEY: {block: tls-key, file: /etc/tls.key}}",
        "4: jobs.a.secrets.KEY.file",
        ["/run/secrets/", "found '/etc/tls.key'"],
    ),
    "a secret's file without its block": (
        "image: x\nsecrets: {KEY: {file: /run/secrets/tls.key}}",
        "4: jobs.a.secrets.KEY.block",
        ["is missing"],
    ),
    "two secrets in one file": (
        "image: x\nsecrets: {A: {block: a, file: /run/secrets/a}, B: {block: b, file: /run/secrets/a}}",
        "4: jobs.a.secrets.B.file",
        ["is the file of 'A'; choose another one", "found '/run/secrets/a'"],
    ),
    "a variable that says where a secret's file is": (
        "image: x\nenv: {KEY_FILE: /etc}\nsecrets: {KEY: {block: a, file: /run/secrets/a}}",
        "5: jobs.a.secrets.KEY.file",
        ["the job also sets KEY_FILE, which says where this file is", "found '/run/secrets/a'"],
    ),
    "a volume over the secrets' files": (
        "image: x\nsecrets: {KEY: {block: a, file: /run/secrets/a}}\nvolumes: {s: /run/secrets}",
        "5: jobs.a.volumes.s",
        ["hides /run/secrets, where 'KEY' has its file", "found '/run/secrets'"],
    ),
    "more delays than prefect takes": (
        f"image: x\nretries: {{delay: {[1] * 51}}}",
        "4: jobs.a.retries.delay",
        ["at most 50 items", "not 51"],
    ),
    "delays that shrink": (
        "image: x\nretries: {delay: 10s, backoff: 0.5}",
        "4: jobs.a.retries.backoff",
        ["greater than or equal to 1", "found 0.5"],
    ),
    "a delay that grows from nothing": (
        "image: x\nretries: {failures: 2, backoff: 2}",
        "4: jobs.a.retries.backoff",
        ["a delay that can grow beside it, such as delay: 10s", "found 2"],
    ),
    "a list that grows": (
        "image: x\nretries: {delay: [1s, 2s], backoff: 2}",
        "4: jobs.a.retries.backoff",
        ["one delay that grows, or a list that says each", "found 2"],
    ),
    "a longest delay that nothing reaches": (
        "image: x\nretries: {delay: 10s, max_delay: 1m}",
        "4: jobs.a.retries.max_delay",
        ["a backoff beside it", "found '1m'"],
    ),
    "a longest delay below the first": (
        "image: x\nretries: {delay: 10s, backoff: 2, max_delay: 5s}",
        "4: jobs.a.retries.max_delay",
        ["no less than the first delay, 10s", "found '5s'"],
    ),
    "a spread beyond the whole": (
        "image: x\nretries: {jitter: 1.5}",
        "4: jobs.a.retries.jitter",
        ["less than or equal to 1", "found 1.5"],
    ),
    "no cores": ("image: x\nshape: {cpu: 0}", "4: jobs.a.shape.cpu", ["more than 0 CPU cores"]),
    "hardly any memory": ("image: x\nshape: {memory: 512}", "4: jobs.a.shape.memory", ["at least 1Mi", "found 512"]),
    "a thousandth of memory": (
        "image: x\nshape: {memory: 100m}",
        "4: jobs.a.shape.memory",
        ["'512Mi'", "'m' is a thousandth", "found '100m'"],
    ),
    "hardly any shared memory": (
        "image: x\nshape: {shared_memory: 1k}",
        "4: jobs.a.shape.shared_memory",
        ["at least 1Mi", "found '1k'"],
    ),
    "an infrastructure that only a later release has": (
        "image: x\ninfrastructure: kubernetes/gpu",
        "4: jobs.a.infrastructure",
        ["this release has process and docker", "found 'kubernetes/gpu'"],
    ),
    "wrong cores": ("image: x\nshape:\n  cpu: many", "5: jobs.a.shape.cpu", ["CPU cores such as", "found 'many'"]),
    "wrong memory": ("image: x\nshape: {memory: 4GB}", "4: jobs.a.shape.memory", ["'4Gi'", "found '4GB'"]),
    "half a GPU": ("image: x\nshape: {gpu: 0.5}", "4: jobs.a.shape.gpu", ["integer", "found 0.5"]),
    "no room for runs": (
        "image: x\nconcurrency: 0",
        "4: jobs.a.concurrency",
        ["greater than or equal to 1", "found 0"],
    ),
    "an unknown collision": (
        "image: x\nconcurrency: {limit: 1, beyond: wait}",
        "4: jobs.a.concurrency.beyond",
        ["'queue' or 'refuse'", "found 'wait'"],
    ),
    "a long concurrency without limit": ("image: x\nconcurrency: {}", "4: jobs.a.concurrency.limit", ["is missing"]),
    "a wrong level": ("image: x\nlogging: {level: LOUD}", "4: jobs.a.logging.level", ["'WARNING'", "found 'LOUD'"]),
    "a wrong switch": ("image: x\nlogging: {prefect: 1}", "4: jobs.a.logging.prefect", ["boolean", "found 1"]),
    "a wrong pull policy": ("image: x\npull_policy: Often", "4: jobs.a.pull_policy", ["'IfNotPresent'", "'Often'"]),
    "an infrastructure that nobody has": (
        "image: x\ninfrastructure: nomad/eu",
        "4: jobs.a.infrastructure",
        ["docker/local", "found 'nomad/eu'"],
    ),
    "a relative path of a volume": (
        "image: x\nvolumes: {s: scratch}",
        "4: jobs.a.volumes.s",
        ["absolute", "'scratch'"],
    ),
    "a volume that climbs": (
        "image: x\nvolumes: {/srv/../etc: /e}",
        "4: jobs.a.volumes./srv/../etc",
        ["without '..'"],
    ),
    "a volume over everything": (
        "image: x\nvolumes: {s: //}",
        "4: jobs.a.volumes.s",
        ["a path that is not /, such as /scratch", "found '//'"],
    ),
    "a volume over a run's folder": (
        "image: x\nvolumes: {s: /data/./output/:ro}",
        "4: jobs.a.volumes.s",
        ["not at or below /data/output", "found '/data/./output/:ro'"],
    ),
    "a volume in a run's folder": (
        "image: x\nvolumes: {s: /data/checkpoint/deep}",
        "4: jobs.a.volumes.s",
        ["not at or below /data/checkpoint"],
    ),
    "a host folder over the machine's": ("image: x\nvolumes: {/s: /proc/1}", "4: jobs.a.volumes./s", ["below /proc"]),
    "two volumes in one place": (
        "image: x\nvolumes:\n  s: /scratch\n  /t: /scratch/:ro",
        "6: jobs.a.volumes./t",
        ["where volume 's' is mounted", "found '/scratch/:ro'"],
    ),
    "two volumes of one variable": (
        "image: x\nvolumes:\n  a-b: /one\n  A_b: /two",
        "6: jobs.a.volumes.A_b",
        ["JOB_VOLUME_A_B", "volume 'a-b'"],
    ),
    "a volume of a run": (
        "image: x\nvolumes: {prefect-jobs-1: /s}",
        "4: jobs.a.volumes.prefect-jobs-1",
        ["'prefect-jobs-' belong to single runs"],
    ),
    "tags that are a text": ("image: x\ntags: iris", "4: jobs.a.tags", ["list", "found 'iris'"]),
    "a name that no job can have": ("{}", "2: jobs.a", ["expected an image, a command, or both"]),
    "a schedule of four fields": (
        "image: x\nschedules:\n  - cron: 0 8 * *",
        "5: jobs.a.schedules.0.cron",
        ["five fields", "found '0 8 * *'"],
    ),
    "a time zone on Mars": (
        "image: x\nschedules:\n  - cron: 0 8 * * *\n  - cron: 0 9 * * *\n    timezone: Mars/Base",
        "7: jobs.a.schedules.1.timezone",
        ["IANA", "found 'Mars/Base'"],
    ),
    "two kinds of schedule": (
        "image: x\nschedules:\n  - {cron: 0 8 * * *, interval: 1h}",
        "5: jobs.a.schedules.0",
        ["exactly one", "found cron and interval"],
    ),
    "no kind of schedule": ("image: x\nschedules: [{timezone: UTC}]", "4: jobs.a.schedules.0", ["found none"]),
    "an interval of nothing": ("image: x\nschedules: [{interval: 0}]", "4: jobs.a.schedules.0", ["above zero"]),
    "a secret that is also plain": (
        "image: x\nenv:\n  A: plain\nsecrets:\n  A: block",
        "7: jobs.a.secrets.A",
        ["also set in env or parameters", "keep one"],
    ),
    "an unknown reference": (
        "command:\n  - echo\n  - '{{ who }}'\nparameters: {name: {}}",
        "5: jobs.a.command.1",
        ["{{ who }}", "names no parameter", "name"],
    ),
    "an unknown reference in the arguments": (
        "image: x\nargs: ['-n={{ who }}']",
        "4: jobs.a.args.0",
        ["{{ who }}", "names no parameter", "the job has: none"],
    ),
}

STORED = {
    "an input that is no URI": ("inputs: {iris: iris.csv}", "inputs.iris", ["expected a URI such as s3://"]),
    "an input with a password": ("inputs: {iris: 'https://me:secret@host/x'}", "inputs.iris", ["without a user"]),
    "an input that climbs": ("inputs: {iris: 's3://bucket/../x'}", "inputs.iris", ["without '..'"]),
    "an input of no absolute path": ("inputs: {iris: 'file://x'}", "inputs.iris", ["absolute path"]),
    "an input with a hostile name": ("inputs: {../iris: 's3://bucket/x'}", "inputs.../iris", []),
    "an input of the store without one": ("inputs: {iris: 'store://x'}", "inputs.iris", ["the job has none"]),
    "a store that no block can be": ("store: My State", "store", []),
    "a checkpoint that is kept nowhere": ("checkpoint: job", "checkpoint", ["the job has none; set store"]),
}


@pytest.mark.parametrize(("keys", "where", "words"), STORED.values(), ids=STORED)
def test_wrong_storage_is_named_with_its_place(problem: Problem, keys: str, where: str, words: list[str]) -> None:
    _check(problem(f"image: x\n{keys}"), f"4: jobs.a.{where}", words)


PARAMETERS = {
    "an unknown type": ("type: int", "6: jobs.a.parameters.n.type", ["'integer'", "found 'int'"]),
    "a default of another type": (
        "type: integer\ndefault: x",
        "7: jobs.a.parameters.n.default",
        ["'x'", "'integer'", "str"],
    ),
    "a boolean for a number": ("type: number\ndefault: true", "7: jobs.a.parameters.n.default", ["True", "'number'"]),
    "a default that is not a number": (
        "type: number\ndefault: .nan",
        "7: jobs.a.parameters.n.default",
        ["nan", "'number'"],
    ),
    "a default below the minimum": (
        "type: integer\ndefault: 1\nminimum: 2",
        "7: jobs.a.parameters.n.default",
        ["at least 2"],
    ),
    "a default above the maximum": (
        "type: number\ndefault: 0.6\nmaximum: 0.5",
        "7: jobs.a.parameters.n.default",
        ["most 0.5"],
    ),
    "a default outside the enum": (
        "enum: [a, b]\ndefault: c",
        "7: jobs.a.parameters.n.default",
        ["one of 'a', 'b'", "'c'"],
    ),
    "a default that does not match": ("pattern: ^a\ndefault: b", "7: jobs.a.parameters.n.default", ["match of '^a'"]),
    "a default list with a wrong item": (
        "type: list\ndefault: [a, 1]",
        "7: jobs.a.parameters.n.default",
        ["items", "found 1"],
    ),
    "bounds that cross": ("type: number\nminimum: 3\nmaximum: 1", "7: jobs.a.parameters.n.minimum", ["above maximum"]),
    "bounds of a text": ("minimum: 3", "6: jobs.a.parameters.n.minimum", ["number or an integer", "'string'"]),
    "a pattern that is none": ("pattern: (", "6: jobs.a.parameters.n.pattern", ["'('", "regular expression"]),
    "a pattern of a number": ("type: number\npattern: a", "7: jobs.a.parameters.n.pattern", ["belongs to a string"]),
    "items of a text": ("items: integer", "6: jobs.a.parameters.n.items", ["belongs to a list"]),
    "an enum of another type": ("type: integer\nenum: [1, b]", "7: jobs.a.parameters.n.enum", ["'b'", "'integer'"]),
    "an empty enum": ("enum: []", "6: jobs.a.parameters.n.enum", ["at least 1 item"]),
}


def _check(problem: str, where: str, words: list[str]) -> None:
    assert problem.startswith(f"jobs.yaml:{where}: "), problem
    message = problem.removeprefix(f"jobs.yaml:{where}: ")
    assert [word for word in words if word not in message] == [], problem


@pytest.mark.parametrize(("keys", "where", "words"), WRONG.values(), ids=WRONG)
def test_a_wrong_value_is_named_with_its_place(problem: Problem, keys: str, where: str, words: list[str]) -> None:
    _check(problem(keys), where, words)


@pytest.mark.parametrize(("keys", "where", "words"), PARAMETERS.values(), ids=PARAMETERS)
def test_a_wrong_parameter_is_named_with_its_place(problem: Problem, keys: str, where: str, words: list[str]) -> None:
    body = keys.replace("\n", "\n    ")
    _check(problem(f"image: x\nparameters:\n  n:\n    {body}"), where, words)


@pytest.mark.parametrize(
    "name", ["env", "args", "command", "shape", "timeout", "infrastructure", "job", "inputs", "store"]
)
def test_a_parameter_cannot_have_the_name_of_an_override(problem: Problem, name: str) -> None:
    _check(
        problem(f"image: x\nparameters:\n  n: {{}}\n  {name}: {{}}"), f"6: jobs.a.parameters.{name}", [name, "override"]
    )


@pytest.mark.parametrize("name", ["run_name", "run_tags", "wait_for", "return_state"])
def test_a_parameter_cannot_have_a_name_that_starting_a_run_takes(problem: Problem, name: str) -> None:
    _check(
        problem(f"image: x\nparameters: {{{name}: {{}}}}"), f"4: jobs.a.parameters.{name}", ["where a run is started"]
    )


@pytest.mark.parametrize("name", ["class", "lambda", "None", "async"])
def test_a_parameter_cannot_be_a_word_of_python(problem: Problem, name: str) -> None:
    _check(
        problem(f"image: x\nparameters: {{{name!r}: {{}}}}"),
        f"4: jobs.a.parameters.{name}",
        [repr(name), "Python's own"],
    )


@pytest.mark.parametrize("name", ["JOB_NAME", "JOB_OUTPUT_DIR", "LAB_ENDPOINT"])
def test_a_parameter_cannot_have_a_name_that_every_container_gets(problem: Problem, name: str) -> None:
    _check(
        problem(f"image: x\nparameters: {{{name}: {{}}}}"), f"4: jobs.a.parameters.{name}", ["sets this name itself"]
    )


@pytest.mark.parametrize("name", ["_internal", "a-b", "2x", "a b"])
def test_a_parameter_needs_a_name_that_an_environment_variable_can_have(problem: Problem, name: str) -> None:
    _check(
        problem(f"image: x\nparameters: {{{name}: {{}}}}"), f"4: jobs.a.parameters.{name}", [name, "expected a letter"]
    )


SCHEDULED = {
    "a value of another type": ("{n: x}", "n", ["'integer'"]),
    "a parameter that the job has not": ("{n: 1, m: 2}", "m", ["no such parameter", "the job has: n"]),
}


@pytest.mark.parametrize(("given", "key", "words"), SCHEDULED.values(), ids=SCHEDULED)
def test_a_wrong_parameter_of_a_schedule_is_named_with_its_place(
    problem: Problem, given: str, key: str, words: list[str]
) -> None:
    found = problem(
        f"image: x\nparameters: {{n: {{type: integer}}}}\nschedules:\n  - cron: 0 8 * * *\n    parameters: {given}"
    )
    _check(found, f"7: jobs.a.schedules.0.parameters.{key}", words)


def test_a_schedule_gives_every_parameter_that_has_no_default(problem: Problem) -> None:
    found = problem("image: x\nparameters: {n: {type: integer}}\nschedules:\n  - cron: 0 8 * * *")
    _check(found, "6: jobs.a.schedules.0.parameters.n", ["no default", "the schedule must give it"])


UNKNOWN = {
    "at the top": ("job: {}", "1: job", "expected one of project, jobs"),
    "in a job": ("jobs:\n  a: {image: x,\n imag: y}", "3: jobs.a.imag", "description, infrastructure, image"),
    "name in a job": ("jobs:\n  a: {image: x,\n name: b}", "3: jobs.a.name", "description, infrastructure, image"),
    "project in a job": ("jobs:\n  a: {image: x,\n project: b}", "3: jobs.a.project", "description, infrastructure"),
    "in retries": (
        "jobs: {a: {image: x, retries:\n {times: 1}}}",
        "2: jobs.a.retries.times",
        "failures, infrastructure",
    ),
    "in timeout": ("jobs: {a: {image: x, timeout:\n {all: 1}}}", "2: jobs.a.timeout.all", "attempt, total, start"),
    "in shape": (
        "jobs: {a: {image: x, shape:\n {gpus: 1}}}",
        "2: jobs.a.shape.gpus",
        "cpu, memory, gpu, shared_memory",
    ),
    "in concurrency": (
        "jobs: {a: {image: x, concurrency: {limit: 1,\n beyon: queue}}}",
        "2: jobs.a.concurrency.beyon",
        "limit, beyond",
    ),
    "in logging": ("jobs: {a: {image: x, logging:\n {stor: true}}}", "2: jobs.a.logging.stor", "prefect, store, level"),
    "in security": (
        "jobs: {a: {image: x, security:\n {root: true}}}",
        "2: jobs.a.security.root",
        "privileged, host_network, capabilities, devices, user",
    ),
    "in a parameter": (
        "jobs: {a: {image: x, parameters: {n:\n {typ: string}}}}",
        "2: jobs.a.parameters.n.typ",
        "type, description, default, enum",
    ),
    "in a schedule": (
        "jobs: {a: {image: x, schedules: [{interval: 1h,\n zone: UTC}]}}",
        "2: jobs.a.schedules.0.zone",
        "cron, interval, rrule, timezone, parameters",
    ),
}


@pytest.mark.parametrize(("text", "where", "known"), UNKNOWN.values(), ids=UNKNOWN)
def test_an_unknown_key_is_named_with_those_that_are_known(
    problems: Problems, text: str, where: str, known: str
) -> None:
    (only,) = problems(text)
    _check(only, where, ["unknown key", known])


WHOLE = {
    "nothing": ("", "jobs.yaml:1: is empty"),
    "a number": ("3", "jobs.yaml:1: the document: "),
    "jobs that are a list": ("jobs: [a]", "jobs.yaml:1: jobs: "),
    "a job that is nothing": ("jobs:\n  a:\n", "jobs.yaml:2: jobs.a: "),
    "an open bracket": ("jobs: [\n", "jobs.yaml:2: is not YAML: "),
    "a tab": ("jobs:\n\ta: 1\n", "jobs.yaml:2: is not YAML: "),
    "a second document": ("jobs: {}\n---\njobs: {}\n", "jobs.yaml:2: is not YAML: "),
    "an object of Python": ("jobs: !!python/object:os.system {}\n", "jobs.yaml:1: is not YAML: "),
    "a name with a space": ("jobs:\n  a b: {image: x}\n", "jobs.yaml:2: jobs.a b: "),
    "a name that is a number": ("jobs:\n  b: {image: x}\n  1: {image: x}\n", "jobs.yaml:3: jobs.1: "),
    "a wrong project": ("project: a/b\njobs: {}\n", "jobs.yaml:1: project: "),
}


@pytest.mark.parametrize(("text", "start"), WHOLE.values(), ids=WHOLE)
def test_a_document_that_is_none_is_refused_with_its_line(problems: Problems, text: str, start: str) -> None:
    (only,) = problems(text)
    assert only.startswith(start), only


DUPLICATES = {
    "a job": ("jobs:\n  a: {image: x}\n  a: {image: y}\n", 3, "a"),
    "a key of a job": ("jobs:\n  a:\n    image: x\n    image: y\n", 4, "image"),
    "a variable": ("jobs:\n  a:\n    image: x\n    env: {A: 1,\n      A: 2}\n", 5, "A"),
    "the jobs": ("jobs: {}\njobs: {}\n", 2, "jobs"),
}


@pytest.mark.parametrize(("text", "line", "key"), DUPLICATES.values(), ids=DUPLICATES)
def test_a_key_that_stands_twice_is_refused(problems: Problems, text: str, line: int, key: str) -> None:
    (only,) = problems(text)
    _check(only, f"{line}", ["duplicate key", f'"{key}"'])


def test_all_problems_of_all_jobs_are_named_at_once(problems: Problems) -> None:
    found = problems("jobs:\n  a:\n    image: 1\n    retry: 2\n  b:\n    image: x\n    tags: t\n")
    assert [problem.partition(": ")[0] for problem in found] == ["jobs.yaml:3", "jobs.yaml:4", "jobs.yaml:7"]


def test_the_file_that_was_read_is_named(tmp_path: Path) -> None:
    file = tmp_path / "other.yaml"
    file.write_text("jobs: 3\n")
    with pytest.raises(DocumentError, match=f"^{file}:1: jobs: "):
        read(file)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(DocumentError, match=f"^{tmp_path}/none.yaml: cannot be read: No such file"):
        read(tmp_path / "none.yaml")


def test_a_folder_is_no_document(tmp_path: Path) -> None:
    with pytest.raises(DocumentError, match=f"^{tmp_path}: cannot be read: Is a directory"):
        read(tmp_path)


def test_a_file_that_is_no_text_is_named(tmp_path: Path) -> None:
    file = tmp_path / "jobs.yaml"
    file.write_bytes(b"jobs: \xff\xfe")
    with pytest.raises(DocumentError, match=f"^{file}: is not UTF-8 text"):
        read(file)


def test_a_document_error_is_a_value_error_for_whoever_knows_no_better() -> None:
    with pytest.raises(ValueError, match=r"jobs\.yaml:1"):
        loads("3")
