"""Pipelines in a document: what is taken comes back as it was written, what is wrong is named with its place."""

from __future__ import annotations

import copy
import io
import textwrap
from collections.abc import Callable
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from ruamel.yaml import YAML

from prefect_jobs import Job, Matrix, Pipeline, Select, Step
from prefect_jobs.document import dumps, load_document, schema

Problems = Callable[[str], list[str]]

JOBS = """
jobs:
  list: {image: x}
  train:
    image: x
    parameters:
      MODEL_CLASS: {enum: [svc, forest, logreg], default: svc}
      n: {type: integer, default: 1}
      size: {type: number, default: 0.2}
  clean: {image: x}
  needy: {image: x, parameters: {who: {}}, inputs: {data: 'file:///srv/data'}}
  kept: {image: x, store: state}
  elsewhere: {image: x, store: other}
"""
# Each is the mapping below the pipeline's name.
TAKEN = {
    "one step": "steps: {fit: {job: train}}",
    "steps that need each other": "steps: {list: {job: list}, fit: {job: train, needs: [list]}, clean: {job: clean, "
    "needs: [fit, list], always: true}}",
    "everything of a pipeline": "{description: d, tags: [a], concurrency: 1, parameters: {k: {type: integer}}, "
    "schedules: [{cron: '0 8 * * *', parameters: {k: 3}}], steps: {fit: {job: train}}}",
    "typed parameters and overrides": "steps: {fit: {job: train, parameters: {MODEL_CLASS: forest, n: 3}, env: {A: 1}, "
    "args: [a, 1], command: [c], shape: {cpu: 2}, timeout: 1h, infrastructure: docker/local, "
    "inputs: {iris: 's3://b/iris.csv'}}}",
    "references": "{parameters: {k: {type: integer, default: 2}, t: {}}, steps: {fit: {job: train, parameters: "
    "{n: '{{ k }}', MODEL_CLASS: '{{t}}'}, env: {A: 'a {{ t }}'}, args: ['{{ k }}', '{{ MODEL_CLASS }}'], "
    "inputs: {data: 's3://b/{{ t }}'}}}}",
    "where it runs": "{parameters: {where: {enum: [process, docker/local], default: process}}, "
    "steps: {fit: {job: train, infrastructure: '{{ where }}'}}}",
    "a matrix": "steps: {fit: {job: train, matrix: {MODEL_CLASS: [svc, forest], n: [1, 2], include: [{MODEL_CLASS: "
    "logreg, n: 7}], exclude: [{MODEL_CLASS: svc, n: 2}]}, at_once: 4}}",
    "only what is included": "steps: {fit: {job: train, matrix: {include: [{n: 1}, {n: 2}]}}}",
    "a matrix of references": "{parameters: {k: {type: integer}}, "
    "steps: {fit: {job: train, matrix: {n: ['{{ k }}']}}}}",
    "a run for each item": "steps: {list: {job: list}, fit: {job: train, needs: [list], each: {step: list, key: a.b, "
    "as: n}, at_once: 2}}",
    "a run for each mapping": "steps: {list: {job: list}, fit: {job: train, needs: [list], each: {step: list}}}",
    "what happens on failure": "steps: {a: {job: train, on_failure: continue}, b: {job: train, on_failure: stop}, "
    "c: {job: train, matrix: {n: [1, 2]}, on_failure: {succeed_at_least: 0.5}}, "
    "d: {job: clean, needs: [a], if: {a: failed}}}",
    "the best": "steps: {fit: {job: train, matrix: {n: [1, 2]}}, final: {job: train, needs: [fit], select: {from: fit, "
    "metric: scores.test, mode: min}, parameters: {n: '{{ best.parameters.n }}', size: '{{ best.metric }}'}, "
    "env: {INDEX: '{{ best.index }}', FROM: '{{ best.outputs }}'}}}",
    "a number of an earlier step": "steps: {my-list: {job: list}, fit: {job: train, needs: [my-list], parameters: "
    "{n: '{{ steps.my-list.result.files.0 }}'}, env: {ALL: '{{ steps.my-list.result }}'}}}",
    "retries, as a number": "{retries: 2, steps: {fit: {job: train}}}",
    "retries, spelled out": "{retries: {failures: 2, delay: 1m30s}, steps: {fit: {job: train}}}",
    "one store for all": "steps: {a: {job: kept}, b: {job: kept, needs: [a]}, c: {job: elsewhere}}",
    "defaults, written out": "{parameters: {}, tags: [], steps: {fit: {job: train, needs: [], if: {}, always: false, "
    "on_failure: stop, parameters: {}}}}",
}


def _yaml(text: str) -> Any:
    return YAML(typ="safe", pure=True).load(text)


def _text(data: Any) -> str:
    YAML(typ="safe", pure=True).dump(data, stream := io.StringIO())
    return stream.getvalue()


@pytest.fixture(params=TAKEN.values(), ids=TAKEN)
def data(request: pytest.FixtureRequest) -> dict[str, Any]:
    """A document with jobs and one pipeline, ``p``, as data."""
    return {**_yaml(JOBS), "pipelines": {"p": _yaml(request.param)}}


@pytest.fixture
def problem(problems: Problems) -> Callable[[str], str]:
    """The only problem of the pipeline ``p`` whose keys are given; its first key stands in line 3."""

    def of(keys: str) -> str:
        body = textwrap.indent(textwrap.dedent(keys).strip("\n"), "    ")
        (only,) = problems(f"pipelines:\n  p:\n{body}\n{JOBS.strip()}\n")
        return only

    return of


def test_a_pipeline_read_and_written_holds_the_same_data(data: dict[str, Any]) -> None:
    document = load_document(_text(data))
    assert _yaml(dumps(document.jobs, document.pipelines)) == data


def test_pipelines_written_and_read_are_equal(data: dict[str, Any]) -> None:
    document = load_document(_text(data))
    assert load_document(dumps(document.jobs, document.pipelines)).pipelines == document.pipelines


def test_a_pipeline_keeps_the_order_of_its_steps() -> None:
    steps = "z: {job: train}, a: {job: train}, m: {job: train, needs: [a]}"
    (pipeline,) = load_document(f"{JOBS}\npipelines: {{p: {{steps: {{{steps}}}}}}}").pipelines
    assert list(pipeline.steps) == list(_yaml(dumps([], [pipeline]))["pipelines"]["p"]["steps"]) == ["z", "a", "m"]


def test_a_pipeline_made_in_python_is_written_as_it_was_made() -> None:
    step = Step(job="train", needs=["fit"], select=Select(from_="fit", metric="a"), if_={"fit": "succeeded"})
    pipeline = Pipeline(name="p", steps={"fit": Step(job="train", matrix=Matrix(n=[1, 2])), "final": step})
    final = {"job": "train", "needs": ["fit"], "if": {"fit": "succeeded"}, "select": {"from": "fit", "metric": "a"}}
    assert _yaml(dumps([], [pipeline])) == {
        "pipelines": {"p": {"steps": {"fit": {"job": "train", "matrix": {"n": [1, 2]}}, "final": final}}}
    }


def test_the_project_reaches_every_pipeline_and_places_are_known() -> None:
    document = load_document("project: iris\njobs:\n  a: {image: x}\npipelines:\n  p: {steps: {s: {job: a}}}")
    assert document.pipelines[0].project == "iris"
    assert document.places == {"jobs.a": "jobs.yaml:3", "pipelines.p": "jobs.yaml:5"}
    assert _yaml(dumps([], document.pipelines))["project"] == "iris"


WRONG = {
    "no steps": ("steps: {}", "3: pipelines.p.steps", ["at least 1 item"]),
    "no job": ("steps:\n  a: {needs: []}", "4: pipelines.p.steps.a.job", ["is missing"]),
    "an unknown job": (
        "steps:\n  a:\n    job: tran",
        "5: pipelines.p.steps.a.job",
        ["no such job; there are: list, train, clean", "'tran'"],
    ),
    "an unknown step": (
        "steps:\n  a: {job: train}\n  b:\n    job: train\n    needs:\n    - a\n    - c",
        "9: pipelines.p.steps.b.needs.1",
        ["no such step; the pipeline has: a, b", "'c'"],
    ),
    "a step that is needed twice": (
        "steps: {a: {job: train}, b: {job: train, needs: [a, a]}}",
        "3: pipelines.p.steps.b.needs.1",
        ["twice", "'a'"],
    ),
    "a step that needs itself": (
        "steps:\n  a: {job: train, needs: [a]}",
        "4: pipelines.p.steps.a.needs",
        ["a needs a"],
    ),
    "a cycle": (
        "steps:\n  a: {job: train, needs: [c]}\n  b: {job: train, needs: [a]}\n  c: {job: train, needs: [b]}",
        "needs",
        ["steps wait for each other"],
    ),
    "an unknown parameter of the job": (
        "steps:\n  a:\n    job: train\n    parameters:\n      m: 1",
        "7: pipelines.p.steps.a.parameters.m",
        ["no such parameter; the job 'train' has: MODEL_CLASS, n, size"],
    ),
    "a wrong value of a parameter": (
        "steps:\n  a: {job: train, parameters: {MODEL_CLASS: tree}}",
        "4: pipelines.p.steps.a.parameters.MODEL_CLASS",
        ["expected one of 'svc', 'forest', 'logreg', found 'tree'"],
    ),
    "no infrastructure": (
        "steps:\n  a:\n    job: train\n    infrastructure: dokcer",
        "6: pipelines.p.steps.a.infrastructure",
        ["expected a type and the name of its block", "'dokcer'"],
    ),
    "a choice that is no infrastructure": (
        "parameters: {where: {enum: [process, dokcer]}}\nsteps:\n  a:\n    job: train\n    "
        "infrastructure: '{{ where }}'",
        "7: pipelines.p.steps.a.infrastructure",
        ["{{ where }} may be 'dokcer': expected a type", "'dokcer'"],
    ),
    "an infrastructure that nobody chooses": (
        "steps:\n  a:\n    job: train\n    infrastructure: '{{ where }}'",
        "6: pipelines.p.steps.a.infrastructure",
        ["{{ where }} names no parameter; the pipeline has: none"],
    ),
    "a parameter that is missing": (
        "steps:\n  a: {job: needy}",
        "4: pipelines.p.steps.a",
        ["the job 'needy' needs a value for parameter 'who'"],
    ),
    "a wrong value in a matrix": (
        "steps:\n  a:\n    job: train\n    matrix:\n      n:\n      - 1\n      - two",
        "9: pipelines.p.steps.a.matrix.n.1",
        ["expected type 'integer'"],
    ),
    "an unknown parameter in a matrix": (
        "steps:\n  a: {job: train, matrix: {m: [1]}}",
        "4: pipelines.p.steps.a.matrix.m.0",
        ["no such parameter"],
    ),
    "a wrong value that is included": (
        "steps:\n  a: {job: train, matrix: {n: [1], include: [{n: 0.5}]}}",
        "4: pipelines.p.steps.a.matrix.include.0.n",
        ["expected type 'integer'"],
    ),
    "a value twice in a matrix": (
        "steps: {a: {job: train, matrix: {n: [1, 1]}}}",
        "3: pipelines.p.steps.a.matrix.n.1",
        ["twice", "found 1"],
    ),
    "a run that is included and there": (
        "steps: {a: {job: train, matrix: {n: [1, 2], include: [{n: 2}]}}}",
        "3: pipelines.p.steps.a.matrix.include.0",
        ["a run of the matrix already"],
    ),
    "an exclusion of nothing": (
        "steps: {a: {job: train, matrix: {n: [1, 2], exclude: [{n: 3}]}}}",
        "3: pipelines.p.steps.a.matrix.exclude.0",
        ["excludes nothing"],
    ),
    "an exclusion of an unknown parameter": (
        "steps: {a: {job: train, matrix: {n: [1, 2], exclude: [{m: 3}]}}}",
        "3: pipelines.p.steps.a.matrix.exclude.0.m",
        ["expected one of n"],
    ),
    "an exclusion of all": (
        "steps: {a: {job: train, matrix: {n: [1], exclude: [{n: 1}]}}}",
        "3: pipelines.p.steps.a.matrix.exclude",
        ["leaves no run"],
    ),
    "an empty matrix": ("steps: {a: {job: train, matrix: {}}}", "3: pipelines.p.steps.a.matrix", ["at least one"]),
    "a matrix beyond all measure": (
        f"steps: {{a: {{job: train, matrix: {{n: {list(range(101))}, size: {list(range(100))}}}}}}}",
        "3: pipelines.p.steps.a.matrix",
        ["at most 10000 runs, found 10100"],
    ),
    "a parameter that the matrix gives too": (
        "steps: {a: {job: train, parameters: {n: 1}, matrix: {n: [2]}}}",
        "3: pipelines.p.steps.a.parameters.n",
        ["given by the matrix, too"],
    ),
    "a matrix and each": (
        "steps: {l: {job: list}, a: {job: train, needs: [l], matrix: {n: [2]}, each: {step: l}}}",
        "3: pipelines.p.steps.a.each",
        ["not both"],
    ),
    "each over a step that is not needed": (
        "steps: {l: {job: list}, a: {job: train, each: {step: l, as: n}}}",
        "3: pipelines.p.steps.a.each.step",
        ["expected a step that it needs, which are: none; add it", "'l'"],
    ),
    "each over a step of many runs": (
        "steps: {l: {job: train, matrix: {n: [1]}}, a: {job: train, needs: [l], each: {step: l, as: n}}}",
        "3: pipelines.p.steps.a.each.step",
        ["a single run"],
    ),
    "each as a parameter that the job has not": (
        "steps: {l: {job: list}, a: {job: train, needs: [l], each: {step: l, as: FILE}}}",
        "3: pipelines.p.steps.a.each.as",
        ["no such parameter", "'FILE'"],
    ),
    "at_once of a single run": ("steps: {a: {job: train, at_once: 2}}", "3: pipelines.p.steps.a.at_once", ["many"]),
    "a condition on a step that is not needed": (
        "steps: {a: {job: train}, b: {job: train, if: {a: failed}}}",
        "3: pipelines.p.steps.b.if.a",
        ["expected a step that it needs"],
    ),
    "a condition that nothing is": (
        "steps: {a: {job: train}, b: {job: train, needs: [a], if: {a: broken}}}",
        "3: pipelines.p.steps.b.if.a",
        ["'succeeded', 'failed' or 'skipped'", "'broken'"],
    ),
    "a wrong share": (
        "steps: {a: {job: train, on_failure: {succeed_at_least: 1.5}}}",
        "3: pipelines.p.steps.a.on_failure.succeed_at_least",
        ["less than or equal to 1", "1.5"],
    ),
    "another word for failure": (
        "steps: {a: {job: train, on_failure: ignore}}",
        "3: pipelines.p.steps.a.on_failure",
        ["'stop' or 'continue'", "'ignore'"],
    ),
    "the best of a step that is not needed": (
        "steps: {a: {job: train}, b: {job: train, select: {from: a, metric: x}}}",
        "3: pipelines.p.steps.b.select.from",
        ["expected a step that it needs"],
    ),
    "the best without a choice": (
        "steps:\n  b: {job: train, parameters: {n: '{{ best.metric }}'}}",
        "4: pipelines.p.steps.b.parameters.n",
        ["say which under select"],
    ),
    "an unknown part of the best": (
        "steps: {a: {job: train}, b: {job: train, needs: [a], select: {from: a, metric: x}, "
        "env: {A: '{{ best.who }}'}}}",
        "3: pipelines.p.steps.b.env.A",
        ["{{ best.who }}", "best.metric, best.index, best.outputs, best.parameters.NAME"],
    ),
    "a parameter that the best has not": (
        "steps: {a: {job: train}, b: {job: train, needs: [a], select: {from: a, metric: x}, "
        "env: {A: '{{ best.parameters.who }}'}}}",
        "3: pipelines.p.steps.b.env.A",
        ["{{ best.parameters.who }}", "no such parameter; the job 'train' has"],
    ),
    "an unknown reference": (
        "parameters: {k: {}}\nsteps: {a: {job: train, parameters: {MODEL_CLASS: '{{ kk }}'}}}",
        "4: pipelines.p.steps.a.parameters.MODEL_CLASS",
        ["{{ kk }} names no parameter; the pipeline has: k"],
    ),
    "an argument that nobody knows": (
        "parameters: {k: {}}\nsteps: {a: {job: train, args: [1, '{{ kk }}']}}",
        "4: pipelines.p.steps.a.args.1",
        ["the pipeline and the job have: k, MODEL_CLASS, n, size"],
    ),
    "a reference of another type": (
        "parameters: {k: {}}\nsteps: {a: {job: train, parameters: {n: '{{ k }}'}}}",
        "4: pipelines.p.steps.a.parameters.n",
        ["expected type 'integer'", "'k' is of type 'string'"],
    ),
    "a default that the job does not take": (
        "parameters: {k: {default: tree}}\nsteps: {a: {job: train, parameters: {MODEL_CLASS: '{{ k }}'}}}",
        "4: pipelines.p.steps.a.parameters.MODEL_CLASS",
        ["expected one of 'svc'"],
    ),
    "a text for a number": (
        "parameters: {k: {}}\nsteps: {a: {job: train, parameters: {n: 'a{{ k }}'}}}",
        "4: pipelines.p.steps.a.parameters.n",
        ["expected type 'integer'", "text"],
    ),
    "a result of a step that is not needed": (
        "steps: {a: {job: train}, b: {job: train, env: {A: '{{ steps.a.result.x }}'}}}",
        "3: pipelines.p.steps.b.env.A",
        ["does not need 'a'"],
    ),
    "a result of many runs": (
        "steps: {a: {job: train, matrix: {n: [1]}}, b: {job: train, needs: [a], env: {A: '{{ steps.a.result.x }}'}}}",
        "3: pipelines.p.steps.b.env.A",
        ["'a' is many runs", "select"],
    ),
    "a result of nobody": (
        "steps: {b: {job: train, env: {A: '{{ steps.a.result.x }}'}}}",
        "3: pipelines.p.steps.b.env.A",
        ["expected steps.STEP.result.KEY"],
    ),
    "a wrong input": (
        "steps: {a: {job: train, inputs: {x: iris.csv}}}",
        "3: pipelines.p.steps.a.inputs.x",
        ["expected a URI", "'iris.csv'"],
    ),
    "an input where results would be": (
        "steps: {data: {job: list}, a: {job: needy, needs: [data], parameters: {who: me}}}",
        "3: pipelines.p.steps.a.needs",
        ["the job has an input 'data'", "rename one"],
    ),
    "an internal variable": (
        "steps: {a: {job: train, env: {_A: b}}}",
        "3: pipelines.p.steps.a.env",
        ["'_A'", "leading underscore"],
    ),
    "two stores": (
        "steps:\n  a: {job: kept}\n  b:\n    needs: [a]\n    job: elsewhere",
        "7: pipelines.p.steps.b.job",
        ["one store", "'a' has the store 'state'", "this one has 'other'"],
    ),
    "a store and none": (
        "steps:\n  a: {job: train}\n  b: {job: kept, needs: [a]}",
        "4: pipelines.p.steps.a.job",
        ["'b' has the store 'state'", "this one has none"],
    ),
    "a schedule with a parameter that nobody knows": (
        "schedules: [{cron: '0 8 * * *', parameters: {env: {}}}]\nsteps: {a: {job: train}}",
        "3: pipelines.p.schedules.0.parameters.env",
        ["no such parameter; the pipeline has: none"],
    ),
    "a parameter with a name that means something else": (
        "parameters: {best: {}}\nsteps: {a: {job: train}}",
        "3: pipelines.p.parameters.best",
        ["'best' means something else"],
    ),
    "retries without end": (
        "retries: -1\nsteps: {a: {job: train}}",
        "3: pipelines.p.retries",
        ["greater than or", "-1"],
    ),
    "retries of a job": (
        "retries: {failures: 1, backoff: 2}\nsteps: {a: {job: train}}",
        "3: pipelines.p.retries.backoff",
        ["unknown key; expected one of failures, delay"],
    ),
    "a wrong name of a step": (
        "steps: {a/b: {job: train}}",
        "3: pipelines.p.steps.a/b",
        ["63 letters", "'a/b'"],
    ),
    "an unknown key": (
        "steps: {a: {job: train, need: []}}",
        "3: pipelines.p.steps.a.need",
        ["unknown key", "job, needs, parameters", "on_failure, if, always, select"],
    ),
    "Python's spelling": ("steps: {a: {job: train, if_: {}}}", "3: pipelines.p.steps.a.if_", ["unknown key"]),
    "an unknown key of a choice": (
        "steps: {a: {job: train, select: {from: a, metric: x, form: b}}}",
        "3: pipelines.p.steps.a.select.form",
        ["unknown key; expected one of from, metric, mode"],
    ),
    "a name inside": ("name: q\nsteps: {a: {job: train}}", "3: pipelines.p.name", ["unknown key", "steps"]),
}


@pytest.mark.parametrize(("keys", "where", "words"), WRONG.values(), ids=WRONG)
def test_what_is_wrong_in_a_pipeline_is_named_with_its_place(
    problem: Callable[[str], str], keys: str, where: str, words: list[str]
) -> None:
    found = problem(keys)
    assert found.startswith("jobs.yaml:")
    assert where in found, found
    assert where == "needs" or found.startswith(f"jobs.yaml:{where}: "), found
    assert [word for word in words if word not in found] == [], found


def test_all_problems_are_named_at_once(problems: Problems) -> None:
    steps = "      s: {job: b}\n      t: {job: a, parameters: {k: 1}}\n"
    found = problems(f"jobs: {{a: {{image: x}}}}\npipelines:\n  p:\n    steps:\n{steps}")
    assert [each.partition(": ")[0] for each in found] == ["jobs.yaml:5", "jobs.yaml:6"]


# -- the schema, for editors


def test_what_the_reader_takes_the_schema_takes(data: dict[str, Any]) -> None:
    Draft202012Validator(schema()).validate(data)


STEP = ("pipelines", "p", "steps", "s")
FULL = {
    "jobs": {"a": {"image": "x", "parameters": {"n": {"type": "integer", "default": 1}}}},
    "pipelines": {
        "p": {
            "steps": {
                "l": {"job": "a"},
                "s": {
                    "job": "a",
                    "needs": ["l"],
                    "each": {"step": "l"},
                    "select": {"from": "l", "metric": "m"},
                    "on_failure": {"succeed_at_least": 0.5},
                },
            }
        }
    },
}


def _with(path: tuple[str, ...], value: Any) -> Any:
    document: Any = copy.deepcopy(FULL)
    place = document
    for part in path[:-1]:
        place = place[part]
    place[path[-1]] = value
    return document


def _is_taken(document: Any) -> tuple[bool, bool]:
    try:
        load_document(_text(document))
    except ValueError:
        reader = False
    else:
        reader = True
    return reader, Draft202012Validator(schema()).is_valid(document)


WRONG_FOR_BOTH: list[tuple[tuple[str, ...], Any]] = [
    (("pipelines", "p", "step"), {}),
    (("pipelines", "p", "steps"), {}),
    (("pipelines", "p", "retries"), -1),
    (("pipelines", "p", "retries"), "twice"),
    (("pipelines", "p", "retries"), {"failures": 1, "backoff": 2}),
    ((*STEP, "unknown"), 1),
    ((*STEP, "if_"), {}),
    ((*STEP, "job"), 3),
    ((*STEP, "needs"), "l"),
    ((*STEP, "at_once"), 0),
    ((*STEP, "always"), "yes"),
    ((*STEP, "if"), {"l": "broken"}),
    ((*STEP, "on_failure"), "ignore"),
    ((*STEP, "on_failure"), {"succeed_at_least": 2}),
    ((*STEP, "each"), {"step": "l", "unknown": 1}),
    ((*STEP, "each"), {"step": "l", "as_": "n"}),
    ((*STEP, "select"), {"from": "l"}),
    ((*STEP, "select"), {"from": "l", "metric": "m", "mode": "most"}),
    ((*STEP, "matrix"), {"n": 3}),
    ((*STEP, "matrix"), {"n": []}),
    ((*STEP, "timeout"), True),
]


def test_the_full_pipeline_is_taken_by_both() -> None:
    assert _is_taken(FULL) == (True, True)


@pytest.mark.parametrize(("path", "value"), WRONG_FOR_BOTH, ids=str)
def test_what_is_wrong_passes_neither(path: tuple[str, ...], value: Any) -> None:
    assert _is_taken(_with(path, value)) == (False, False)


@pytest.mark.parametrize("model", ["Pipeline", "PipelineRetries", "Step", "Matrix", "Each", "Select", "Share"])
def test_every_key_has_a_description_for_editors(model: str) -> None:
    properties = schema()["$defs"][model]["properties"]
    assert [key for key, value in properties.items() if not value.get("description")] == []


def test_a_job_stays_what_it_was_without_pipelines() -> None:
    assert _yaml(dumps([Job(name="a", image="x")])) == {"jobs": {"a": {"image": "x"}}}
